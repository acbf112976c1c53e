/* SPDX-License-Identifier: GPL-2.0-only
 *
 * Which stream of which connection a client's request goes over, where that is HTTP/2: what http_client.bpf.c adds to it.
 * Declared in otel_goprobe/probes/http_streams.py and http_x_streams.py.
 */

/* By the request that a connection is given, which is a copy's with retries and since Go 1.27, the g that waits for the
 * answer: the stream gets a goroutine of its own. */
BPF_TABLE("lru_hash", struct goroutine_key, u64, http_streams_waiting, 16384);

/* Where one of the two packages has what the programs read. */
struct http_streams_layout {
	u16 stream_id;
	u16 stream_connection;
	u16 connection_conn;
};

/* `prefix`: that of the package's facts. */
#define HTTP_STREAMS_LAYOUT(target, prefix)                                                                               \
	((struct http_streams_layout){(target)->prefix##_stream_id, (target)->prefix##_stream_cc,                         \
				      (target)->prefix##_connection_tconn})

/* func (cc *http2ClientConn) roundTrip(req *Request, …) (*Response, error) of net/http, RoundTrip up to Go 1.21; since 1.27
 * (cc *ClientConn) of net/http/internal/http2, with req *ClientRequest; the same of golang.org/x/net/http2, with req
 * *http.Request. On the Transport's goroutine, for each attempt. Registers: cc = ARG1, req = ARG2. */
int http_streams_attempt(struct pt_regs *ctx)
{
	struct http_client_in_flight *request;
	struct goroutine_key key;
	struct target *target;
	u64 g;
	u32 slot;

	request = http_client_of(ctx, &target, &slot, &key);
	if (!request)
		return 0;
	http_client_attempt(target, slot, key.goid, request, GO_ARG2(ctx));
	g = key.goid;
	key.goid = request->given;
	http_streams_waiting.update(&key, &g);
	return 0;
}

/* func http2shouldRetryRequest(req *Request, err error) (*Request, error) of net/http; since 1.27 shouldRetryRequest of
 * net/http/internal/http2; the same of golang.org/x/net/http2. On the Transport's goroutine, behind each attempt that
 * failed. Registers: req = ARG1, err = ARG2, ARG3. */
int http_streams_failed(struct pt_regs *ctx)
{
	struct http_client_in_flight *request;
	struct goroutine_key key;
	struct target *target;
	u32 slot;

	request = http_client_of(ctx, &target, &slot, &key);
	return request ? http_client_attempt_failed(ctx, target, request) : 0;
}

static __always_inline int http_streams_headers(struct pt_regs *ctx, struct target *target, u32 slot,
						struct http_streams_layout layout)
{
	struct goroutine_key own = {.slot = slot, .kind = KIND_http_client}, key = own;
	struct http_client_in_flight *request;
	struct connection *connection;
	u64 stream = GO_ARG1(ctx), given = GO_ARG2(ctx), bias, *g;
	u32 id = 0;

	key.goid = given;
	g = http_streams_waiting.lookup(&key);
	if (!g)
		return 0;
	bias = *g;
	http_streams_waiting.delete(&key);
	key.goid = bias;
	request = http_client_inflight.lookup(&key);
	if (!request || request->given != given)
		return 0; /* whoever waited has left */
	bias = request->bias;
	own.goid = go_read_word(stream, layout.stream_connection);
	read_user_present(&id, sizeof(id), stream + layout.stream_id);
	if (!own.goid || !id)
		return 0;
	connection = connection_of_streams(target, &own, own.goid + layout.connection_conn, bias, 0, id);
	if (!connection)
		return 0;
	connection_retract(&request->connection, request->span_id); /* of an attempt that failed */
	__builtin_memcpy(request->peer, connection->tuple.remote_ip, sizeof(request->peer));
	request->peer_port = connection->tuple.remote_port;
	request->connection = connection->key;
	request->connection.stream = id;
	connection_publish(target, &request->connection, &request->context, request->span_id);
	return 0;
}

/* func (cs *http2clientStream) encodeAndWriteHeaders(req *Request) error of net/http, since Go 1.18; since 1.27 (cs
 * *clientStream) of net/http/internal/http2, with req *ClientRequest. On the stream's goroutine, when it has its number and
 * nothing has been sent yet. Registers: cs = ARG1, req = ARG2. */
int http_streams_numbered(struct pt_regs *ctx)
{
	struct target *target;
	u32 slot;

	target = target_of(ctx, &slot);
	return target ? http_streams_headers(ctx, target, slot, HTTP_STREAMS_LAYOUT(target, http_streams)) : 0;
}
