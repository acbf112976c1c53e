/* SPDX-License-Identifier: GPL-2.0-only
 *
 * What http2_server.bpf.c keeps between start and end of a request; its records are http_server's.
 */

/* By the g that runs the handler. Addresses are of heap objects that runHandler's frame holds until it ends. */
struct http2_server_in_flight {
	u64 start_ns;
	u64 span_id;
	struct trace_context context;
	u64 parent_span_id; /* 0: a root */
	u64 connection;	    /* the *serverConn */
	u64 state;	    /* the *responseWriterState */
	u64 method;	    /* its bytes, where it is a known one; else 0 */
	u64 panic_type;	    /* address in the file, without bias */
	u64 bias;	    /* load bias of the executable */
	struct go_string method_text;
	struct go_string target;
	struct go_string host;
	struct go_string headers[HEADERS];
	u64 tls;
	struct red_text route_text; /* at the end */
};

/* Where one of the two packages has what the programs read. */
struct http2_server_layout {
	u16 state_stream, state_status;
	u16 stream_id;
	u16 connection_conn, connection_tls_state, connection_remote_addr;
	u16 request_method, request_uri, request_host, request_header, request_ctx;
};

/* `prefix`: that of the package's facts. */
#define HTTP2_SERVER_LAYOUT(target, prefix, context)                                                                               \
	((struct http2_server_layout){                                                                                    \
		(target)->prefix##_state_stream, (target)->prefix##_state_status, (target)->prefix##_stream_id,           \
		(target)->prefix##_connection_conn, (target)->prefix##_connection_tls_state,                              \
		(target)->prefix##_connection_remote_addr, (target)->prefix##_request_method,                             \
		(target)->prefix##_request_uri, (target)->prefix##_request_host, (target)->prefix##_request_header,       \
		context})
