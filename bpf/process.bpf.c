/* SPDX-License-Identifier: GPL-2.0-only
 *
 * Processes as they come and go, told to discovery with a wake-up. Raw tracepoints: they need no tracefs.
 */

struct process_event {
	u32 tgid; /* in the initial PID namespace */
	u32 exited;
};

BPF_RINGBUF_OUTPUT(process_events, 16);

enum process_report {
	PROCESS_EXEC,
	PROCESS_EXIT,
};

/* By what happened: whether only watched processes are told of. A machine that builds ends hundreds a second. */
BPF_ARRAY(process_watched_only, u32, 2);

/* The command that the agent starts, until it is executed: that end of the agent's own program is a beginning. 0: none. */
BPF_ARRAY(process_launched, u32, 1);

static __always_inline void report(u32 tgid, u32 exited)
{
	u32 what = exited ? PROCESS_EXIT : PROCESS_EXEC;
	u32 *watched_only = process_watched_only.lookup(&what);
	struct process_event *event;

	if (watched_only && *watched_only && !tgid_slots.lookup(&tgid))
		return;
	event = process_events.ringbuf_reserve(sizeof(*event));
	if (!event)
		return; /* the reader, finding the ring full, looks at all processes */
	event->tgid = tgid;
	event->exited = exited;
	process_events.ringbuf_submit(event, 0);
}

/* The program of a watched process is gone: what its slot says of addresses no longer holds. */
static __always_inline void forget(u32 tgid)
{
	u32 *slot = tgid_slots.lookup(&tgid);
	struct target *target;
	u32 index;

	if (!slot)
		return;
	index = *slot;
	target = targets.lookup(&index);
	if (target && target->tgid == tgid)
		target->active = 0;
	tgid_slots.delete(&tgid);
}

/* sched:sched_process_exec(struct task_struct *p, pid_t old_pid, struct linux_binprm *bprm); current is p. */
int process_exec(struct bpf_raw_tracepoint_args *ctx)
{
	u32 tgid = bpf_get_current_pid_tgid() >> 32, zero = 0;
	u32 *launched = process_launched.lookup(&zero);

	(void)ctx;
	report(tgid, 0);
	if (launched && *launched == tgid)
		*launched = 0;
	else
		forget(tgid);
	return 0;
}

/* sched:sched_process_exit(struct task_struct *p); current is p; one event a process, at its leader's end. */
int process_exit(struct bpf_raw_tracepoint_args *ctx)
{
	u64 id = bpf_get_current_pid_tgid();

	(void)ctx;
	if (id >> 32 == (u32)id) {
		report(id >> 32, 1);
		forget(id >> 32);
	}
	return 0;
}
