/* SPDX-License-Identifier: GPL-2.0-only
 *
 * Requests that the Transport of golang.org/x/net/http2 sends: those of http_client.bpf.c, which begin elsewhere where that
 * Transport is used by itself. Declared in otel_goprobe/probes/http_x_streams.py.
 */

/* func (cs *clientStream) encodeAndWriteHeaders(req *http.Request) error, since x/net of 2021. Registers: cs = ARG1,
 * req = ARG2. */
int http_x_streams_numbered(struct pt_regs *ctx)
{
	struct target *target;
	u32 slot;

	target = target_of(ctx, &slot);
	return target ? http_streams_headers(ctx, target, slot, HTTP_STREAMS_LAYOUT(target, http_x_streams)) : 0;
}

/* Whether net/http's Transport is at work on this goroutine. */
static __always_inline u32 http_client_is_sending(struct pt_regs *ctx, u32 slot)
{
	struct goroutine_key key = http_client_key(ctx, slot);

	return http_client_inflight.lookup(&key) != 0;
}

/* func (t *Transport) RoundTripOpt(req *http.Request, opt RoundTripOpt) (*http.Response, error), since x/net of 2015; called
 * by RoundTrip, and by net/http's Transport, whose span it then is. Registers: t = ARG1, req = ARG2. */
int http_x_streams_request_start(struct pt_regs *ctx)
{
	struct target *target;
	u32 slot;

	target = target_of(ctx, &slot);
	if (!target || http_client_is_sending(ctx, slot))
		return 0;
	return http_client_begin(ctx, target, slot, target->http_x_streams_start_address, 1);
}

/* Its returns. Results: *Response = ARG1, error = ARG2, ARG3. */
int http_x_streams_return(struct pt_regs *ctx)
{
	struct http_client_in_flight *request;
	struct target *target;
	struct goroutine_key key;
	u64 error = 0;
	u32 slot;

	request = http_client_of(ctx, &target, &slot, &key);
	if (!request || !request->by_http2)
		return 0;
	if (GO_ARG2(ctx))
		error = http_client_error(target, request->bias, GO_ARG2(ctx), GO_ARG3(ctx));
	http_client_finish(target, slot, request, bpf_ktime_get_ns(), GO_ARG1(ctx), error);
	http_client_inflight.delete(&key);
	return 0;
}
