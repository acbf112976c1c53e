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
	u64 goid;
	u64 span_id;
};

BPF_TABLE("lru_hash", struct goroutine_key, struct lineage, lineages, 16384);

/* The live span of a goroutine itself. */
static __always_inline struct http_server_in_flight *parent_on_goroutine(u64 goid, u32 slot)
{
	struct goroutine_key key = {.goid = goid, .slot = slot, .kind = KIND_http_server};
	struct http_server_in_flight *span = http_server_inflight.lookup(&key);

	return span && bpf_ktime_get_ns() - span->start_ns < PARENT_MAX_AGE_NS ? span : 0;
}

/* What `goid` was started for, however many goroutines lie between; NULL where that has ended. */
static __always_inline struct http_server_in_flight *parent_by_lineage(u64 goid, u32 slot, u64 *parent_goid)
{
	struct goroutine_key key = {.goid = goid, .slot = slot, .kind = KIND_http_server};
	struct lineage *lineage = lineages.lookup(&key);
	struct http_server_in_flight *span;

	if (!lineage)
		return 0;
	span = parent_on_goroutine(lineage->goid, slot);
	if (!span || span->span_id != lineage->span_id)
		return 0;
	*parent_goid = lineage->goid;
	return span;
}

/* The parent of what the current goroutine does by order of a context.Context that lies at `context_addr`; NULL: none.
 * Every wrapper of package context, and a struct that embeds a Context first, begins with the wrapped one; what a server
 * makes for a request is a *context.cancelCtx (net/http/server.go, readRequest), so only those are looked up. */
static __always_inline struct http_server_in_flight *parent_of(struct pt_regs *ctx, struct target *target, u64 goid,
							       u32 slot, u64 context_addr, u64 bias, u64 *parent_goid)
{
	struct goroutine_key key = {.slot = slot, .kind = KIND_http_server};
	struct http_server_in_flight *span;
	u64 context[2], *owner, cancel_itab = target->cancel_context_itab + bias;

#pragma clang loop unroll(disable)
	for (u32 hop = 0; hop < PARENT_HOPS; hop++) {
		if (read_user(context, sizeof(context), context_addr) || !context[1])
			break;
		context_addr = context[1];
		if (context[0] != cancel_itab)
			continue;
		key.goid = context_addr;
		owner = live_contexts.lookup(&key);
		if (!owner)
			continue;
		*parent_goid = *owner;
		span = parent_on_goroutine(*owner, slot);
		if (span && span->live.context == context_addr)
			return span;
	}
	*parent_goid = goid;
	span = parent_on_goroutine(goid, slot);
	if (span)
		return span;
	if (target->options & OPTION_lineage)
		return parent_by_lineage(goid, slot, parent_goid);
	*parent_goid = go_read_word(GO_G(ctx), target->g_parent_goid);
	if (!*parent_goid)
		return 0;
	span = parent_on_goroutine(*parent_goid, slot);
	return span && live_span_started(&span->live, goid) ? span : 0;
}
