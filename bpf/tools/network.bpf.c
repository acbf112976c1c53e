/* SPDX-License-Identifier: GPL-2.0-only
 *
 * Connections of a target, by its descriptors: who asked for which, what came of it, how many bytes went each way:
 * otel_goprobe/tools/network.py. At the end of system calls, where both the arguments, whose registers the kernel keeps, and
 * the result are known; and there alone, since each tracepoint of system calls costs every process of the machine.
 */

/* raw_syscalls:sys_exit(struct pt_regs *regs, long ret): include/trace/events/syscalls.h. */
int network_syscall(struct bpf_raw_tracepoint_args *ctx)
{
	struct network_call call = {};
	struct tool_target *target;
	struct network_key key;
	s64 result = ctx->args[1];
	u64 name = 0;
	u32 kind = NETWORK_SENT_TO;

	target = tool_current(&key.slot);
	if (!target)
		return 0;
	bpf_probe_read_kernel(&call, sizeof(call), (void *)(ctx->args[0] + __builtin_offsetof(struct pt_regs, r10)));
	key.descriptor = call.di;
	switch (call.number) {
	case NR_CONNECT:
		network_connect(ctx, target, &key, &call, result);
		return 0;
	case NR_CLOSE:
		if (result != -EBADF)
			network_close(ctx, target, &key);
		return 0;
	}
	if (result < 0)
		return 0;
	switch (call.number) {
	case NR_ACCEPT: case NR_ACCEPT4:
		key.descriptor = result;
		network_own(ctx, target, &key, NETWORK_ACCEPTED);
		return 0;
	case NR_LISTEN:
		network_own(ctx, target, &key, NETWORK_LISTENS);
		return 0;
	case NR_GETSOCKOPT:
		network_outcome(ctx, target, &key, &call);
		return 0;
	case NR_FCNTL:
		if ((u32)call.si != F_DUPFD && (u32)call.si != F_DUPFD_CLOEXEC)
			return 0;
	case NR_DUP: case NR_DUP2: case NR_DUP3:
		network_duplicate(ctx, target, &key, result);
		return 0;
	case NR_CLOSE_RANGE:
		network_close_range(ctx, target, key.slot, &call);
		return 0;
	case NR_RECVMMSG:
		kind = NETWORK_RECEIVED_FROM;
	case NR_SENDMMSG:
		network_moved_many(&key, call.si, result, kind);
		return 0;
	}
	if (!result)
		return 0;
	switch (call.number) {
	case NR_READ: case NR_READV:
		kind = NETWORK_RECEIVED_FROM;
		break;
	case NR_WRITE: case NR_WRITEV: case NR_SENDFILE:
		break;
	case NR_RECVFROM:
		kind = NETWORK_RECEIVED_FROM;
	case NR_SENDTO:
		name = call.r8;
		break;
	case NR_RECVMSG:
		network_given(ctx, target, key.slot, call.si);
		kind = NETWORK_RECEIVED_FROM;
	case NR_SENDMSG:
		/* struct user_msghdr begins with it. */
		bpf_probe_read_user(&name, sizeof(name), (void *)call.si);
		break;
	case NR_SPLICE:
		network_moved(ctx, target, &key, 0, result, NETWORK_RECEIVED_FROM);
		key.descriptor = call.dx;
		break;
	default:
		return 0;
	}
	network_moved(ctx, target, &key, name, result, kind);
	return 0;
}

/* In no process, or in any: the target is that of the socket. */
static __always_inline void network_of_sock(u64 sock, u8 kind)
{
	struct network_key *found = network_socks.lookup(&sock), key;
	struct network_connection *connection;
	struct network_record *record;

	if (!found)
		return;
	key = *found;
	connection = network_connections.lookup(&key);
	if (!network_is_open(connection) || connection->sock != sock)
		return;
	record = tool_events.ringbuf_reserve(sizeof(*record));
	if (!record) {
		tool_count(TOOL_COUNTER_ring_full);
		return;
	}
	network_header(&record->header, key.slot, kind);
	record->descriptor = key.descriptor;
	record->began_ns = connection->began_ns;
	record->name_bytes = record->error = record->family = 0;
	tool_events.ringbuf_submit(record, RB_NO_WAKEUP);
}

/* tcp:tcp_retransmit_skb(const struct sock *sk, const struct sk_buff *skb, …): include/trace/events/tcp.h, Linux 4.15. */
int network_retransmit(struct bpf_raw_tracepoint_args *ctx)
{
	network_of_sock(ctx->args[0], NETWORK_RETRANSMITTED);
	return 0;
}

/* tcp:tcp_receive_reset(struct sock *sk): include/trace/events/tcp.h, Linux 4.16. */
int network_reset(struct bpf_raw_tracepoint_args *ctx)
{
	network_of_sock(ctx->args[0], NETWORK_RESET);
	return 0;
}

/* Remembers by goroutine what it dials or asks for: its text, and the span by order of its context. */
static __always_inline struct network_dial *network_remember(struct pt_regs *ctx, struct tool_target *own, u32 slot,
							     struct target *target, u32 kind, struct go_string name,
							     u64 bias)
{
	struct goroutine_key key = {.slot = slot, .kind = kind};
	u64 context[2] = {GO_ARG2(ctx), GO_ARG3(ctx)};
	struct server_span *span;
	struct network_dial *dial;
	u64 bytes = name.length, g = 0;
	u32 zero = 0;

	dial = network_blank.lookup(&zero);
	key.goid = go_read_word(GO_G(ctx), own->goid);
	if (!dial || !key.goid || network_dials.update(&key, dial))
		return 0;
	dial = network_dials.lookup(&key);
	if (!dial)
		return 0;
	dial->bias = bias;
	CLAMP(bytes, 128);
	if (!read_user_present(dial->name, bytes, name.data))
		dial->name_bytes = bytes;
	span = parent_by_context(target, slot, context, bias, &g);
	if (!span)
		span = parent_on_goroutine(target, GO_G(ctx), slot);
	if (span) {
		dial->trace_id[0] = span->context.trace_id[0];
		dial->trace_id[1] = span->context.trace_id[1];
		dial->span_id = span->span_id;
		dial->trace_flags = span->context.flags;
	}
	return dial;
}

/* func (d *Dialer) DialContext(ctx context.Context, network, address string) (Conn, error), Go 1.7 and later: every way to
 * dial by a name goes through it, net/http's and package net's own Dial too. d in AX, ctx in BX and CX, network in DI and SI,
 * address in R8 and R9. */
int network_dial(struct pt_regs *ctx)
{
	struct go_string name = {.data = ctx->r8, .length = ctx->r9};
	struct tool_target *own;
	struct target *target;
	u32 slot;

	target = target_of(ctx, &slot);
	own = tool_targets.lookup(&slot);
	if (target && own)
		network_remember(ctx, own, slot, target, 0, name, GO_PC(ctx) - own->dial_address);
	return 0;
}

/* func (r *Resolver) lookupIP(ctx context.Context, network, host string) (addrs []IPAddr, err error), package net, unix; Go
 * 1.8 and later (with network since 1.13): what both resolvers, Go's and the C library's, are asked by, once for those who ask
 * for the same name at the same time. r in AX, ctx in BX and CX, network in DI and SI, host in R8 and R9. */
int network_lookup_start(struct pt_regs *ctx)
{
	struct go_string name = {.data = ctx->r8, .length = ctx->r9};
	struct tool_target *own;
	struct target *target;
	u32 slot;

	target = target_of(ctx, &slot);
	own = tool_targets.lookup(&slot);
	if (target && own)
		network_remember(ctx, own, slot, target, 1, name, GO_PC(ctx) - own->lookup_address);
	return 0;
}

enum network_lookup_error {
	NETWORK_ANSWERED,
	NETWORK_LOOKUP_FAILED,
	NETWORK_NOT_FOUND,
	NETWORK_LOOKUP_TIMEOUT,
};

/* Its return: addrs in AX, BX and CX, err in DI and SI. An IPAddr begins with its IP, a slice: src/net/iprawsock.go. */
int network_lookup_end(struct pt_regs *ctx)
{
	struct goroutine_key key = {.kind = 1};
	struct network_record *record;
	struct network_dial *dial;
	struct tool_target *own;
	struct target *target;
	u64 ip[2] = {}, itab;
	u32 slot;

	target = target_of(ctx, &slot);
	own = tool_targets.lookup(&slot);
	if (!target || !own)
		return 0;
	key.slot = slot;
	key.goid = go_read_word(GO_G(ctx), own->goid);
	dial = network_dials.lookup(&key);
	if (!dial)
		return 0;
	record = tool_events.ringbuf_reserve(sizeof(*record));
	if (!record) {
		tool_count(TOOL_COUNTER_ring_full);
		return 0;
	}
	tool_fill_of(&record->header, own, slot, NETWORK_NAME_ASKED, GO_G(ctx));
	record->name_bytes = dial->name_bytes;
	__builtin_memcpy(record->name, dial->name, sizeof(record->name));
	if (dial->span_id) {
		record->header.trace_id[0] = dial->trace_id[0];
		record->header.trace_id[1] = dial->trace_id[1];
		record->header.span_id = dial->span_id;
		record->header.trace_flags = dial->trace_flags;
	}
	record->error = NETWORK_ANSWERED;
	record->received = ctx->bx;
	record->family = record->port = record->local_port = 0;
	record->protocol = 0;
	record->descriptor = -1;
	record->began_ns = record->sent = 0;
	record->unix_path[0] = 0;
	__builtin_memset(record->address, 0, sizeof(record->address));
	itab = ctx->di;
	if (itab) {
		record->received = 0;
		record->error = NETWORK_LOOKUP_FAILED;
		if (own->dns_error_itab && itab == own->dns_error_itab + dial->bias) {
			if (go_read_byte(ctx->si, own->dns_not_found))
				record->error = NETWORK_NOT_FOUND;
			else if (go_read_byte(ctx->si, own->dns_timeout))
				record->error = NETWORK_LOOKUP_TIMEOUT;
		}
	} else if (ctx->bx && !read_user(ip, sizeof(ip), ctx->ax)) {
		if (ip[1] == 4) {
			record->address[10] = record->address[11] = 0xff;
			read_user(record->address + 12, 4, ip[0]);
		} else if (ip[1] == 16) {
			read_user(record->address, 16, ip[0]);
		}
	}
	tool_events.ringbuf_submit(record, RB_NO_WAKEUP);
	return 0;
}
