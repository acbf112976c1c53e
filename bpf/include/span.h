/* SPDX-License-Identifier: GPL-2.0-only
 *
 * From a probe's hit to a record: targets, counters, the state between start and end, the rings.
 */

/* One element a target; its index is the slot that every link carries as cookie. */
BPF_ARRAY(targets, struct target, MAX_SLOTS);

/* The kernel's own number of a watched process, learnt from its first hit (the agent's PID namespace may be another). */
BPF_HASH(tgid_slots, u32, u32, MAX_SLOTS);

/* Row: slot * COUNTERS + counter. Added to atomically: a sleepable program can be preempted. */
BPF_PERCPU_ARRAY(counters, u64, MAX_SLOTS * COUNTERS);

/* One ring a record size, so that the reader steps by a fixed stride. Sizes in pages; the loader sets its own. */
BPF_RINGBUF_OUTPUT(ring_256, 1024);
BPF_RINGBUF_OUTPUT(ring_1024, 1024);

#define RB_NO_WAKEUP 1

struct goroutine_key {
	u64 goid;
	u32 slot;
	u32 kind;
};

/* The first member of every record. */
struct span_header {
	u16 kind;
	u16 slot;
	u8 trace_flags; /* W3C's */
	u8 late;	/* 1: not sampled, kept for what became of it */
	u16 reserved;
	u64 start_ns;
	u64 end_ns;
	u64 trace_id[2];
	u64 span_id;
	u64 parent_span_id;
};

static __always_inline void count(u32 slot, u32 counter)
{
	u32 row = slot * COUNTERS + counter;
	u64 *value = counters.lookup(&row);

	if (value)
		__sync_fetch_and_add(value, 1);
}

static __always_inline u64 random_id(void)
{
	u64 id = (u64)bpf_get_prandom_u32() << 32 | bpf_get_prandom_u32();

	return id ? id : 1; /* an id of zeros is invalid, W3C Trace Context section 3.2.2.3 */
}

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
