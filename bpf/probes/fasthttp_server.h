/* SPDX-License-Identifier: GPL-2.0-only
 *
 * What fasthttp_server.bpf.c keeps between start and end of a request; its records are http_server's.
 */

/* Method, space and request target; what doesn't fit is in fasthttp_server_texts. */
#define FASTHTTP_SERVER_METHOD 15
#define FASTHTTP_SERVER_TARGET 56
#define FASTHTTP_SERVER_LINE 72
#define FASTHTTP_SERVER_HOST 32

/* Where a request's texts are; used at its start alone. */
struct fasthttp_server_strings {
	struct go_string method;
	struct go_string target;
	struct go_string host;
	struct go_string headers[HEADERS];
};

/* What is known of a connection, which has a goroutine to itself, and of the request that it is busy with. Kept from one
 * request to the next, until the connection ends. Texts are copied when a request begins: fasthttp uses its buffers again,
 * and handlers that pass a request on write into them. */
struct fasthttp_server_in_flight {
	u64 start_ns; /* 0: it waits for a request */
	u64 span_id;
	struct trace_context context;
	u64 parent_span_id; /* 0: a root */
	u64 request;	    /* the *RequestCtx */
	u64 method;	    /* its bytes, where it is a known one; else 0 */
	u64 panic_type;	    /* address in the file, without bias */
	u64 bias;	    /* load bias of the executable */
	u8 tls;
	u8 protocol_minor;
	u8 method_bytes;
	u8 line_bytes;
	u8 host_bytes;
	u8 peer_bytes;
	u8 is_long; /* 1: the texts are in fasthttp_server_texts */
	u8 reserved;
	u64 peer[3]; /* 16 bytes of address, as IPv6's, and the port */
	char line[FASTHTTP_SERVER_LINE];
	char host[FASTHTTP_SERVER_HOST];
	struct fasthttp_server_strings strings;
	struct connection connection;
	struct red_text route_text; /* at the end */
};

/* Texts of a request whose record is a large one. */
struct fasthttp_server_long {
	char line[344];
	char host[88];
	char user_agent[136];
	char tracestate[176];
	u16 line_bytes;
	u16 user_agent_bytes;
	u8 method_bytes;
	u8 host_bytes;
	u8 tracestate_bytes;
	u8 reserved;
} __attribute__((aligned(8))); /* or it would be copied by bytes */

/* Elements of a header's []argsKV that are read at once: three words of key, three of value, a bool. Source: fasthttp v1.2.0
 * to v1.77.0, args.go. */
#define FASTHTTP_KV_WORDS 7
#define FASTHTTP_KVS 3 /* 2^n - 1 */
/* Rounds of so many: of a request with more headers than 66, those behind are not seen. */
#define FASTHTTP_KV_ROUNDS 22

/* On the stack, where there is room for one of them. */
union fasthttp_server_reading {
	struct go_block block;
	char line[FASTHTTP_SERVER_LINE];
	struct {
		u64 words[FASTHTTP_KVS * FASTHTTP_KV_WORDS];
		u64 name[2];
	} walk;
	struct traceparent_text text;
};
