/* SPDX-License-Identifier: GPL-2.0-only
 *
 * What http_server.bpf.c keeps between start and end of a request, and the records that it submits.
 */

#define HTTP_SERVER_MAX_METHOD 24
#define HTTP_SERVER_MAX_URI 320
#define HTTP_SERVER_MAX_HOST 88
#define HTTP_SERVER_MAX_PEER 48
#define HTTP_SERVER_MAX_ROUTE 152
#define HTTP_SERVER_MAX_USER_AGENT 136
#define HTTP_SERVER_MAX_TRACESTATE 176

enum http_server_end {
	HTTP_SERVER_ANSWERED, /* the handler returned */
	HTTP_SERVER_HIJACKED, /* the handler took the connection over */
	HTTP_SERVER_PANICKED, /* the handler left by a panic or by runtime.Goexit */
};

#define HTTP_SERVER_GOEXIT 1 /* in red_key.error, which holds the type of a panic's value else */

/* Between start and end. Addresses are of heap objects: net/http holds request and response until the end, the others
 * are read with a check. */
struct http_server_in_flight {
	u64 start_ns;
	u64 span_id;
	struct trace_context context;
	u64 parent_span_id; /* 0: a root */
	u64 request;
	u64 response;
	u64 connection;
	u64 tls;
	u64 method;	 /* its bytes, where it is a known one; else 0. Only for metrics */
	u64 bias;	 /* load bias of the executable */
	u64 mux_request; /* what the innermost ServeMux saw: the request or a copy of it */
	u64 mux_goid;
	struct go_string pattern; /* where the mux is that of Go 1.21, which stores none in the request */
	u64 panic_type;		  /* address in the file, without bias */
	struct go_string headers[HEADERS];
	struct live_span live;
};

struct http_server_fixed {
	struct span_header header;
	u64 panic_type;
	u16 status; /* 0: no header was written */
	u16 uri_bytes;
	u16 route_bytes;
	u16 user_agent_bytes;
	u8 method_bytes;
	u8 host_bytes;
	u8 peer_bytes;
	u8 end; /* enum http_server_end */
	u8 tls;
	u8 protocol_major;
	u8 protocol_minor;
	u8 tracestate_bytes;
};

struct http_server_record_256 {
	struct http_server_fixed fixed;
	char method[8];
	char uri[64];
	char host[32];
	char peer[24];
	char route[48];
};

struct http_server_record_1024 {
	struct http_server_fixed fixed;
	char method[HTTP_SERVER_MAX_METHOD];
	char uri[HTTP_SERVER_MAX_URI];
	char host[HTTP_SERVER_MAX_HOST];
	char peer[HTTP_SERVER_MAX_PEER];
	char route[HTTP_SERVER_MAX_ROUTE];
	char user_agent[HTTP_SERVER_MAX_USER_AGENT];
	char tracestate[HTTP_SERVER_MAX_TRACESTATE];
};

_Static_assert(sizeof(struct http_server_record_256) == 256, "stride of ring_256");
_Static_assert(sizeof(struct http_server_record_1024) == 1024, "stride of ring_1024");

/* Here because bpf/include/parents.h, which comes before the programs, looks for parents in it. */
BPF_HASH(http_server_inflight, struct goroutine_key, struct http_server_in_flight, 16384);
