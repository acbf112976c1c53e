/* SPDX-License-Identifier: GPL-2.0-only
 *
 * What network.bpf.c keeps of a target's descriptors, what it submits, and how it reads the kernel's sockets.
 */

/* arch/x86/entry/syscalls/syscall_64.tbl */
#define NR_READ 0
#define NR_WRITE 1
#define NR_CLOSE 3
#define NR_READV 19
#define NR_WRITEV 20
#define NR_SENDFILE 40
#define NR_CONNECT 42
#define NR_ACCEPT 43
#define NR_SENDTO 44
#define NR_RECVFROM 45
#define NR_SENDMSG 46
#define NR_RECVMSG 47
#define NR_LISTEN 50
#define NR_GETSOCKOPT 55
#define NR_SPLICE 275
#define NR_ACCEPT4 288

#define AF_UNIX 1
#define SOL_SOCKET 1
#define SO_ERROR 4
#define EINPROGRESS 115
#define EISCONN 106
#define NETWORK_NAME 128

enum network_kind {
	NETWORK_BEGUN,	/* connect was called; `error`: its result, EINPROGRESS where that isn't known yet */
	NETWORK_DONE,	/* what came of one in progress */
	NETWORK_ACCEPTED,
	NETWORK_CLOSED,
	NETWORK_LISTENS,
	NETWORK_RETRANSMITTED,
	NETWORK_RESET,
	NETWORK_NAME_ASKED, /* `error`: enum network_lookup_error; `received`: how many addresses, `address`: the first */
};

enum network_state {
	NETWORK_CONNECTING,
	NETWORK_OPEN,
	NETWORK_FAILED,
};

/* One of a target's descriptors. */
struct network_key {
	u32 slot;
	u32 descriptor;
};

struct network_connection {
	u64 began_ns; /* tells it from others of the same descriptor */
	u64 sent;
	u64 received;
	u64 sock;
	u32 state;
	u32 reserved;
};

BPF_HASH(network_connections, struct network_key, struct network_connection, 131072);

/* The kernel's struct sock -> descriptor, for what happens to a connection in no process. */
BPF_HASH(network_socks, u64, struct network_key, 131072);

/* What a goroutine dials, by its id, with .kind 1 which name it looks up: left there, since the next dial of the goroutine replaces it. */
struct network_dial {
	u64 trace_id[2];
	u64 span_id; /* 0: none is known */
	u8 trace_flags;
	u8 reserved[5];
	u16 name_bytes;
	u64 bias;		 /* load bias of the executable */
	char name[NETWORK_NAME]; /* host:port, a path, or a name that is looked up */
};

BPF_TABLE("lru_hash", struct goroutine_key, struct network_dial, network_dials, 16384);
BPF_PERCPU_ARRAY(network_blank, struct network_dial, 1);

struct network_record {
	struct tool_header header;
	u64 began_ns;
	u64 sent;
	u64 received;
	s32 descriptor;
	s32 error;
	u16 family;
	u16 port;      /* of the other side; of its own for NETWORK_LISTENS */
	u16 local_port;
	u8 protocol;   /* IPPROTO_* */
	u8 name_bytes; /* of `name` */
	u8 address[16]; /* of the other side, IPv4 as ::ffff:a.b.c.d */
	u8 local_address[16];
	char unix_path[112];
	char name[NETWORK_NAME];
};

/* Writes both ends of a socket into a record, as the kernel has them. */
static __always_inline void network_ends(struct network_record *record, u64 sock)
{
	struct tcp_tuple tuple = {};
	struct socket_layout *layout;
	u32 zero = 0;

	record->family = record->port = record->local_port = 0;
	record->protocol = 0;
	layout = socket_layout.lookup(&zero);
	if (!layout || !sock)
		return;
	record->family = kernel_word(sock, layout->sock_family);
	record->protocol = kernel_word(sock, layout->sock_protocol);
	if (record->family != AF_INET && record->family != AF_INET6)
		return;
	connection_addresses(layout, sock, &tuple);
	__builtin_memcpy(record->address, tuple.remote_ip, 16);
	__builtin_memcpy(record->local_address, tuple.local_ip, 16);
	record->port = tuple.remote_port;
	record->local_port = tuple.local_port;
}

/* The kernel's socket behind a descriptor; 0 where it isn't known. */
static __always_inline u64 network_sock(u32 descriptor)
{
	struct socket_layout *layout;
	u64 files, table, file;
	u32 zero = 0;

	layout = socket_layout.lookup(&zero);
	if (!layout || !layout->task_files)
		return 0;
	files = kernel_word(bpf_get_current_task(), layout->task_files);
	table = kernel_word(kernel_word(files, layout->files_fdt), layout->fdtable_fd);
	file = kernel_word(table, 8 * (u64)descriptor);
	return kernel_word(kernel_word(file, layout->file_private_data), layout->socket_sk);
}

static __always_inline struct network_record *network_reserve(void *ctx, struct tool_target *target, u32 slot, u8 kind)
{
	struct network_record *record = tool_events.ringbuf_reserve(sizeof(*record));

	if (!record) {
		tool_count(TOOL_COUNTER_ring_full);
		return 0;
	}
	tool_fill(ctx, &record->header, target, slot, kind);
	record->began_ns = record->sent = record->received = 0;
	record->name_bytes = record->error = 0;
	record->unix_path[0] = 0;
	return record;
}

static __always_inline void network_keep(struct network_key *key, u64 began_ns, u64 sock, u32 state)
{
	struct network_connection connection = {.began_ns = began_ns, .sock = sock, .state = state};

	if (network_connections.update(key, &connection))
		tool_count(TOOL_COUNTER_connections_full);
	if (sock)
		network_socks.update(&sock, key);
}
