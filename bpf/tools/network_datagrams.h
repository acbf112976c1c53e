/* SPDX-License-Identifier: GPL-2.0-only
 *
 * Bytes of connections, and of UDP sockets that aren't connected, by who is at the other end.
 */

/* What goes between such a socket and one other end. */
struct network_peer {
	u64 began_ns; /* the socket's, since its descriptor is used again */
	u32 slot;
	u16 port;
	u16 reserved;
	u8 address[16];
};

struct network_flow {
	u64 sent;
	u64 received;
};

BPF_TABLE("lru_hash", struct network_peer, struct network_flow, network_flows, 16384);

/* struct user_msghdr and struct mmsghdr: include/linux/socket.h */
struct network_message {
	u64 name;
	u32 name_bytes;
	u32 reserved;
	u64 rest[5];
	u32 bytes; /* of mmsghdr */
	u32 padding;
};
#define NETWORK_MESSAGES 16 /* of one sendmmsg that are counted; glibc's resolver sends two */

/* Counts a datagram whose other end's struct sockaddr is at `name`. */
static __always_inline void network_datagram(void *ctx, struct tool_target *target, struct network_key *key, u64 name,
					     u64 bytes, u8 kind)
{
	struct network_connection *socket = network_connections.lookup(key);
	struct network_flow *flow, fresh = {};
	struct network_peer peer = {.slot = key->slot};
	struct socket_layout *layout;
	struct network_record *record;
	u32 zero = 0;
	struct {
		u16 family;
		u16 port;
		u32 v4;
		u8 v6[16];
	} other = {};
	u64 sock;

	if (!name || bpf_probe_read_user(&other, sizeof(other.family) + sizeof(other.port) + sizeof(other.v4), (void *)name))
		return;
	if (other.family == AF_INET) {
		connection_mapped_v4((u32 *)peer.address, other.v4);
	} else if (other.family == AF_INET6) {
		bpf_probe_read_user(peer.address, sizeof(peer.address), (void *)(name + 8));
	} else {
		return;
	}
	peer.port = __builtin_bswap16(other.port);
	if (!network_is_open(socket)) {
		layout = socket_layout.lookup(&zero);
		sock = network_sock(key->descriptor);
		if (!layout || !sock || (kernel_word(sock, layout->sock_protocol) & 0xffff) != IPPROTO_UDP)
			return;
		network_keep(ctx, target, key, bpf_ktime_get_ns(), sock, NETWORK_DATAGRAMS);
		socket = network_connections.lookup(key);
		if (!socket)
			return;
	}
	peer.began_ns = socket->began_ns;
	flow = network_flows.lookup(&peer);
	if (!flow) {
		network_flows.update(&peer, &fresh);
		flow = network_flows.lookup(&peer);
		record = flow ? network_reserve(ctx, target, key->slot, kind) : 0;
		if (!record)
			return;
		network_ends(record, socket->sock);
		network_dialled(record, target, key->slot);
		record->family = other.family;
		record->protocol = IPPROTO_UDP;
		record->port = peer.port;
		__builtin_memcpy(record->address, peer.address, 16);
		record->descriptor = key->descriptor;
		record->began_ns = peer.began_ns;
		tool_events.ringbuf_submit(record, RB_NO_WAKEUP);
	}
	__sync_fetch_and_add(kind == NETWORK_SENT_TO ? &flow->sent : &flow->received, bytes);
}

/* Counts bytes of a descriptor. `name`: where the other end's address is, if it may be a socket that isn't connected. */
static __always_inline void network_moved(void *ctx, struct tool_target *target, struct network_key *key, u64 name,
					  u64 bytes, u8 kind)
{
	struct network_connection *connection = network_connections.lookup(key);
	u64 sock;

	if (!network_is_open(connection) || connection->state == NETWORK_DATAGRAMS) {
		network_datagram(ctx, target, key, name, bytes, kind);
		return;
	}
	if (!connection->sock) {
		/* Taken from /proc. */
		sock = network_sock(key->descriptor);
		connection->sock = sock;
		if (sock)
			network_socks.update(&sock, key);
	}
	__sync_fetch_and_add(kind == NETWORK_SENT_TO ? &connection->sent : &connection->received, bytes);
}

/* sendmmsg and recvmmsg: `count` messages, each with its own length. */
static __always_inline void network_moved_many(struct network_key *key, u64 messages, u64 count, u8 kind)
{
	struct network_connection *connection = network_connections.lookup(key);
	u64 bytes = 0;
	u32 index, one;

	if (!network_is_open(connection) || connection->state == NETWORK_DATAGRAMS)
		return;
	for (index = 0; index < NETWORK_MESSAGES; index++) {
		if (index >= count)
			break;
		one = 0;
		bpf_probe_read_user(&one, sizeof(one), (void *)(messages + index * sizeof(struct network_message) +
								__builtin_offsetof(struct network_message, bytes)));
		bytes += one;
	}
	__sync_fetch_and_add(kind == NETWORK_SENT_TO ? &connection->sent : &connection->received, bytes);
}
