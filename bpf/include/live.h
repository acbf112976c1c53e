/* SPDX-License-Identifier: GPL-2.0-only
 *
 * What a span that has begun leaves behind so that others find it as their parent: bpf/include/parents.h looks here.
 */

/* A member of the in-flight value of every kind of span that can be a parent. */
struct live_span {
	u64 context; /* data word of the request's context.Context, the key in live_contexts */
	/* Which goroutine ids had not been given out when the span began: those above goid_generation, and what its P had
	 * in stock. Source: go1.27, src/runtime/proc.go, newproc1. */
	u64 goid_generation;
	u64 goid_stock[2]; /* the first, the end */
	u64 child_kept;	   /* 1: a child that wasn't sampled is kept for what became of it */
};

/* Data word of a context.Context (as .goid) -> the goroutine whose span it belongs to. */
BPF_HASH(live_contexts, struct goroutine_key, u64, 16384);

/* runtime/proc.go, _GoidCacheBatch: the same in Go 1.19 to 1.27. */
#define GOID_BATCH 16

/* Only where the executable has something that asks for parents. `key` is that of the span's in-flight value, `request` the
 * *http.Request, `bias` the load bias. */
static __always_inline void live_span_publish(struct pt_regs *ctx, struct target *target, const struct goroutine_key *key,
					      u64 request, u64 bias, struct live_span *live)
{
	struct goroutine_key context = {.slot = key->slot, .kind = key->kind};
	u64 p, stock[2] = {};

	if (!target->http_client_start_address)
		return;
	live->context = context.goid = go_read_word(request + sizeof(u64), target->request_ctx);
	if (live_contexts.update(&context, (u64 *)&key->goid))
		count(key->slot, COUNTER_contexts_full);
	if (!target->runtime_sched || target->p_goidcache == MISSING)
		return;
	/* goidgen is the first field of schedt, goidcacheend behind goidcache: src/runtime/runtime2.go. */
	live->goid_generation = go_read_word(target->runtime_sched + bias, 0);
	p = go_read_word(go_read_word(GO_G(ctx), target->g_m), target->m_p);
	if (!p || read_user(stock, sizeof(stock), p + target->p_goidcache) || stock[1] - stock[0] > GOID_BATCH)
		return;
	live->goid_stock[0] = stock[0];
	live->goid_stock[1] = stock[1];
}

static __always_inline void live_span_retract(const struct goroutine_key *key, const struct live_span *live)
{
	struct goroutine_key context = {.goid = live->context, .slot = key->slot, .kind = key->kind};

	if (live->context)
		live_contexts.delete(&context);
}

/* Whether a goroutine was started since the span began, given that the span's own goroutine started it. */
static __always_inline u32 live_span_started(const struct live_span *live, u64 goid)
{
	return live->goid_generation &&
	       (goid > live->goid_generation || (goid >= live->goid_stock[0] && goid < live->goid_stock[1]));
}
