/* SPDX-License-Identifier: GPL-2.0-only
 *
 * A client's span from its start to the decision about its record, the same for each library. `id_bit`, the library's own,
 * gives spans different ids that begin on one goroutine at once, a server's among them.
 */

/* Fills a span that begins on the current goroutine, whose `start_ns` is set. `words` and `continues`: as parent_of. */
static __always_inline void client_span_begin(struct pt_regs *ctx, struct target *target, u32 slot, u64 id_bit, u64 words[2],
					      u64 bias, u32 continues, struct client_span *span)
{
	struct server_span *parent = parent_of(ctx, target, slot, words, bias, continues, &span->parent_g);
	u64 g = GO_G(ctx);

	span->span_id = id_make(target, span->start_ns ^ id_bit, g);
	if (parent) {
		span->context = parent->context;
		span->parent_span_id = parent->span_id;
	} else {
		id_make_trace(target, span->start_ns ^ id_bit, g, &span->context);
		span->context.flags = sampling_decides(&span->context, 0, target->sampling_parents, target->sampling_bound);
	}
	links_take(target, slot, g, span->span_id, !parent);
	count(slot, COUNTER_started);
}

/* An attempt that failed is repeated: from `now_ns` on the value is the next one's, a span of its own. `g`: the goroutine's. */
static __always_inline void client_span_repeat(struct target *target, u32 slot, u64 g, u64 id_bit, u64 now_ns,
					       struct client_span *span)
{
	span->start_ns = now_ns;
	span->span_id = id_make(target, now_ns ^ id_bit, g);
	links_take(target, slot, g, span->span_id, !span->parent_span_id);
	count(slot, COUNTER_started);
}

/* Whether a span that begins takes the place of one whose end was never seen, or which is at work for this one; `failed`: what
 * came of inserting it. */
static __always_inline u32 client_span_replaces(u32 slot, long failed)
{
	if (failed == -EEXIST)
		count(slot, COUNTER_abandoned);
	else if (failed)
		count(slot, COUNTER_in_flight_full);
	return failed == -EEXIST;
}

/* Whether a span that has ended gets a record; `late`, of its header: for what became of it alone. Counted where it gets
 * none. */
static __always_inline u32 client_span_is_kept(struct target *target, u32 slot, const struct client_span *span,
					       u64 duration_ns, u32 has_failed, u8 *late)
{
	struct server_span *parent;

	if (span->context.flags & TRACE_FLAG_SAMPLED)
		return 1;
	if (!sampling_late(target->sampling_late, target->sampling_slow_ns, duration_ns, has_failed)) {
		count(slot, COUNTER_sampled_out);
		return 0;
	}
	*late = 1;
	/* The parent is kept as well: a trace has no holes of our making. */
	parent = span->parent_span_id ? parent_with(target, span->parent_g, slot, span->parent_span_id) : 0;
	if (parent)
		parent->live.child_kept = 1;
	return 1;
}
