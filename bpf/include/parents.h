/* SPDX-License-Identifier: GPL-2.0-only
 *
 * Which live span something belongs to that a goroutine begins now: the first that is sure of what its context says, what
 * its goroutine works for, and what the goroutine works for that started it. A wrong parent is worse than none.
 */

/* Contexts that wrap one another, from an outgoing request to the one that its server made. */
#define PARENT_HOPS 16
/* A request that is older is taken for one whose end was missed. */
#define PARENT_MAX_AGE_NS (3600 * 1000000000ULL)

/* With --lineage: what a goroutine that others started works for. */
struct lineage {
	u64 g;
	u64 span_id;
};

BPF_TABLE("lru_hash", struct goroutine_key, struct lineage, lineages, 16384);

/* By id, goroutines that were given a parent for having been started by another: its span id while that call lasts, else 0. */
BPF_TABLE("lru_hash", struct goroutine_key, u64, lineage_used, 16384);

/* The span that a goroutine works for itself, by the address of its g. */
static __always_inline struct server_span *parent_on_goroutine(struct target *target, u64 g, u32 slot)
{
	struct server_span *span = span_of_goroutine(target, g, slot);

	return span && bpf_ktime_get_ns() - span->start_ns < PARENT_MAX_AGE_NS ? span : 0;
}

/* The same of a span that is known. */
static __always_inline struct server_span *parent_with(struct target *target, u64 g, u32 slot, u64 span_id)
{
	struct goroutine_key key = {.goid = g, .slot = slot, .kind = KIND_http_server};
	struct server_span *span = (struct server_span *)http_server_inflight.lookup(&key);

	if (span && span->start_ns && span->span_id == span_id)
		return span;
	return target->traits & TARGET_ACTIVE_SPANS ? active_span_with(g, slot, span_id, 0) : 0;
}

/* The same by its id, and `*g`. */
static __always_inline struct server_span *parent_on_goroutine_id(struct target *target, u64 goid, u32 slot, u64 *g)
{
	struct goroutine_key key = {.goid = goid, .slot = slot, .kind = KIND_http_server};
	struct server_span *span;
	u64 *found = goid ? goroutines.lookup(&key) : 0;

	if (!found)
		return 0;
	*g = *found;
	span = parent_on_goroutine(target, *g, slot);
	return span && span->goid == goid ? span : 0;
}

/* What `goid` was started for, however many goroutines lie between; NULL where that has ended. */
static __always_inline struct server_span *parent_by_lineage(struct target *target, u64 goid, u32 slot, u64 *g)
{
	struct goroutine_key key = {.goid = goid, .slot = slot, .kind = KIND_http_server};
	struct lineage *lineage = lineages.lookup(&key);

	if (!lineage)
		return 0;
	*g = lineage->g;
	return parent_with(target, *g, slot, lineage->span_id);
}

/* The span that a context.Context belongs to, given its words.
 *
 * Every wrapper of package context, and a struct that embeds a Context first, begins with the wrapped one; what a server
 * makes for a request is a *context.cancelCtx around its connection's context (net/http/server.go, readRequest), so only
 * what such a one wraps is looked up; where a connection has many requests at once, the request's own. */
static __always_inline struct server_span *parent_by_context(struct target *target, u32 slot, u64 context[2], u64 bias,
							     u64 *g)
{
	struct goroutine_key key = {.slot = slot};
	u64 inner = 0, *owner;
	struct server_span *span;

#pragma clang loop unroll(disable)
	for (u32 hop = 0; hop < PARENT_HOPS; hop++) {
		/* What wraps nothing. */
		context[0] -= bias;
		if (!context[1] || context[0] == target->background_context_itab ||
		    context[0] == target->todo_context_itab)
			break;
		key.goid = context[1];
		if (inner) {
			key.kind = KIND_http_server;
			owner = live_contexts.lookup(&key);
			if (owner) {
				*g = *owner;
				span = parent_on_goroutine(target, *owner, slot);
				return span && span->live.context == inner ? span : 0;
			}
		}
		if (target->traits & TARGET_ACTIVE_SPANS) {
			key.kind = 0;
			owner = live_contexts.lookup(&key);
			if (owner) {
				*g = *owner;
				span = active_span_with(*owner, slot, 0, key.goid);
				if (span)
					return span;
			}
		}
		inner = context[0] == target->cancel_context_itab ? key.goid : 0;
		if (read_user_present(context, 2 * sizeof(u64), key.goid))
			break;
	}
	return 0;
}

/* Whether a goroutine gets this parent for having been started. Once: a worker that a request started takes other requests'
 * jobs while that one lasts, and nothing tells it from a goroutine that does several things for the same request.
 * `continues`: what it does now is part of what it did last, a redirect. */
static __always_inline u32 parent_is_first(u64 goid, u32 slot, u64 span_id, u32 continues)
{
	struct goroutine_key key = {.goid = goid, .slot = slot, .kind = KIND_http_server};
	u64 *used = lineage_used.lookup(&key);

	if (!used)
		return !lineage_used.insert(&key, &span_id);
	if (continues && *used == span_id)
		return 1;
	*used = 0;
	return 0;
}

/* The parent of what the current goroutine does by order of a context.Context, whose words are used up; NULL: none. `*g`:
 * where its in-flight value is. */
static __always_inline struct server_span *parent_of(struct pt_regs *ctx, struct target *target, u32 slot, u64 context[2],
						     u64 bias, u32 continues, u64 *g)
{
	struct server_span *span;
	u64 goid;

	span = parent_by_context(target, slot, context, bias, g);
	if (span)
		return span;
	*g = GO_G(ctx);
	span = parent_on_goroutine(target, *g, slot);
	if (span || target->g_parent_goid == MISSING)
		return span;
	goid = go_read_word(GO_G(ctx), target->g_goid);
	if (target->options & OPTION_lineage) {
		span = parent_by_lineage(target, goid, slot, g);
	} else {
		span = parent_on_goroutine_id(target, go_read_word(GO_G(ctx), target->g_parent_goid), slot, g);
		if (span && !live_span_started(&span->live, goid))
			return 0;
	}
	if (!span || links_to_another(target, slot, GO_G(ctx), goid, span->span_id))
		return 0;
	return parent_is_first(goid, slot, span->span_id, continues) ? span : 0;
}
