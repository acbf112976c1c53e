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
#define NR_DUP 32
#define NR_DUP2 33
#define NR_SENDFILE 40
#define NR_CONNECT 42
#define NR_ACCEPT 43
#define NR_SENDTO 44
#define NR_RECVFROM 45
#define NR_SENDMSG 46
#define NR_RECVMSG 47
#define NR_LISTEN 50
#define NR_GETSOCKOPT 55
#define NR_FCNTL 72
#define NR_SPLICE 275
#define NR_ACCEPT4 288
#define NR_DUP3 292
#define NR_SENDMMSG 307
#define NR_RECVMMSG 299
#define NR_CLOSE_RANGE 436

#define AF_UNSPEC 0
#define AF_UNIX 1
#define IPPROTO_UDP 17
#define F_DUPFD 0
#define F_DUPFD_CLOEXEC 1030
#define CLOSE_RANGE_CLOEXEC 4
#define SOL_SOCKET 1
#define SO_ERROR 4
#define SCM_RIGHTS 1
#define TCP_ESTABLISHED 1 /* include/net/tcp_states.h */
#define TCP_LISTEN 10
#define EBADF 9
#define EISCONN 106
#define EALREADY 114
#define EINPROGRESS 115
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
	NETWORK_DUPLICATED, /* `descriptor` is what `error` is, too */
	NETWORK_CLOSED_RANGE, /* from `descriptor` to `error`, both closed */
	NETWORK_SENT_TO,      /* first datagram of a socket that isn't connected to a destination, `began_ns`: the socket's */
	NETWORK_RECEIVED_FROM,
};

enum network_state {
	NETWORK_CONNECTING,
	NETWORK_OPEN,
	NETWORK_FAILED,
	NETWORK_DATAGRAMS, /* a UDP socket that isn't connected */
};

/* One of a target's descriptors. */
struct network_key {
	u32 slot;
	u32 descriptor;
};

/* Stays when its descriptor is closed, for the next one: another thread may have the descriptor by the time that the end of
 * close is seen, so nobody may delete. Then `closed_ns` is `began_ns`; who comes next writes `began_ns`, before all else. */
struct network_connection {
	u64 began_ns; /* tells it from others of the same descriptor; the same for duplicates */
	u64 closed_ns;
	u64 sent;
	u64 received;
	u64 sock;
	u32 state;
	u32 duplicate; /* a descriptor of the same socket, plus one */
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

/* What a system call was given, as struct pt_regs keeps it from r10 on. */
struct network_call {
	u64 r10, r9, r8, ax, cx, dx, si, di, number;
};

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
	u64 address, bytes;
	u32 zero = 0;

	record->family = record->port = record->local_port = 0;
	record->protocol = 0;
	layout = socket_layout.lookup(&zero);
	if (!layout || !sock)
		return;
	record->family = kernel_word(sock, layout->sock_family);
	record->protocol = kernel_word(sock, layout->sock_protocol);
	if (record->family == AF_UNIX && layout->unix_addr) {
		/* Of what is accepted it is that of the listening socket. */
		address = kernel_word(sock, layout->unix_addr);
		bytes = (u32)kernel_word(address, layout->unix_length) - sizeof(u16);
		CLAMP(bytes, 108);
		if (address)
			bpf_probe_read_kernel(record->unix_path, bytes, (void *)(address + layout->unix_name + sizeof(u16)));
	}
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

/* Of what needs neither goroutine nor stack. */
static __always_inline void network_header(struct tool_header *header, u32 slot, u8 kind)
{
	header->slot = slot;
	header->kind = kind;
	header->frames = 0;
	header->trace_flags = 0;
	header->time_ns = bpf_ktime_get_ns();
	header->goid = header->span_id = 0;
}

static __always_inline struct network_record *network_reserve(void *ctx, struct tool_target *target, u32 slot, u8 kind)
{
	struct network_record *record = tool_events.ringbuf_reserve(sizeof(*record));

	if (!record) {
		tool_count(TOOL_COUNTER_ring_full);
		return 0;
	}
	if (kind == NETWORK_BEGUN || kind == NETWORK_LISTENS || kind == NETWORK_SENT_TO) {
		tool_fill(ctx, &record->header, target, slot, kind);
	} else {
		network_header(&record->header, slot, kind);
	}
	record->began_ns = record->sent = record->received = 0;
	record->name_bytes = record->error = 0;
	__builtin_memset(record->unix_path, 0, sizeof(record->unix_path));
	return record;
}

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
