/* SPDX-License-Identifier: GPL-2.0-only
 *
 * Which requests get a traceparent header on the wire: the client's probe arms a connection here, bpf/wire.bpf.c inserts
 * the header into what it sends next. Both units hold the two maps.
 */

/* A TCP connection as its client sees it. Addresses in network order, IPv4 ones mapped (::ffff:a.b.c.d); ports in host
 * order. otel_goprobe/kernel/sockhash.py packs the same. */
struct wire_tuple {
	u32 local_ip[4];
	u32 remote_ip[4];
	u16 local_port;
	u16 remote_port;
	u32 reserved;
};

/* The third word of a mapped IPv4 address. */
#define WIRE_IPV4_PREFIX 0xffff0000

#define WIRE_MAX_SOCKETS 16384

struct wire_socket {
	u32 slot;
	u32 member; /* of the sockhash: what it sends is seen by wire_message */
};

/* What is inserted into the next request. */
struct wire_header {
	u64 trace_id[2];
	u64 span_id;
	u32 slot;
	u32 flags;
};

/* The sockets in the sockhash, which uprobe programs can't look into, and those that are being connected. */
BPF_HASH(wire_sockets, struct wire_tuple, struct wire_socket, WIRE_MAX_SOCKETS);
BPF_HASH(wire_armed, struct wire_tuple, struct wire_header, WIRE_MAX_SOCKETS);

/* Whether both ends are on this host, by their addresses: the kernel connects to an address of its own from that same one
 * (the preferred source of the local routing table). */
static __always_inline u32 wire_is_local(const struct wire_tuple *tuple)
{
	const u32 *local = tuple->local_ip, *remote = tuple->remote_ip;

	if (!((local[0] ^ remote[0]) | (local[1] ^ remote[1]) | (local[2] ^ remote[2]) | (local[3] ^ remote[3])))
		return 1;
	if (remote[0] | remote[1])
		return 0;
	return (remote[2] == WIRE_IPV4_PREFIX && (remote[3] & 0xff) == 127) || (!remote[2] && remote[3] == 0x01000000);
}

/* Has the next bytes that this connection sends, which begin a request of HTTP/1, carry a traceparent header, if they are
 * seen by wire_message: one that isn't, armed, would be taken for a request in the midst of its body later.
 * Called where the request is handed to the connection's writer; `span_id` is the client span's. */
__attribute__((unused)) static __always_inline void wire_arm(struct target *target, u32 slot, struct wire_tuple *tuple, u32 tls, u32 own_header,
				     const struct trace_context *context, u64 span_id)
{
	struct wire_header header = {
		.trace_id = {context->trace_id[0], context->trace_id[1]},
		.span_id = span_id,
		.slot = slot,
		.flags = context->flags,
	};
	struct wire_socket *socket;

	if (!(target->options & OPTION_wire) || wire_is_local(tuple))
		return;
	if (own_header) {
		count(slot, COUNTER_wire_own_header);
		return;
	}
	if (tls) {
		count(slot, COUNTER_wire_tls);
		return;
	}
	socket = wire_sockets.lookup(tuple);
	if (!socket || !socket->member || socket->slot != slot) {
		count(slot, COUNTER_wire_unseen_socket);
		return;
	}
	if (wire_armed.update(tuple, &header))
		count(slot, COUNTER_wire_failed);
}
