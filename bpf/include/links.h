/* SPDX-License-Identifier: GPL-2.0-only
 *
 * With --span-links: which requests a goroutine works for that takes items from channels. Their spans are no parents of what
 * it does, since it may do one thing for many of them, or one of them long after its end: they are linked to.
 * bpf/channels.bpf.c fills this, what begins a span without a parent takes from it.
 */

/* Of one span; of more, the last. */
#define LINKS_MAX 8

struct span_link {
	u64 trace_id[2];
	u64 span_id;
	u64 flags; /* W3C's */
};

/* The requests whose items a goroutine has received since it last began a span. */
struct received_items {
	u64 goid; /* whose this is: memory of a g is used again */
	u32 count; /* of different requests in turn; the last LINKS_MAX are in `links`, number n at n % LINKS_MAX */
	u32 used;  /* it has begun a span with them: what it receives next belongs to the next span */
	struct span_link links[LINKS_MAX];
};

/* By the address of its g. */
BPF_TABLE("lru_hash", struct goroutine_key, struct received_items, received, 16384);
/* By span id, until the agent has exported the span, or evicts it if the span is dropped. */
BPF_TABLE("lru_hash", struct goroutine_key, struct received_items, span_links, 16384);
/* Never written to: a new one, for which the stack has no room. */
BPF_ARRAY(received_blank, struct received_items, 1);

/* A span of this goroutine begins. `wanted`: it has no parent, so that it is linked to what was received. */
static __always_inline void links_take(struct target *target, u32 slot, u64 g, u64 span_id, u32 wanted)
{
	struct goroutine_key key = {.goid = g, .slot = slot};
	struct received_items *items;

	if (!(target->options & OPTION_span_links))
		return;
	items = received.lookup(&key);
	if (!items)
		return;
	items->used = 1;
	if (!wanted || !items->count || items->goid != go_read_word(g, target->g_goid))
		return;
	if (items->count > LINKS_MAX)
		count(slot, COUNTER_links_cut);
	key.goid = span_id;
	if (span_links.update(&key, items))
		count(slot, COUNTER_links_lost);
}

/* How many links a span has, now that it ends. */
static __always_inline u32 links_of(struct target *target, u32 slot, u64 span_id)
{
	struct goroutine_key key = {.goid = span_id, .slot = slot};
	struct received_items *items;

	if (!(target->options & OPTION_span_links))
		return 0;
	items = span_links.lookup(&key);
	if (!items)
		return 0;
	return items->count < LINKS_MAX ? items->count : LINKS_MAX;
}

/* Whether this goroutine has received an item of another request than this one, and so doesn't work for it alone. */
static __always_inline u32 links_to_another(struct target *target, u32 slot, u64 g, u64 goid, u64 span_id)
{
	struct goroutine_key key = {.goid = g, .slot = slot};
	struct received_items *items;
	u32 others = 0;

	if (!(target->options & OPTION_span_links))
		return 0;
	items = received.lookup(&key);
	if (!items || items->goid != goid)
		return 0;
#pragma clang loop unroll(disable)
	for (u32 i = 0; i < LINKS_MAX; i++)
		others |= i < items->count && items->links[i].span_id != span_id;
	return others;
}
