/* SPDX-License-Identifier: GPL-2.0-only
 *
 * What grpc_client.bpf.c keeps between start and end of a call, and the records that it submits.
 */

/* Between start and end. grpc and its caller hold the connection and the method's text. */
struct grpc_client_in_flight {
	CLIENT_SPAN_MEMBERS
	u64 bias;	    /* load bias of the executable */
	u64 client_conn;
	u64 ctx[2]; /* the words of the call's context.Context, which its clientStream holds */
	struct go_string method; /* /package.Service/Method */
	u32 peer[4];		 /* address as on the wire, IPv4 as ::ffff:a.b.c.d; zeros: not known */
	u16 peer_port;
	u16 status; /* of its end */
	struct connection_key connection; /* with the stream; port 0: the span wasn't published */
};

struct grpc_client_fixed {
	struct span_header header;
	u32 peer[4];
	u16 peer_port;
	u16 status;
	u16 method_bytes;
	u16 target_bytes;
	u16 metadata_bytes;
	u16 reserved[3];
};

struct grpc_client_record_256 {
	struct grpc_client_fixed fixed;
	char method[96];
	char target[72];
};

struct grpc_client_record_1024 {
	struct grpc_client_fixed fixed;
	struct captured metadata;
	char method[232];
	char target[256];
};

_Static_assert(sizeof(struct grpc_client_record_256) == 256, "stride of ring_256");
_Static_assert(sizeof(struct grpc_client_record_1024) == 1024, "stride of ring_1024");
_Static_assert(sizeof(struct captured_walk) <= sizeof(((struct grpc_client_record_1024 *)0)->target), "its place");

/* By g, as .goid, until a stream has been opened; then by its *clientStream. A unary call stays on its goroutine. */
BPF_HASH(grpc_client_inflight, struct goroutine_key, struct grpc_client_in_flight, 16384);

static __always_inline struct goroutine_key grpc_client_key(u64 goid, u32 slot)
{
	struct goroutine_key key = {.goid = goid, .slot = slot, .kind = KIND_grpc_client};

	return key;
}

/* By span id, streams that have ended: their context's end and the program's next read of them may come at one moment, on two
 * goroutines, each of which calls finish. */
BPF_TABLE("lru_hash", struct goroutine_key, u32, grpc_client_ended, 16384);

/* By g, what it repeats of a stream that the program has already: nothing else leads from there to the call. */
struct grpc_client_repeated {
	u64 goid; /* whose this is: memory of a g is used again */
	u64 stream; /* *clientStream */
};

BPF_TABLE("lru_hash", struct goroutine_key, struct grpc_client_repeated, grpc_client_repeats, 1024);

/* The call whose stream a goroutine repeats, by its g in `key`, which is used up; NULL where it does nothing such. */
static __always_inline struct grpc_client_in_flight *grpc_client_repeated_by(struct target *target, struct goroutine_key *key)
{
	struct grpc_client_repeated *repeated = grpc_client_repeats.lookup(key);

	if (!repeated || repeated->goid != go_read_word(key->goid, target->g_goid))
		return 0;
	key->goid = repeated->stream;
	return grpc_client_inflight.lookup(key);
}

/* Interfaces between what NewStream gives and the *clientStream: grpc's own wrapper and those of interceptors, which hold the
 * next one first. */
#define GRPC_CLIENT_WRAPPERS 5
/* Names with values that AppendToOutgoingContext was given. */
#define GRPC_CLIENT_PAIRS 24
