/* SPDX-License-Identifier: GPL-2.0-only
 *
 * Routes of echo v5. Declared in otel_goprobe/probes/echo_v5.py.
 */

/* func (r *DefaultRouter) Route(c *Context) HandlerFunc of package echo, since 5.0.0: writes the route that it finds into
 * the Pattern of the context's request, where the server looks for it at the end. Registers: c = ARG2. */
int echo_v5_finds(struct pt_regs *ctx)
{
	struct server_span *span;
	struct target *target;
	u64 request;
	u32 slot;

	target = target_of(ctx, &slot);
	if (!target)
		return 0;
	span = span_of_router(ctx, target, slot);
	if (!span || !span->request)
		return 0;
	request = go_read_word(GO_ARG2(ctx), target->echo_v5_request);
	/* The server's own, or a copy by WithContext, which shares the string that the request line was read into. */
	if (go_read_word(request, target->request_uri) != span->request_target)
		return 0;
	span->mux_request = request;
	span->route.length = 0;
	return 0;
}
