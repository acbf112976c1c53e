/* SPDX-License-Identifier: GPL-2.0-only
 *
 * Requests that a net/http server answers over HTTP/1. Declared in otel_goprobe/probes/http_server.py.
 */

/* Whether it is what HTTP/2 begins a connection with, as if it were a request: RFC 9113, section 3.4. golang.org/x/net's h2c
 * answers it by the rest of the connection. */
static __always_inline u32 http_server_is_preface(const struct http_server_in_flight *request)
{
	return request->method_bytes == 3 && *(u64 *)request->line_text << 24 == 0x2a20495250ULL << 24; /* "PRI *" */
}

static __always_inline int http_server_begin(struct pt_regs *ctx, struct target *target, u32 slot, u64 response, u64 seen,
					     const u32 with_b3)
{
	struct goroutine_key key = http_server_key(ctx, slot);
	struct http_server_in_flight *request = http_server_inflight.lookup(&key);
	struct go_string *headers;
	struct trace_context *context;
	u64 parent_span_id, header_span_id, now = bpf_ktime_get_ns();
	u32 sampled, denied = 0;

	if (!request)
		request = http_server_connect(ctx, target, &key, response);
	if (!request) {
		count(slot, COUNTER_started);
		count(slot, COUNTER_in_flight_full);
		return 0;
	}
	if (request->start_ns)
		count(slot, COUNTER_abandoned); /* its end was never seen */
	headers = request->headers;
	context = &request->context;
	if (with_b3) {
		http_server_fill_request(target, seen, request, &request->scratch.reading);
		header_span_id = http_server_find_headers(target, request, &request->scratch.reading);
	} else {
		http_server_read_request(target, seen, request);
		header_span_id = http_server_read_headers(target, request);
	}
	if (http_server_is_preface(request)) {
		/* No request: its handler has the connection's HTTP/2 requests answered, which are told of apart. */
		http_server_rest(target, &key, request, 0);
		return 0;
	}
	count(slot, COUNTER_started);
	if (with_b3 && !header_span_id && request->header) {
		headers[HEADER_TRACESTATE].length = 0;
		header_span_id = b3_read(target, request->header, &request->scratch.b3, context, &denied);
	}
	parent_span_id = connection_adopt(&request->joined, now, context, header_span_id);
	request->span_id = id_make(target, now, key.goid);
	if (!parent_span_id)
		id_make_trace(target, now, key.goid, context);
	sampled = sampling_decides(context, parent_span_id, target->sampling_parents, target->sampling_bound);
	if (with_b3 && denied && !parent_span_id && target->sampling_parents == SAMPLING_FOLLOWS_PARENTS)
		sampled = 0;
	if (!sampled && !live_span_is_needed(target)) {
		count(slot, COUNTER_sampled_out);
		http_server_rest(target, &key, request, 0);
		return 0;
	}
	context->flags = (context->flags & ~TRACE_FLAG_SAMPLED) | sampled;
	request->parent_span_id = parent_span_id;
	request->response = response;
	request->request = seen;
	request->request_target = request->line.data + (request->method_bytes ? request->method_bytes + 1 : 0);
	request->mux_request = 0;
	request->route.length = 0;
	request->panic_type = 0;
	http_server_check_tracestate(slot, &headers[HEADER_TRACESTATE], header_span_id);
	live_span_publish(ctx, target, &key, seen, request->bias, &request->live);
	request->start_ns = now;
	return 0;
}

static __always_inline int http_server_request_serve(struct pt_regs *ctx, const u32 with_b3)
{
	struct target *target;
	u32 slot;

	target = target_of(ctx, &slot);
	if (!target)
		return 0;
	if (GO_ARG2(ctx) != target->http_server_response_itab + GO_PC(ctx) - target->http_server_start_address) {
		return 0; /* not *http.response: HTTP/2, which http2_server.bpf.c sees */
	}
	return http_server_begin(ctx, target, slot, GO_ARG3(ctx), GO_ARG4(ctx), with_b3);
}

/* func (sh serverHandler) ServeHTTP(rw ResponseWriter, req *Request), since Go 1.0; every router sits under it.
 * Registers: sh = ARG1, rw = ARG2 (itab), ARG3 (data), req = ARG4. */
int http_server_request_start(struct pt_regs *ctx)
{
	return http_server_request_serve(ctx, 0);
}

/* The same where B3 headers are followed as well. */
int http_server_request_start_b3(struct pt_regs *ctx)
{
	return http_server_request_serve(ctx, 1);
}

static __always_inline int http_server_request_was_read(struct pt_regs *ctx, const u32 with_b3)
{
	struct target *target;
	u64 request;
	u32 slot;

	target = target_of(ctx, &slot);
	if (!target || !GO_ARG1(ctx))
		return 0;
	request = go_read_word(GO_ARG1(ctx), target->response_req);
	return request ? http_server_begin(ctx, target, slot, GO_ARG1(ctx), request, with_b3) : 0;
}

/* Where ServeHTTP was inlined (PGO): behind func (c *conn) readRequest(ctx context.Context) (w *response, err error), since
 * Go 1.0, in (*conn).serve, which calls the handler next; HTTP/1 alone comes here. Results: w = ARG1, nil with an error. */
int http_server_request_read(struct pt_regs *ctx)
{
	return http_server_request_was_read(ctx, 0);
}

/* The same where B3 headers are followed as well. */
int http_server_request_read_b3(struct pt_regs *ctx)
{
	return http_server_request_was_read(ctx, 1);
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
	key = http_server_key(ctx, slot);
	request = http_server_inflight.lookup(&key);
	if (request)
		request->panic_type = GO_ARG1(ctx) - request->bias;
	return 0;
}

/* func (mux *ServeMux) ServeHTTP(w ResponseWriter, r *Request), since Go 1.0.
 * Registers: mux = ARG1, w = ARG2, ARG3, r = ARG4. Here the pattern isn't known yet; the request is remembered. */
int http_server_mux_start(struct pt_regs *ctx)
{
	struct server_span *request;
	struct target *target;
	u64 seen = GO_ARG4(ctx);
	u32 slot;

	target = target_of(ctx, &slot);
	if (!target)
		return 0;
	request = span_of_router(ctx, target, slot);
	if (!request || !request->request)
		return 0;
	/* A copy made by WithContext, Clone or StripPrefix shares the string that the request line was read into; a request
	 * that a handler made up for itself has none. */
	if (seen != request->request && go_read_word(seen, target->request_uri) != request->request_target)
		return 0;
	request->mux_request = seen;
	request->mux_goroutine = GO_G(ctx);
	request->route.length = 0;
	return 0;
}

/* Behind func (mux *serveMux121) findHandler(r *Request) (h Handler, pattern string), since 1.22, which a ServeMux asks
 * where GODEBUG says httpmuxgo121=1; in Go 1.21 func (mux *ServeMux) Handler(r *Request) (h Handler, pattern string).
 * Results: h in the registers of ARG1, ARG2, pattern in those of ARG3, ARG4. */
int http_server_mux_matched(struct pt_regs *ctx)
{
	struct server_span *request;
	struct target *target;
	u32 slot;

	target = target_of(ctx, &slot);
	if (!target)
		return 0;
	request = span_of_router(ctx, target, slot);
	if (!request || request->mux_goroutine != GO_G(ctx))
		return 0;
	request->route.data = GO_ARG3(ctx);
	request->route.length = GO_ARG1(ctx) ? GO_ARG4(ctx) : 0;
	return 0;
}

/* Brings the route's text to `request->route_text`; returns its length. A pattern that the executable has as a constant is read
 * once a connection, as long as its requests have no other. */
static __always_inline u32 http_server_read_route(struct target *target, u32 slot, struct http_server_in_flight *request)
{
	struct go_string route = http_server_route(target, (struct server_span *)request);

	if (!route.length)
		return 0;
	if (route.data == request->route_data && route.length == request->route_length)
		return request->route_bytes;
	__builtin_memset(&request->route_text, 0, sizeof(request->route_text));
	request->route_bytes = route_read((struct server_span *)request, slot, route, &request->route_text);
	request->route_data = route.data != ROUTE_COMPOSED && route.data - request->bias < target->read_only_end ? route.data : 0;
	request->route_length = route.length;
	request->route_id = 0;
	return request->route_bytes;
}

/* As metrics know the route; computed once for all requests of a connection that have the same. */
static __always_inline u64 http_server_route_id(struct http_server_in_flight *request, const struct http_server_fixed *fixed)
{
	if (fixed->route_bytes && !request->route_id)
		request->route_id = red_text_id(&request->route_text);
	return request->route_id;
}

/* Submits the request's record. */
static __always_inline void http_server_submit(u32 slot, struct http_server_in_flight *request,
					       struct http_server_fixed *fixed)
{
	SPAN_HEADER(fixed, KIND_http_server, slot, request);
	if (!request->headers[HEADER_USER_AGENT].length && !request->headers[HEADER_TRACESTATE].length && request->line.length <= HTTP_SERVER_LINE &&
	    request->host.length <= 32 && request->peer_bytes <= 24 && fixed->route_bytes <= 48) {
		struct http_server_record_256 *record = ring_256.ringbuf_reserve(sizeof(*record));

		if (!record) {
			count(slot, COUNTER_ring_full);
			return;
		}
		record->fixed = *fixed;
		COPY_READ(record, line, request->line_text, request->line.length);
		COPY_SHORT(record, host, request->host, 32);
		COPY_READ(record, peer, request->peer, request->peer_bytes);
		COPY_READ(record, route, &request->route_text, fixed->route_bytes);
		ring_256.ringbuf_submit(record, RB_NO_WAKEUP);
	} else {
		struct http_server_record_1024 *record = ring_1024.ringbuf_reserve(sizeof(*record));

		if (!record) {
			count(slot, COUNTER_ring_full);
			return;
		}
		record->fixed = *fixed;
		COPY(record, line, request->line, 344);
		COPY(record, host, request->host, 88);
		COPY_READ(record, peer, request->peer, request->peer_bytes);
		COPY_READ(record, route, &request->route_text, fixed->route_bytes);
		COPY(record, user_agent, request->headers[HEADER_USER_AGENT], 136);
		COPY(record, tracestate, request->headers[HEADER_TRACESTATE], 176);
		ring_1024.ringbuf_submit(record, RB_NO_WAKEUP);
	}
}

/* Counts and records a request that has ended. */
static __always_inline void http_server_finish(struct target *target, u32 slot, struct http_server_in_flight *request,
					       enum http_server_end end)
{
	struct http_server_fixed fixed = {};
	u64 duration_ns, status = 0;
	u32 kept = request->context.flags & TRACE_FLAG_SAMPLED;

	fixed.header.end_ns = bpf_ktime_get_ns();
	duration_ns = fixed.header.end_ns - request->start_ns;
	read_user_present(&status, sizeof(status), request->response + target->response_status);
	fixed.status = status;
	if (end != HTTP_SERVER_ANSWERED && go_read_byte(request->connection, target->conn_hijacked))
		end = HTTP_SERVER_HIJACKED;
	else if (end == HTTP_SERVER_HIJACKED)
		end = HTTP_SERVER_ANSWERED;
	fixed.end = end;
	if (!kept)
		kept = fixed.header.late = live_span_late(target, slot, duration_ns,
							  fixed.status >= 500 || end == HTTP_SERVER_PANICKED,
							  request->live.child_kept);
	if (!kept && !(target->options & OPTION_red))
		return;
	fixed.tls = request->tls;
	fixed.method_bytes = request->method_bytes;
	fixed.protocol_major = request->protocol_major;
	fixed.protocol_minor = request->protocol_minor;
	fixed.panic_type = request->panic_type;
	fixed.route_bytes = http_server_read_route(target, slot, request);
	if (target->options & OPTION_red)
		http_server_red(target, slot, KIND_http_server, request->method, &fixed, http_server_route_id(request, &fixed),
				&request->route_text, duration_ns, RED_BUCKET_http_server(duration_ns));
	if (kept)
		http_server_submit(slot, request, &fixed);
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
	key = http_server_key(ctx, slot);
	request = http_server_inflight.lookup(&key);
	if (!request || (check_response && request->response != GO_ARG1(ctx)))
		return 0;
	if (request->start_ns)
		http_server_finish(target, slot, request, end);
	http_server_rest(target, &key, request, end == HTTP_SERVER_PANICKED);
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
