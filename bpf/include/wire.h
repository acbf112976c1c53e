/* SPDX-License-Identifier: GPL-2.0-only
 *
 * Which requests get a traceparent header, those to other hosts and to servers of this one that this agent doesn't trace: the
 * client's probe arms a connection here. bpf/wire.bpf.c inserts the header into what it sends next; under TLS, where that is encrypted already, bpf/write.bpf.c writes it into Go's buffer.
 * Both units hold the first three maps.
 */

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
BPF_HASH(wire_sockets, struct tcp_tuple, struct wire_socket, WIRE_MAX_SOCKETS);
BPF_HASH(wire_armed, struct tcp_tuple, struct wire_header, WIRE_MAX_SOCKETS);

/* Ports on which this agent traces a server, and its slot: who connects to them within the host is found by the connection
 * (connections.h). Where a port is another's as well (another address, another network namespace), nothing is added either;
 * where one isn't known yet, a request has both, which name the same span. */
BPF_TABLE("lru_hash", u32, u32, wire_served, 4096);

/* What is written into the head of the next request. */
struct write_header {
	u64 trace_id[2];
	u64 span_id;
	u64 flags;
	u64 headers;	  /* the request's http.Header */
	u64 persist_conn; /* that sends it */
	u64 armed_ns;
};

/* By the *bufio.Writer (as .goid) into which the connection's goroutine puts the head. */
BPF_TABLE("lru_hash", struct goroutine_key, struct write_header, write_armed, WIRE_MAX_SOCKETS);

/* Whether both ends are on this host, by their addresses: the kernel connects to an address of its own from that same one
 * (the preferred source of the local routing table). */
static __always_inline u32 wire_is_local(const struct tcp_tuple *tuple)
{
	const u32 *local = tuple->local_ip, *remote = tuple->remote_ip;

	if (!((local[0] ^ remote[0]) | (local[1] ^ remote[1]) | (local[2] ^ remote[2]) | (local[3] ^ remote[3])))
		return 1;
	return connection_is_loopback(remote);
}

/* Whether the other end needs no header. */
static __always_inline u32 wire_is_joined(const struct tcp_tuple *tuple)
{
	u32 port = tuple->remote_port;

	return wire_is_local(tuple) && wire_served.lookup(&port);
}

/* Has bpf/write.bpf.c give the request a header. `request`: the *http.Request. */
static __always_inline void write_arm(struct target *target, u32 slot, u32 kind, u64 persist_conn, u64 request,
				      const struct trace_context *context, u64 span_id)
{
	struct goroutine_key key = {.goid = go_read_word(persist_conn, target->persist_conn_bw), .slot = slot, .kind = kind};
	struct write_header header = {
		.trace_id = {context->trace_id[0], context->trace_id[1]},
		.span_id = span_id,
		.flags = context->flags,
		.headers = go_read_word(request, target->request_header),
		.persist_conn = persist_conn,
		.armed_ns = bpf_ktime_get_ns(),
	};

	if (!key.goid || !header.headers || write_armed.update(&key, &header))
		count(slot, COUNTER_write_failed);
}

/* Has what a plaintext connection sends next, the head of a request of HTTP/1, carry a traceparent header, if wire_message
 * sees it: one that isn't seen, armed, would be taken for a request in the midst of its body later. `span_id` is the client
 * span's. */
static __always_inline void wire_arm_plain(u32 slot, struct tcp_tuple *tuple, const struct trace_context *context, u64 span_id)
{
	struct wire_header header = {
		.trace_id = {context->trace_id[0], context->trace_id[1]},
		.span_id = span_id,
		.slot = slot,
		.flags = context->flags,
	};
	struct wire_socket *socket = wire_sockets.lookup(tuple);

	if (!socket || !socket->member || socket->slot != slot) {
		count(slot, COUNTER_wire_unseen_socket);
		return;
	}
	if (wire_armed.update(tuple, &header))
		count(slot, COUNTER_wire_failed);
}

/* Has the next request on this connection, of HTTP/1, carry a traceparent header. Called where the request is handed to the
 * connection's writer. persist_conn, request: Go's; `span_id` is the client span's. */
static __always_inline void wire_arm(struct target *target, u32 slot, u32 kind, struct tcp_tuple *tuple, u64 persist_conn,
				     u64 request, const struct trace_context *context, u64 span_id)
{
	if (!(target->options & OPTION_wire) || wire_is_joined(tuple))
		return;
	if (!go_read_word(persist_conn, target->persist_conn_tls_state))
		wire_arm_plain(slot, tuple, context, span_id);
	else if (target->options & OPTION_write)
		write_arm(target, slot, kind, persist_conn, request, context, span_id);
	else
		count(slot, COUNTER_wire_tls);
}

/* A traced server has a new connection, which its client's side can be joined by. */
static __always_inline void wire_serve(struct target *target, u32 slot, const struct tcp_tuple *tuple)
{
	u32 port = tuple->local_port;

	if (target->options & OPTION_wire)
		wire_served.update(&port, &slot);
}
