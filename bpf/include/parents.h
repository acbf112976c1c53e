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

/* The span that a goroutine works for itself, by the address of its g. */
static __always_inline struct http_server_in_flight *parent_on_goroutine(u64 g, u32 slot)
{
	struct goroutine_key key = {.goid = g, .slot = slot, .kind = KIND_http_server};
	struct http_server_in_flight *span = http_server_inflight.lookup(&key);

	return span && span->start_ns && bpf_ktime_get_ns() - span->start_ns < PARENT_MAX_AGE_NS ? span : 0;
}

/* The same by its id, and `*g`. */
static __always_inline struct http_server_in_flight *parent_on_goroutine_id(u64 goid, u32 slot, u64 *g)
{
	struct goroutine_key key = {.goid = goid, .slot = slot, .kind = KIND_http_server};
	struct http_server_in_flight *span;
	u64 *found = goid ? goroutines.lookup(&key) : 0;

	if (!found)
		return 0;
	*g = *found;
	span = parent_on_goroutine(*g, slot);
	return span && span->goid == goid ? span : 0;
}

/* What `goid` was started for, however many goroutines lie between; NULL where that has ended. */
static __always_inline struct http_server_in_flight *parent_by_lineage(u64 goid, u32 slot, u64 *g)
{
	struct goroutine_key key = {.goid = goid, .slot = slot, .kind = KIND_http_server};
	struct lineage *lineage = lineages.lookup(&key);
	struct http_server_in_flight *span;

	if (!lineage)
		return 0;
	*g = lineage->g;
	span = parent_on_goroutine(*g, slot);
	return span && span->span_id == lineage->span_id ? span : 0;
}

/* The span that a context.Context belongs to whose words lie at `context_addr`.
 *
 * Every wrapper of package context, and a struct that embeds a Context first, begins with the wrapped one; what a server
 * makes for a request is a *context.cancelCtx around its connection's context (net/http/server.go, readRequest), so only
 * what such a one wraps is looked up. */
static __always_inline struct http_server_in_flight *parent_by_context(struct target *target, u32 slot, u64 context_addr,
								       u64 bias, u64 *g)
{
	struct goroutine_key key = {.slot = slot, .kind = KIND_http_server};
	u64 context[2], inner = 0, *owner;
	struct http_server_in_flight *span;

#pragma clang loop unroll(disable)
	for (u32 hop = 0; hop < PARENT_HOPS; hop++) {
		if (read_user_present(context, sizeof(context), context_addr) || !context[1])
			break;
		/* What wraps nothing. */
		context[0] -= bias;
		if (context[0] == target->background_context_itab || context[0] == target->todo_context_itab)
			break;
		context_addr = key.goid = context[1];
		if (inner) {
			owner = live_contexts.lookup(&key);
			if (owner) {
				*g = *owner;
				span = parent_on_goroutine(*owner, slot);
				return span && span->live.context == inner ? span : 0;
			}
		}
		inner = context[0] == target->cancel_context_itab ? context_addr : 0;
	}
	return 0;
}

/* The parent of what the current goroutine does by order of a context.Context whose words lie at `context_addr`; NULL: none.
 * `*g`: where its in-flight value is. */
static __always_inline struct http_server_in_flight *parent_of(struct pt_regs *ctx, struct target *target, u32 slot,
							       u64 context_addr, u64 bias, u64 *g)
{
	struct http_server_in_flight *span;
	u64 goid;

	span = parent_by_context(target, slot, context_addr, bias, g);
	if (span)
		return span;
	*g = GO_G(ctx);
	span = parent_on_goroutine(*g, slot);
	if (span || target->g_parent_goid == MISSING)
		return span;
	goid = go_read_word(GO_G(ctx), target->g_goid);
	if (target->options & OPTION_lineage)
		return parent_by_lineage(goid, slot, g);
	span = parent_on_goroutine_id(go_read_word(GO_G(ctx), target->g_parent_goid), slot, g);
	return span && live_span_started(&span->live, goid) ? span : 0;
}
