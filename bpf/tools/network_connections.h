/* SPDX-License-Identifier: GPL-2.0-only
 *
 * What comes of a target's descriptors that are connections: begun, accepted, duplicated, closed.
 */

static __always_inline u32 network_is_open(struct network_connection *connection)
{
	return connection && connection->closed_ns != connection->began_ns;
}

/* Retransmissions and resets count for a duplicate that is still open. */
static __always_inline void network_let_go(struct network_key *key, struct network_connection *connection)
{
	struct network_key *owner, other = {.slot = key->slot, .descriptor = connection->duplicate - 1};
	struct network_connection *duplicate = connection->duplicate ? network_connections.lookup(&other) : 0;
	u64 sock = connection->sock;

	owner = sock ? network_socks.lookup(&sock) : 0;
	if (!owner || owner->slot != key->slot || owner->descriptor != key->descriptor)
		return;
	if (network_is_open(duplicate) && duplicate->sock == sock)
		network_socks.update(&sock, &other);
	else
		network_socks.delete(&sock);
}

static __always_inline void network_closed(void *ctx, struct tool_target *target, struct network_key *key,
					   struct network_connection *connection)
{
	u64 began_ns = connection->began_ns, sent = connection->sent, received = connection->received;
	struct network_record *record;

	if (connection->closed_ns == began_ns)
		return;
	record = network_reserve(ctx, target, key->slot, NETWORK_CLOSED);
	if (record) {
		network_ends(record, 0);
		record->descriptor = key->descriptor;
		record->began_ns = began_ns;
		record->sent = sent;
		record->received = received;
		if (*(volatile u64 *)&connection->began_ns != began_ns) {
			/* Another thread has the descriptor, and has said that this one is closed. */
			tool_events.ringbuf_discard(record, RB_NO_WAKEUP);
			return;
		}
		tool_events.ringbuf_submit(record, RB_NO_WAKEUP);
	}
	network_let_go(key, connection);
	*(volatile u64 *)&connection->closed_ns = began_ns;
}

/* A descriptor is a connection now. What it was before has been closed by then. */
static __always_inline void network_keep(void *ctx, struct tool_target *target, struct network_key *key, u64 began_ns,
					 u64 sock, u32 state)
{
	struct network_connection *known = network_connections.lookup(key), fresh = {.began_ns = began_ns};

	if (known) {
		network_closed(ctx, target, key, known);
		if (known->closed_ns == began_ns)
			known->closed_ns = 0; /* a duplicate again */
		*(volatile u64 *)&known->began_ns = began_ns;
		known->sent = known->received = 0;
		known->sock = sock;
		known->state = state;
		known->duplicate = 0;
	} else {
		fresh.sock = sock;
		fresh.state = state;
		if (network_connections.update(key, &fresh))
			tool_count(TOOL_COUNTER_connections_full);
	}
	if (sock)
		network_socks.update(&sock, key);
}

/* What came of one in progress; `error`: 0, or an errno. */
static __always_inline void network_done(void *ctx, struct tool_target *target, struct network_key *key,
					 struct network_connection *connection, s32 error)
{
	struct network_record *record;

	connection->state = error ? NETWORK_FAILED : NETWORK_OPEN;
	record = network_reserve(ctx, target, key->slot, NETWORK_DONE);
	if (!record)
		return;
	network_ends(record, 0);
	record->descriptor = key->descriptor;
	record->began_ns = connection->began_ns;
	record->error = error;
	tool_events.ringbuf_submit(record, RB_NO_WAKEUP);
}

/* int connect(int fd, struct sockaddr *address, int bytes) */
static __always_inline void network_connect(void *ctx, struct tool_target *target, struct network_key *key,
					    struct network_call *call, s64 result)
{
	u64 sock, bytes = call->dx - sizeof(u16);
	struct network_connection *known;
	struct network_record *record;
	u64 began_ns;
	u16 family = 0;
	struct {
		u16 family;
		u16 port;
		u32 v4;
		u8 v6[16];
	} name = {};

	bpf_probe_read_user(&family, sizeof(family), (void *)call->si);
	known = network_connections.lookup(key);
	if (family == AF_UNSPEC && known)
		network_closed(ctx, target, key, known); /* connect(2): it dissolves the association */
	if ((family != AF_INET && family != AF_INET6 && family != AF_UNIX) || result == -EALREADY || result == -EBADF)
		return;
	sock = network_sock(key->descriptor);
	if (network_is_open(known) && known->sock == sock) {
		if (known->state == NETWORK_CONNECTING && result != -EINPROGRESS) {
			/* It was asked again, which is another way to learn of its end. */
			network_done(ctx, target, key, known, !result || result == -EISCONN ? 0 : -result);
			return;
		}
		if (result == -EISCONN)
			return;
	}
	began_ns = bpf_ktime_get_ns();
	/* First, since it may have to say that what was there before is closed. */
	network_keep(ctx, target, key, began_ns, sock,
		     !result ? NETWORK_OPEN : result == -EINPROGRESS ? NETWORK_CONNECTING : NETWORK_FAILED);
	record = network_reserve(ctx, target, key->slot, NETWORK_BEGUN);
	if (!record)
		return;
	network_ends(record, sock);
	record->family = family;
	if (family == AF_UNIX) {
		__builtin_memset(record->unix_path, 0, sizeof(record->unix_path));
		CLAMP(bytes, 108);
		bpf_probe_read_user(record->unix_path, bytes, (void *)(call->si + sizeof(u16)));
	} else {
		/* What was asked for: the socket has forgotten it where that failed at once. */
		bpf_probe_read_user(&name, sizeof(name), (void *)call->si);
		record->port = __builtin_bswap16(name.port);
		if (family == AF_INET6) {
			__builtin_memcpy(record->address, name.v6, 16);
		} else {
			connection_mapped_v4((u32 *)record->address, name.v4);
		}
	}
	network_dialled(record, target, key->slot);
	record->descriptor = key->descriptor;
	record->error = -result;
	record->began_ns = began_ns;
	tool_events.ringbuf_submit(record, RB_NO_WAKEUP);
}

/* int getsockopt(int fd, int level, int option, void *value, …): Go asks so for the error of a connect in progress
 * (net/fd_unix.go, (*netFD).connect). */
static __always_inline void network_outcome(void *ctx, struct tool_target *target, struct network_key *key,
					    struct network_call *call)
{
	struct network_connection *connection;
	s32 error = 0;

	if ((u32)call->si != SOL_SOCKET || (u32)call->dx != SO_ERROR)
		return;
	connection = network_connections.lookup(key);
	if (!network_is_open(connection) || connection->state != NETWORK_CONNECTING)
		return;
	bpf_probe_read_user(&error, sizeof(error), (void *)call->r10);
	if (error != EINPROGRESS)
		network_done(ctx, target, key, connection, error == EISCONN ? 0 : error);
}

/* A connection that came, or a port that is listened on. */
static __always_inline void network_own(void *ctx, struct tool_target *target, struct network_key *key, u8 kind)
{
	u64 sock = network_sock(key->descriptor), began_ns = bpf_ktime_get_ns();
	struct network_record *record;

	if (kind == NETWORK_ACCEPTED)
		network_keep(ctx, target, key, began_ns, sock, NETWORK_OPEN);
	record = network_reserve(ctx, target, key->slot, kind);
	if (!record)
		return;
	network_ends(record, sock);
	record->descriptor = key->descriptor;
	record->began_ns = began_ns;
	tool_events.ringbuf_submit(record, RB_NO_WAKEUP);
}

/* int close(int fd). Where the descriptor is there again, with the socket that is known, it was opened since by another
 * thread, which has said that what was there before is closed. */
static __always_inline void network_close(void *ctx, struct tool_target *target, struct network_key *key)
{
	struct network_connection *connection = network_connections.lookup(key);

	if (!network_is_open(connection))
		return;
	if (connection->sock && network_sock(key->descriptor) == connection->sock)
		return;
	network_closed(ctx, target, key, connection);
}

/* int dup(int old), int dup2(int old, int new), int dup3(…), int fcntl(int old, F_DUPFD, …) */
static __always_inline void network_duplicate(void *ctx, struct tool_target *target, struct network_key *key, u32 into)
{
	struct network_connection *connection = network_connections.lookup(key), *known;
	struct network_key other = {.slot = key->slot, .descriptor = into};
	struct network_record *record;

	if (into == key->descriptor)
		return;
	if (!network_is_open(connection)) {
		known = network_connections.lookup(&other);
		if (known)
			network_closed(ctx, target, &other, known);
		return;
	}
	network_keep(ctx, target, &other, connection->began_ns, 0, connection->state);
	known = network_connections.lookup(&other);
	if (!known)
		return;
	known->sock = connection->sock;
	known->duplicate = key->descriptor + 1;
	connection->duplicate = into + 1;
	record = network_reserve(ctx, target, key->slot, NETWORK_DUPLICATED);
	if (!record)
		return;
	network_ends(record, 0);
	record->descriptor = into;
	record->error = key->descriptor;
	record->began_ns = connection->began_ns;
	tool_events.ringbuf_submit(record, RB_NO_WAKEUP);
}

/* int close_range(unsigned first, unsigned last, unsigned flags): network.py closes each that it knows. */
static __always_inline void network_close_range(void *ctx, struct tool_target *target, u32 slot, struct network_call *call)
{
	struct network_record *record;

	if (call->dx & CLOSE_RANGE_CLOEXEC)
		return;
	record = network_reserve(ctx, target, slot, NETWORK_CLOSED_RANGE);
	if (!record)
		return;
	network_ends(record, 0);
	record->descriptor = call->di & 0x7fffffff;
	record->error = (u32)call->si > 0x7fffffff ? 0x7fffffff : (u32)call->si;
	tool_events.ringbuf_submit(record, RB_NO_WAKEUP);
}

/* struct user_msghdr from its control on, and a struct cmsghdr with descriptors: include/linux/socket.h */
struct network_control {
	u64 address;
	u64 bytes;
};

struct network_rights {
	u64 bytes;
	s32 level;
	s32 type;
	u32 descriptors[4]; /* more of one message aren't seen */
};

/* Descriptors that a message brought: another one of a connection that is known, or one that another process had. */
static __always_inline void network_given(void *ctx, struct tool_target *target, u32 slot, u64 message)
{
	struct network_rights rights = {};
	struct network_control control = {};
	struct socket_layout *layout;
	struct network_key *known, key = {.slot = slot}, owner;
	u32 index, zero = 0;
	u64 sock, about;

	bpf_probe_read_user(&control, sizeof(control), (void *)(message + 32));
	if (!control.address || control.bytes <= 16)
		return;
	bpf_probe_read_user(&rights, sizeof(rights), (void *)control.address);
	layout = socket_layout.lookup(&zero);
	if (!layout || rights.level != SOL_SOCKET || rights.type != SCM_RIGHTS)
		return;
	for (index = 0; index < 4; index++) {
		if (rights.bytes < 20 + 4 * index)
			break;
		key.descriptor = rights.descriptors[index];
		sock = network_sock(key.descriptor);
		known = sock ? network_socks.lookup(&sock) : 0;
		if (known && known->slot == slot) {
			owner = *known;
			network_duplicate(ctx, target, &owner, key.descriptor);
			continue;
		}
		/* skc_family, skc_state: include/net/sock.h, struct sock_common */
		about = sock ? kernel_word(sock, layout->sock_family) : 0;
		if ((about & 0xffff) != AF_INET && (about & 0xffff) != AF_INET6)
			continue;
		if ((about >> 16 & 0xff) == TCP_ESTABLISHED)
			network_own(ctx, target, &key, NETWORK_ACCEPTED);
		else if ((about >> 16 & 0xff) == TCP_LISTEN)
			network_own(ctx, target, &key, NETWORK_LISTENS);
	}
}
