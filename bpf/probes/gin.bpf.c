/* SPDX-License-Identifier: GPL-2.0-only
 *
 * Routes of gin. Declared in otel_goprobe/probes/gin.py.
 */

/* func (c *Context) Next() of package gin, where func (engine *Engine) handleHTTPRequest(c *Context) calls it, since gin
 * 1.5.0 with the route's full path in the context. It is a string of the tree of routes, which stays. Registers: c = ARG1. */
int gin_matched(struct pt_regs *ctx)
{
	struct target *target;
	u32 slot;

	target = target_of(ctx, &slot);
	if (target)
		server_span_route(ctx, target, slot, go_read_string(GO_ARG1(ctx), target->gin_full_path));
	return 0;
}

/* Behind func (n *node) getValue(…) nodeValue of package gin in handleHTTPRequest, since 1.5.0, where Next is inlined.
 * Results, those of the struct: handlers = ARG1 and following, nil without a route; its path the last two, in front of which
 * are the parameters, since 1.7.0 by an address, and a bool. */
int gin_looked_up(struct pt_regs *ctx)
{
	struct go_string route = {.data = GO_ARG6(ctx), .length = GO_ARG7(ctx)};
	struct go_string behind = {.data = GO_ARG8(ctx), .length = GO_ARG9(ctx)};
	struct target *target;
	u64 handlers = GO_ARG1(ctx);
	u32 slot;

	/* Else clang selects the register's place in ctx, which the verifier doesn't accept. */
	asm volatile("" : "+r"(route.data), "+r"(route.length), "+r"(behind.data), "+r"(behind.length), "+r"(handlers));
	target = target_of(ctx, &slot);
	if (!target)
		return 0;
	if (target->gin_params == MISSING)
		route = behind;
	if (!handlers)
		route.length = 0;
	server_span_route(ctx, target, slot, route);
	return 0;
}

/* func serveError(c *Context, code int, defaultMessage []byte) of package gin, where handleHTTPRequest calls it: no route, or
 * one of another method, which it has looked up. */
int gin_unmatched(struct pt_regs *ctx)
{
	struct go_string none = {};
	struct target *target;
	u32 slot;

	target = target_of(ctx, &slot);
	if (target)
		server_span_route(ctx, target, slot, none);
	return 0;
}
