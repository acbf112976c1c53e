/* SPDX-License-Identifier: GPL-2.0-only
 *
 * Requests that a server of valyala/fasthttp answers. Declared in otel_goprobe/probes/fasthttp_server.py.
 */

BPF_HASH(fasthttp_server_inflight, struct goroutine_key, struct fasthttp_server_in_flight, 16384);
/* Never written to: a new element, for which the stack has no room. */
BPF_ARRAY(fasthttp_server_blank, struct fasthttp_server_in_flight, 1);

static __always_inline struct goroutine_key fasthttp_server_key(struct pt_regs *ctx, u32 slot)
{
	struct goroutine_key key = {.goid = GO_G(ctx), .slot = slot, .kind = KIND_fasthttp_server};

	return key;
}

/* Fills `peer` by the connection's net.Conn, which lies at `interface`: its remote *net.TCPAddr. */
static __always_inline void fasthttp_server_read_peer(struct target *target, u64 interface,
						      struct fasthttp_server_in_flight *request)
{
	u64 net_fd = connection_net_fd(target, interface, request->bias, request->connection.words);
	u64 address = go_read_interface(net_fd, target->net_fd_raddr);
	struct go_string ip = go_read_string(address, target->tcp_addr_ip);
	u32 words[4] = {};

	if (ip.length == 16) {
		if (read_user(words, 16, ip.data))
			return;
	} else if (ip.length == 4) {
		if (read_user(words, 4, ip.data))
			return;
		connection_mapped_v4(words, words[0]);
	} else {
		return;
	}
	__builtin_memcpy(request->peer, words, sizeof(words));
	request->peer[2] = go_read_word(address, target->tcp_addr_port) & 0xffff;
	request->peer_bytes = 18;
}

/* Adds what this goroutine's requests are kept in, with all that is the same for each of them; NULL where there is no room. */
static __always_inline struct fasthttp_server_in_flight *fasthttp_server_connect(struct pt_regs *ctx, struct target *target,
										  struct goroutine_key *key, u64 seen)
{
	u32 zero = 0;
	struct fasthttp_server_in_flight *blank = fasthttp_server_blank.lookup(&zero), *request;
	u64 interface = seen + target->fasthttp_ctx_conn;
	u32 *elements;

	if (!blank || fasthttp_server_inflight.insert(key, blank))
		return 0;
	request = fasthttp_server_inflight.lookup(key);
	if (!request)
		return 0;
	elements = in_flight_elements.lookup(&key->kind);
	if (elements)
		__sync_fetch_and_add(elements, 1);
	request->bias = GO_PC(ctx) - target->fasthttp_server_start_address;
	request->tls = go_read_byte(seen + target->fasthttp_ctx_request, target->fasthttp_request_tls) != 0;
	if (target->fasthttp_ctx_conn == MISSING)
		return request;
	fasthttp_server_read_peer(target, interface, request);
	if (!(target->options & OPTION_local))
		return request;
	if (connection_resolve(target, interface, request->bias, 1, &request->connection))
		count(key->slot, COUNTER_unjoinable_connections);
	if (request->connection.key.port)
		wire_serve(target, key->slot, &request->connection.tuple);
	return request;
}

/* Removes the element, which the caller has no use for any more. */
static __always_inline void fasthttp_server_forget(struct goroutine_key *key)
{
	u32 *elements = in_flight_elements.lookup(&key->kind);

	if (!fasthttp_server_inflight.delete(key) && elements)
		__sync_fetch_and_add(elements, -1);
}

/* Leaves the element for the connection's next request, or makes room where there are many connections. */
static __always_inline void fasthttp_server_rest(struct target *target, struct goroutine_key *key,
						 struct fasthttp_server_in_flight *request, u32 is_last)
{
	u32 *elements = in_flight_elements.lookup(&key->kind);

	request->start_ns = 0;
	if (request->is_long)
		fasthttp_server_texts.delete(key);
	if (is_last || !elements || *elements > target->kept_in_flight)
		fasthttp_server_forget(key);
}

/* What the goroutine's children find it by; the *RequestCtx is a context.Context. `target_text`: where the request target is,
 * which an http.Request has for its own that fasthttpadaptor makes. */
static __always_inline void fasthttp_server_activate(struct pt_regs *ctx, struct target *target, u32 slot, u64 target_text,
						     struct fasthttp_server_in_flight *request)
{
	struct server_span *span = active_span_begin(ctx, target, slot);

	if (!span)
		return;
	span->span_id = request->span_id;
	span->context = request->context;
	span->parent_span_id = request->parent_span_id;
	span->request = request->request;
	span->request_target = target_text;
	live_span_publish_own(ctx, target, slot, request->request, request->bias, &span->live);
	span->start_ns = request->start_ns;
}

/* A request begins. `seen`: the *RequestCtx. */
static __always_inline int fasthttp_server_begin(struct pt_regs *ctx, struct target *target, u32 slot, u64 seen)
{
	struct goroutine_key key = fasthttp_server_key(ctx, slot);
	struct fasthttp_server_in_flight *request = fasthttp_server_inflight.lookup(&key);
	struct fasthttp_server_strings *strings;
	u64 header_span_id, now = bpf_ktime_get_ns();
	u64 header = seen + target->fasthttp_ctx_request + target->fasthttp_request_header;
	u32 sampled;

	count(slot, COUNTER_started);
	if (!request)
		request = fasthttp_server_connect(ctx, target, &key, seen);
	if (!request) {
		count(slot, COUNTER_in_flight_full);
		return 0;
	}
	if (request->start_ns) {
		count(slot, COUNTER_abandoned); /* its end was never seen */
		active_span_end(key.goid, slot, request->span_id);
	}
	strings = &request->strings;
	header_span_id = fasthttp_server_read(target, header, request, strings);
	request->request = seen;
	request->panic_type = 0;
	request->parent_span_id = connection_adopt(&request->connection.key, now, &request->context, header_span_id);
	request->span_id = id_make(target, now, key.goid);
	if (!request->parent_span_id)
		id_make_trace(target, now, key.goid, &request->context);
	sampled = sampling_decides(&request->context, request->parent_span_id, target->sampling_parents,
				   target->sampling_bound);
	if (!sampled && !live_span_is_needed(target)) {
		count(slot, COUNTER_sampled_out);
		request->is_long = 0;
		fasthttp_server_rest(target, &key, request, 0);
		return 0;
	}
	request->context.flags = (request->context.flags & ~TRACE_FLAG_SAMPLED) | sampled;
	http_server_check_tracestate(slot, &strings->headers[HEADER_TRACESTATE], header_span_id);
	fasthttp_server_copy(&key, request, strings);
	request->start_ns = now;
	fasthttp_server_activate(ctx, target, slot, strings->target.data, request);
	return 0;
}

/* func (req *Request) MayContinue() bool of package fasthttp, where func (s *Server) serveConnCounted(c net.Conn,
 * countConcurrency bool) error calls it: behind the body of each request, or for a body that a client waits to send, its
 * head. Up to some version after v1.65 serveConn(c net.Conn) (err error). Registers: req = ARG1, a field of the
 * RequestCtx. */
int fasthttp_server_request_start(struct pt_regs *ctx)
{
	struct target *target;
	u32 slot;

	target = target_of(ctx, &slot);
	return target ? fasthttp_server_begin(ctx, target, slot, GO_ARG1(ctx) - target->fasthttp_ctx_request) : 0;
}

/* func (h *RequestHeader) peek(key []byte) []byte of package fasthttp, since v1.0.0, which is what is left where MayContinue
 * is inlined: it asks for Expect. Registers: h = ARG1, a field of the Request. */
int fasthttp_server_header_start(struct pt_regs *ctx)
{
	struct target *target;
	u32 slot;

	target = target_of(ctx, &slot);
	if (!target)
		return 0;
	return fasthttp_server_begin(ctx, target, slot,
				     GO_ARG1(ctx) - target->fasthttp_request_header - target->fasthttp_ctx_request);
}

/* Submits the request's record. */
static __always_inline void fasthttp_server_submit(struct goroutine_key *key, struct fasthttp_server_in_flight *request,
						   struct http_server_fixed *fixed)
{
	struct fasthttp_server_long *texts = request->is_long ? fasthttp_server_texts.lookup(key) : 0;

	SPAN_HEADER(fixed, KIND_fasthttp_server, key->slot, request);
	fixed->peer_bytes = request->peer_bytes;
	if (!texts && fixed->route_bytes <= 48) {
		struct http_server_record_256 *record = ring_256.ringbuf_reserve(sizeof(*record));

		if (!record) {
			count(key->slot, COUNTER_ring_full);
			return;
		}
		record->fixed = *fixed;
		COPY_READ(record, line, request->line, request->line_bytes);
		record->fixed.method_bytes = request->method_bytes;
		COPY_READ(record, host, request->host, request->host_bytes);
		COPY_READ(record, peer, request->peer, request->peer_bytes);
		COPY_READ(record, route, &request->route_text, fixed->route_bytes);
		ring_256.ringbuf_submit(record, RB_NO_WAKEUP);
	} else {
		struct http_server_record_1024 *record = ring_1024.ringbuf_reserve(sizeof(*record));

		if (!record) {
			count(key->slot, COUNTER_ring_full);
			return;
		}
		record->fixed = *fixed;
		__builtin_memcpy(record->peer, request->peer, sizeof(request->peer));
		COPY_READ(record, route, &request->route_text, fixed->route_bytes);
		if (texts) {
			COPY_READ(record, line, texts->line, texts->line_bytes);
			record->fixed.method_bytes = texts->method_bytes;
			COPY_READ(record, host, texts->host, texts->host_bytes);
			COPY_READ(record, user_agent, texts->user_agent, texts->user_agent_bytes);
			COPY_READ(record, tracestate, texts->tracestate, texts->tracestate_bytes);
		} else {
			__builtin_memcpy(record->line, request->line, sizeof(request->line));
			record->fixed.line_bytes = request->line_bytes;
			record->fixed.method_bytes = request->method_bytes;
			__builtin_memcpy(record->host, request->host, sizeof(request->host));
			record->fixed.host_bytes = request->host_bytes;
		}
		ring_1024.ringbuf_submit(record, RB_NO_WAKEUP);
	}
}

/* Counts and records a request that has ended. `response`: the *Response; 0: nothing was answered. */
static __always_inline void fasthttp_server_finish(struct target *target, struct goroutine_key *key,
						   struct fasthttp_server_in_flight *request, u64 response,
						   enum http_server_end end)
{
	struct server_span *span = active_span_with(key->goid, key->slot, request->span_id, 0);
	struct http_server_fixed fixed = {.end = end, .protocol_major = 1};
	u64 duration_ns;
	u32 kept = request->context.flags & TRACE_FLAG_SAMPLED;

	fixed.header.end_ns = bpf_ktime_get_ns();
	duration_ns = fixed.header.end_ns - request->start_ns;
	if (response)
		fixed.status = connection_word(response, target->fasthttp_response_status);
	if (!kept)
		kept = fixed.header.late = live_span_late(target, key->slot, duration_ns,
							  fixed.status >= 500 || end == HTTP_SERVER_PANICKED,
							  span && span->live.child_kept);
	if (!kept && !(target->options & OPTION_red))
		return;
	fixed.tls = request->tls;
	fixed.protocol_minor = request->protocol_minor;
	fixed.panic_type = request->panic_type;
	__builtin_memset(&request->route_text, 0, sizeof(request->route_text));
	if (span)
		fixed.route_bytes = route_read(span, key->slot, http_server_route(target, span), &request->route_text);
	if (target->options & OPTION_red)
		http_server_red(target, key->slot, KIND_fasthttp_server, request->method, &fixed,
				fixed.route_bytes ? red_text_id(&request->route_text) : 0, &request->route_text, duration_ns,
				RED_BUCKET_fasthttp_server(duration_ns));
	if (kept)
		fasthttp_server_submit(key, request, &fixed);
}

/* A request ends, and with `is_last` its connection. */
static __always_inline void fasthttp_server_end(struct target *target, struct goroutine_key *key,
						struct fasthttp_server_in_flight *request, u64 response,
						enum http_server_end end, u32 is_last)
{
	if (request->start_ns) {
		fasthttp_server_finish(target, key, request, response, end);
		active_span_end(key->goid, key->slot, request->span_id);
	}
	fasthttp_server_rest(target, key, request, is_last);
}

/* Behind func writeResponse(ctx *RequestCtx, w *bufio.Writer) error of package fasthttp in serveConn or serveConnCounted, since
 * v1.0.0, or where that is inlined behind (resp *Response) Write: the answer has been written, its stream to the end. Of a
 * request that timed out the handler has the RequestCtx still, and its answer is a Response of its own. */
int fasthttp_server_written(struct pt_regs *ctx)
{
	struct fasthttp_server_in_flight *request;
	struct target *target;
	struct goroutine_key key;
	u64 response;
	u32 slot;

	target = target_of(ctx, &slot);
	if (!target)
		return 0;
	key = fasthttp_server_key(ctx, slot);
	request = fasthttp_server_inflight.lookup(&key);
	if (!request)
		return 0;
	response = connection_word(request->request, target->fasthttp_ctx_timeout_response);
	if (!response)
		response = request->request + target->fasthttp_ctx_response;
	fasthttp_server_end(target, &key, request, response, HTTP_SERVER_ANSWERED, 0);
	return 0;
}

static __always_inline int fasthttp_server_write(struct pt_regs *ctx, struct target *target, u32 slot, u64 response)
{
	struct goroutine_key key = fasthttp_server_key(ctx, slot);
	struct fasthttp_server_in_flight *request = fasthttp_server_inflight.lookup(&key);

	if (request)
		fasthttp_server_end(target, &key, request, response, HTTP_SERVER_ANSWERED, 0);
	return 0;
}

/* The same function at its call, where it leaves the Response empty (up to v1.16), and where writeErrorResponse answers for a
 * handler that wasn't called: the body that was waited for couldn't be read. Registers: ctx = ARG1. */
int fasthttp_server_writes(struct pt_regs *ctx)
{
	struct target *target;
	u32 slot;

	target = target_of(ctx, &slot);
	return target ? fasthttp_server_write(ctx, target, slot, GO_ARG1(ctx) + target->fasthttp_ctx_response) : 0;
}

/* func (resp *Response) Write(w *bufio.Writer) error of package fasthttp, since v1.0.0, where writeErrorResponse calls it,
 * writeResponse inlined. Registers: resp = ARG1. */
int fasthttp_server_response_writes(struct pt_regs *ctx)
{
	struct target *target;
	u32 slot;

	target = target_of(ctx, &slot);
	return target ? fasthttp_server_write(ctx, target, slot, GO_ARG1(ctx)) : 0;
}

/* What serveConn defers, since v1.16: the last thing that a connection does on its goroutine; in the midst of a request only
 * after a hijack without an answer, a panic, or a runtime.Goexit. The runtime knows what it unwinds for: g._panic, of
 * which a Goexit is one without a value (src/runtime/panic.go). */
int fasthttp_server_conn_end(struct pt_regs *ctx)
{
	enum http_server_end end = HTTP_SERVER_HIJACKED;
	struct fasthttp_server_in_flight *request;
	struct target *target;
	struct goroutine_key key;
	u64 panic;
	u32 slot;

	target = target_of(ctx, &slot);
	if (!target)
		return 0;
	key = fasthttp_server_key(ctx, slot);
	request = fasthttp_server_inflight.lookup(&key);
	if (!request)
		return 0;
	panic = request->start_ns ? go_read_word(GO_G(ctx), target->g_panic) : 0;
	if (panic) {
		end = HTTP_SERVER_PANICKED;
		request->panic_type = go_read_word(panic, target->panic_arg);
		if (request->panic_type)
			request->panic_type -= request->bias;
	}
	fasthttp_server_end(target, &key, request, 0, end, 1);
	return 0;
}
