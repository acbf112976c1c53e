/* SPDX-License-Identifier: GPL-2.0-only
 *
 * Requests that a server of valyala/fasthttp answers. Declared in otel_goprobe/probes/fasthttp_server.py.
 */

BPF_HASH(fasthttp_server_inflight, struct goroutine_key, struct fasthttp_server_in_flight, 16384);
/* Never written to: a new element, for which the stack has no room. */
BPF_ARRAY(fasthttp_server_blank, struct fasthttp_server_in_flight, 1);

/* Of requests that are being answered; one that gives way to others has its texts cut to what the element above has. */
BPF_TABLE("lru_hash", struct goroutine_key, struct fasthttp_server_long, fasthttp_server_texts, 4096);
BPF_ARRAY(fasthttp_server_no_texts, struct fasthttp_server_long, 1);

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

/* Which header a name of 10 or 11 bytes is, however it is written: DisableHeaderNamesNormalizing leaves it as it came. */
static __always_inline u64 fasthttp_server_header(u64 low, u64 high, u64 length)
{
	return go_header_of(low, high | (length & 1 ? 0x202020ULL : 0x2020ULL));
}

/* Walks a request header's []argsKV; `walk` is all zero. found[h] gets the value of each header that is wanted, without bytes
 * where it is there more than once. */
static __always_inline void fasthttp_server_walk(struct go_string list, u64 wanted, union fasthttp_server_reading *buffer,
						 struct go_string found[HEADERS])
{
	u64 left = list.length, at = list.data, many, which;

#pragma clang loop unroll(disable)
	for (u32 round = 0; round < FASTHTTP_KV_ROUNDS; round++) {
		if (!left)
			break;
		many = left;
		CLAMP(many, 3);
		if (read_user_present(buffer->walk.words, many * 8 * FASTHTTP_KV_WORDS, at))
			break;
#pragma clang loop unroll(disable)
		for (u32 i = 0; i < FASTHTTP_KVS; i++) {
			u64 *element = &buffer->walk.words[i * FASTHTTP_KV_WORDS], length = element[1];

			if (i >= many)
				break;
			if ((length - 10) >> 1)
				continue;
			buffer->walk.name[0] = buffer->walk.name[1] = 0;
			read_user_present(buffer->walk.name, 10 + (length & 1), element[0]);
			which = fasthttp_server_header(buffer->walk.name[0], buffer->walk.name[1], length);
			if (!(wanted >> which & 1))
				continue;
			which &= HEADERS - 1;
			found[which].length = found[which].data ? 0 : element[4];
			found[which].data = element[3];
		}
		left -= many;
		at += many * 8 * FASTHTTP_KV_WORDS;
	}
}

/* Fills `strings` and what of the request is kept as it is. Returns the span id of a valid traceparent, whose ids and flags are
 * in `request->context` then, or 0. `header`: the *RequestHeader. */
static __always_inline u64 fasthttp_server_read(struct target *target, u64 header, struct fasthttp_server_in_flight *request,
						struct fasthttp_server_strings *strings)
{
	union fasthttp_server_reading buffer;
	struct go_block *block = go_read_block(&buffer.block, header, target->fasthttp_header_block);
	u16 start = target->fasthttp_header_block;
	u64 embedded = header + (target->fasthttp_header_embedded == MISSING ? 0 : target->fasthttp_header_embedded);
	u64 at, bytes, wanted, method = 0;
	struct go_string list = {};

	__builtin_memset(strings->headers, 0, sizeof(strings->headers));
	go_field(block, header, start, target->fasthttp_header_method, &strings->method.data, 2);
	go_field(block, header, start, target->fasthttp_header_uri, &strings->target.data, 2);
	go_field(block, header, start, target->fasthttp_header_host, &strings->host.data, 2);
	if (target->options & OPTION_user_agent)
		go_field(block, header, start, target->fasthttp_header_user_agent, &strings->headers[HEADER_USER_AGENT].data, 2);
	__builtin_memset(&buffer, 0, sizeof(buffer));
	at = strings->method.length;
	CLAMP(at, 15);
	if (read_user_present(buffer.line, at, strings->method.data))
		at = 0;
	request->method_bytes = at;
	if (at - 1 < 8)
		method = *(u64 *)buffer.line;
	request->method = method && HTTP_SERVER_KNOWN_METHOD(method) ? method : 0;
	request->line_bytes = 0;
	if (at) {
		buffer.line[at] = ' ';
		at++;
	}
	bytes = strings->target.length;
	CLAMP(bytes, 56);
	if (!read_user_present(buffer.line + at, bytes, strings->target.data))
		request->line_bytes = at + bytes;
	__builtin_memcpy(request->line, buffer.line, sizeof(request->line));
	request->protocol_minor = !(connection_word(embedded, target->fasthttp_header_old) & 0xff);
	if (target->options & OPTION_tracecontext && target->fasthttp_header_lines != MISSING &&
	    target->fasthttp_kv_no_value == 8 * (FASTHTTP_KV_WORDS - 1)) {
		wanted = 1 << HEADER_TRACEPARENT | 1 << HEADER_TRACESTATE;
		__builtin_memset(&buffer, 0, sizeof(buffer));
		read_user_present(&list, sizeof(list), embedded + target->fasthttp_header_lines);
		fasthttp_server_walk(list, wanted, &buffer, strings->headers);
	}
	if (!strings->headers[HEADER_TRACEPARENT].length)
		return 0;
	__builtin_memset(&buffer, 0, sizeof(buffer));
	return traceparent_read(strings->headers[HEADER_TRACEPARENT], &buffer.text, &request->context);
}

#define FASTHTTP_SERVER_TEXT(texts, field, string, max)                                                                   \
	do {                                                                                                              \
		u64 bytes = (string).length;                                                                              \
		CLAMP(bytes, max);                                                                                        \
		if (read_user_present((texts)->field, bytes, (string).data))                                              \
			bytes = 0;                                                                                        \
		(texts)->field##_bytes = bytes;                                                                           \
	} while (0)

/* Copies the texts of a request whose record is a large one. */
static __always_inline void fasthttp_server_keep(struct goroutine_key *key, struct fasthttp_server_in_flight *request,
						 struct fasthttp_server_strings *strings)
{
	struct fasthttp_server_long *texts;
	u64 at = strings->method.length, bytes = strings->target.length;
	u32 zero = 0;

	texts = fasthttp_server_no_texts.lookup(&zero);
	if (!texts || fasthttp_server_texts.update(key, texts))
		return;
	texts = fasthttp_server_texts.lookup(key);
	if (!texts)
		return;
	request->is_long = 1;
	CLAMP(at, 40);
	if (read_user_present(texts->line, at, strings->method.data))
		at = 0;
	texts->method_bytes = at;
	if (at) {
		texts->line[at] = ' ';
		at++;
	}
	CLAMP(bytes, 300);
	if (!read_user_present(texts->line + at, bytes, strings->target.data))
		texts->line_bytes = at + bytes;
	FASTHTTP_SERVER_TEXT(texts, host, strings->host, 88);
	FASTHTTP_SERVER_TEXT(texts, user_agent, strings->headers[HEADER_USER_AGENT], 136);
	FASTHTTP_SERVER_TEXT(texts, tracestate, strings->headers[HEADER_TRACESTATE], 176);
}

/* Copies what a request's record will need of its texts. */
static __always_inline void fasthttp_server_copy(struct goroutine_key *key, struct fasthttp_server_in_flight *request,
						 struct fasthttp_server_strings *strings)
{
	u64 bytes = strings->host.length, words[FASTHTTP_SERVER_HOST / 8] = {};

	request->is_long = 0;
	CLAMP(bytes, 32);
	if (read_user_present(words, bytes, strings->host.data))
		bytes = 0;
	__builtin_memcpy(request->host, words, sizeof(request->host));
	request->host_bytes = bytes;
	if (strings->headers[HEADER_USER_AGENT].length || strings->headers[HEADER_TRACESTATE].length ||
	    strings->method.length > FASTHTTP_SERVER_METHOD || strings->target.length > FASTHTTP_SERVER_TARGET ||
	    strings->host.length > FASTHTTP_SERVER_HOST)
		fasthttp_server_keep(key, request, strings);
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
	if (!sampled && !target->sampling_late && !(target->options & OPTION_red) &&
	    !(target->traits & TARGET_FINDS_PARENTS)) {
		count(slot, COUNTER_sampled_out);
		request->is_long = 0;
		fasthttp_server_rest(target, &key, request, 0);
		return 0;
	}
	request->context.flags = (request->context.flags & ~TRACE_FLAG_SAMPLED) | sampled;
	if (!header_span_id) {
		strings->headers[HEADER_TRACESTATE].length = 0;
	} else if (strings->headers[HEADER_TRACESTATE].length > HTTP_SERVER_MAX_TRACESTATE) {
		strings->headers[HEADER_TRACESTATE].length = 0; /* cut off it would be another one */
		count(slot, COUNTER_tracestate_dropped);
	}
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

static __always_inline void fasthttp_server_count(struct target *target, u32 slot, struct fasthttp_server_in_flight *request,
						  struct http_server_fixed *fixed, u64 duration_ns)
{
	struct red_key key = {.word = request->method, .slot = slot, .kind = KIND_fasthttp_server, .status = fixed->status};

	if (!key.status && fixed->end != HTTP_SERVER_PANICKED)
		key.status = fixed->end == HTTP_SERVER_ANSWERED ? 200 : 101;
	if (fixed->end == HTTP_SERVER_PANICKED)
		key.error = request->panic_type ? request->panic_type : HTTP_SERVER_GOEXIT;
	key.traits[0] = fixed->tls;
	key.traits[1] = 1 << 4 | fixed->protocol_minor;
	if (fixed->route_bytes)
		key.text = red_text_id(&request->route_text);
	red_count(target, &key, &request->route_text, duration_ns, RED_BUCKET_fasthttp_server(duration_ns));
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
	if (!kept) {
		fixed.header.late = sampling_late(target->sampling_late, target->sampling_slow_ns, duration_ns,
						  fixed.status >= 500 || end == HTTP_SERVER_PANICKED) ||
				    (span && span->live.child_kept);
		if (!fixed.header.late)
			count(key->slot, COUNTER_sampled_out);
		kept = fixed.header.late;
	}
	if (!kept && !(target->options & OPTION_red))
		return;
	fixed.tls = request->tls;
	fixed.protocol_minor = request->protocol_minor;
	fixed.panic_type = request->panic_type;
	__builtin_memset(&request->route_text, 0, sizeof(request->route_text));
	if (span)
		fixed.route_bytes = route_read(span, key->slot, http_server_route(target, span), &request->route_text);
	if (target->options & OPTION_red)
		fasthttp_server_count(target, key->slot, request, &fixed, duration_ns);
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
