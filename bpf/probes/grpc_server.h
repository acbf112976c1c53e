/* SPDX-License-Identifier: GPL-2.0-only
 *
 * What grpc_server.bpf.c keeps between start and end of a call, and the records that it submits.
 */

#define GRPC_MAX_TRACESTATE 176

/* Uses of the stack by a call's start, one after the other. */
union grpc_server_scratch {
	struct grpc_value_context value;
	struct go_walk walk;
	struct traceparent_text text;
};

/* Between start and end of a call, which has its goroutine to itself. grpc holds the stream, and with it all texts. */
struct grpc_server_in_flight {
	u64 start_ns;
	u64 span_id;
	struct trace_context context;
	u64 parent_span_id; /* 0: a root */
	u64 bias; /* load bias of the executable */
	struct go_string method; /* /package.Service/Method */
	struct go_string tracestate;
	u32 peer[4]; /* address as on the wire, IPv4 as ::ffff:a.b.c.d; zeros: not known */
	u32 local[4];
	u16 peer_port;
	u16 local_port;
	u16 status;
	u16 reserved;
	u64 metadata; /* the map; 0: none */
	struct go_string headers[HEADERS]; /* for the start */
	struct connection_key joined;	   /* likewise */
};

struct grpc_server_fixed {
	struct span_header header;
	u32 peer[4];
	u32 local[4];
	u16 peer_port;
	u16 local_port;
	u16 status; /* GRPC_STATUS_NONE where none was written */
	u16 method_bytes;
	u16 tracestate_bytes;
	u16 metadata_bytes;
	u16 reserved[2];
};

struct grpc_server_record_256 {
	struct grpc_server_fixed fixed;
	char method[152];
};

struct grpc_server_record_1024 {
	struct grpc_server_fixed fixed;
	char method[296];
	struct captured metadata;
	char tracestate[GRPC_MAX_TRACESTATE];
};

_Static_assert(sizeof(struct grpc_server_record_256) == 256, "stride of ring_256");
_Static_assert(sizeof(struct grpc_server_record_1024) == 1024, "stride of ring_1024");
_Static_assert(sizeof(struct captured_walk) <= sizeof(((struct grpc_server_record_1024 *)0)->tracestate), "its place");

BPF_HASH(grpc_server_inflight, struct goroutine_key, struct grpc_server_in_flight, 16384);

/* Never written to: a new element, for which the stack has no room. */
BPF_ARRAY(grpc_server_blank, struct grpc_server_in_flight, 1);

static __always_inline struct goroutine_key grpc_server_key(struct pt_regs *ctx, u32 slot)
{
	struct goroutine_key key = {.goid = GO_G(ctx), .slot = slot, .kind = KIND_grpc_server};

	return key;
}

/* The transport.Stream of a call, given what handleStream has: since grpc 1.69 a *ServerStream, which holds a *Stream and,
 * since 1.8x, the Stream itself, first. */
static __always_inline u64 grpc_stream(struct target *target, u64 stream)
{
	return target->grpc_stream_held == MISSING || target->grpc_stream_inline != MISSING
		       ? stream
		       : go_read_word(stream, target->grpc_stream_held);
}
