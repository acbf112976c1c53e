/* SPDX-License-Identifier: GPL-2.0-only
 *
 * Requests that Go answers over HTTP/2, each on a goroutine of its own: those of net/http, and of golang.org/x/net/http2,
 * from which it was made. Declared in otel_goprobe/probes/http2_server.py and http2_x_server.py.
 */

BPF_HASH(http2_server_inflight, struct goroutine_key, struct http2_server_in_flight, 16384);
/* Never written to: a new element, for which the stack has no room. */
BPF_ARRAY(http2_server_blank, struct http2_server_in_flight, 1);

static __always_inline struct goroutine_key http2_server_key(struct pt_regs *ctx, u32 slot)
{
	struct goroutine_key key = {.goid = GO_G(ctx), .slot = slot, .kind = KIND_http2_server};

	return key;
}

/* An element for a request that begins; NULL, counted, where there is no room. */
static __always_inline struct http2_server_in_flight *http2_server_add(struct goroutine_key *key)
{
	u32 zero = 0;
	struct http2_server_in_flight *blank = http2_server_blank.lookup(&zero);
	long failed = blank ? http2_server_inflight.insert(key, blank) : -EEXIST;

	if (blank && failed == -EEXIST) {
		count(key->slot, COUNTER_abandoned); /* its end was never seen */
		failed = http2_server_inflight.update(key, blank);
	}
	if (failed) {
		count(key->slot, COUNTER_in_flight_full);
		return 0;
	}
	return http2_server_inflight.lookup(key);
}

/* Finds the headers that are asked for. Returns the span id of a valid traceparent, whose ids and flags are in
 * `request->context` then, or 0. */
static __always_inline u64 http2_server_read_headers(struct target *target, u64 header,
						      struct http2_server_in_flight *request)
{
	union {
		struct go_walk walk;
		struct traceparent_text text;
	} buffer = {};
	u64 wanted = 0;

	if (target->options & OPTION_tracecontext)
		wanted = 1 << HEADER_TRACEPARENT | 1 << HEADER_TRACESTATE;
	if (target->options & OPTION_user_agent)
		wanted |= 1 << HEADER_USER_AGENT;
	if (wanted && header)
		go_headers(header, target->swiss_maps, wanted, &buffer.walk, request->headers);
	if (!request->headers[HEADER_TRACEPARENT].length)
		return 0;
	__builtin_memset(&buffer.text, 0, sizeof(buffer.text));
	return traceparent_read(request->headers[HEADER_TRACEPARENT], &buffer.text, &request->context);
}

/* Joins the request with its client's, by the connection and the stream. Returns the parent's span id, 0 for none. */
static __always_inline u64 http2_server_join(struct target *target, u32 slot, struct http2_server_layout layout,
					     struct http2_server_in_flight *request, u32 stream, u64 parent_span_id)
{
	struct goroutine_key own = {.goid = request->connection, .slot = slot, .kind = KIND_http2_server};
	struct connection *connection;
	struct connection_key key;

	if (!(target->options & OPTION_local) || layout.connection_conn == MISSING || !stream)
		return parent_span_id;
	connection = connection_of_streams(target, &own, request->connection + layout.connection_conn, request->bias, 1, stream);
	if (!connection)
		return parent_span_id;
	key = connection->key;
	key.stream = stream;
	return connection_adopt(&key, request->start_ns, &request->context, parent_span_id);
}

/* What the goroutine's children find it by. */
static __always_inline void http2_server_activate(struct pt_regs *ctx, struct target *target, u32 slot, u64 seen,
						  u64 context, struct http2_server_in_flight *request)
{
	struct server_span *span = active_span_begin(ctx, target, slot);

	if (!span)
		return;
	span->span_id = request->span_id;
	span->context = request->context;
	span->parent_span_id = request->parent_span_id;
	span->request = seen;
	span->request_target = request->target.data;
	live_span_publish_own(ctx, target, slot, context, request->bias, &span->live);
	span->start_ns = request->start_ns;
}

static __always_inline int http2_server_begin(struct pt_regs *ctx, struct target *target, u32 slot,
					      struct http2_server_layout layout, u64 start_address)
{
	struct goroutine_key key = http2_server_key(ctx, slot);
	struct http2_server_in_flight *request;
	u64 seen = GO_ARG3(ctx), header_span_id, bytes, words[1] = {};
	u32 sampled, stream = 0;

	count(slot, COUNTER_started);
	request = http2_server_add(&key);
	if (!request)
		return 0;
	request->start_ns = bpf_ktime_get_ns();
	request->bias = GO_PC(ctx) - start_address;
	request->connection = GO_ARG1(ctx);
	/* The writer's only field. */
	request->state = go_read_word(GO_ARG2(ctx), 0);
	read_user_present(&stream, sizeof(stream), go_read_word(request->state, layout.state_stream) + layout.stream_id);
	request->tls = go_read_word(request->connection, layout.connection_tls_state) != 0;
	request->method_text = go_read_string(seen, layout.request_method);
	request->target = go_read_string(seen, layout.request_uri);
	request->host = go_read_string(seen, layout.request_host);
	bytes = request->method_text.length;
	if (bytes - 1 < 8) {
		CLAMP(bytes, 8);
		read_user_present(words, bytes, request->method_text.data);
		request->method = HTTP_SERVER_KNOWN_METHOD(words[0]) ? words[0] : 0;
	}
	header_span_id = http2_server_read_headers(target, go_read_word(seen, layout.request_header), request);
	request->parent_span_id = http2_server_join(target, slot, layout, request, stream, header_span_id);
	request->span_id = id_make(target, request->start_ns, key.goid);
	if (!request->parent_span_id)
		id_make_trace(target, request->start_ns, key.goid, &request->context);
	sampled = sampling_decides(&request->context, request->parent_span_id, target->sampling_parents,
				   target->sampling_bound);
	if (!sampled && !live_span_is_needed(target)) {
		count(slot, COUNTER_sampled_out);
		http2_server_inflight.delete(&key);
		return 0;
	}
	request->context.flags = (request->context.flags & ~TRACE_FLAG_SAMPLED) | sampled;
	http_server_check_tracestate(slot, &request->headers[HEADER_TRACESTATE], header_span_id);
	http2_server_activate(ctx, target, slot, seen, layout.request_ctx == MISSING ? 0 : go_read_word(seen, layout.request_ctx + 8),
			      request);
	return 0;
}

/* Method, space and request target, which HTTP/2 has apart, as HTTP/1 has them. `method` and `rest` are bounds. */
#define HTTP2_SERVER_LINE(record, request, method, rest)                                                                  \
	do {                                                                                                              \
		u64 at = (request)->method_text.length, bytes = (request)->target.length;                                 \
		CLAMP(at, method);                                                                                        \
		if (read_user_present((record)->line, at, (request)->method_text.data))                                   \
			at = 0;                                                                                           \
		(record)->fixed.method_bytes = at;                                                                        \
		(record)->fixed.line_bytes = 0;                                                                           \
		if (at) {                                                                                                 \
			(record)->line[at] = ' ';                                                                         \
			at++;                                                                                             \
		}                                                                                                         \
		CLAMP(bytes, rest);                                                                                       \
		if (!read_user_present((record)->line + at, bytes, (request)->target.data))                               \
			(record)->fixed.line_bytes = at + bytes;                                                          \
	} while (0)

/* Submits the request's record. */
static __always_inline void http2_server_submit(u32 slot, struct http2_server_in_flight *request, struct go_string peer,
						struct http_server_fixed *fixed)
{
	SPAN_HEADER(fixed, KIND_http2_server, slot, request);
	if (!request->headers[HEADER_USER_AGENT].length && !request->headers[HEADER_TRACESTATE].length &&
	    request->method_text.length <= 8 && request->target.length <= 62 && request->host.length <= 32 &&
	    peer.length <= 24 && fixed->route_bytes <= 48) {
		struct http_server_record_256 *record = ring_256.ringbuf_reserve(sizeof(*record));

		if (!record) {
			count(slot, COUNTER_ring_full);
			return;
		}
		record->fixed = *fixed;
		HTTP2_SERVER_LINE(record, request, 8, 62);
		COPY(record, host, request->host, 32);
		COPY(record, peer, peer, 24);
		COPY_READ(record, route, &request->route_text, fixed->route_bytes);
		ring_256.ringbuf_submit(record, RB_NO_WAKEUP);
	} else {
		struct http_server_record_1024 *record = ring_1024.ringbuf_reserve(sizeof(*record));

		if (!record) {
			count(slot, COUNTER_ring_full);
			return;
		}
		record->fixed = *fixed;
		if (request->method_text.length <= 8)
			HTTP2_SERVER_LINE(record, request, 8, 335);
		else
			HTTP2_SERVER_LINE(record, request, 40, 303);
		COPY(record, host, request->host, 88);
		COPY(record, peer, peer, 48);
		COPY_READ(record, route, &request->route_text, fixed->route_bytes);
		COPY(record, user_agent, request->headers[HEADER_USER_AGENT], 136);
		COPY(record, tracestate, request->headers[HEADER_TRACESTATE], 176);
		ring_1024.ringbuf_submit(record, RB_NO_WAKEUP);
	}
}

/* Counts and records a request that has ended. */
static __always_inline void http2_server_finish(struct target *target, u32 slot, struct http2_server_layout layout,
						struct http2_server_in_flight *request, struct server_span *span,
						enum http_server_end end)
{
	struct http_server_fixed fixed = {.end = end, .protocol_major = 2};
	u64 duration_ns, status = 0;
	u32 kept = request->context.flags & TRACE_FLAG_SAMPLED;

	fixed.header.end_ns = bpf_ktime_get_ns();
	duration_ns = fixed.header.end_ns - request->start_ns;
	read_user_present(&status, sizeof(status), request->state + layout.state_status);
	fixed.status = status;
	if (!kept)
		kept = fixed.header.late = live_span_late(target, slot, duration_ns,
							  fixed.status >= 500 || end == HTTP_SERVER_PANICKED,
							  span && span->live.child_kept);
	if (!kept && !(target->options & OPTION_red))
		return;
	fixed.tls = request->tls;
	fixed.panic_type = request->panic_type;
	if (span)
		fixed.route_bytes = route_read(span, slot, http_server_route(target, span), &request->route_text);
	if (target->options & OPTION_red)
		http_server_red(target, slot, KIND_http2_server, request->method, &fixed,
				fixed.route_bytes ? red_text_id(&request->route_text) : 0, &request->route_text, duration_ns,
				RED_BUCKET_http2_server(duration_ns));
	if (kept)
		http2_server_submit(slot, request, go_read_string(request->connection, layout.connection_remote_addr), &fixed);
}

static __always_inline int http2_server_end(struct pt_regs *ctx, struct target *target, u32 slot,
					    struct http2_server_layout layout, enum http_server_end end)
{
	struct goroutine_key key = http2_server_key(ctx, slot);
	struct http2_server_in_flight *request = http2_server_inflight.lookup(&key);
	u64 span_id;

	if (!request)
		return 0;
	span_id = request->span_id;
	http2_server_finish(target, slot, layout, request, active_span_with(key.goid, slot, span_id, 0), end);
	active_span_end(key.goid, slot, span_id);
	http2_server_inflight.delete(&key);
	return 0;
}

/* Where a request's context.Context is: in what was made of an http.Request, or in that. */
static __always_inline u16 http2_context(struct target *target)
{
	return target->http2_request_context == MISSING ? target->http2_request_ctx : target->http2_request_context;
}

/* func (sc *http2serverConn) runHandler(rw *http2responseWriter, req *Request, handler func(ResponseWriter, *Request)) of
 * net/http, Go 1.6 to 1.26; since 1.27 (sc *serverConn), of net/http/internal/http2, with req *ServerRequest. The handler's
 * goroutine begins with it. Registers: sc = ARG1, rw = ARG2, req = ARG3. */
int http2_server_request_start(struct pt_regs *ctx)
{
	struct target *target;
	u32 slot;

	target = target_of(ctx, &slot);
	if (!target)
		return 0;
	return http2_server_begin(ctx, target, slot, HTTP2_SERVER_LAYOUT(target, http2, http2_context(target)), target->http2_server_start_address);
}

/* func (w *http2responseWriter) handlerDone() of net/http, (w *responseWriter) since Go 1.27, since 1.6: what runHandler
 * calls behind each handler that returned. Registers: none. */
int http2_server_handler_done(struct pt_regs *ctx)
{
	struct target *target;
	u32 slot;

	target = target_of(ctx, &slot);
	if (!target)
		return 0;
	return http2_server_end(ctx, target, slot, HTTP2_SERVER_LAYOUT(target, http2, http2_context(target)), HTTP_SERVER_ANSWERED);
}

/* Behind the call of writeFrameFromHandler in runHandler's deferred closure, which resets the stream of a handler that left by
 * a panic or by runtime.Goexit. */
int http2_server_handler_panicked(struct pt_regs *ctx)
{
	struct target *target;
	u32 slot;

	target = target_of(ctx, &slot);
	if (!target)
		return 0;
	return http2_server_end(ctx, target, slot, HTTP2_SERVER_LAYOUT(target, http2, http2_context(target)), HTTP_SERVER_PANICKED);
}

/* func gopanic(e any) of package runtime, since Go 1.0. Registers: ARG1 = type of the value, ARG2 = data. */
int http2_server_panic(struct pt_regs *ctx)
{
	struct http2_server_in_flight *request;
	struct target *target;
	struct goroutine_key key;
	u32 slot;

	target = target_of(ctx, &slot);
	if (!target)
		return 0;
	key = http2_server_key(ctx, slot);
	request = http2_server_inflight.lookup(&key);
	if (request)
		request->panic_type = GO_ARG1(ctx) - request->bias;
	return 0;
}
