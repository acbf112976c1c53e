/* SPDX-License-Identifier: GPL-2.0-only
 *
 * What a span that has begun leaves behind so that others find it as their parent: bpf/include/parents.h looks here.
 */

/* Ps whose stock of goroutine ids is read: the span's own, and so many others. With more than 8 Ps a goroutine that was
 * started on one that wasn't looked at may be taken for an older one, and so have no parent. */
#define LIVE_PROCESSORS 8

/* A member of the in-flight value of every kind of span that can be a parent. */
struct live_span {
	u64 context;	   /* data word of the request's context.Context */
	u64 outer_context; /* that of the connection's, which it wraps: the key in live_contexts; 0: not there yet */
	/* Which goroutine ids had not been given out when the span began: those above goid_generation, and what each P had in
	 * stock. Source: go1.27, src/runtime/proc.go, newproc1. */
	u64 goid_generation;
	u64 goid_stock[LIVE_PROCESSORS + 1]; /* the first, shifted by GOID_STOCK_BITS, and how many; 0: none */
	u64 child_kept;			     /* 1: a child that wasn't sampled is kept for what became of it */
};

/* What every span that others can be children of begins with: the value of active_spans, and the first members of
 * http_server's in-flight value, whose goroutines are a connection's and so have a map of their own. */
#define SERVER_SPAN_MEMBERS                                                                                               \
	u64 start_ns; /* 0: it doesn't run */                                                                             \
	u64 span_id;                                                                                                      \
	struct trace_context context;                                                                                     \
	u64 parent_span_id; /* 0: a root */                                                                               \
	u64 goid;                                                                                                         \
	u64 request;		/* what its library knows the request by, of net/http the *Request; 0: it takes no route */     \
	u64 request_target;	/* where the text of an http.Request's RequestURI is */                                         \
	u64 mux_request;	/* what the innermost ServeMux saw: the request or a copy of it */                               \
	u64 mux_goroutine;                                                                                                \
	struct go_string route; /* the pattern that matched, in memory that outlives the request; length 0: none */       \
	struct live_span live;                                                                                            \
	u64 outer; /* spans of the same goroutine that go on when this one ends: ACTIVE_SPANS_DEEP at most */

struct server_span {
	SERVER_SPAN_MEMBERS
} __attribute__((may_alias));

/* Data word of a connection's context.Context (as .goid) -> the g that answers its requests. With .kind 0 that of a
 * request's own, for spans in active_spans. */
BPF_HASH(live_contexts, struct goroutine_key, u64, 16384);

/* runtime/proc.go, _GoidCacheBatch: the same in Go 1.19 to 1.27. */
#define GOID_BATCH 16
#define GOID_STOCK_BITS 5

/* Addresses of the target's Ps, learnt where they run; the runtime never frees one (runtime/proc.go, procresize). */
struct live_processors {
	u64 generation; /* of the target */
	u64 p[LIVE_PROCESSORS];
};

BPF_ARRAY(live_processors, struct live_processors, MAX_SLOTS);

/* Goroutine ids that a P has in stock, as in goid_stock. A P that runs may take from it meanwhile: what is still there when
 * it is read wasn't given out before. goidcacheend is behind goidcache: src/runtime/runtime2.go. */
static __always_inline u64 live_stock(struct target *target, u64 p)
{
	u64 stock[2];

	if (read_user_present(stock, sizeof(stock), p + target->p_goidcache) || stock[1] - stock[0] - 1 >= GOID_BATCH)
		return 0;
	return stock[0] << GOID_STOCK_BITS | (stock[1] - stock[0]);
}

static __always_inline void live_span_mark_goroutines(struct pt_regs *ctx, struct target *target, u32 slot, u64 bias,
						      struct live_span *live)
{
	struct live_processors *known = live_processors.lookup(&slot);
	u64 m = 0, own = 0, p;
	u32 is_known = 0;

	live->goid_generation = 0;
	if (!target->runtime_sched || target->p_goidcache == MISSING || target->g_m == MISSING || target->m_p == MISSING)
		return;
	/* The first field of schedt: src/runtime/runtime2.go. */
	if (read_user_present(&live->goid_generation, sizeof(u64), target->runtime_sched + bias))
		return;
	read_user_present(&m, sizeof(m), GO_G(ctx) + target->g_m);
	read_user_present(&own, sizeof(own), m + target->m_p);
	if (!known || !own)
		return;
	if (known->generation != target->generation) {
		__builtin_memset(known, 0, sizeof(*known));
		known->generation = target->generation;
	}
	live->goid_stock[LIVE_PROCESSORS] = live_stock(target, own);
#pragma clang loop unroll(disable)
	for (u32 i = 0; i < LIVE_PROCESSORS; i++) {
		p = known->p[i];
		live->goid_stock[i] = 0;
		if (!p && !is_known) {
			known->p[i] = own;
			is_known = 1;
		} else if (p == own) {
			is_known = 1;
		} else if (p) {
			live->goid_stock[i] = live_stock(target, p);
		}
	}
}

/* Only where the executable has something that asks for parents. `key` is that of the span's in-flight value, `request` the
 * *http.Request, `bias` the load bias. */
static __always_inline void live_span_publish(struct pt_regs *ctx, struct target *target, const struct goroutine_key *key,
					      u64 request, u64 bias, struct live_span *live)
{
	struct goroutine_key outer = *key;

	if (!(target->traits & TARGET_FINDS_PARENTS))
		return;
	live->child_kept = 0;
	live->context = 0;
	read_user_present(&live->context, sizeof(u64), request + target->request_ctx + sizeof(u64));
	if (!live->outer_context && live->context) {
		/* net/http/server.go, readRequest: context.WithCancel of the connection's, made once by serve. */
		live->outer_context = outer.goid = go_read_word(live->context, 8);
		if (!outer.goid || live_contexts.update(&outer, (u64 *)&key->goid))
			count(key->slot, COUNTER_contexts_full);
	}
	live_span_mark_goroutines(ctx, target, key->slot, bias, live);
}

/* The same of a span in active_spans, whose request has a context.Context of its own: `context` is its data word, 0 where it
 * has none. Ended by active_span_end. */
static __always_inline __attribute__((unused)) void live_span_publish_own(struct pt_regs *ctx, struct target *target, u32 slot,
									  u64 context, u64 bias, struct live_span *live)
{
	struct goroutine_key key = {.goid = context, .slot = slot};
	u64 g = GO_G(ctx);

	if (!(target->traits & TARGET_FINDS_PARENTS))
		return;
	live->context = context;
	if (context && live_contexts.update(&key, &g))
		count(slot, COUNTER_contexts_full);
	live_span_mark_goroutines(ctx, target, slot, bias, live);
}

/* Whether a request has to be followed although it wasn't sampled. */
static __always_inline __attribute__((unused)) u32 live_span_is_needed(struct target *target)
{
	return target->sampling_late || target->options & OPTION_red || target->traits & TARGET_FINDS_PARENTS;
}

/* Whether a span that wasn't sampled is kept for what became of it, or of a child of it. Counts what isn't. */
static __always_inline __attribute__((unused)) u32 live_span_late(struct target *target, u32 slot, u64 duration_ns,
								  u32 failed, u32 child_kept)
{
	if (sampling_late(target->sampling_late, target->sampling_slow_ns, duration_ns, failed) || child_kept)
		return 1;
	count(slot, COUNTER_sampled_out);
	return 0;
}

/* The goroutine has no more spans. */
static __always_inline void live_span_forget(const struct goroutine_key *key, const struct live_span *live)
{
	struct goroutine_key outer = *key;

	outer.goid = live->outer_context;
	if (outer.goid)
		live_contexts.delete(&outer);
}

/* Whether a goroutine was started since the span began, given that the span's own goroutine started it. */
static __always_inline u32 live_span_started(const struct live_span *live, u64 goid)
{
	u32 found = goid > live->goid_generation;

#pragma clang loop unroll(disable)
	for (u32 i = 0; i <= LIVE_PROCESSORS; i++) {
		u64 stock = live->goid_stock[i];

		found |= goid - (stock >> GOID_STOCK_BITS) < (stock & ((1 << GOID_STOCK_BITS) - 1));
	}
	return live->goid_generation && found;
}
