/* SPDX-License-Identifier: GPL-2.0-only
 *
 * Routes of fiber v3. Declared in otel_goprobe/probes/fiber_v3.py.
 */

/* func (app *App) ReleaseCtx(c CustomCtx) of package fiber, since v3.0.0: behind the handlers of each request. A program's own
 * kind of context begins with a DefaultCtx, or isn't told of. Registers: c = ARG2 (itab), ARG3. */
int fiber_v3_releases(struct pt_regs *ctx)
{
	struct target *target;
	u32 slot;

	target = target_of(ctx, &slot);
	if (target)
		fiber_route(ctx, target, slot, GO_ARG3(ctx), target->fiber_v3_ctx_route, target->fiber_v3_ctx_fasthttp,
			    target->fiber_v3_route_use, target->fiber_v3_route_path);
	return 0;
}
