/* SPDX-License-Identifier: GPL-2.0-only
 *
 * With --span-links: what goes over channels from goroutines that answer requests to goroutines that don't. Declared in
 * otel_goprobe/probes/channels.py; each program runs under the channel's lock, so that what it sees is what happens.
 *
 * An item is one of the request that its sender answers itself. Two goroutines that meet hand it over directly; else it lies
 * in the channel's buffer, where its address names it. Items without a size (`chan struct{}`) are signals, and say nothing.
 */

/* By the address of their place in a channel's buffer, items that wait there. Every item that is put there replaces what it
 * says of the last one, so that nothing outlives a channel whose memory is used again. */
BPF_TABLE("lru_hash", struct goroutine_key, struct span_link, channel_items, 65536);

static __always_inline struct span_link channel_item_of(struct server_span *span)
{
	struct span_link item = {
		.trace_id = {span->context.trace_id[0], span->context.trace_id[1]},
		.span_id = span->span_id,
		.flags = span->context.flags,
	};

	return item;
}

/* A goroutine, which is at work here or waits, gets an item; `item` NULL: one that comes from no request. What it receives
 * in the midst of a call is the transport's. */
static __always_inline void channel_deliver(struct target *target, u32 slot, u64 g, const struct span_link *item)
{
	struct goroutine_key key = {.goid = g, .slot = slot}, call = {.goid = g, .slot = slot, .kind = KIND_http_client};
	struct received_items *items = received.lookup(&key), *blank;
	u32 zero = 0, known = 0;
	u64 goid, next;

	if (!item && (!items || !items->used))
		return;
	if (http_client_inflight.lookup(&call))
		return;
	if (!item) {
		items->count = 0;
		return;
	}
	if (parent_on_goroutine(target, g, slot))
		return;
	goid = go_read_word(g, target->g_goid);
	if (!items) {
		blank = received_blank.lookup(&zero);
		if (blank)
			received.update(&key, blank);
		items = received.lookup(&key);
		if (!items)
			return;
	}
	if (items->used || items->goid != goid) {
		items->goid = goid;
		items->count = 0;
		items->used = 0;
	}
#pragma clang loop unroll(disable)
	for (u32 i = 0; i < LINKS_MAX; i++)
		known |= i < items->count && items->links[i].span_id == item->span_id;
	if (known)
		return;
	next = items->count++ & (LINKS_MAX - 1);
	items->links[next] = *item;
}

/* func send(c *hchan, sg *sudog, ep unsafe.Pointer, unlockf func(), skip int) of package runtime, since Go 1.3: a sender
 * gives its item to a receiver that waits, in a select or not. Registers: c = ARG1, sg = ARG2, the receiver's. */
int channel_give(struct pt_regs *ctx)
{
	struct server_span *span;
	struct span_link item;
	struct target *target;
	u32 slot;
	u64 g;

	target = target_of(ctx, &slot);
	if (!target || target->hchan_elemsize == MISSING || target->sudog_g == MISSING)
		return 0;
	if (!(go_read_word(GO_ARG1(ctx), target->hchan_elemsize) & 0xffff))
		return 0;
	g = go_read_word(GO_ARG2(ctx), target->sudog_g);
	span = parent_on_goroutine(target, GO_G(ctx), slot);
	if (span) {
		item = channel_item_of(span);
		channel_deliver(target, slot, g, &item);
	} else if (go_read_word(GO_G(ctx), target->g_goid)) {
		channel_deliver(target, slot, g, 0);
	} /* else a system goroutine: a timer's tick is no item */
	return 0;
}

/* func recv(c *hchan, sg *sudog, ep unsafe.Pointer, unlockf func(), skip int) of package runtime, since Go 1.3: a receiver
 * meets a sender that waits. Without a buffer it gets the sender's item; from a full buffer it gets the first, in whose place
 * comes the sender's. Registers: c = ARG1, sg = ARG2, the sender's. */
int channel_meet(struct pt_regs *ctx)
{
	struct goroutine_key place = {};
	struct server_span *span;
	struct span_link item, *first;
	struct target *target;
	u64 bytes, sender;
	u32 slot;

	target = target_of(ctx, &slot);
	if (!target || target->hchan_elemsize == MISSING || target->sudog_g == MISSING)
		return 0;
	bytes = go_read_word(GO_ARG1(ctx), target->hchan_elemsize) & 0xffff;
	if (!bytes)
		return 0;
	sender = go_read_word(GO_ARG2(ctx), target->sudog_g);
	span = parent_on_goroutine(target, sender, slot);
	if (span)
		item = channel_item_of(span);
	if (!go_read_word(GO_ARG1(ctx), target->hchan_dataqsiz)) {
		channel_deliver(target, slot, GO_G(ctx), span ? &item : 0);
		return 0;
	}
	place.slot = slot;
	place.goid = go_read_word(GO_ARG1(ctx), target->hchan_buf) + go_read_word(GO_ARG1(ctx), target->hchan_recvx) * bytes;
	first = channel_items.lookup(&place);
	channel_deliver(target, slot, GO_G(ctx), first);
	if (span)
		channel_items.update(&place, &item);
	else
		channel_items.delete(&place);
	return 0;
}

/* func typedmemmove(typ *abi.Type, dst, src unsafe.Pointer) of package runtime, since Go 1.5, called where chansend and
 * selectgo put an item into a buffer. Registers: typ = ARG1, dst = ARG2. */
int channel_put(struct pt_regs *ctx)
{
	struct goroutine_key place = {.goid = GO_ARG2(ctx)};
	struct server_span *span;
	struct span_link item;
	struct target *target;
	u32 slot;

	target = target_of(ctx, &slot);
	if (!target)
		return 0;
	place.slot = slot;
	span = parent_on_goroutine(target, GO_G(ctx), slot);
	/* The type's size comes first: src/internal/abi/type.go. */
	if (!span || !go_read_word(GO_ARG1(ctx), 0)) {
		channel_items.delete(&place);
		return 0;
	}
	item = channel_item_of(span);
	channel_items.update(&place, &item);
	return 0;
}

/* func typedmemclr(typ *abi.Type, ptr unsafe.Pointer) of package runtime, since Go 1.8, called where chanrecv and selectgo
 * have taken an item out of a buffer. Registers: typ = ARG1, ptr = ARG2. */
int channel_take(struct pt_regs *ctx)
{
	struct goroutine_key place = {.goid = GO_ARG2(ctx)};
	struct span_link *item;
	struct target *target;
	u32 slot;

	target = target_of(ctx, &slot);
	if (!target)
		return 0;
	place.slot = slot;
	item = channel_items.lookup(&place);
	if (!item && !go_read_word(GO_ARG1(ctx), 0))
		return 0;
	channel_deliver(target, slot, GO_G(ctx), item);
	if (item)
		channel_items.delete(&place);
	return 0;
}
