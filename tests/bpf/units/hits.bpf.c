/* SPDX-License-Identifier: GPL-2.0-only
 *
 * The shape of the agent's own unit, over tests/go/hits: func work(producer, sequence uint64).
 */

BPF_ARRAY(targets, struct target, MAX_SLOTS);
BPF_HASH(in_flight, u64, u64, 1024);
BPF_PERCPU_ARRAY(counters, u64, MAX_SLOTS);
BPF_RINGBUF_OUTPUT(ring_256, 16);
BPF_RINGBUF_OUTPUT(ring_1024, 16);
BPF_RINGBUF_OUTPUT(process_events, 1);

struct record_header {
	u16 kind;
	u16 slot;
	u32 tgid;
};

struct record_256 {
	struct record_header header;
	u64 producer;
	u64 sequence;
	u64 goroutine;
	char code[16];
	u64 body[26];
};

struct record_1024 {
	struct record_header header;
	u64 body[127];
};

struct process_event {
	u32 tgid;
	u32 exited;
};

_Static_assert(sizeof(struct record_256) == 256, "stride of ring_256");
_Static_assert(sizeof(struct record_1024) == 1024, "stride of ring_1024");

int work_start(struct pt_regs *ctx)
{
	u32 slot = bpf_get_attach_cookie(ctx);
	struct target *target = targets.lookup(&slot);
	u64 *count = counters.lookup(&slot);
	u64 producer = ctx->ax, sequence = ctx->bx;
	struct record_256 *record;

	if (!target || !count)
		return 0;
	__sync_fetch_and_add(count, 1);
	in_flight.update(&sequence, &producer);
	record = ring_256.ringbuf_reserve(sizeof(*record));
	if (!record)
		return 0;
	record->header.kind = target->kind;
	record->header.slot = slot;
	record->header.tgid = bpf_get_current_pid_tgid() >> 32;
	record->producer = producer;
	record->sequence = sequence;
	record->goroutine = ctx->r14;
	if (bpf_copy_from_user(record->code, sizeof(record->code), (void *)ctx->ip))
		record->code[0] = 0;
	ring_256.ringbuf_submit(record, 1);
	return 0;
}

int work_large(struct pt_regs *ctx)
{
	u32 slot = bpf_get_attach_cookie(ctx);
	struct record_1024 *record = ring_1024.ringbuf_reserve(sizeof(*record));

	if (!record)
		return 0;
	record->header.slot = slot;
	record->body[0] = ctx->bx;
	ring_1024.ringbuf_submit(record, 1);
	return 0;
}

int process_exec(struct bpf_raw_tracepoint_args *ctx)
{
	struct process_event *event = process_events.ringbuf_reserve(sizeof(*event));

	(void)ctx;
	if (!event)
		return 0;
	event->tgid = bpf_get_current_pid_tgid() >> 32;
	event->exited = 0;
	process_events.ringbuf_submit(event, 0);
	return 0;
}

int process_exit(struct bpf_raw_tracepoint_args *ctx)
{
	struct process_event *event = process_events.ringbuf_reserve(sizeof(*event));

	(void)ctx;
	if (!event)
		return 0;
	event->tgid = bpf_get_current_pid_tgid() >> 32;
	event->exited = 1;
	process_events.ringbuf_submit(event, 0);
	return 0;
}
