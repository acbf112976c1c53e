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

static __always_inline void http_server_read_request(struct target *target, u64 seen, struct go_block *block,
						     struct http_server_in_flight *request)
{
	u16 start = target->request_block;
	u64 bytes;

	block = go_read_block(block, seen, start);
	go_field(block, seen, start, target->request_method, &request->method_text.data, 2);
	go_field(block, seen, start, target->request_uri, &request->uri.data, 2);
	go_field(block, seen, start, target->request_host, &request->host.data, 2);
	go_field(block, seen, start, target->request_proto_major, &request->protocol_major, 1);
	go_field(block, seen, start, target->request_proto_minor, &request->protocol_minor, 1);
	go_field(block, seen, start, target->request_header, &request->header, 1);
	/* Both are parts of the request line, which is one string (src/net/http/request.go, parseRequestLine). */
	bytes = request->uri.data - request->method_text.data - 1;
	request->method_bytes = bytes == request->method_text.length && bytes < 256 ? bytes : 0;
	request->line = request->uri;
	if (request->method_bytes) {
		request->line.data = request->method_text.data;
		request->line.length += bytes + 1;
	}
	bytes = request->line.length;
	CLAMP(bytes, 72);
	if (read_user_present(request->line_text, bytes, request->line.data))
		request->line.length = request->method_bytes = 0;
	request->method = http_server_method(request->line_text, request->method_bytes);
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
			     &((union http_server_scratch *)request->scratch)->connection, &request->joined);
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
