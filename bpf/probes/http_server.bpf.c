/* SPDX-License-Identifier: GPL-2.0-only
 *
 * Requests that a net/http server answers over HTTP/1. Declared in otel_goprobe/probes/http_server.py.
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

/* Between start and end. Addresses are of heap objects: net/http holds request and response until the end, the others
 * are read with a check. */
struct http_server_in_flight {
	u64 start_ns;
	u64 span_id;
	struct trace_context context;
	u64 parent_span_id; /* 0: a root */
	u64 request;
	u64 response;
	u64 bias;	 /* load bias of the executable */
	u64 mux_request; /* what the innermost ServeMux saw: the request or a copy of it */
	u64 mux_goid;
	struct go_string pattern; /* where the mux is that of Go 1.21, which stores none in the request */
	u64 panic_type;		  /* address in the file, without bias */
	struct go_string user_agent;
	struct go_string tracestate;
};

BPF_HASH(http_server_inflight, struct goroutine_key, struct http_server_in_flight, 16384);

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

static __always_inline struct goroutine_key http_server_key(struct pt_regs *ctx, struct target *target, u32 slot)
{
	struct goroutine_key key = {.slot = slot, .kind = KIND_http_server};

	key.goid = go_read_word(GO_G(ctx), target->g_goid);
	return key;
}

static __always_inline int http_server_begin(struct pt_regs *ctx, struct target *target, u32 slot, u64 response, u64 seen)
{
	union { /* one after the other: the stack has 512 bytes */
		struct go_walk walk;
		struct traceparent_text text;
		struct http_server_in_flight request;
	} scratch = {};
	struct http_server_in_flight *request = &scratch.request;
	struct go_string headers[HEADERS] = {};
	struct trace_context context;
	struct goroutine_key key;
	u64 parent_span_id = 0, wanted = 0;
	u32 sampled;
	long failed;

	if (target->options & OPTION_tracecontext)
		wanted = 1 << HEADER_TRACEPARENT | 1 << HEADER_TRACESTATE;
	if (target->options & OPTION_user_agent)
		wanted |= 1 << HEADER_USER_AGENT;
	if (wanted)
		go_headers(go_read_word(seen, target->request_header), target->swiss_maps, wanted, &scratch.walk,
			   headers);
	if (headers[HEADER_TRACEPARENT].length) {
		__builtin_memset(&scratch, 0, sizeof(scratch));
		parent_span_id = traceparent_read(headers[HEADER_TRACEPARENT], &scratch.text, &context);
	}
	if (!parent_span_id) {
		context.trace_id[0] = random_id();
		context.trace_id[1] = random_id();
		context.flags = 0;
	}
	count(slot, COUNTER_started);
	sampled = sampling_decides(&context, parent_span_id, target->sampling_parents, target->sampling_bound);
	if (!sampled && !target->sampling_late) {
		count(slot, COUNTER_sampled_out);
		return 0;
	}
	context.flags = (context.flags & ~TRACE_FLAG_SAMPLED) | sampled;
	__builtin_memset(&scratch, 0, sizeof(scratch));
	key = http_server_key(ctx, target, slot);
	request->start_ns = bpf_ktime_get_ns();
	request->context = context;
	request->span_id = random_id();
	request->parent_span_id = parent_span_id;
	request->bias = GO_PC(ctx) - target->http_server_start_address;
	request->response = response;
	request->request = seen;
	request->user_agent = headers[HEADER_USER_AGENT];
	if (parent_span_id) {
		if (headers[HEADER_TRACESTATE].length <= HTTP_SERVER_MAX_TRACESTATE)
			request->tracestate = headers[HEADER_TRACESTATE];
		else
			count(slot, COUNTER_tracestate_dropped); /* cut off it would be another one */
	}
	failed = http_server_inflight.insert(&key, request);
	if (failed == -EEXIST) {
		/* Its end was never seen. */
		count(slot, COUNTER_abandoned);
		http_server_inflight.update(&key, request);
	} else if (failed) {
		count(slot, COUNTER_in_flight_full);
	}
	return 0;
}

/* func (sh serverHandler) ServeHTTP(rw ResponseWriter, req *Request), since Go 1.0; every router sits under it.
 * Registers: sh = ARG1, rw = ARG2 (itab), ARG3 (data), req = ARG4. */
int http_server_request_start(struct pt_regs *ctx)
{
	struct target *target;
	u32 slot;

	target = target_of(ctx, &slot);
	if (!target)
		return 0;
	if (GO_ARG2(ctx) != target->http_server_response_itab + GO_PC(ctx) - target->http_server_start_address) {
		/* Not *http.response: HTTP/2, whose writer has another layout. */
		count(slot, COUNTER_http2_requests);
		return 0;
	}
	return http_server_begin(ctx, target, slot, GO_ARG3(ctx), GO_ARG4(ctx));
}

/* Where ServeHTTP was inlined (PGO): behind func (c *conn) readRequest(ctx context.Context) (w *response, err error), since
 * Go 1.0, in (*conn).serve, which calls the handler next; HTTP/1 alone comes here. Results: w = ARG1, nil with an error. */
int http_server_request_read(struct pt_regs *ctx)
{
	struct target *target;
	u64 request;
	u32 slot;

	target = target_of(ctx, &slot);
	if (!target || !GO_ARG1(ctx))
		return 0;
	request = go_read_word(GO_ARG1(ctx), target->response_req);
	return request ? http_server_begin(ctx, target, slot, GO_ARG1(ctx), request) : 0;
}

/* func gopanic(e any) of package runtime, since Go 1.0. Registers: ARG1 = type of the value, ARG2 = data. */
int http_server_panic(struct pt_regs *ctx)
{
	struct http_server_in_flight *request;
	struct target *target;
	struct goroutine_key key;
	u32 slot;

	target = target_of(ctx, &slot);
	if (!target)
		return 0;
	key = http_server_key(ctx, target, slot);
	request = http_server_inflight.lookup(&key);
	if (request)
		request->panic_type = GO_ARG1(ctx) - request->bias;
	return 0;
}

/* The request that a mux works on, found by its goroutine, or by the goroutine that started this one (TimeoutHandler
 * runs its handler in a goroutine of its own). */
static __always_inline struct http_server_in_flight *http_server_of_mux(struct pt_regs *ctx, struct target *target,
									 struct goroutine_key *key)
{
	struct http_server_in_flight *request = http_server_inflight.lookup(key);

	if (request)
		return request;
	key->goid = go_read_word(GO_G(ctx), target->g_parent_goid);
	return key->goid ? http_server_inflight.lookup(key) : 0;
}

/* func (mux *ServeMux) ServeHTTP(w ResponseWriter, r *Request), since Go 1.0.
 * Registers: mux = ARG1, w = ARG2, ARG3, r = ARG4. Here the pattern isn't known yet; the request is remembered. */
int http_server_mux_start(struct pt_regs *ctx)
{
	struct http_server_in_flight *request;
	struct target *target;
	struct goroutine_key key;
	u64 goid, seen = GO_ARG4(ctx);
	u32 slot;

	target = target_of(ctx, &slot);
	if (!target)
		return 0;
	key = http_server_key(ctx, target, slot);
	goid = key.goid;
	request = http_server_of_mux(ctx, target, &key);
	if (!request)
		return 0;
	/* A copy made by WithContext, Clone or StripPrefix shares the string that the request line was read into; a request
	 * that a handler made up for itself has none. */
	if (seen != request->request && go_read_word(seen, target->request_uri) != go_read_word(request->request, target->request_uri))
		return 0;
	request->mux_request = seen;
	request->mux_goid = goid;
	request->pattern.length = 0;
	return 0;
}

/* Behind func (mux *serveMux121) findHandler(r *Request) (h Handler, pattern string), since 1.22, which a ServeMux asks
 * where GODEBUG says httpmuxgo121=1; in Go 1.21 func (mux *ServeMux) Handler(r *Request) (h Handler, pattern string).
 * Results: h in the registers of ARG1, ARG2, pattern in those of ARG3, ARG4. */
int http_server_mux_matched(struct pt_regs *ctx)
{
	struct http_server_in_flight *request;
	struct target *target;
	struct goroutine_key key;
	u64 goid;
	u32 slot;

	target = target_of(ctx, &slot);
	if (!target)
		return 0;
	key = http_server_key(ctx, target, slot);
	goid = key.goid;
	request = http_server_of_mux(ctx, target, &key);
	if (!request || request->mux_goid != goid)
		return 0;
	request->pattern.data = GO_ARG3(ctx);
	request->pattern.length = GO_ARG1(ctx) ? GO_ARG4(ctx) : 0;
	return 0;
}

static __always_inline struct go_string http_server_route(struct target *target, struct http_server_in_flight *request)
{
	struct go_string none = {};

	if (request->pattern.length)
		return request->pattern;
	if (!request->mux_request)
		return none;
	/* A copy may be garbage by now: take it only while it still is one. */
	if (request->mux_request != request->request &&
	    go_read_word(request->mux_request, target->request_uri) != go_read_word(request->request, target->request_uri))
		return none;
	if (target->request_pattern != MISSING)
		return go_read_string(request->mux_request, target->request_pattern);
	/* Go 1.22 */
	return go_read_string(go_read_word(request->mux_request, target->request_pat), target->pattern_str);
}

/* Copies at most `max` bytes and stores how many. */
#define COPY(record, field, string, max)                                                                                  \
	do {                                                                                                              \
		u64 bytes = (string).length;                                                                              \
		CLAMP(bytes, max);                                                                                        \
		if (read_user((record)->field, bytes, (string).data))                                                     \
			bytes = 0;                                                                                        \
		(record)->fixed.field##_bytes = bytes;                                                                    \
	} while (0)

static __always_inline int http_server_request_end(struct pt_regs *ctx, enum http_server_end end, int check_response)
{
	struct go_string method, uri, host, peer, route;
	struct http_server_in_flight request, *found;
	struct http_server_fixed fixed = {};
	struct target *target;
	struct goroutine_key key;
	u64 connection;
	u32 slot;

	target = target_of(ctx, &slot);
	if (!target)
		return 0;
	key = http_server_key(ctx, target, slot);
	found = http_server_inflight.lookup(&key);
	if (!found || (check_response && found->response != GO_ARG1(ctx)))
		return 0;
	request = *found;
	http_server_inflight.delete(&key);

	fixed.header.end_ns = bpf_ktime_get_ns();
	fixed.status = go_read_word(request.response, target->response_status);
	connection = go_read_word(request.response, target->response_conn);
	if (end != HTTP_SERVER_ANSWERED && go_read_byte(connection, target->conn_hijacked))
		end = HTTP_SERVER_HIJACKED;
	else if (end == HTTP_SERVER_HIJACKED)
		end = HTTP_SERVER_ANSWERED;
	if (!(request.context.flags & TRACE_FLAG_SAMPLED)) {
		if (!sampling_late(target->sampling_late, target->sampling_slow_ns, fixed.header.end_ns - request.start_ns,
				   fixed.status >= 500 || end == HTTP_SERVER_PANICKED)) {
			count(slot, COUNTER_sampled_out);
			return 0;
		}
		fixed.header.late = 1;
	}
	fixed.header.kind = KIND_http_server;
	fixed.header.slot = slot;
	fixed.header.start_ns = request.start_ns;
	fixed.header.trace_flags = request.context.flags;
	fixed.header.trace_id[0] = request.context.trace_id[0];
	fixed.header.trace_id[1] = request.context.trace_id[1];
	fixed.header.span_id = request.span_id;
	fixed.header.parent_span_id = request.parent_span_id;
	fixed.protocol_major = go_read_word(request.request, target->request_proto_major);
	fixed.protocol_minor = go_read_word(request.request, target->request_proto_minor);
	fixed.tls = go_read_word(connection, target->conn_tls_state) != 0;
	fixed.end = end;
	fixed.panic_type = request.panic_type;

	method = go_read_string(request.request, target->request_method);
	uri = go_read_string(request.request, target->request_uri);
	host = go_read_string(request.request, target->request_host);
	peer = go_read_string(connection, target->conn_remote_addr);
	route = http_server_route(target, &request);

	if (!request.user_agent.length && !request.tracestate.length && method.length <= 8 && uri.length <= 64 && host.length <= 32 && peer.length <= 24 &&
	    route.length <= 48) {
		struct http_server_record_256 *record = ring_256.ringbuf_reserve(sizeof(*record));

		if (!record) {
			count(slot, COUNTER_ring_full);
			return 0;
		}
		record->fixed = fixed;
		COPY(record, method, method, 8);
		COPY(record, uri, uri, 64);
		COPY(record, host, host, 32);
		COPY(record, peer, peer, 24);
		COPY(record, route, route, 48);
		ring_256.ringbuf_submit(record, RB_NO_WAKEUP);
	} else {
		struct http_server_record_1024 *record = ring_1024.ringbuf_reserve(sizeof(*record));

		if (!record) {
			count(slot, COUNTER_ring_full);
			return 0;
		}
		record->fixed = fixed;
		COPY(record, method, method, 24);
		COPY(record, uri, uri, 320);
		COPY(record, host, host, 88);
		COPY(record, peer, peer, 48);
		COPY(record, route, route, 152);
		COPY(record, user_agent, request.user_agent, 136);
		COPY(record, tracestate, request.tracestate, 176);
		ring_1024.ringbuf_submit(record, RB_NO_WAKEUP);
	}
	return 0;
}

/* func (w *response) finishRequest(), since Go 1.0: called behind every handler that returned and didn't hijack.
 * Registers: w = ARG1. */
int http_server_finish_request(struct pt_regs *ctx)
{
	return http_server_request_end(ctx, HTTP_SERVER_ANSWERED, 1);
}

/* Where finishRequest was inlined (PGO): behind (*conn).serve's call of hijacked, which follows the handler, or the returns
 * of serverHandler.ServeHTTP; after a hijack too. */
int http_server_request_return(struct pt_regs *ctx)
{
	return http_server_request_end(ctx, HTTP_SERVER_HIJACKED, 0);
}

/* func (c *conn) serve.func1(), the deferred closure, Go 1.21 and later: the last thing that a connection does, in the
 * midst of a request only after a panic, a runtime.Goexit or a hijack. */
int http_server_conn_end(struct pt_regs *ctx)
{
	return http_server_request_end(ctx, HTTP_SERVER_PANICKED, 0);
}
