/* SPDX-License-Identifier: GPL-2.0-only
 *
 * A traceparent header, inserted into the requests of HTTP/1 that the client's probe has armed (include/wire.h): sockets
 * of watched processes to other hosts are put into a sockhash as they connect, and its program sees what they send.
 */

BPF_SOCKHASH(wire_sockhash, struct wire_tuple, WIRE_MAX_SOCKETS);

#define AF_INET 2 /* include/linux/socket.h */

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
			(tuple).local_ip[2] = (tuple).remote_ip[2] = WIRE_IPV4_PREFIX;                                    \
			(tuple).local_ip[3] = local_ip4;                                                                  \
			(tuple).remote_ip[3] = remote_ip4;                                                                \
		}                                                                                                         \
		(tuple).local_port = READ_FIELD(context, local_port);                                                     \
		(tuple).remote_port = __builtin_bswap32(READ_FIELD(context, remote_port));                                \
		(tuple).reserved = 0;                                                                                     \
	} while (0)

/* For the sockets of one cgroup: connecting (current is the process that connects), connected (current may be anyone), and
 * closed. Returns 1 always: with 0 the answers of other programs in the cgroup would be thrown away (tcp_call_bpf). */
int wire_connection(struct bpf_sock_ops *context)
{
	u32 op = READ_FIELD(context, op);
	struct wire_socket *known, socket = {};
	struct wire_tuple tuple;
	u32 tgid, *slot;
	int failed;

	if (op == BPF_SOCK_OPS_TCP_CONNECT_CB) {
		tgid = bpf_get_current_pid_tgid() >> 32;
		slot = tgid_slots.lookup(&tgid);
		if (!slot)
			return 1;
		socket.slot = *slot;
		WIRE_TUPLE(tuple, context);
		if (wire_is_local(&tuple))
			return 1;
		wire_armed.delete(&tuple);
		if (wire_sockets.update(&tuple, &socket) ||
		    bpf_sock_ops_cb_flags_set(context, READ_FIELD(context, bpf_sock_ops_cb_flags) | BPF_SOCK_OPS_STATE_CB_FLAG)) {
			wire_sockets.delete(&tuple);
			count(socket.slot, COUNTER_wire_sockets_full);
		}
	} else if (op == BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB) {
		WIRE_TUPLE(tuple, context);
		known = wire_sockets.lookup(&tuple);
		if (!known)
			return 1;
		socket.slot = known->slot;
		socket.member = 1;
		/* Not in place of another one: two network namespaces can have the same addresses. */
		failed = wire_sockhash.sock_hash_update(context, &tuple, BPF_NOEXIST);
		if (failed) {
			wire_sockets.delete(&tuple);
			count(socket.slot, COUNTER_wire_sockets_full);
		} else {
			wire_sockets.update(&tuple, &socket);
		}
	} else if (op == BPF_SOCK_OPS_STATE_CB && READ_FIELD(context, args[1]) == BPF_TCP_CLOSE) {
		WIRE_TUPLE(tuple, context);
		wire_sockets.delete(&tuple);
		wire_armed.delete(&tuple);
	}
	return 1;
}

/* A request line has to end within what is sent at once, and within this; net/http's buffer is as large
 * (src/net/http/transport.go, Transport.writeBufferSize). */
#define WIRE_LINE_BYTES 4096

/* Length of the first line with its newline, 0 where it doesn't end. Reads 8 bytes at a time; a head has that many
 * behind its first line. */
static __always_inline u32 wire_line_bytes(const u8 *data, const u8 *end)
{
	u64 word, newlines;

#pragma clang loop unroll(disable)
	for (u32 at = 0; at < WIRE_LINE_BYTES; at += 8) {
		if (data + at + 8 > end)
			return 0;
		word = *(u64 *)(data + at) ^ EACH_BYTE('\n');
		newlines = (word - EACH_BYTE(1)) & ~word & EACH_BYTE(0x80);
		if (newlines)
			/* The lowest set bit, at the top of its byte, as the number of that byte. */
			return at + 1 + (((newlines & -newlines) >> 7) * 0x0001020304050607ULL >> 56);
	}
	return 0;
}

#define HTTP_1_1_LINE_END 11 /* " HTTP/1.1\r\n" */

/* Sees each sendmsg of a socket of the sockhash. An armed one sends the head of a request now; whatever it sends, it is
 * armed no longer. */
int wire_message(struct sk_msg_md *message)
{
	struct wire_header *armed, header;
	struct wire_tuple tuple;
	u64 line_bytes, end_at, unknown;
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
	if (seen > WIRE_LINE_BYTES)
		seen = WIRE_LINE_BYTES;
	if (end - data < seen) {
		/* It lies in several pieces. */
		if (bpf_msg_pull_data(message, 0, seen, 0)) {
			count(header.slot, COUNTER_wire_failed);
			return SK_PASS;
		}
		data = (u8 *)(long)message->data;
		end = (u8 *)(long)message->data_end;
	}
	line_bytes = wire_line_bytes(data, end);
	/* The verifier would follow what is below for each length that it knows; it doesn't know this difference. */
	unknown = message->size;
	line_bytes += unknown;
	asm volatile("" : "+r"(line_bytes));
	line_bytes -= unknown;
	if (line_bytes < HTTP_1_1_LINE_END || line_bytes > WIRE_LINE_BYTES) {
		count(header.slot, COUNTER_wire_long_line);
		return SK_PASS;
	}
	end_at = line_bytes - HTTP_1_1_LINE_END;
	CLAMP(end_at, 4096);
	data += end_at;
	if (data + HTTP_1_1_LINE_END > end || *(u64 *)data != 0x2e312f5054544820ULL || data[8] != '1' || data[9] != '\r') {
		count(header.slot, COUNTER_wire_no_head);
		return SK_PASS;
	}
	if (bpf_msg_push_data(message, line_bytes, TRACEPARENT_LINE_BYTES, 0)) {
		count(header.slot, COUNTER_wire_failed);
		return SK_PASS;
	}
	/* What was pushed is a piece of its own: this only points the context's data at it. */
	if (bpf_msg_pull_data(message, line_bytes, line_bytes + TRACEPARENT_LINE_BYTES, 0))
		goto undo;
	data = (u8 *)(long)message->data;
	end = (u8 *)(long)message->data_end;
	if (data + TRACEPARENT_LINE_BYTES > end)
		goto undo;
	traceparent_line(data, header.trace_id, header.span_id, header.flags);
	count(header.slot, COUNTER_wire_injected);
	return SK_PASS;
undo:
	bpf_msg_pop_data(message, line_bytes, TRACEPARENT_LINE_BYTES, 0);
	count(header.slot, COUNTER_wire_failed);
	return SK_PASS;
}
