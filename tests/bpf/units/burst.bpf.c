/* SPDX-License-Identifier: GPL-2.0-only
 *
 * Many records a hit of func work(producer, sequence uint64), each eighth given back: for the reader of rings.
 */

struct burst {
	u64 producer;
	u64 sequence;
	u64 body[30];
};

BPF_RINGBUF_OUTPUT(ring, 16);
BPF_RINGBUF_OUTPUT(mixed, 16);
/* Rows 0 and 1: submitted by each producer; 2: given back; 3: no room. */
BPF_PERCPU_ARRAY(counters, u64, 4);
BPF_ARRAY(sequences, u64, 2);

static __always_inline void count(u32 row)
{
	u64 *value = counters.lookup(&row);

	if (value)
		__sync_fetch_and_add(value, 1);
}

int work_burst(struct pt_regs *ctx)
{
	u32 producer = ctx->ax & 1;
	u64 *sequence = sequences.lookup(&producer);

	if (!sequence)
		return 0;
	for (int i = 0; i < 8; i++) {
		struct burst *record = ring.ringbuf_reserve(sizeof(*record));

		if (!record) {
			count(3);
			continue;
		}
		if (!(bpf_get_prandom_u32() & 7)) {
			ring.ringbuf_discard(record, 1);
			count(2);
			continue;
		}
		record->producer = producer;
		record->sequence = (*sequence)++;
		for (int j = 0; j < 30; j++)
			record->body[j] = record->sequence * 31 + j;
		ring.ringbuf_submit(record, 1);
		count(producer);
	}
	return 0;
}

int work_mixed(struct pt_regs *ctx)
{
	struct pair {
		u64 producer;
		u64 sequence;
		u64 nothing;
	} value = {.producer = ctx->ax, .sequence = ctx->bx};

	mixed.ringbuf_output(&value, ctx->bx & 1 ? 24 : 16, 1);
	return 0;
}
