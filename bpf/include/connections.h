/* SPDX-License-Identifier: GPL-2.0-only
 *
 * Which client span a server's request belongs to, where both ends of the TCP connection are on this host: the client's
 * side publishes its span under the connection's identity, the server's side takes it from there. Not a byte on the wire
 * changes, so TLS is as good as plaintext.
 *
 * A connection's identity is the client's own address and port (the server's half changes behind address translation) and
 * the sequence number that the client's kernel began with, random for each connection (RFC 6528), which both ends know.
 * Over HTTP/2, which carries requests side by side, a request's number there is the last part of its identity.
 * So a port that is used again, or by two connections to different servers at once, never joins what doesn't belong
 * together. On loopback addresses the network namespace is part of it.
 *
 * Go's net.Conn leads to a file descriptor, the current task's files to the kernel's socket. Where its members lie is
 * data: the agent reads the kernel's BTF (otel_goprobe/kernel/sockets.py) and fills `socket_layout`.
 */

/* A request that a client has handed to its connection is not taken later than this. */
#define CONNECTION_MAX_AGE_NS 10000000000ULL

/* Interfaces between a client's or server's net.Conn and its *net.TCPConn: *tls.Conn and most wrappers hold theirs first. */
#define CONNECTION_MAX_WRAPPERS 4

/* The client's half. Addresses as on the wire, IPv4 as ::ffff:a.b.c.d. */
struct connection_key {
	u32 address[4];
	u32 port;
	u32 sequence;
	u32 network; /* inode of the network namespace where the address is a loopback one, else 0 */
	u32 stream;  /* HTTP/2's number of the request on its connection; 0: the connection's only one */
};

/* What is found out about a connection once. `key.port` 0: it can't be joined. */
struct connection {
	struct connection_key key;
	u32 generation; /* of the target */
	struct tcp_tuple tuple;
	u64 object; /* Go's */
	u64 words[2]; /* what is read on the way: the stack has no room */
};

/* Clients', by library and *http.persistConn. */
BPF_TABLE("lru_hash", struct goroutine_key, struct connection, connections, 16384);
/* Never written to: a new one, for which the stack has no room. */
BPF_ARRAY(connection_blank, struct connection, 1);

/* The request that a client has handed to its connection. `span_id` 0: taken, or over. */
struct connection_request {
	u64 trace_id[2];
	u64 span_id;
	u64 published_ns;
	u32 sequence; /* the key's: an element that was evicted and became another's meanwhile is told by it */
	u32 flags;
};

/* One on the host: agents find it by its name, which has as many characters as the kernel keeps, and its sizes
 * (otel_goprobe/kernel/shared_maps.py). A change of key or value takes another name. */
BPF_TABLE("lru_hash", struct connection_key, struct connection_request, goprobe_conn_v2, 32768);

#define compiler_barrier() asm volatile("" ::: "memory")

/* The first sequence number of what the client sent. Both numbers move while data comes: read until they agree. */
static __always_inline u32 connection_sequence(u64 sock, u32 next_offset, u32 counted_offset)
{
	u32 next = 0, counted = 0, again = 1;

#pragma clang loop unroll(disable)
	for (u32 i = 0; i < 3; i++) {
		counted = kernel_word(sock, counted_offset);
		next = kernel_word(sock, next_offset);
		again = kernel_word(sock, counted_offset);
		if (counted == again)
			return next - counted;
	}
	return 0;
}

/* The socket of one of the current process's file descriptors. Returns 0 where it isn't a TCP socket. */
static __always_inline u64 connection_sock(struct socket_layout *layout, u32 descriptor)
{
	u64 files = kernel_word(bpf_get_current_task(), layout->task_files);
	u64 table = kernel_word(kernel_word(files, layout->files_fdt), layout->fdtable_fd);
	u64 file = kernel_word(table, 8 * descriptor);
	u64 sock = kernel_word(kernel_word(file, layout->file_private_data), layout->socket_sk);

	return (kernel_word(sock, layout->sock_protocol) & 0xffff) == IPPROTO_TCP ? sock : 0;
}

static __always_inline void connection_addresses(struct socket_layout *layout, u64 sock, struct tcp_tuple *tuple)
{
	u32 family = kernel_word(sock, layout->sock_family) & 0xffff;
	u32 ports = kernel_word(sock, layout->sock_ports);

	tuple->remote_port = __builtin_bswap16(ports);
	tuple->local_port = ports >> 16;
	tuple->reserved = 0;
	if (family == AF_INET6) {
		bpf_probe_read_kernel(tuple->local_ip, 16, (void *)(sock + layout->sock_local_v6));
		bpf_probe_read_kernel(tuple->remote_ip, 16, (void *)(sock + layout->sock_remote_v6));
	} else {
		u64 addresses = kernel_word(sock, layout->sock_addresses);

		connection_mapped_v4(tuple->local_ip, addresses >> 32);
		connection_mapped_v4(tuple->remote_ip, addresses);
	}
}

/* A word of the target's memory that is in use right now. */
static __always_inline u64 connection_word(u64 object, u16 offset)
{
	u64 word = 0;

	if (object && offset != MISSING)
		read_user_present(&word, sizeof(word), object + offset);
	return word;
}

/* The object in an interface that is a field. */
static __always_inline u64 go_read_interface(u64 object, u16 offset)
{
	return offset == MISSING ? 0 : connection_word(object, offset + 8);
}

/* The *net.netFD of the net.Conn that lies at `interface`; 0 where no *net.TCPConn is in it. */
static __always_inline u64 connection_net_fd(struct target *target, u64 interface, u64 bias, u64 *words)
{
	if (!target->tcp_conn_itab)
		return 0;
	words[1] = interface;
#pragma clang loop unroll(disable)
	for (u32 i = 0; i < CONNECTION_MAX_WRAPPERS; i++) {
		if (!words[1] || read_user_present(words, 16, words[1]))
			return 0;
		if (words[0] == target->tcp_conn_itab + bias)
			return connection_word(words[1], target->tcp_conn_fd);
	}
	return 0;
}

/* Finds out about a connection; leaves `key.port` 0, and returns 1, where it can't be joined. Returns 0 also where nothing
 * is known of the kernel's sockets, which has been said once for all. Several streams of a connection may be at it at once:
 * each writes the same, and nothing that isn't so. */
static __always_inline u32 connection_resolve(struct target *target, u64 interface, u64 bias, u32 is_server,
					       struct connection *connection)
{
	struct tcp_tuple *tuple = &connection->tuple;
	struct connection_key *key = &connection->key;
	struct socket_layout *layout;
	u64 net_fd, sock, go_port;
	u32 zero = 0, network = 0;

	key->stream = 0;
	layout = socket_layout.lookup(&zero);
	if (!layout || !layout->task_files) {
		key->port = 0;
		return 0;
	}
	net_fd = connection_net_fd(target, interface, bias, connection->words);
	sock = net_fd ? connection_sock(layout, connection_word(net_fd, target->net_fd_sysfd)) : 0;
	if (!sock) {
		key->port = 0;
		return 1;
	}
	connection_addresses(layout, sock, tuple);
	if (is_server) {
		__builtin_memcpy(key->address, tuple->remote_ip, 16);
		key->sequence = connection_sequence(sock, layout->tcp_rcv_nxt, layout->tcp_bytes_received) - 1;
	} else {
		__builtin_memcpy(key->address, tuple->local_ip, 16);
		key->sequence = connection_sequence(sock, layout->tcp_snd_una, layout->tcp_bytes_acked);
	}
	if (connection_is_loopback(key->address))
		network = kernel_word(kernel_word(sock, layout->sock_net), layout->net_inode);
	key->network = network;
	/* The descriptor may have been closed, and be another's by now: what Go noted when it was opened has to agree. */
	go_port = go_read_interface(net_fd, is_server ? target->net_fd_raddr : target->net_fd_laddr);
	go_port = connection_word(go_port, target->tcp_addr_port);
	key->port = go_port == (is_server ? tuple->remote_port : tuple->local_port) ? go_port : 0;
	return !key->port;
}

/* What is known of a connection, made where there is nothing yet; NULL where there is no room. */
static __always_inline struct connection *connection_known(struct goroutine_key *own)
{
	struct connection *known = connections.lookup(own), *blank;
	u32 zero = 0;

	if (known)
		return known;
	blank = connection_blank.lookup(&zero);
	if (blank)
		connections.update(own, blank);
	return connections.lookup(own);
}

/* A server has a new connection: fills `key`, port 0 where it can't be joined.
 *
 * http_conn: the *http.conn. connection: in memory that is no stack, clobbered. */
static __always_inline void connection_of_server(struct target *target, u32 slot, u64 http_conn, u64 bias,
						 struct connection *connection, struct connection_key *key)
{
	key->port = 0;
	if (!(target->options & OPTION_local) || target->http_conn_rwc == MISSING)
		return;
	if (connection_resolve(target, http_conn + target->http_conn_rwc, bias, 1, connection))
		count(slot, COUNTER_unjoinable_connections);
	*key = connection->key;
}

/* A server's request has begun on a connection: its parent's span id, 0 for none. A header (`parent_span_id`, `context`)
 * that names another trace wins; one that names the same is out of date: a proxy passed it on. Each published request is
 * taken once. */
static __always_inline u64 connection_adopt(struct connection_key *key, u64 now_ns, struct trace_context *context,
					    u64 parent_span_id)
{
	struct connection_request *request = key->port ? goprobe_conn_v2.lookup(key) : 0;
	u64 span_id, trace_id[2], flags;

	if (!request || !request->span_id)
		return parent_span_id;
	span_id = request->span_id;
	request->span_id = 0;
	if (request->sequence != key->sequence || now_ns - request->published_ns > CONNECTION_MAX_AGE_NS)
		return parent_span_id;
	trace_id[0] = request->trace_id[0];
	trace_id[1] = request->trace_id[1];
	flags = request->flags;
	if (key->stream)
		goprobe_conn_v2.delete(key); /* there is one for each request */
	if (parent_span_id && (trace_id[0] != context->trace_id[0] || trace_id[1] != context->trace_id[1]))
		return parent_span_id;
	context->trace_id[0] = trace_id[0];
	context->trace_id[1] = trace_id[1];
	context->flags = flags;
	return span_id;
}

/* What is known of the connection that `own` stands for, NULL where it can't be joined, counted once a connection. Looked at
 * anew where `object`, what Go has there, is another, or `is_new`. Several of its streams may come at once: whoever does
 * before all is known looks for himself.
 *
 * interface: where its net.Conn lies. */
static __always_inline struct connection *connection_of(struct target *target, struct goroutine_key *own, u64 interface,
							 u64 bias, u32 is_server, u64 object, u32 is_new)
{
	struct connection *connection = connection_known(own);

	if (!connection)
		return 0;
	if (connection->generation != target->generation || connection->object != object || is_new) {
		if (connection_resolve(target, interface, bias, is_server, connection))
			count(own->slot, COUNTER_unjoinable_connections);
		compiler_barrier(); /* now others need not */
		connection->generation = target->generation;
		connection->object = object;
	}
	return connection->key.port ? connection : 0;
}

/* What is read at once of a *http.persistConn: from `conn` on, `nwrite` in each Go from 1.19 to 1.27. */
#define CONNECTION_BLOCK_WORDS 8

/* The connection that a client is about to use, as connection_of.
 *
 * kind: the library's. persist_conn: the *http.persistConn; the two offsets: of its `conn` and `nwrite`. Go uses memory
 * again: a connection that hasn't been written to is looked at anew. */
static __always_inline struct connection *connection_of_client(struct target *target, u32 slot, u32 kind, u64 persist_conn,
							       u16 conn_offset, u16 nwrite_offset, u64 bias)
{
	struct goroutine_key own = {.goid = persist_conn, .slot = slot, .kind = kind};
	u64 words[CONNECTION_BLOCK_WORDS] = {};
	u64 object, written;
	u16 apart = nwrite_offset - conn_offset;

	if (conn_offset == MISSING || nwrite_offset == MISSING)
		return 0;
	if (apart < sizeof(words) && apart % 8 == 0) {
		read_user_present(words, sizeof(words), persist_conn + conn_offset);
		object = words[1];
		written = words[apart / 8 % CONNECTION_BLOCK_WORDS];
	} else {
		object = go_read_interface(persist_conn, conn_offset);
		written = connection_word(persist_conn, nwrite_offset);
	}
	return connection_of(target, &own, persist_conn + conn_offset, bias, 0, object, !written);
}

/* The connection of an HTTP/2 client or server, which carries many requests at once, as connection_of. Go uses memory again:
 * what may be a new one, as a first stream tells, is looked at anew. */
static __always_inline __attribute__((unused)) struct connection *connection_of_streams(struct target *target,
											struct goroutine_key *own,
											u64 interface, u64 bias, u32 is_server,
											u32 stream)
{
	return connection_of(target, own, interface, bias, is_server, connection_word(interface, 8), stream == 1);
}

/* A client's span is the one that its connection carries now. */
static __always_inline void connection_publish(struct target *target, struct connection_key *key,
					       const struct trace_context *context, u64 span_id)
{
	struct connection_request *request;
	struct connection_request first = {};

	if (!(target->options & OPTION_local))
		return;
	request = goprobe_conn_v2.lookup(key);
	if (!request) {
		first.trace_id[0] = context->trace_id[0];
		first.trace_id[1] = context->trace_id[1];
		first.flags = context->flags;
		first.sequence = key->sequence;
		first.span_id = span_id;
		first.published_ns = bpf_ktime_get_ns();
		goprobe_conn_v2.update(key, &first);
		return;
	}
	request->span_id = 0;
	compiler_barrier();
	request->trace_id[0] = context->trace_id[0];
	request->trace_id[1] = context->trace_id[1];
	request->flags = context->flags;
	request->sequence = key->sequence;
	request->published_ns = bpf_ktime_get_ns();
	compiler_barrier();
	request->span_id = span_id;
}

/* A client's span is over; a copy of its connection's key, whose port is 0 where nothing was published. */
static __always_inline void connection_retract(struct connection_key *key, u64 span_id)
{
	struct connection_request *request = key->port ? goprobe_conn_v2.lookup(key) : 0;

	if (!request || request->span_id != span_id)
		return;
	request->span_id = 0;
	if (key->stream)
		goprobe_conn_v2.delete(key);
}
