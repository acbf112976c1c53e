/* SPDX-License-Identifier: GPL-2.0-only
 *
 * A traceparent header, inserted into the requests of HTTP/1 that the client's probe has armed (include/wire.h): sockets
 * of watched processes to other hosts are put into a sockhash as they connect, and its program sees what they send.
 */

BPF_SOCKHASH(wire_sockhash, struct tcp_tuple, WIRE_MAX_SOCKETS);

/* Fields of a context may only be read at constant offsets from it; clang makes one load of those in two branches. */
#define READ_FIELD(context, field) (*(volatile u32 *)&(context)->field)

/* Both kinds of context have these fields; remote_port holds a u16 in network order in its upper half. */
#define WIRE_TUPLE(tuple, context)                                                                                        \
	do {                                                                                                              \
		u32 family = READ_FIELD(context, family);                                                                 \
		u32 local_ip4 = READ_FIELD(context, local_ip4), remote_ip4 = READ_FIELD(context, remote_ip4);             \
                                                                                                                          \
		(tuple).local_ip[0] = READ_FIELD(context, local_ip6[0]);                                                  \
		(tuple).local_ip[1] = READ_FIELD(context, local_ip6[1]);                                                  \
		(tuple).local_ip[2] = READ_FIELD(context, local_ip6[2]);                                                  \
		(tuple).local_ip[3] = READ_FIELD(context, local_ip6[3]);                                                  \
		(tuple).remote_ip[0] = READ_FIELD(context, remote_ip6[0]);                                                \
		(tuple).remote_ip[1] = READ_FIELD(context, remote_ip6[1]);                                                \
		(tuple).remote_ip[2] = READ_FIELD(context, remote_ip6[2]);                                                \
		(tuple).remote_ip[3] = READ_FIELD(context, remote_ip6[3]);                                                \
		if (family == AF_INET) {                                                                                  \
			(tuple).local_ip[0] = (tuple).local_ip[1] = 0;                                                    \
			(tuple).remote_ip[0] = (tuple).remote_ip[1] = 0;                                                  \
			(tuple).local_ip[2] = (tuple).remote_ip[2] = IPV4_PREFIX;                                    \
			(tuple).local_ip[3] = local_ip4;                                                                  \
			(tuple).remote_ip[3] = remote_ip4;                                                                \
		}                                                                                                         \
		(tuple).local_port = READ_FIELD(context, local_port);                                                     \
		(tuple).remote_port = __builtin_bswap32(READ_FIELD(context, remote_port));                                \
		(tuple).reserved = 0;                                                                                     \
	} while (0)

/* The kernel's number of the current process. bpf_get_current_pid_tgid is for sock_ops from Linux 6.10 on. */
static __always_inline u32 wire_current_tgid(void)
{
	struct socket_layout *layout;
	u32 zero = 0;

	layout = socket_layout.lookup(&zero);
	return layout && layout->task_tgid ? kernel_word(bpf_get_current_task(), layout->task_tgid) : 0;
}

/* For the sockets of one cgroup: connecting (current is the process that connects), connected (current may be anyone), and
 * closed. Returns 1 always: with 0 the answers of other programs in the cgroup would be thrown away (tcp_call_bpf). */
int wire_connection(struct bpf_sock_ops *context)
{
	u32 op = READ_FIELD(context, op), flags = READ_FIELD(context, bpf_sock_ops_cb_flags);
	struct wire_socket *known, socket = {};
	struct tcp_tuple tuple;
	u32 tgid, *slot;
	int failed;

	if (op == BPF_SOCK_OPS_TCP_CONNECT_CB) {
		tgid = wire_current_tgid();
		slot = tgid_slots.lookup(&tgid);
		if (!slot)
			return 1;
		socket.slot = *slot;
		WIRE_TUPLE(tuple, context);
		if (wire_is_joined(&tuple))
			return 1;
		/* Not in place of another target's: two network namespaces can have the same addresses. */
		known = wire_sockets.lookup(&tuple);
		failed = known && known->slot != socket.slot;
		if (!failed)
			failed = wire_sockets.update(&tuple, &socket);
		if (!failed)
			failed = bpf_sock_ops_cb_flags_set(context, flags | BPF_SOCK_OPS_STATE_CB_FLAG);
		if (failed)
			count(socket.slot, COUNTER_wire_sockets_full);
	} else if (op == BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB) {
		if (!(flags & BPF_SOCK_OPS_STATE_CB_FLAG))
			return 1;
		WIRE_TUPLE(tuple, context);
		known = wire_sockets.lookup(&tuple);
		/* A member: where the cgroup above is attached to as well, this runs twice. */
		if (!known || known->member)
			return 1;
		socket.slot = known->slot;
		socket.member = 1;
		failed = wire_sockhash.sock_hash_update(context, &tuple, BPF_NOEXIST);
		if (failed) {
			bpf_sock_ops_cb_flags_set(context, flags & ~BPF_SOCK_OPS_STATE_CB_FLAG);
			wire_sockets.delete(&tuple);
			count(socket.slot, COUNTER_wire_sockets_full);
			return 1;
		}
		wire_armed.delete(&tuple);
		wire_sockets.update(&tuple, &socket);
	} else if (op == BPF_SOCK_OPS_STATE_CB && READ_FIELD(context, args[1]) == BPF_TCP_CLOSE) {
		WIRE_TUPLE(tuple, context);
		wire_sockets.delete(&tuple);
		wire_armed.delete(&tuple);
	}
	return 1;
}

/* A head has to end within what is sent at once, and within this; net/http's buffer is as large
 * (src/net/http/transport.go, Transport.writeBufferSize). */
#define WIRE_HEAD_BYTES 4096
/* Words of 8 bytes, and lines. */
#define WIRE_HEAD_STEPS (WIRE_HEAD_BYTES / 8 + 128)

/* Above every offset that these steps get to. */
#define WIRE_OFFSET_MASK (2 * WIRE_HEAD_BYTES - 1)

#define HTTP_1_1_LINE_END 11 /* " HTTP/1.1\r\n" */

enum wire_head {
	WIRE_HEAD_CUT, /* its end isn't here */
	WIRE_HEAD_PLAIN,
	WIRE_HEAD_TRACED, /* it has a traceparent header */
};

/* What kind of head begins at `data`; `*line_bytes` gets the length of its first line, with the newline.
 *
 * zero: is 0, which the verifier doesn't know. It follows both sides of each branch in each round, unless it has been there
 * with values that include these: so each round begins with values of which it knows no more than the mask. */
static __always_inline enum wire_head wire_head_of(const u8 *data, const u8 *end, u64 zero, u64 *line_bytes)
{
	u64 bytes = end - data, at, line_at, word, newlines = zero, lowest, first = zero, traced = zero;
	const u8 *line;

	/* Words end where the bytes do; no request line is so short that it ended within the 7 that are left out. */
	at = (bytes & 7 & -(u64)(bytes < WIRE_HEAD_BYTES)) + zero;
#pragma clang loop unroll(disable)
	for (u32 step = 0; step < WIRE_HEAD_STEPS; step++) {
		newlines &= EACH_BYTE(0x80);
		at &= WIRE_OFFSET_MASK;
		first &= WIRE_OFFSET_MASK;
		traced &= 1;
		asm volatile("" : "+r"(newlines), "+r"(at), "+r"(first), "+r"(traced));
		if (!newlines) {
			line = data + at;
			if (line + 8 > end)
				break;
			/* The top bit of each byte that is a newline. */
			word = *(u64 *)line ^ EACH_BYTE('\n');
			newlines = ~(((word & EACH_BYTE(0x7f)) + EACH_BYTE(0x7f)) | word);
			at += 8;
			continue;
		}
		lowest = newlines & -newlines;
		newlines ^= lowest;
		/* Behind it: the number of the byte that the bit tops, by a multiplication. */
		line_at = (at - 7 + ((lowest >> 7) * 0x0001020304050607ULL >> 56)) & WIRE_OFFSET_MASK;
		first += line_at * is_zero(first);
		line = data + line_at;
		if (line + 2 > end)
			break;
		if (*(u16 *)line == 0x0a0d) {
			*line_bytes = first;
			return traced ? WIRE_HEAD_TRACED : WIRE_HEAD_PLAIN;
		}
		if (line + 12 > end)
			continue;
		traced |= is_zero(((*(u64 *)line | EACH_BYTE(0x20)) ^ 0x7261706563617274ULL) |
				  ((*(u32 *)(line + 8) | 0x20202020) ^ 0x3a746e65));
	}
	*line_bytes = first;
	return WIRE_HEAD_CUT;
}

/* Sees each sendmsg of a socket of the sockhash. An armed one sends the head of a request now; whatever it sends, it is
 * armed no longer. */
int wire_message(struct sk_msg_md *message)
{
	struct wire_header *armed, header;
	struct tcp_tuple tuple;
	u64 line_bytes, line_end, zero, line[TRACEPARENT_LINE_WORDS];
	enum wire_head head;
	u8 *data, *end;
	u32 seen;

	WIRE_TUPLE(tuple, message);
	armed = wire_armed.lookup(&tuple);
	if (!armed)
		return SK_PASS;
	header = *armed;
	wire_armed.delete(&tuple);

	data = (u8 *)(long)message->data;
	end = (u8 *)(long)message->data_end;
	seen = message->size;
	if (seen > WIRE_HEAD_BYTES)
		seen = WIRE_HEAD_BYTES;
	if (end - data < seen) {
		/* It lies in several pieces. */
		if (bpf_msg_pull_data(message, 0, seen, 0)) {
			count(header.slot, COUNTER_wire_failed);
			return SK_PASS;
		}
		data = (u8 *)(long)message->data;
		end = (u8 *)(long)message->data_end;
	}
	line_end = zero = READ_FIELD(message, local_port);
	asm volatile("" : "+r"(line_end));
	zero -= line_end;
	head = wire_head_of(data, end, zero, &line_bytes);
	line_end = (line_bytes - HTTP_1_1_LINE_END) & WIRE_OFFSET_MASK;
	asm volatile("" : "+r"(line_end));
	data += line_end;
	if (data + HTTP_1_1_LINE_END > end || *(u64 *)data != 0x2e312f5054544820ULL || data[8] != '1' || data[9] != '\r') {
		count(header.slot, line_bytes || head != WIRE_HEAD_CUT ? COUNTER_wire_no_head : COUNTER_wire_long_head);
		return SK_PASS;
	}
	if (head != WIRE_HEAD_PLAIN) {
		count(header.slot, head == WIRE_HEAD_CUT ? COUNTER_wire_long_head : COUNTER_wire_own_header);
		return SK_PASS;
	}
	if (bpf_msg_push_data(message, line_bytes, TRACEPARENT_LINE_BYTES, 0)) {
		count(header.slot, COUNTER_wire_failed);
		return SK_PASS;
	}
	/* What was pushed is a piece of its own now, and so is what lies before and behind it: each would be a segment of TCP. */
	if (bpf_msg_pull_data(message, 0, seen + TRACEPARENT_LINE_BYTES, 0))
		goto undo;
	line_bytes &= WIRE_OFFSET_MASK;
	asm volatile("" : "+r"(line_bytes));
	data = (u8 *)(long)message->data + line_bytes;
	end = (u8 *)(long)message->data_end;
	if (data + TRACEPARENT_LINE_BYTES > end)
		goto undo;
	traceparent_words(line, header.trace_id, header.span_id, header.flags);
	__builtin_memcpy(data, line, TRACEPARENT_LINE_BYTES);
	count(header.slot, COUNTER_wire_injected);
	return SK_PASS;
undo:
	bpf_msg_pop_data(message, line_bytes, TRACEPARENT_LINE_BYTES, 0);
	count(header.slot, COUNTER_wire_failed);
	return SK_PASS;
}
