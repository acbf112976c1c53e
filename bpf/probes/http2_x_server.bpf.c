/* SPDX-License-Identifier: GPL-2.0-only
 *
 * Requests that golang.org/x/net/http2 answers: http2_server.bpf.c's, with this package's offsets. Declared in
 * otel_goprobe/probes/http2_x_server.py.
 */

/* func (sc *serverConn) runHandler(rw *responseWriter, req *http.Request, handler func(http.ResponseWriter, *http.Request)),
 * since x/net of 2015. Registers: sc = ARG1, rw = ARG2, req = ARG3. */
int http2_x_server_request_start(struct pt_regs *ctx)
{
	struct target *target;
	u32 slot;

	target = target_of(ctx, &slot);
	if (!target)
		return 0;
	return http2_server_begin(ctx, target, slot, HTTP2_SERVER_LAYOUT(target, http2_x, target->http2_x_request_ctx),
				  target->http2_x_server_start_address);
}

/* func (sc *serverConn) upgradeRequest(req *http.Request), since x/net of 2022: on the goroutine of the HTTP/1 request with
 * `Upgrade: h2c`, which is answered as stream 1, by a runHandler that this starts: the one span that it has. Registers:
 * none. */
int http2_x_server_upgrade(struct pt_regs *ctx)
{
	struct http_server_in_flight *request;
	struct goroutine_key key;
	struct target *target;
	u32 slot;

	target = target_of(ctx, &slot);
	if (!target)
		return 0;
	key = http_server_key(ctx, slot);
	request = http_server_inflight.lookup(&key);
	if (request && request->start_ns) {
		request->start_ns = 0;
		count_back(slot, COUNTER_started);
	}
	return 0;
}

/* func (w *responseWriter) handlerDone(), since x/net of 2015. Registers: none. */
int http2_x_server_handler_done(struct pt_regs *ctx)
{
	struct target *target;
	u32 slot;

	target = target_of(ctx, &slot);
	if (!target)
		return 0;
	return http2_server_end(ctx, target, slot, HTTP2_SERVER_LAYOUT(target, http2_x, target->http2_x_request_ctx), HTTP_SERVER_ANSWERED);
}

/* Behind the call of writeFrameFromHandler in runHandler's deferred closure, as in http2_server.bpf.c. */
int http2_x_server_handler_panicked(struct pt_regs *ctx)
{
	struct target *target;
	u32 slot;

	target = target_of(ctx, &slot);
	if (!target)
		return 0;
	return http2_server_end(ctx, target, slot, HTTP2_SERVER_LAYOUT(target, http2_x, target->http2_x_request_ctx), HTTP_SERVER_PANICKED);
}
