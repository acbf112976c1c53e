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
