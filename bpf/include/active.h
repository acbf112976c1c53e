/* SPDX-License-Identifier: GPL-2.0-only
 *
 * The span that a goroutine works for: bpf/include/parents.h asks here for whose child something is, routers where their
 * route goes, a tool what an event belongs to. Comes behind http_server.h, whose spans have a map of their own.
 */

/* Spans of one goroutine, one in another, that are kept: an inner one's end brings the outer one back. */
#define ACTIVE_SPANS_DEEP 4

/* Those of all libraries but http_server. By the address of g, .kind 0: what the goroutine does now; .kind n: the nth of
 * the spans that go on when that one ends, the outermost first. */
BPF_HASH(active_spans, struct goroutine_key, struct server_span, 16384);
/* Never written to: a new one, for which the stack has no room. */
BPF_ARRAY(active_span_blank, struct server_span, 1);

/* The span that goes on behind `span`, which then has no room any more; NULL where that was the last. */
static __always_inline struct server_span *active_span_back(struct goroutine_key *key, struct server_span *span)
{
	struct goroutine_key outer = *key;
	struct server_span *back;

	outer.kind = span->outer;
	back = span->outer ? active_spans.lookup(&outer) : 0;
	if (!back) {
		active_spans.delete(key);
		return 0;
	}
	active_spans.update(key, back);
	active_spans.delete(&outer);
	return active_spans.lookup(key);
}

/* A span of a library begins on the current goroutine. The caller fills what is returned, `start_ns` last, and begins the
 * children's side by live_span_publish_own. NULL, counted: there is no room. */
static __always_inline __attribute__((unused)) struct server_span *active_span_begin(struct pt_regs *ctx,
										     struct target *target, u32 slot)
{
	struct goroutine_key key = {.goid = GO_G(ctx), .slot = slot}, by_id = {.slot = slot, .kind = KIND_http_server}, outer;
	struct server_span *span = active_spans.lookup(&key), *blank;
	u64 g = GO_G(ctx), deep = 0;
	u32 zero = 0;

	by_id.goid = go_read_word(g, target->g_goid);
	blank = active_span_blank.lookup(&zero);
	if (!blank)
		return 0;
	if (span && span->goid == by_id.goid && span->start_ns) {
		deep = span->outer + 1;
		outer = key;
		outer.kind = deep;
		if (deep >= ACTIVE_SPANS_DEEP || active_spans.update(&outer, span))
			goto full;
	}
	if (active_spans.update(&key, blank))
		goto full;
	goroutines.update(&by_id, &g);
	span = active_spans.lookup(&key);
	if (!span)
		return 0;
	span->goid = by_id.goid;
	span->outer = deep;
	return span;
full:
	count(slot, COUNTER_active_spans_full);
	return 0;
}

/* The span of goroutine `g` ends that has this id, and with it those that it holds: their own ends were never seen. */
static __always_inline __attribute__((unused)) void active_span_end(u64 g, u32 slot, u64 span_id)
{
	struct goroutine_key key = {.goid = g, .slot = slot}, other;
	struct server_span *span = active_spans.lookup(&key);
	u64 goid, ended;

#pragma clang loop unroll(disable)
	for (u32 i = 0; i < ACTIVE_SPANS_DEEP; i++) {
		if (!span)
			break;
		ended = span->span_id;
		goid = span->goid;
		other = key;
		other.goid = span->live.context;
		if (other.goid)
			live_contexts.delete(&other);
		span = active_span_back(&key, span);
		if (!span) {
			other.goid = goid;
			other.kind = KIND_http_server;
			goroutines.delete(&other);
		}
		if (ended == span_id)
			break;
	}
}

/* The element of goroutine `g` in active_spans that has this span id; NULL where it is over. */
static __always_inline struct server_span *active_span_with(u64 g, u32 slot, u64 span_id, u64 context)
{
	struct goroutine_key key = {.goid = g, .slot = slot};
	struct server_span *span;

#pragma clang loop unroll(disable)
	for (u32 deep = 0; deep < ACTIVE_SPANS_DEEP; deep++) {
		key.kind = deep;
		span = active_spans.lookup(&key);
		if (span && span->start_ns && (context ? span->live.context == context : span->span_id == span_id))
			return span;
	}
	return 0;
}

/* What a goroutine works for itself, by the address of its g, however long it has; NULL: nothing. */
static __always_inline struct server_span *span_of_goroutine(struct target *target, u64 g, u32 slot)
{
	struct goroutine_key key = {.goid = g, .slot = slot, .kind = KIND_http_server};
	struct server_span *span = (struct server_span *)http_server_inflight.lookup(&key);

	if ((!span || !span->start_ns) && target->traits & TARGET_ACTIVE_SPANS) {
		key.kind = 0;
		span = active_spans.lookup(&key);
	}
	return span && span->start_ns ? span : 0;
}

/* The request that this goroutine works for, or the one that started it (http.TimeoutHandler runs its handler in one of its
 * own): what a router has a route for. */
static __always_inline __attribute__((unused)) struct server_span *span_of_router(struct pt_regs *ctx,
										  struct target *target, u32 slot)
{
	struct goroutine_key key = {.slot = slot, .kind = KIND_http_server};
	struct server_span *span = span_of_goroutine(target, GO_G(ctx), slot);
	u64 *g;

	if (span)
		return span;
	key.goid = go_read_word(GO_G(ctx), target->g_parent_goid);
	g = key.goid ? goroutines.lookup(&key) : 0;
	return g ? span_of_goroutine(target, *g, slot) : 0;
}

/* A router has matched a route. `route`: in memory that outlives the request; it is read when that ends. */
static __always_inline __attribute__((unused)) void server_span_route(struct pt_regs *ctx, struct target *target, u32 slot,
								      struct go_string route)
{
	struct server_span *span = span_of_router(ctx, target, slot);

	if (span && span->request)
		span->route = route;
}

/* Where a route isn't a string of the target that stays: `server_span.route.data` is ROUTE_COMPOSED then, and its text is
 * here, by the goroutine of the span. */
#define ROUTE_COMPOSED 1
#define ROUTE_MAX_BYTES 152 /* of struct red_text */

/* Zeros behind the text's end; twice the room, which the verifier wants to see for what is appended at the end. */
struct route_text {
	char bytes[2 * ROUTE_MAX_BYTES + 8];
} __attribute__((aligned(8))); /* or it would be copied by bytes */

BPF_TABLE("lru_hash", struct goroutine_key, struct route_text, route_texts, 16384);
/* Never written to: a new one, for which the stack has no room. */
BPF_ARRAY(route_blank, struct route_text, 1);

/* A text for the route of a span, to be filled by route_append; NULL where there is no room. */
static __always_inline __attribute__((unused)) struct route_text *route_compose(const struct server_span *span, u32 slot)
{
	struct goroutine_key key = {.goid = span->goid, .slot = slot};
	u32 zero = 0;
	struct route_text *blank = route_blank.lookup(&zero);

	if (!blank || route_texts.update(&key, blank))
		return 0;
	return route_texts.lookup(&key);
}

/* Appends bytes of the target; returns the text's length from now on. What doesn't fit is cut off. */
static __always_inline __attribute__((unused)) u64 route_append(struct route_text *text, u64 length, u64 data, u64 bytes)
{
	CLAMP(length, 152);
	CLAMP(bytes, 152);
	if (read_user_present(text->bytes + length, bytes, data))
		return length;
	return length + bytes;
}

static __always_inline __attribute__((unused)) void route_composed(struct server_span *span, u64 length)
{
	CLAMP(length, 152);
	span->route.data = ROUTE_COMPOSED;
	span->route.length = length;
}

/* Reads the text of a span's route into `text`, which is all zero; returns its length. */
static __always_inline u32 route_read(const struct server_span *span, u32 slot, struct go_string route,
				      struct red_text *text)
{
	struct goroutine_key key = {.goid = span->goid, .slot = slot};
	struct route_text *composed;

	if (route.data != ROUTE_COMPOSED)
		return red_text_read(route, text);
	composed = route_texts.lookup(&key);
	if (!composed)
		return 0;
	__builtin_memcpy(text, composed->bytes, sizeof(*text));
	route_texts.delete(&key);
	return route.length;
}
