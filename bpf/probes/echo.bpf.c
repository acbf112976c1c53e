/* SPDX-License-Identifier: GPL-2.0-only
 *
 * Routes of echo. Declared in otel_goprobe/probes/echo.py.
 */

/* The *context of the look-up that a goroutine, by the address of its g, is in. */
BPF_TABLE("lru_hash", struct goroutine_key, u64, echo_contexts, 16384);

/* func (r *Router) Find(method, path string, c Context) of package echo, since 4.0.0. Registers: c = ARG6 (itab), ARG7. */
int echo_finds(struct pt_regs *ctx)
{
	struct goroutine_key key = {.goid = GO_G(ctx)};
	u64 context = GO_ARG7(ctx);

	if (target_of(ctx, &key.slot))
		echo_contexts.update(&key, &context);
	return 0;
}

/* func applyMiddleware(h HandlerFunc, middleware ...MiddlewareFunc) HandlerFunc of package echo, where func (e *Echo)
 * ServeHTTP(w http.ResponseWriter, r *http.Request) calls it, since 4.0.0: with the handler that the router has found, and
 * once before it looks for one, where there is Echo.Pre. The path is a string of the tree of routes, which stays. */
int echo_found(struct pt_regs *ctx)
{
	struct goroutine_key key = {.goid = GO_G(ctx)};
	struct target *target = target_of(ctx, &key.slot);
	u64 *found = target ? echo_contexts.lookup(&key) : 0, context;

	if (!found)
		return 0;
	context = *found;
	echo_contexts.delete(&key);
	server_span_route(ctx, target, key.slot, go_read_string(context, target->echo_path));
	return 0;
}
