/* SPDX-License-Identifier: GPL-2.0-only
 *
 * What every tool needs: which target a task belongs to, its goroutine, the span that is active there, its stack. The core's
 * maps are shared: `tgid_slots`, `http_server_inflight`, `active_spans`.
 */

/* By slot. */
BPF_ARRAY(tool_targets, struct tool_target, MAX_SLOTS);

BPF_PERCPU_ARRAY(tool_counters, u64, TOOL_COUNTERS);

BPF_RINGBUF_OUTPUT(tool_events, TOOL_RING_PAGES);

/* The first member of every record. */
struct tool_header {
	u16 slot;
	u16 frames;	 /* of `stack` */
	u8 trace_flags; /* W3C's */
	u8 kind;	 /* the tool's own */
	u8 reserved[2];
	u64 time_ns;
	u64 goid; /* 0: not on a goroutine, or not known */
	u64 trace_id[2];
	u64 span_id; /* 0: none is active */
	u64 stack[TOOL_FRAMES];
};

#define TOOL_USER_STACK 256 /* BPF_F_USER_STACK, include/uapi/linux/bpf.h */

static __always_inline void tool_count(u32 counter)
{
	u64 *value = tool_counters.lookup(&counter);

	if (value)
		__sync_fetch_and_add(value, 1);
}

/* The watched target that the current task belongs to; for tracepoints, which have no cookie. */
static __always_inline struct tool_target *tool_current(u32 *slot)
{
	u32 tgid = bpf_get_current_pid_tgid() >> 32;
	u32 *found = tgid_slots.lookup(&tgid);
	struct tool_target *target;

	if (!found)
		return 0;
	*slot = *found;
	target = tool_targets.lookup(slot);
	return target && target->active ? target : 0;
}

/* The g of the goroutine that the current thread works for. It is where Go's runtime keeps it, behind the thread pointer, which
 * the kernel has in the task; while C code runs, or the scheduler, that is g0, and the goroutine is m.curg
 * (src/runtime/runtime2.go). 0: a thread that isn't Go's. Reads fault nothing in, what they read is in use. */
static __always_inline u64 tool_g(struct tool_target *target)
{
	u64 thread_pointer, g = 0, m = 0, curg = 0;

	if (!target->g_offset || !target->task_fsbase)
		return 0;
	thread_pointer = kernel_word(bpf_get_current_task(), target->task_fsbase);
	if (bpf_probe_read_user(&g, sizeof(g), (void *)(thread_pointer + target->g_offset)) || !g)
		return 0;
	if (target->g_m == MISSING || target->m_curg == MISSING)
		return g;
	bpf_probe_read_user(&m, sizeof(m), (void *)(g + target->g_m));
	if (m)
		bpf_probe_read_user(&curg, sizeof(curg), (void *)(m + target->m_curg));
	return curg ? curg : g;
}

/* Writes the header's members about a goroutine and the span that it works for. */
static __always_inline void tool_goroutine(struct tool_header *header, struct tool_target *target, u32 slot, u64 g)
{
	struct target *watched = targets.lookup(&slot);
	struct server_span *span = g && watched ? span_of_goroutine(watched, g, slot) : 0;

	header->goid = 0;
	if (g && target->goid != MISSING)
		bpf_probe_read_user(&header->goid, sizeof(u64), (void *)(g + target->goid));
	header->trace_id[0] = header->trace_id[1] = header->span_id = 0;
	header->trace_flags = 0;
	if (span) {
		header->trace_id[0] = span->context.trace_id[0];
		header->trace_id[1] = span->context.trace_id[1];
		header->span_id = span->span_id;
		header->trace_flags = span->context.flags;
	}
}

/* Fills a reserved record's header, without a stack: for a probe on Go code, which knows its g. */
static __always_inline void tool_fill_of(struct tool_header *header, struct tool_target *target, u32 slot, u8 kind, u64 g)
{
	header->slot = slot;
	header->kind = kind;
	header->frames = 0;
	header->time_ns = bpf_ktime_get_ns();
	tool_goroutine(header, target, slot, g);
}

/* The same for tracepoints, with the stack. */
static __always_inline void tool_fill(void *ctx, struct tool_header *header, struct tool_target *target, u32 slot, u8 kind)
{
	s64 bytes;

	tool_fill_of(header, target, slot, kind, tool_g(target));
	/* By frame pointers, which Go code has (src/cmd/compile/abi-internal.md). */
	bytes = bpf_get_stack(ctx, header->stack, sizeof(header->stack), TOOL_USER_STACK);
	header->frames = bytes > 0 ? bytes / sizeof(u64) : 0;
}
