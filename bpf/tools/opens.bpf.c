/* SPDX-License-Identifier: GPL-2.0-only
 *
 * Files that a target opens, or fails to: otel_goprobe/tools/opens.py.
 */

/* arch/x86/entry/syscalls/syscall_64.tbl */
#define NR_OPEN 2
#define NR_CREAT 85
#define NR_OPENAT 257
#define NR_OPENAT2 437

struct opens_record {
	struct tool_header header;
	s64 result; /* a descriptor, or the negative error number */
	char path[256];
};

/* raw_syscalls:sys_exit(struct pt_regs *regs, long ret), every kernel with tracepoints: include/trace/events/syscalls.h.
 * At the end, because all is known then: the kernel keeps the arguments' registers, and the path's page has just been read. */
int opens_exit(struct bpf_raw_tracepoint_args *ctx)
{
	u64 regs = ctx->args[0];
	u64 number = kernel_word(regs, __builtin_offsetof(struct pt_regs, orig_ax)), path;
	struct tool_target *target;
	struct opens_record *record;
	u32 slot;

	if (number != NR_OPENAT && number != NR_OPEN && number != NR_OPENAT2 && number != NR_CREAT)
		return 0;
	target = tool_current(&slot);
	if (!target)
		return 0;
	path = kernel_word(regs, number == NR_OPENAT || number == NR_OPENAT2 ? __builtin_offsetof(struct pt_regs, si)
									     : __builtin_offsetof(struct pt_regs, di));
	record = tool_events.ringbuf_reserve(sizeof(*record));
	if (!record) {
		tool_count(TOOL_COUNTER_ring_full);
		return 0;
	}
	tool_fill(ctx, &record->header, target, slot, 0);
	record->result = ctx->args[1];
	if (bpf_probe_read_user_str(record->path, sizeof(record->path), (void *)path) < 0)
		record->path[0] = 0;
	tool_events.ringbuf_submit(record, RB_NO_WAKEUP);
	return 0;
}
