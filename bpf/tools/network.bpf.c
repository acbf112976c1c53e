/* SPDX-License-Identifier: GPL-2.0-only
 *
 * Connections of a target, by its descriptors: who asked for which, what came of it, how many bytes went each way:
 * otel_goprobe/tools/network.py. At the end of system calls, where both the arguments, whose registers the kernel keeps, and
 * the result are known.
 */

/* Adds what the goroutine dials by Go's own word, and whose span that is for. */
static __always_inline void network_dialled(struct network_record *record, struct tool_target *target, u32 slot)
{
	struct goroutine_key key = {.goid = record->header.goid, .slot = slot};
	struct network_dial *dial;
	u64 g;

	dial = key.goid ? network_dials.lookup(&key) : 0;
	if (!dial && key.goid && target->g_parent_goid != MISSING) {
		/* net/dial.go, dialParallel: a goroutine for each family of addresses. */
		g = tool_g(target);
		key.goid = 0;
		bpf_probe_read_user(&key.goid, sizeof(u64), (void *)(g + target->g_parent_goid));
		dial = network_dials.lookup(&key);
	}
	if (!dial)
		return;
	record->name_bytes = dial->name_bytes;
	__builtin_memcpy(record->name, dial->name, sizeof(record->name));
	if (dial->span_id) {
		record->header.trace_id[0] = dial->trace_id[0];
		record->header.trace_id[1] = dial->trace_id[1];
		record->header.span_id = dial->span_id;
		record->header.trace_flags = dial->trace_flags;
	}
}

static __always_inline void network_connect(void *ctx, struct tool_target *target, u32 slot, u64 regs, s64 result)
{
	struct network_key key = {.slot = slot, .descriptor = kernel_word(regs, __builtin_offsetof(struct pt_regs, di))};
	u64 address = kernel_word(regs, __builtin_offsetof(struct pt_regs, si)), sock;
	struct network_connection *known;
	struct network_record *record;
	u16 family = 0;
	struct {
		u16 family;
		u16 port;
		u32 v4;
		u8 v6[16];
	} name = {};

	bpf_probe_read_user(&family, sizeof(family), (void *)address);
	if (family != AF_INET && family != AF_INET6 && family != AF_UNIX)
		return;
	known = network_connections.lookup(&key);
	if (known && result == -EISCONN)
		return;
	sock = network_sock(key.descriptor);
	record = network_reserve(ctx, target, slot, NETWORK_BEGUN);
	if (!record)
		return;
	network_ends(record, sock);
	record->family = family;
	if (family == AF_UNIX) {
		if (bpf_probe_read_user(record->unix_path, 110, (void *)(address + 2)))
			bpf_probe_read_user_str(record->unix_path, 110, (void *)(address + 2));
	} else {
		/* What was asked for: the socket has forgotten it where that failed at once. */
		bpf_probe_read_user(&name, sizeof(name), (void *)address);
		record->port = __builtin_bswap16(name.port);
		if (family == AF_INET6) {
			__builtin_memcpy(record->address, name.v6, 16);
		} else {
			__builtin_memset(record->address, 0, 10);
			record->address[10] = record->address[11] = 0xff;
			__builtin_memcpy(record->address + 12, &name.v4, 4);
		}
	}
	network_dialled(record, target, slot);
	record->descriptor = key.descriptor;
	record->error = -result;
	record->began_ns = record->header.time_ns;
	network_keep(&key, record->began_ns, sock,
		     !result ? NETWORK_OPEN : result == -EINPROGRESS ? NETWORK_CONNECTING : NETWORK_FAILED);
	tool_events.ringbuf_submit(record, RB_NO_WAKEUP);
}

/* Go asks for the error of a connect in progress: net/fd_unix.go, (*netFD).connect. */
static __always_inline void network_outcome(void *ctx, struct tool_target *target, struct network_key *key, u64 regs)
{
	struct network_connection *connection = network_connections.lookup(key);
	u64 level = kernel_word(regs, __builtin_offsetof(struct pt_regs, si));
	u64 option = kernel_word(regs, __builtin_offsetof(struct pt_regs, dx));
	struct network_record *record;
	s32 error = 0;

	if (!connection || connection->state != NETWORK_CONNECTING || (u32)level != SOL_SOCKET || (u32)option != SO_ERROR)
		return;
	bpf_probe_read_user(&error, sizeof(error), (void *)kernel_word(regs, __builtin_offsetof(struct pt_regs, r10)));
	if (error == EINPROGRESS)
		return;
	connection->state = error && error != EISCONN ? NETWORK_FAILED : NETWORK_OPEN;
	record = network_reserve(ctx, target, key->slot, NETWORK_DONE);
	if (!record)
		return;
	network_ends(record, 0);
	record->descriptor = key->descriptor;
	record->began_ns = connection->began_ns;
	record->error = connection->state == NETWORK_OPEN ? 0 : error;
	tool_events.ringbuf_submit(record, RB_NO_WAKEUP);
}

/* A connection that came, or a port that is listened on. */
static __always_inline void network_own(void *ctx, struct tool_target *target, u32 slot, u32 descriptor, u8 kind)
{
	struct network_key key = {.slot = slot, .descriptor = descriptor};
	struct network_record *record;
	u64 sock;

	record = network_reserve(ctx, target, slot, kind);
	if (!record)
		return;
	sock = network_sock(descriptor);
	network_ends(record, sock);
	record->descriptor = descriptor;
	record->began_ns = record->header.time_ns;
	if (kind == NETWORK_ACCEPTED)
		network_keep(&key, record->began_ns, sock, NETWORK_OPEN);
	tool_events.ringbuf_submit(record, RB_NO_WAKEUP);
}

static __always_inline void network_closed(void *ctx, struct tool_target *target, struct network_key *key)
{
	struct network_connection *connection = network_connections.lookup(key);
	struct network_record *record;
	u64 sock;

	if (!connection)
		return;
	record = network_reserve(ctx, target, key->slot, NETWORK_CLOSED);
	if (record) {
		network_ends(record, 0);
		record->descriptor = key->descriptor;
		record->began_ns = connection->began_ns;
		record->sent = connection->sent;
		record->received = connection->received;
		tool_events.ringbuf_submit(record, RB_NO_WAKEUP);
	}
	sock = connection->sock;
	network_socks.delete(&sock);
	network_connections.delete(key);
}

/* raw_syscalls:sys_exit(struct pt_regs *regs, long ret): include/trace/events/syscalls.h. */
int network_syscall(struct bpf_raw_tracepoint_args *ctx)
{
	u64 regs = ctx->args[0];
	s64 result = ctx->args[1];
	u64 number = kernel_word(regs, __builtin_offsetof(struct pt_regs, orig_ax));
	struct network_connection *connection;
	struct tool_target *target;
	struct network_key key;
	u32 slot;

	switch (number) {
	case NR_READ: case NR_WRITE: case NR_READV: case NR_WRITEV: case NR_SENDFILE: case NR_SENDTO: case NR_RECVFROM:
	case NR_SENDMSG: case NR_RECVMSG: case NR_SPLICE:
		if (result <= 0)
			return 0;
	case NR_CONNECT: case NR_ACCEPT: case NR_ACCEPT4: case NR_LISTEN: case NR_GETSOCKOPT:
		break;
	default:
		return 0;
	}
	target = tool_current(&slot);
	if (!target)
		return 0;
	key.slot = slot;
	key.descriptor = kernel_word(regs, __builtin_offsetof(struct pt_regs, di));
	switch (number) {
	case NR_CONNECT:
		network_connect(ctx, target, slot, regs, result);
		break;
	case NR_ACCEPT: case NR_ACCEPT4:
		if (result >= 0)
			network_own(ctx, target, slot, result, NETWORK_ACCEPTED);
		break;
	case NR_LISTEN:
		if (!result)
			network_own(ctx, target, slot, key.descriptor, NETWORK_LISTENS);
		break;
	case NR_GETSOCKOPT:
		if (!result)
			network_outcome(ctx, target, &key, regs);
		break;
	case NR_READ: case NR_READV: case NR_RECVFROM: case NR_RECVMSG:
		connection = network_connections.lookup(&key);
		if (connection)
			__sync_fetch_and_add(&connection->received, result);
		break;
	default:
		if (number == NR_SPLICE) {
			connection = network_connections.lookup(&key);
			if (connection)
				__sync_fetch_and_add(&connection->received, result);
			key.descriptor = kernel_word(regs, __builtin_offsetof(struct pt_regs, dx));
		}
		connection = network_connections.lookup(&key);
		if (connection)
			__sync_fetch_and_add(&connection->sent, result);
	}
	return 0;
}

/* raw_syscalls:sys_enter(struct pt_regs *regs, long id): at its end another thread may have the descriptor already. */
int network_close(struct bpf_raw_tracepoint_args *ctx)
{
	struct tool_target *target;
	struct network_key key;

	if (ctx->args[1] != NR_CLOSE)
		return 0;
	target = tool_current(&key.slot);
	if (!target)
		return 0;
	key.descriptor = kernel_word(ctx->args[0], __builtin_offsetof(struct pt_regs, di));
	network_closed(ctx, target, &key);
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
	if (!connection || connection->sock != sock)
		return;
	record = tool_events.ringbuf_reserve(sizeof(*record));
	if (!record) {
		tool_count(TOOL_COUNTER_ring_full);
		return;
	}
	__builtin_memset(&record->header, 0, sizeof(record->header));
	record->header.slot = key.slot;
	record->header.kind = kind;
	record->header.time_ns = bpf_ktime_get_ns();
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
