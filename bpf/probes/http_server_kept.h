/* SPDX-License-Identifier: GPL-2.0-only
 *
 * Elements of http_server_inflight, one a connection: added, filled from the net/http.Request, left for the next request.
 */

/* Never written to: a new element, for which the stack has no room. */
BPF_ARRAY(http_server_blank, struct http_server_in_flight, 1);

static __always_inline struct goroutine_key http_server_key(struct pt_regs *ctx, u32 slot)
{
	struct goroutine_key key = {.goid = GO_G(ctx), .slot = slot, .kind = KIND_http_server};

	return key;
}

/* The first bytes of the method that `line` begins with, where it is a known one; else 0. */
static __always_inline u64 http_server_method(const char *line, u32 method_bytes)
{
	u64 method = *(u64 *)line & (~0ULL >> (64 - 8 * method_bytes & 63));

	return method_bytes - 1 < 8 && HTTP_SERVER_KNOWN_METHOD(method) ? method : 0;
}

/* Fills what the element has of a net/http.Request, by way of `buffer`. */
static __always_inline void http_server_fill_request(struct target *target, u64 seen, struct http_server_in_flight *request,
						     union http_server_reading *buffer)
{
	struct go_block *block = go_read_block(&buffer->block, seen, target->request_block);
	struct go_string method, line;
	u16 start = target->request_block;
	u64 bytes;

	go_field(block, seen, start, target->request_host, &request->host.data, 2);
	go_field(block, seen, start, target->request_proto_major, &request->protocol_major, 1);
	go_field(block, seen, start, target->request_proto_minor, &request->protocol_minor, 1);
	go_field(block, seen, start, target->request_header, &request->header, 1);
	go_field(block, seen, start, target->request_method, &method.data, 2);
	go_field(block, seen, start, target->request_uri, &line.data, 2);
	/* Both are parts of the request line, which is one string (src/net/http/request.go, parseRequestLine). */
	bytes = line.data - method.data - 1;
	request->method_bytes = bytes == method.length && bytes < 256 ? bytes : 0;
	if (request->method_bytes) {
		line.data = method.data;
		line.length += bytes + 1;
	}
	request->line = line;
	bytes = line.length;
	CLAMP(bytes, 72);
	if (read_user_present(buffer->line, bytes, line.data))
		request->line.length = request->method_bytes = 0;
	__builtin_memcpy(request->line_text, buffer->line, sizeof(request->line_text));
	request->method = http_server_method(request->line_text, request->method_bytes);
}

static __always_inline void http_server_read_request(struct target *target, u64 seen, struct http_server_in_flight *request)
{
	union http_server_reading buffer;

	http_server_fill_request(target, seen, request, &buffer);
}

/* Finds the headers that are asked for, by way of `buffer`. Returns the span id of a valid traceparent, whose ids and flags
 * are in `request->context` then, or 0. */
static __always_inline u64 http_server_find_headers(struct target *target, struct http_server_in_flight *request,
						    union http_server_reading *buffer)
{
	u64 wanted = 0;

	__builtin_memset(request->headers, 0, sizeof(request->headers));
	if (target->options & OPTION_tracecontext)
		wanted = 1 << HEADER_TRACEPARENT | 1 << HEADER_TRACESTATE;
	if (target->options & OPTION_user_agent)
		wanted |= 1 << HEADER_USER_AGENT;
	if (wanted && request->header)
		go_headers(request->header, target->swiss_maps, wanted, &buffer->walk, request->headers);
	if (!request->headers[HEADER_TRACEPARENT].length)
		return 0;
	__builtin_memset(&buffer->text, 0, sizeof(buffer->text));
	return traceparent_read(request->headers[HEADER_TRACEPARENT], &buffer->text, &request->context);
}

static __always_inline u64 http_server_read_headers(struct target *target, struct http_server_in_flight *request)
{
	union http_server_reading buffer = {};

	return http_server_find_headers(target, request, &buffer);
}

/* Adds what this goroutine's requests are kept in, with all that is the same for each of them; NULL where there is no room. */
static __always_inline struct http_server_in_flight *http_server_connect(struct pt_regs *ctx, struct target *target,
									  struct goroutine_key *key, u64 response)
{
	u32 zero = 0;
	struct http_server_in_flight *blank = http_server_blank.lookup(&zero), *request;
	struct goroutine_key by_id = *key;
	struct go_string peer;
	u64 bytes, g = key->goid;
	u32 *elements;

	if (!blank || http_server_inflight.insert(key, blank))
		return 0;
	request = http_server_inflight.lookup(key);
	if (!request)
		return 0;
	elements = in_flight_elements.lookup(&key->kind);
	if (elements)
		__sync_fetch_and_add(elements, 1);
	request->goid = by_id.goid = go_read_word(g, target->g_goid);
	request->bias = GO_PC(ctx) - target->http_server_start_address;
	request->connection = go_read_word(response, target->response_conn);
	request->tls = go_read_word(request->connection, target->conn_tls_state) != 0;
	connection_of_server(target, key->slot, request->connection, request->bias,
			     &request->scratch.connection, &request->joined);
	if (request->joined.port)
		wire_serve(target, key->slot, &request->scratch.connection.tuple);
	peer = go_read_string(request->connection, target->conn_remote_addr);
	bytes = peer.length;
	CLAMP(bytes, 48);
	request->peer_bytes = read_user(request->peer, bytes, peer.data) ? 0 : bytes;
	goroutines.update(&by_id, &g);
	return request;
}

/* Removes the element, which the caller has no use for any more. */
static __always_inline void http_server_forget(struct goroutine_key *key, u64 goid, const struct live_span *live)
{
	struct goroutine_key by_id = *key;
	u32 *elements = in_flight_elements.lookup(&key->kind);

	by_id.goid = goid;
	goroutines.delete(&by_id);
	live_span_forget(key, live);
	if (!http_server_inflight.delete(key) && elements)
		__sync_fetch_and_add(elements, -1);
}

/* Leaves the element for the connection's next request, or makes room where there are many connections. */
static __always_inline void http_server_rest(struct target *target, struct goroutine_key *key,
					     struct http_server_in_flight *request, u32 is_last)
{
	u32 *elements = in_flight_elements.lookup(&key->kind);

	request->start_ns = 0;
	if (is_last || !elements || *elements > target->kept_in_flight)
		http_server_forget(key, request->goid, &request->live);
}
