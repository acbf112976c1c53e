/* SPDX-License-Identifier: GPL-2.0-only
 *
 * The kernel's sockets: where their members lie, which is data (otel_goprobe/kernel/sockets.py fills `socket_layout` out of
 * BTF), and the two ends of a TCP connection.
 */

#define AF_INET 2
#define AF_INET6 10
#define IPPROTO_TCP 6

/* Offsets in bytes. Names: kernel 5.15 to 6.18, by BTF. */
struct socket_layout {
	u32 task_files; /* struct task_struct; 0: the layout isn't known */
	u32 files_fdt;
	u32 fdtable_fd;
	u32 file_private_data;
	u32 socket_sk;
	u32 sock_protocol;
	u32 sock_family;
	u32 sock_addresses; /* skc_daddr, skc_rcv_saddr */
	u32 sock_ports;	    /* skc_dport in network order, skc_num in host order */
	u32 sock_remote_v6;
	u32 sock_local_v6;
	u32 sock_net;
	u32 net_inode;
	u32 tcp_snd_una;
	u32 tcp_bytes_acked;
	u32 tcp_rcv_nxt;
	u32 tcp_bytes_received;
	u32 task_tgid;
	u32 unix_addr; /* struct unix_sock; 0: the kernel's BTF doesn't say, being a module's */
	u32 unix_length; /* struct unix_address */
	u32 unix_name;
};

BPF_ARRAY(socket_layout, struct socket_layout, 1);

/* Both halves, seen from the process whose socket it is; ports in host order. Addresses as on the wire, IPv4 as
 * ::ffff:a.b.c.d. otel_goprobe/kernel/sockhash.py packs the same. */
struct tcp_tuple {
	u32 local_ip[4];
	u32 remote_ip[4];
	u16 local_port;
	u16 remote_port;
	u32 reserved;
};

/* The third word of such an IPv4 address. */
#define IPV4_PREFIX 0xffff0000

static __always_inline u64 kernel_word(u64 object, u32 offset)
{
	u64 word = 0;

	bpf_probe_read_kernel(&word, sizeof(word), (void *)(object + offset));
	return word;
}

static __always_inline void connection_mapped_v4(u32 *address, u32 v4)
{
	address[0] = address[1] = 0;
	address[2] = IPV4_PREFIX;
	address[3] = v4;
}

static __always_inline u32 connection_is_loopback(const u32 *address)
{
	if (address[0] | address[1])
		return 0;
	if (address[2] == IPV4_PREFIX)
		return (address[3] & 0xff) == 127;
	return !address[2] && address[3] == 0x01000000;
}
