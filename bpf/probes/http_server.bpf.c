/* SPDX-License-Identifier: GPL-2.0-only
 *
 * Requests that a net/http server answers over HTTP/1. Declared in otel_goprobe/probes/http_server.py.
 */

/* Never written to: a new element, for which the stack has no room. */
BPF_ARRAY(http_server_blank, struct http_server_in_flight, 1);

static __always_inline struct goroutine_key http_server_key(struct pt_regs *ctx, struct target *target, u32 slot)
{
	struct goroutine_key key = {.slot = slot, .kind = KIND_http_server};

	key.goid = go_read_word(GO_G(ctx), target->g_goid);
	return key;
}

static __always_inline void http_server_read_method(struct target *target, struct http_server_in_flight *request)
{
	struct go_string method = go_read_string(request->request, target->request_method);

	if (method.length > 8)
		return;
	CLAMP(method.length, 8);
	read_user(&request->method, method.length, method.data);
	if (!HTTP_SERVER_KNOWN_METHOD(request->method))
		request->method = 0;
}

/* A new element of http_server_inflight; NULL where there is no room. */
static __always_inline struct http_server_in_flight *http_server_element(struct goroutine_key *key)
{
	struct http_server_in_flight *blank, *abandoned;
	u32 zero = 0;
	long failed;

	blank = http_server_blank.lookup(&zero);
	if (!blank)
		return 0;
	failed = http_server_inflight.insert(key, blank);
	if (failed == -EEXIST) {
		/* Its end was never seen. */
		count(key->slot, COUNTER_abandoned);
		abandoned = http_server_inflight.lookup(key);
		if (abandoned)
			live_span_retract(key, &abandoned->live);
		http_server_inflight.update(key, blank);
	} else if (failed) {
		count(key->slot, COUNTER_in_flight_full);
		return 0;
	}
	return http_server_inflight.lookup(key);
}

static __always_inline int http_server_begin(struct pt_regs *ctx, struct target *target, u32 slot, u64 response, u64 seen)
{
	union { /* one after the other: the stack has 512 bytes */
		struct go_walk walk;
		struct traceparent_text text;
	} scratch = {};
	struct http_server_in_flight *request;
	struct goroutine_key key = http_server_key(ctx, target, slot);
	u64 parent_span_id = 0, wanted = 0;
	u32 sampled;

	count(slot, COUNTER_started);
	request = http_server_element(&key);
	if (!request)
		return 0;
	if (target->options & OPTION_tracecontext)
		wanted = 1 << HEADER_TRACEPARENT | 1 << HEADER_TRACESTATE;
	if (target->options & OPTION_user_agent)
		wanted |= 1 << HEADER_USER_AGENT;
	if (wanted)
		go_headers(go_read_word(seen, target->request_header), target->swiss_maps, wanted, &scratch.walk,
			   request->headers);
	if (request->headers[HEADER_TRACEPARENT].length) {
		__builtin_memset(&scratch, 0, sizeof(scratch));
		parent_span_id =
			traceparent_read(request->headers[HEADER_TRACEPARENT], &scratch.text, &request->context);
	}
	if (!parent_span_id) {
		request->context.flags = 0;
		request->headers[HEADER_TRACESTATE].length = 0;
	}
	request->bias = GO_PC(ctx) - target->http_server_start_address;
	request->connection = go_read_word(response, target->response_conn);
	parent_span_id = connection_adopt(target, &key, request->connection, request->bias, &request->context,
					  parent_span_id);
	if (!parent_span_id) {
		request->context.trace_id[0] = random_id();
		request->context.trace_id[1] = random_id();
	}
	sampled = sampling_decides(&request->context, parent_span_id, target->sampling_parents, target->sampling_bound);
	if (!sampled && !target->sampling_late && !(target->options & OPTION_red) && !target->http_client_start_address) {
		count(slot, COUNTER_sampled_out);
		http_server_inflight.delete(&key);
		return 0;
	}
	request->context.flags = (request->context.flags & ~TRACE_FLAG_SAMPLED) | sampled;
	request->start_ns = bpf_ktime_get_ns();
	request->span_id = random_id();
	request->parent_span_id = parent_span_id;
	request->response = response;
	request->request = seen;
	request->tls = go_read_word(request->connection, target->conn_tls_state);
	if (target->options & OPTION_red)
		http_server_read_method(target, request);
	if (request->headers[HEADER_TRACESTATE].length > HTTP_SERVER_MAX_TRACESTATE) {
		count(slot, COUNTER_tracestate_dropped); /* cut off it would be another one */
		request->headers[HEADER_TRACESTATE].length = 0;
	}
	live_span_publish(ctx, target, &key, seen, request->bias, &request->live);
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

static __always_inline void http_server_count(u32 slot, struct http_server_in_flight *request,
					      struct http_server_fixed *fixed, u64 duration_ns, struct go_string route)
{
	struct red_key key = {.word = request->method, .slot = slot, .kind = KIND_http_server, .status = fixed->status};
	struct red_text text = {};

	/* As net/http answers a handler that wrote no header, or as the upgrade that it made of the connection. */
	if (!key.status && fixed->end != HTTP_SERVER_PANICKED)
		key.status = fixed->end == HTTP_SERVER_ANSWERED ? 200 : 101;
	if (fixed->end == HTTP_SERVER_PANICKED)
		key.error = request->panic_type ? request->panic_type : HTTP_SERVER_GOEXIT;
	key.traits[0] = fixed->tls;
	key.traits[1] = fixed->protocol_major << 4 | (fixed->protocol_minor & 15);
	key.text = red_text_read(route, &text);
	red_count(&key, &text, duration_ns, RED_BUCKET_http_server(duration_ns));
}

/* Submits the request's record. */
static __always_inline void http_server_submit(struct target *target, u32 slot, struct http_server_in_flight *request,
					       struct http_server_fixed *fixed, struct go_string route)
{
	struct go_string method = go_read_string(request->request, target->request_method);
	struct go_string uri = go_read_string(request->request, target->request_uri);
	struct go_string host = go_read_string(request->request, target->request_host);
	struct go_string peer = go_read_string(request->connection, target->conn_remote_addr);

	fixed->header.kind = KIND_http_server;
	fixed->header.slot = slot;
	fixed->header.start_ns = request->start_ns;
	fixed->header.trace_flags = request->context.flags;
	fixed->header.trace_id[0] = request->context.trace_id[0];
	fixed->header.trace_id[1] = request->context.trace_id[1];
	fixed->header.span_id = request->span_id;
	fixed->header.parent_span_id = request->parent_span_id;
	if (!request->headers[HEADER_USER_AGENT].length && !request->headers[HEADER_TRACESTATE].length && method.length <= 8 && uri.length <= 64 &&
	    host.length <= 32 && peer.length <= 24 && route.length <= 48) {
		struct http_server_record_256 *record = ring_256.ringbuf_reserve(sizeof(*record));

		if (!record) {
			count(slot, COUNTER_ring_full);
			return;
		}
		record->fixed = *fixed;
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
			return;
		}
		record->fixed = *fixed;
		COPY(record, method, method, 24);
		COPY(record, uri, uri, 320);
		COPY(record, host, host, 88);
		COPY(record, peer, peer, 48);
		COPY(record, route, route, 152);
		COPY(record, user_agent, request->headers[HEADER_USER_AGENT], 136);
		COPY(record, tracestate, request->headers[HEADER_TRACESTATE], 176);
		ring_1024.ringbuf_submit(record, RB_NO_WAKEUP);
	}
}

/* Counts and records a request that has ended; it stays in http_server_inflight. */
static __always_inline void http_server_finish(struct target *target, u32 slot, struct http_server_in_flight *request,
					       enum http_server_end end)
{
	struct http_server_fixed fixed = {};
	struct go_string route;
	u64 duration_ns;
	u32 kept = request->context.flags & TRACE_FLAG_SAMPLED;

	fixed.header.end_ns = bpf_ktime_get_ns();
	duration_ns = fixed.header.end_ns - request->start_ns;
	fixed.status = go_read_word(request->response, target->response_status);
	if (end != HTTP_SERVER_ANSWERED && go_read_byte(request->connection, target->conn_hijacked))
		end = HTTP_SERVER_HIJACKED;
	else if (end == HTTP_SERVER_HIJACKED)
		end = HTTP_SERVER_ANSWERED;
	fixed.end = end;
	if (!kept) {
		fixed.header.late = sampling_late(target->sampling_late, target->sampling_slow_ns, duration_ns,
						  fixed.status >= 500 || end == HTTP_SERVER_PANICKED) ||
				    request->live.child_kept;
		if (!fixed.header.late)
			count(slot, COUNTER_sampled_out);
		kept = fixed.header.late;
	}
	if (!kept && !(target->options & OPTION_red))
		return;
	fixed.tls = request->tls != 0;
	fixed.protocol_major = go_read_word(request->request, target->request_proto_major);
	fixed.protocol_minor = go_read_word(request->request, target->request_proto_minor);
	fixed.panic_type = request->panic_type;
	route = http_server_route(target, request);
	if (target->options & OPTION_red)
		http_server_count(slot, request, &fixed, duration_ns, route);
	if (kept)
		http_server_submit(target, slot, request, &fixed, route);
}

static __always_inline int http_server_request_end(struct pt_regs *ctx, enum http_server_end end, int check_response)
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
	if (!request || (check_response && request->response != GO_ARG1(ctx)))
		return 0;
	http_server_finish(target, slot, request, end);
	live_span_retract(&key, &request->live);
	http_server_inflight.delete(&key);
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
