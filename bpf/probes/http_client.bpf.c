/* SPDX-License-Identifier: GPL-2.0-only
 *
 * Requests that net/http's Transport sends, each attempt a span. Declared in otel_goprobe/probes/http_client.py.
 */

BPF_HASH(http_client_inflight, struct goroutine_key, struct http_client_in_flight, 16384);

/* By the address of g: it is one goroutine's from roundTrip's start to its end. */
static __always_inline struct goroutine_key http_client_key(struct pt_regs *ctx, u32 slot)
{
	struct goroutine_key key = {.goid = GO_G(ctx), .slot = slot, .kind = KIND_http_client};

	return key;
}

/* What this goroutine is sending, with what each program on it begins with; NULL where that is nothing. */
static __always_inline struct http_client_in_flight *http_client_of(struct pt_regs *ctx, struct target **target, u32 *slot,
								     struct goroutine_key *key)
{
	*target = target_of(ctx, slot);
	if (!*target)
		return 0;
	*key = http_client_key(ctx, *slot);
	return http_client_inflight.lookup(key);
}

#define HTTP_CLIENT_ID_BIT (1ULL << 63)

/* A Transport's method begins, whose second argument is the *http.Request; `start_address`: the site's, before load bias. */
static __always_inline int http_client_begin(struct pt_regs *ctx, struct target *target, u32 slot, u64 start_address,
					      u32 by_http2)
{
	struct http_client_in_flight request = {.by_http2 = by_http2};
	struct goroutine_key key;
	u64 words[5] = {}, at;
	u32 apart;

	key = http_client_key(ctx, slot);
	request.start_ns = bpf_ktime_get_ns();
	request.bias = GO_PC(ctx) - start_address;
	request.request = GO_ARG2(ctx);
	/* Response and, up to Go 1.22, ctx behind it; since 1.23 Pattern is between: src/net/http/request.go. */
	at = request.request + target->request_response;
	apart = (u16)(target->request_ctx - target->request_response);
	if (apart == 24)
		read_user_present(words, 5 * sizeof(u64), at);
	else if (apart == 8)
		read_user_present(&words[2], 3 * sizeof(u64), at);
	else
		read_user_present(&words[3], 2 * sizeof(u64), request.request + target->request_ctx);
	request.redirect = apart == 24 ? words[0] : words[2];
	client_span_begin(ctx, target, slot, HTTP_CLIENT_ID_BIT, &words[3], request.bias, request.redirect != 0,
			  (struct client_span *)&request);
	if (client_span_replaces(slot, http_client_inflight.insert(&key, &request)))
		http_client_inflight.update(&key, &request);
	return 0;
}

/* func (t *Transport) roundTrip(req *Request) (*Response, error), since Go 1.6; what http.Client, and everything that uses a
 * Transport, calls once for each request and each redirect. Registers: t = ARG1, req = ARG2. */
int http_client_request_start(struct pt_regs *ctx)
{
	struct target *target;
	u32 slot;

	target = target_of(ctx, &slot);
	return target ? http_client_begin(ctx, target, slot, target->http_client_start_address, 0) : 0;
}

static __always_inline void http_client_count(struct target *target, u32 slot, struct http_client_in_flight *request,
					      struct http_client_fixed *fixed, struct go_string method, u64 duration_ns)
{
	struct red_key key = {.slot = slot, .kind = KIND_http_client, .status = fixed->status, .error = fixed->error};
	struct red_text text = {};

	request->method = method.length ? 0 : 0x544547; /* "GET", of which "" is a short form */
	if (method.length <= 8) {
		CLAMP(method.length, 8);
		read_user_present(&request->method, method.length, method.data);
	}
	if (!HTTP_SERVER_KNOWN_METHOD(request->method))
		request->method = 0;
	key.word = request->method;
	key.traits[0] = http_client_part(request, target->url_scheme).length == 5; /* https */
	key.traits[1] = fixed->protocol;
	if (red_text_read(http_client_part(request, target->url_host), &text))
		key.text = red_text_id(&text);
	red_count(target, &key, &text, duration_ns, RED_BUCKET_http_client(duration_ns));
}

static __always_inline void http_client_submit(struct target *target, u32 slot, struct http_client_in_flight *request,
					       struct http_client_fixed *fixed, struct go_string method)
{
	struct go_string scheme = http_client_part(request, target->url_scheme);
	struct go_string host = http_client_part(request, target->url_host);
	struct go_string path = http_client_part(request, target->url_raw_path);
	struct go_string query = http_client_part(request, target->url_raw_query);
	struct go_string url = {.data = scheme.data};
	u64 end = host.data + host.length;

	fixed->url_traits = HTTP_CLIENT_URL_RAW_PATH * (is_zero(path.length) ^ 1) |
			    HTTP_CLIENT_URL_USER * (is_zero(http_client_part(request, target->url_user).data) ^ 1);
	if (!path.length)
		path = http_client_part(request, target->url_path);
	/* scheme "://" host path "?" query, of one string? */
	if (!fixed->url_traits && host.data == scheme.data + scheme.length + 3 && (!path.length || path.data == end) &&
	    (!query.length || query.data == end + path.length + 1)) {
		url.length = end + path.length - url.data;
		if (query.length)
			url.length += query.length + 1;
	}
	http_client_redirects(target, request);
	fixed->resends = request->resends;
	__builtin_memcpy(fixed->peer, request->peer, sizeof(fixed->peer));
	fixed->peer_port = request->peer_port;
	SPAN_HEADER(fixed, KIND_http_client, slot, request);
	if (!request->parent_span_id)
		fixed->header.links = links_of(target, slot, request->span_id);
	if (method.length <= 8 && url.length - 1 < 152) {
		struct http_client_record_256 *record = ring_256.ringbuf_reserve(sizeof(*record));

		if (!record) {
			count(slot, COUNTER_ring_full);
			return;
		}
		record->fixed = *fixed;
		COPY_SHORT(record, method, method, 8);
		COPY(record, url, url, 152);
		ring_256.ringbuf_submit(record, RB_NO_WAKEUP);
	} else {
		struct http_client_record_1024 *record = ring_1024.ringbuf_reserve(sizeof(*record));

		if (!record) {
			count(slot, COUNTER_ring_full);
			return;
		}
		record->fixed = *fixed;
		COPY(record, method, method, 24);
		COPY(record, scheme, scheme, 8);
		COPY(record, host, host, 128);
		COPY(record, path, path, 408);
		COPY(record, query, query, 360);
		ring_1024.ringbuf_submit(record, RB_NO_WAKEUP);
	}
}

/* Counts and records an attempt that has ended; it stays in http_client_inflight. */
static __always_inline void http_client_finish(struct target *target, u32 slot, struct http_client_in_flight *request,
					       u64 end_ns, u64 response, u64 error)
{
	struct http_client_fixed fixed = {.error = error};
	struct go_string method;
	u64 duration_ns = end_ns - request->start_ns;
	u32 kept;

	connection_retract(&request->connection, request->span_id);
	fixed.header.end_ns = end_ns;
	http_client_read_response(target, response, &fixed);
	kept = client_span_is_kept(target, slot, (struct client_span *)request, duration_ns, fixed.status >= 400 || error,
				   &fixed.header.late);
	if (!kept && !(target->options & OPTION_red))
		return;
	method = http_client_read_request(target, request);
	/* In this order the verifier walks a third of the instructions. */
	if (kept)
		http_client_submit(target, slot, request, &fixed, method);
	if (target->options & OPTION_red)
		http_client_count(target, slot, request, &fixed, method, duration_ns);
}

/* A connection is given the request. Where an attempt failed before, as its connection was closed or the server refused it,
 * that was a span of its own. `given`: as in http_client_in_flight. */
static __always_inline void http_client_attempt(struct target *target, u32 slot, u64 g,
						struct http_client_in_flight *request, u64 given)
{
	u64 failed_ns = request->failed_ns;

	request->failed_ns = 0;
	if (failed_ns && request->given) {
		http_client_finish(target, slot, request, failed_ns, 0, request->error);
		client_span_repeat(target, slot, g, HTTP_CLIENT_ID_BIT, failed_ns, (struct client_span *)request);
		__builtin_memset(request->peer, 0, sizeof(request->peer));
		request->peer_port = request->connection.port = 0;
		request->resends++;
	}
	request->given = given;
}

/* An attempt has failed, which may not be the end. The error = ARG2, ARG3. */
static __always_inline int http_client_attempt_failed(struct pt_regs *ctx, struct target *target,
						      struct http_client_in_flight *request)
{
	if (!request->failed_ns) {
		request->failed_ns = bpf_ktime_get_ns();
		request->error = http_client_error(target, request->bias, GO_ARG2(ctx), GO_ARG3(ctx));
	}
	return 0;
}

/* func (pc *persistConn) roundTrip(req *transportRequest) (*Response, error), since Go 1.1: on the goroutine of the
 * Transport's roundTrip, once for each attempt to send it over HTTP/1. Registers: pc = ARG1. */
int http_client_connection(struct pt_regs *ctx)
{
	struct http_client_in_flight *request;
	struct connection *connection;
	struct target *target;
	struct goroutine_key key;
	u32 slot;

	request = http_client_of(ctx, &target, &slot, &key);
	if (!request)
		return 0;
	http_client_attempt(target, slot, key.goid, request, 1);
	connection = connection_of_client(target, slot, KIND_http_client, GO_ARG1(ctx), target->persist_conn_conn,
					  target->persist_conn_nwrite, request->bias);
	if (!connection)
		return 0;
	__builtin_memcpy(request->peer, connection->tuple.remote_ip, sizeof(request->peer));
	request->peer_port = connection->tuple.remote_port;
	request->connection = connection->key;
	connection_publish(target, &request->connection, &request->context, request->span_id);
	wire_arm(target, slot, KIND_http_client, &connection->tuple, GO_ARG1(ctx), request->request, &request->context,
		 request->span_id);
	return 0;
}

/* In (*Transport).roundTrip, where it asks whether (*persistConn).roundTrip, or the RoundTrip of HTTP/2, failed; so the end
 * unless it did. Results: *Response = ARG1, error = ARG2, ARG3. */
int http_client_answer(struct pt_regs *ctx)
{
	struct http_client_in_flight *request;
	struct target *target;
	struct goroutine_key key;
	u32 slot;

	request = http_client_of(ctx, &target, &slot, &key);
	if (!request)
		return 0;
	if (GO_ARG2(ctx))
		return http_client_attempt_failed(ctx, target, request);
	http_client_finish(target, slot, request, bpf_ktime_get_ns(), GO_ARG1(ctx), 0);
	http_client_inflight.delete(&key);
	return 0;
}

/* The returns of (*Transport).roundTrip that http_client_answer doesn't see: errors above all. Results as there. */
int http_client_return(struct pt_regs *ctx)
{
	struct http_client_in_flight *request;
	struct target *target;
	struct goroutine_key key;
	u64 error = 0;
	u32 slot;

	request = http_client_of(ctx, &target, &slot, &key);
	if (!request)
		return 0;
	if (GO_ARG2(ctx))
		error = http_client_error(target, request->bias, GO_ARG2(ctx), GO_ARG3(ctx));
	http_client_finish(target, slot, request, bpf_ktime_get_ns(), GO_ARG1(ctx), error);
	http_client_inflight.delete(&key);
	return 0;
}

/* func gopanic(e any) of package runtime, since Go 1.0: leaves roundTrip without a return. Registers: ARG1 = type of the
 * value. */
int http_client_panic(struct pt_regs *ctx)
{
	struct http_client_in_flight *request;
	struct target *target;
	struct goroutine_key key;
	u32 slot;

	request = http_client_of(ctx, &target, &slot, &key);
	if (!request)
		return 0;
	http_client_finish(target, slot, request, bpf_ktime_get_ns(), 0, GO_ARG1(ctx) - request->bias);
	http_client_inflight.delete(&key);
	return 0;
}

/* A goroutine, `started`, has been made by the one that its parentGoid names. Only with --lineage. */
static __always_inline int http_client_lineage(struct pt_regs *ctx, u64 started)
{
	struct goroutine_key key = {.kind = KIND_http_server};
	struct server_span *span;
	struct lineage lineage = {};
	struct target *target;
	u64 starter;
	u32 slot;

	target = target_of(ctx, &slot);
	if (!target)
		return 0;
	starter = connection_word(started, target->g_parent_goid);
	span = parent_on_goroutine_id(target, starter, slot, &lineage.g);
	if (!span)
		span = parent_by_lineage(target, starter, slot, &lineage.g);
	if (!span)
		return 0;
	lineage.span_id = span->span_id;
	key.slot = slot;
	key.goid = connection_word(started, target->g_goid);
	lineages.update(&key, &lineage);
	return 0;
}

/* In func newproc.func1() of package runtime, since Go 1.0, what a go statement runs on the system stack: its call of
 * func runqput(pp *p, gp *g, next bool), which is emulated. The new g = ARG2; the current one is the system stack's. */
int http_client_goroutine_queued(struct pt_regs *ctx)
{
	return http_client_lineage(ctx, GO_ARG2(ctx));
}

/* Behind func newproc1(fn *funcval, callergp *g, callerpc uintptr, …) *g of package runtime, since Go 1.0. Results: the new
 * g = ARG1; the current one is the system stack's. */
int http_client_goroutine(struct pt_regs *ctx)
{
	return http_client_lineage(ctx, GO_ARG1(ctx));
}
