/* SPDX-License-Identifier: GPL-2.0-only
 *
 * Requests that github.com/valyala/fasthttp's HostClients send, each attempt a span. Declared in
 * otel_goprobe/probes/fasthttp_client.py.
 */

#define FASTHTTP_CLIENT_ID_BIT (1ULL << 61)

static __always_inline struct goroutine_key fasthttp_client_key(struct pt_regs *ctx, u32 slot)
{
	struct goroutine_key key = {.goid = GO_G(ctx), .slot = slot, .kind = KIND_fasthttp_client};

	return key;
}

/* func (c *HostClient) Do(req *Request, resp *Response) error, since fasthttp 1.0: under every Client, LBClient and proxy,
 * once a request and a redirect; it repeats attempts. Registers: c = ARG1, req = ARG2, resp = ARG3. */
int fasthttp_client_request_start(struct pt_regs *ctx)
{
	struct fasthttp_client_in_flight request = {}, *before;
	struct goroutine_key key;
	struct target *target;
	u64 no_context[2] = {};
	u32 slot, continues = 0;

	target = target_of(ctx, &slot);
	if (!target)
		return 0;
	key = fasthttp_client_key(ctx, slot);
	request.start_ns = bpf_ktime_get_ns();
	request.bias = GO_PC(ctx) - target->fasthttp_client_start_address;
	request.client = GO_ARG1(ctx);
	request.request = GO_ARG2(ctx);
	request.response = GO_ARG3(ctx);
	request.generation = target->generation;
	before = fasthttp_client_before.lookup(&key);
	if (before && before->redirected && before->generation == target->generation) {
		request.resends = before->resends;
		before->redirected = 0;
		before->failed_ns = 0;
		continues = 1;
	} else if (before) {
		fasthttp_client_before.delete(&key);
	}
	client_span_begin(ctx, target, slot, FASTHTTP_CLIENT_ID_BIT, no_context, request.bias, continues,
			  (struct client_span *)&request);
	if (client_span_replaces(slot, fasthttp_client_inflight.insert(&key, &request)))
		fasthttp_client_inflight.update(&key, &request);
	return 0;
}

/* The attempt that this goroutine is at, with what each program on it begins with; NULL where that is none. One that comes
 * behind a failed one begins here: a span of its own. */
static __always_inline struct fasthttp_client_in_flight *fasthttp_client_of(struct pt_regs *ctx, struct target **target,
									     u32 *slot, struct goroutine_key *key)
{
	struct fasthttp_client_in_flight *request, *before;

	*target = target_of(ctx, slot);
	if (!*target)
		return 0;
	*key = fasthttp_client_key(ctx, *slot);
	request = fasthttp_client_inflight.lookup(key);
	if (request)
		return request;
	before = fasthttp_client_before.lookup(key);
	if (!before || !before->failed_ns || before->generation != (*target)->generation)
		return 0;
	client_span_repeat(*target, *slot, key->goid, FASTHTTP_CLIENT_ID_BIT, before->failed_ns, (struct client_span *)before);
	before->failed_ns = 0;
	before->resends++;
	before->connected = 0;
	before->connection.port = 0;
	before->peer_port = 0;
	__builtin_memset(before->peer, 0, sizeof(before->peer));
	if (fasthttp_client_inflight.update(key, before)) {
		count(*slot, COUNTER_in_flight_full);
		return 0;
	}
	return fasthttp_client_inflight.lookup(key);
}

/* The connection that a *clientConn holds, NULL where it can't be joined, counted once a connection. They come from a pool:
 * when this one was made tells it from what was there before (client.go, acquireClientConn, in each version). */
static __always_inline struct connection *fasthttp_client_connection_of(struct target *target, u32 slot, u64 client_conn,
									u64 bias)
{
	struct goroutine_key own = {.goid = client_conn, .slot = slot, .kind = KIND_fasthttp_client};
	u64 created[2], object;

	if (target->fasthttp_conn_c == MISSING || target->fasthttp_conn_created == MISSING)
		return 0;
	/* wall and ext of time/time.go, Time; ext is monotonic. */
	if (read_user_present(created, sizeof(created), client_conn + target->fasthttp_conn_created))
		return 0;
	object = go_read_interface(client_conn, target->fasthttp_conn_c) ^ id_mix(created[0] ^ id_mix(created[1]));
	return connection_of(target, &own, client_conn + target->fasthttp_conn_c, bias, 0, object, 0);
}

/* Behind func (c *HostClient) AcquireConn(reqTimeout time.Duration, connectionClose bool) (*clientConn, error), up to 1.58
 * acquireConn, at first with fewer parameters: once an attempt, before anything is written. Result: *clientConn = ARG1. */
int fasthttp_client_connection(struct pt_regs *ctx)
{
	struct fasthttp_client_in_flight *request;
	struct connection *connection;
	struct target *target;
	struct goroutine_key key;
	u32 slot;

	request = fasthttp_client_of(ctx, &target, &slot, &key);
	if (!request || !GO_ARG1(ctx))
		return 0;
	request->connected = 1;
	connection = fasthttp_client_connection_of(target, slot, GO_ARG1(ctx), request->bias);
	if (!connection)
		return 0;
	__builtin_memcpy(request->peer, connection->tuple.remote_ip, sizeof(request->peer));
	request->peer_port = connection->tuple.remote_port;
	request->connection = connection->key;
	connection_publish(target, &request->connection, &request->context, request->span_id);
	if (!(target->options & OPTION_wire) || wire_is_joined(&connection->tuple))
		return 0;
	if (go_read_byte(request->client, target->fasthttp_client_is_tls))
		count(slot, COUNTER_wire_tls);
	else
		wire_arm_plain(slot, &connection->tuple, &request->context, request->span_id);
	return 0;
}

static __always_inline u8 fasthttp_client_protocol(u8 no_http11)
{
	return 1 << 4 | (no_http11 ? 0 : 1);
}

/* Where (*HostClient).do gives back a response that its caller doesn't want: there it calls closeOrDrainResponseBody or, in
 * older versions, ReleaseResponse. Registers: resp = ARG1. */
int fasthttp_client_unwanted(struct pt_regs *ctx)
{
	struct fasthttp_client_in_flight *request;
	struct target *target;
	struct goroutine_key key;
	u32 slot;

	request = fasthttp_client_of(ctx, &target, &slot, &key);
	if (!request)
		return 0;
	request->status = go_read_word(GO_ARG1(ctx), target->fasthttp_client_status);
	request->no_http11 = go_read_byte(GO_ARG1(ctx) + target->fasthttp_response_header, target->fasthttp_no_http11);
	return 0;
}

/* What is told of an error, given the words of an interface value: http_client_error's, or what its text is, if it was made
 * of one that stands in the executable. */
static __always_inline u64 fasthttp_client_error(struct target *target, u64 bias, u64 itab, u64 data)
{
	u64 words[FASTHTTP_CLIENT_TEXT_WORDS] = {}, bytes, id = 0;
	struct go_string text;

	if (itab == target->fasthttp_dial_error_itab + bias && target->fasthttp_dial_error_cause != MISSING &&
	    !read_user(words, 2 * sizeof(u64), data + target->fasthttp_dial_error_cause)) {
		itab = words[0];
		data = words[1];
		words[0] = words[1] = 0;
	}
	if (itab != target->error_string_itab + bias)
		return http_client_error(target, bias, itab, data);
	text = go_read_string(data, 0);
	if (text.data - bias >= target->read_only_end)
		return go_read_word(itab, 8) - bias;
	bytes = text.length;
	CLAMP(bytes, 64);
	read_user_present(words, bytes, text.data);
#pragma clang loop unroll(full)
	for (u32 i = 0; i < FASTHTTP_CLIENT_TEXT_WORDS; i++)
		id = id_mix(id ^ words[i]);
	return id >> 2 | FASTHTTP_CLIENT_TEXT_ERROR;
}

static __always_inline void fasthttp_client_count(struct target *target, u32 slot, struct fasthttp_client_fixed *fixed,
						  struct fasthttp_client_texts *texts, u64 duration_ns)
{
	struct red_key key = {.slot = slot, .kind = KIND_fasthttp_client, .status = fixed->status, .error = fixed->error};
	struct red_text text = {};
	u64 bytes = texts->method.length, method = bytes ? 0 : 0x544547; /* "GET", of which "" is a short form */

	if (bytes <= 8) {
		CLAMP(bytes, 8);
		read_user_present(&method, bytes, texts->method.data);
	}
	key.word = HTTP_SERVER_KNOWN_METHOD(method) ? method : 0;
	key.traits[0] = fixed->url_traits / FASTHTTP_CLIENT_URL_HTTPS;
	key.traits[1] = fixed->protocol;
	if (red_text_read(texts->host, &text))
		key.text = red_text_id(&text);
	red_count(target, &key, &text, duration_ns, RED_BUCKET_fasthttp_client(duration_ns));
}

static __always_inline void fasthttp_client_submit(struct target *target, u32 slot,
						   struct fasthttp_client_in_flight *request,
						   struct fasthttp_client_fixed *fixed, struct fasthttp_client_texts *texts)
{
	fixed->resends = request->resends;
	__builtin_memcpy(fixed->peer, request->peer, sizeof(fixed->peer));
	fixed->peer_port = request->peer_port;
	SPAN_HEADER(fixed, KIND_fasthttp_client, slot, request);
	if (!request->parent_span_id)
		fixed->header.links = links_of(target, slot, request->span_id);
	if (texts->method.length <= 8 && texts->host.length <= 48 && texts->path.length <= 104 && !texts->query.length) {
		struct fasthttp_client_record_256 *record = ring_256.ringbuf_reserve(sizeof(*record));

		if (!record) {
			count(slot, COUNTER_ring_full);
			return;
		}
		record->fixed = *fixed;
		COPY_SHORT(record, method, texts->method, 8);
		COPY_SHORT(record, host, texts->host, 48);
		COPY(record, path, texts->path, 104);
		ring_256.ringbuf_submit(record, RB_NO_WAKEUP);
	} else {
		struct fasthttp_client_record_1024 *record = ring_1024.ringbuf_reserve(sizeof(*record));

		if (!record) {
			count(slot, COUNTER_ring_full);
			return;
		}
		record->fixed = *fixed;
		COPY(record, method, texts->method, 24);
		COPY(record, host, texts->host, 128);
		COPY(record, path, texts->path, 560);
		COPY(record, query, texts->query, 216);
		ring_1024.ringbuf_submit(record, RB_NO_WAKEUP);
	}
}

/* Counts and records an attempt that has ended; it stays in fasthttp_client_inflight. */
static __always_inline void fasthttp_client_finish(struct target *target, u32 slot,
						   struct fasthttp_client_in_flight *request, u64 end_ns, u64 error)
{
	struct fasthttp_client_texts texts = {};
	struct fasthttp_client_fixed fixed = {.error = error};
	u64 duration_ns = end_ns - request->start_ns;
	u32 kept;

	connection_retract(&request->connection, request->span_id);
	fixed.header.end_ns = end_ns;
	/* An attempt that gets no connection may fail before the last one's answer is forgotten. */
	if (!request->response) {
		fixed.status = request->status;
		fixed.protocol = fasthttp_client_protocol(request->no_http11);
	} else if (request->connected || !error) {
		fixed.status = go_read_word(request->response, target->fasthttp_client_status);
		fixed.protocol = fasthttp_client_protocol(
			go_read_byte(request->response + target->fasthttp_response_header, target->fasthttp_no_http11));
	}
	if (!fixed.status)
		fixed.protocol = 0;
	kept = client_span_is_kept(target, slot, (struct client_span *)request, duration_ns, fixed.status >= 400 || error,
				   &fixed.header.late);
	if (!kept && !(target->options & OPTION_red))
		return;
	fixed.url_traits = fasthttp_client_read_request(target, request, &texts);
	if (kept)
		fasthttp_client_submit(target, slot, request, &fixed, &texts);
	if (target->options & OPTION_red)
		fasthttp_client_count(target, slot, &fixed, &texts, duration_ns);
}

/* Behind func (c *HostClient) do(req *Request, resp *Response) (bool, error), since fasthttp 1.0, which Do calls once an
 * attempt. Results: whether to try again = ARG1, error = ARG2 (itab), ARG3 (data). */
int fasthttp_client_answer(struct pt_regs *ctx)
{
	struct fasthttp_client_in_flight *request;
	struct target *target;
	struct goroutine_key key;
	u64 end_ns, error = 0;
	u32 slot;

	request = fasthttp_client_of(ctx, &target, &slot, &key);
	if (!request)
		return 0;
	end_ns = bpf_ktime_get_ns();
	if (GO_ARG2(ctx))
		error = fasthttp_client_error(target, request->bias, GO_ARG2(ctx), GO_ARG3(ctx));
	fasthttp_client_finish(target, slot, request, end_ns, error);
	if (error && GO_ARG1(ctx) & 1)
		request->failed_ns = end_ns;
	if (request->failed_ns || request->resends)
		fasthttp_client_before.update(&key, request);
	fasthttp_client_inflight.delete(&key);
	return 0;
}

/* In func doRequestFollowRedirects(req *Request, …), since fasthttp 1.0: its call of getRedirectURL, once a redirect that is
 * followed, behind the answer and before the next Do. */
int fasthttp_client_redirect(struct pt_regs *ctx)
{
	struct fasthttp_client_in_flight *before;
	struct target *target;
	struct goroutine_key key;
	u32 slot, zero = 0;

	target = target_of(ctx, &slot);
	if (!target)
		return 0;
	key = fasthttp_client_key(ctx, slot);
	before = fasthttp_client_before.lookup(&key);
	if (!before || before->generation != target->generation) {
		before = fasthttp_client_blank.lookup(&zero);
		if (!before || fasthttp_client_before.update(&key, before))
			return 0;
		before = fasthttp_client_before.lookup(&key);
		if (!before)
			return 0;
		before->generation = target->generation;
	}
	before->resends++;
	before->redirected = 1;
	return 0;
}

/* func gopanic(e any) of package runtime, since Go 1.0: leaves Do without a result. Registers: ARG1 = type of the value. */
int fasthttp_client_panic(struct pt_regs *ctx)
{
	struct fasthttp_client_in_flight *request;
	struct target *target;
	struct goroutine_key key;
	u32 slot;

	target = target_of(ctx, &slot);
	if (!target)
		return 0;
	key = fasthttp_client_key(ctx, slot);
	request = fasthttp_client_inflight.lookup(&key);
	if (!request)
		return 0;
	fasthttp_client_finish(target, slot, request, bpf_ktime_get_ns(), GO_ARG1(ctx) - request->bias);
	fasthttp_client_inflight.delete(&key);
	return 0;
}
