/* SPDX-License-Identifier: GPL-2.0-only
 *
 * Routes of fiber, v2 and v3. Declared in otel_goprobe/probes/fiber.py and fiber_v3.py.
 */

/* What a goroutine, by the address of its g, has fiber answer: a *Ctx. */
BPF_TABLE("lru_hash", struct goroutine_key, u64, fiber_contexts, 16384);

/* Tells the server's span the route that matched last: not one of App.Use, which matches whatever begins with it, and so what
 * nothing else answers. `context`: fiber's, with its `route` and `fasthttp` there; the others are the Route's. */
static __always_inline void fiber_route(struct pt_regs *ctx, struct target *target, u32 slot, u64 context, u16 route,
					u16 fasthttp, u16 use, u16 path)
{
	struct server_span *span = span_of_router(ctx, target, slot);
	struct go_string template = {};
	u64 matched;

	/* Another context than the request's own: a handler asks another App. */
	if (!span || connection_word(context, fasthttp) != span->request)
		return;
	matched = connection_word(context, route);
	if (!matched || connection_word(matched, use) & 0xff)
		return;
	read_user_present(&template, sizeof(template), matched + path);
	span->route = template;
}

/* func (app *App) next(c *Ctx) (bool, error) of package fiber, where func (app *App) handler(rctx *fasthttp.RequestCtx) calls
 * it, since v2.1.0: the context goes back to its pool, its route forgotten, soon behind it. Registers: c = ARG2. */
int fiber_begins(struct pt_regs *ctx)
{
	struct goroutine_key key = {.goid = GO_G(ctx)};
	u64 context = GO_ARG2(ctx);

	if (target_of(ctx, &key.slot))
		fiber_contexts.update(&key, &context);
	return 0;
}

/* Behind that call: the handlers have returned. */
int fiber_answered(struct pt_regs *ctx)
{
	struct goroutine_key key = {.goid = GO_G(ctx)};
	struct target *target = target_of(ctx, &key.slot);
	u64 *context = target ? fiber_contexts.lookup(&key) : 0;

	if (!context)
		return 0;
	fiber_route(ctx, target, key.slot, *context, target->fiber_ctx_route, target->fiber_ctx_fasthttp,
		    target->fiber_route_use, target->fiber_route_path);
	fiber_contexts.delete(&key);
	return 0;
}

/* func (app *App) ReleaseCtx(c *Ctx) of package fiber, inlined into the closure that handler defers in newer versions of v2. It
 * has captured app and c, in the order in which the call has them. */
int fiber_releases(struct pt_regs *ctx)
{
	struct target *target;
	u32 slot;

	target = target_of(ctx, &slot);
	if (target)
		fiber_route(ctx, target, slot, connection_word(GO_CLOSURE(ctx), 16), target->fiber_ctx_route,
			    target->fiber_ctx_fasthttp, target->fiber_route_use, target->fiber_route_path);
	return 0;
}
