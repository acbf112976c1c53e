/* SPDX-License-Identifier: GPL-2.0-only
 *
 * What http_server.bpf.c keeps between start and end of a request, and the records that it submits.
 */

#define HTTP_SERVER_LINE 72
#define HTTP_SERVER_MAX_PEER 48
#define HTTP_SERVER_MAX_TRACESTATE 176

enum http_server_end {
	HTTP_SERVER_ANSWERED, /* the handler returned */
	HTTP_SERVER_HIJACKED, /* the handler took the connection over */
	HTTP_SERVER_PANICKED, /* the handler left by a panic or by runtime.Goexit */
};

#define HTTP_SERVER_GOEXIT 1 /* in red_key.error, which holds the type of a panic's value else */

/* On the stack, into which the kernel copies for half of what it takes elsewhere, where there is room for it. */
union http_server_reading {
	struct go_block block;
	u64 line[HTTP_SERVER_LINE / 8];
	struct go_walk walk;
	struct traceparent_text text;
};

/* In place of the stack, which has 512 bytes: for a connection's first request, for B3's headers. */
union http_server_scratch {
	union http_server_reading reading;
	struct connection connection;
	struct b3_walk b3;
};

/* What is known of a connection, which has a goroutine of its own, and of the request that it is busy with. Kept from one
 * request to the next, until the connection ends: it costs more to make than to fill. Addresses are of heap objects:
 * net/http holds request and response until the end, the others are read with a check. */
struct http_server_in_flight {
	SERVER_SPAN_MEMBERS /* start_ns 0: it waits for a request */
	u64 response;
	u64 method;	/* its bytes, where it is a known one; else 0 */
	u64 panic_type; /* address in the file, without bias */
	struct go_string host;
	u64 protocol_major;
	u64 protocol_minor;
	u64 header;	      /* the address of the map */
	struct go_string line; /* method, space, request target */
	struct go_string headers[HEADERS];
	u64 connection;
	u64 bias; /* load bias of the executable */
	u8 tls;
	u8 peer_bytes;
	u8 method_bytes;
	u8 route_bytes;
	u8 reserved[4];
	u64 route_data;		/* where `route` was read, in memory that is never written to; else 0 */
	u64 route_length;	/* of all of it */
	u64 route_id;		/* as metrics know it; 0: not computed yet */
	struct red_text route_text; /* the last request's */
	char peer[HTTP_SERVER_MAX_PEER];
	char line_text[HTTP_SERVER_LINE]; /* the first bytes of `line` */
	struct connection_key joined; /* the connection as its client's side knows it */
	union http_server_scratch scratch;
};

BPF_HASH(http_server_inflight, struct goroutine_key, struct http_server_in_flight, 16384);

struct http_server_fixed {
	struct span_header header;
	u64 panic_type;
	u16 status; /* 0: no header was written */
	u16 line_bytes;
	u16 route_bytes;
	u16 user_agent_bytes;
	u8 host_bytes;
	u8 peer_bytes;
	u8 end; /* enum http_server_end */
	u8 tls;
	u8 protocol_major;
	u8 protocol_minor;
	u8 tracestate_bytes;
	u8 method_bytes; /* at the begin of `line`, a space behind it; 0: the line is the request target alone */
};

struct http_server_record_256 {
	struct http_server_fixed fixed;
	char line[HTTP_SERVER_LINE];
	char host[32];
	char peer[24];
	char route[48];
};

struct http_server_record_1024 {
	struct http_server_fixed fixed;
	char line[344];
	char host[88];
	char peer[HTTP_SERVER_MAX_PEER];
	char route[152];
	char user_agent[136];
	char tracestate[HTTP_SERVER_MAX_TRACESTATE];
};

_Static_assert(sizeof(struct http_server_record_256) == 256, "stride of ring_256");
_Static_assert(sizeof(struct http_server_record_1024) == 1024, "stride of ring_1024");
