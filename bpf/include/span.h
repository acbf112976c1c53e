/* SPDX-License-Identifier: GPL-2.0-only
 *
 * From a probe's hit to a record: targets, counters, the state between start and end, the rings.
 */

/* One element a target; its index is the slot that every link carries as cookie. */
BPF_ARRAY(targets, struct target, MAX_SLOTS);

/* The kernel's own number of a watched process, learnt from its first hit (the agent's PID namespace may be another). */
BPF_HASH(tgid_slots, u32, u32, MAX_SLOTS);

/* One element a slot: the kernel allocates each by itself, 0.6 us for a counter, and a start waits for them all. */
struct target_counters {
	u64 counts[COUNTERS];
};
BPF_PERCPU_ARRAY(counters, struct target_counters, MAX_SLOTS);

/* One ring a record size, so that the reader steps by a fixed stride. Sizes in pages; the loader sets its own. */
BPF_RINGBUF_OUTPUT(ring_256, 1024);
BPF_RINGBUF_OUTPUT(ring_1024, 1024);

#define RB_NO_WAKEUP 1

struct goroutine_key {
	u64 goid; /* or, while the goroutine lives, the address of its g, which needs no read */
	u32 slot;
	u32 kind;
};

/* By its id the g of a goroutine that has an element in a library's map of what is in flight, for goroutines that know the
 * id of the one that started them. */
BPF_HASH(goroutines, struct goroutine_key, u64, 16384);

/* By kind, how many elements such a map has, where they are kept from one request to the next. The agent writes it when it
 * has deleted some. */
BPF_ARRAY(in_flight_elements, u32, KINDS);

/* The first member of every record. */
struct span_header {
	u16 kind;
	u16 slot;
	u8 trace_flags; /* W3C's */
	u8 late;	/* 1: not sampled, kept for what became of it */
	u16 links; /* how many are in span_links, bpf/include/links.h */
	u64 start_ns;
	u64 end_ns;
	u64 trace_id[2];
	u64 span_id;
	u64 parent_span_id;
};

/* Atomically: a sleepable program can be preempted. */
static __always_inline void count(u32 slot, u32 counter)
{
	struct target_counters *of_target = counters.lookup(&slot);

	if (of_target)
		__sync_fetch_and_add(&of_target->counts[counter], 1);
}

/* A span that began turns out to be another one's. */
static __always_inline __attribute__((unused)) void count_back(u32 slot, u32 counter)
{
	struct target_counters *of_target = counters.lookup(&slot);

	if (of_target)
		__sync_fetch_and_add(&of_target->counts[counter], -1);
}

/* `id_of`, and for a span without a parent `id_of_trace`, with the target's seeds. */
static __always_inline u64 id_make(struct target *target, u64 now_ns, u64 g)
{
	return id_of(target->id_seed_high, target->id_seed_low, now_ns, g);
}

static __always_inline void id_make_trace(struct target *target, u64 now_ns, u64 g, struct trace_context *root)
{
	id_of_trace(target->id_seed_high, target->id_seed_low, now_ns, g, root);
}

/* Fills all of a record's header but what its end decides, `end_ns` and `late`, from an in-flight value. */
#define SPAN_HEADER(fixed, its_kind, its_slot, in_flight)                                                                 \
	do {                                                                                                              \
		(fixed)->header.kind = its_kind;                                                                          \
		(fixed)->header.slot = its_slot;                                                                          \
		(fixed)->header.start_ns = (in_flight)->start_ns;                                                         \
		(fixed)->header.trace_flags = (in_flight)->context.flags;                                                 \
		(fixed)->header.trace_id[0] = (in_flight)->context.trace_id[0];                                           \
		(fixed)->header.trace_id[1] = (in_flight)->context.trace_id[1];                                           \
		(fixed)->header.span_id = (in_flight)->span_id;                                                           \
		(fixed)->header.parent_span_id = (in_flight)->parent_span_id;                                             \
	} while (0)

/* Copies at most `max` bytes of a string of the target into a record's text, and stores how many. */
#define COPY(record, field, string, max)                                                                                  \
	do {                                                                                                              \
		u64 bytes = (string).length;                                                                              \
		CLAMP(bytes, max);                                                                                        \
		if (read_user_present((record)->field, bytes, (string).data))                                             \
			bytes = 0;                                                                                        \
		(record)->fixed.field##_bytes = bytes;                                                                    \
	} while (0)

/* The same by way of the stack, for a short text. */
#define COPY_SHORT(record, field, string, max)                                                                            \
	do {                                                                                                              \
		u64 bytes = (string).length, words[sizeof((record)->field) / 8] = {};                                     \
		CLAMP(bytes, max);                                                                                        \
		if (read_user_present(words, bytes, (string).data))                                                       \
			bytes = 0;                                                                                        \
		__builtin_memcpy((record)->field, words, sizeof(words));                                                  \
		(record)->fixed.field##_bytes = bytes;                                                                    \
	} while (0)

/* Copies a text that was read before, bytes behind its end included. */
#define COPY_READ(record, field, text, length)                                                                            \
	do {                                                                                                              \
		__builtin_memcpy((record)->field, text, sizeof((record)->field));                                         \
		(record)->fixed.field##_bytes = length;                                                                   \
	} while (0)

/* The watched target whose probe was hit, NULL where it isn't watched any more. */
static __always_inline struct target *target_of(struct pt_regs *ctx, u32 *slot)
{
	u32 tgid = bpf_get_current_pid_tgid() >> 32;
	struct target *target;

	*slot = bpf_get_attach_cookie(ctx);
	target = targets.lookup(slot);
	if (!target || !target->active)
		return 0;
	if (target->tgid != tgid) {
		/* Seen only where links have no pid filter of their own: another process of the same file. */
		if (target->tgid)
			return 0;
		target->tgid = tgid;
		tgid_slots.update(&tgid, slot);
	}
	return target;
}
