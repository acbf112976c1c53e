/* SPDX-License-Identifier: GPL-2.0-only
 *
 * Routes of echo. Declared in otel_goprobe/probes/echo.py.
 */

struct echo_lookup {
	u64 context; /* a *context */
	u64 path;    /* address of its first byte */
};

/* What a goroutine, by the address of its g, looks up. */
BPF_TABLE("lru_hash", struct goroutine_key, struct echo_lookup, echo_lookups, 16384);

/* func (r *Router) Find(method, path string, c Context) of package echo, since 4.0.0.
 * Registers: path = ARG4, ARG5, c = ARG6 (itab), ARG7. */
int echo_finds(struct pt_regs *ctx)
{
	struct goroutine_key key = {.goid = GO_G(ctx)};
	struct echo_lookup lookup = {.context = GO_ARG7(ctx), .path = GO_ARG4(ctx)};

	if (target_of(ctx, &key.slot))
		echo_lookups.update(&key, &lookup);
	return 0;
}

/* func applyMiddleware(h HandlerFunc, middleware ...MiddlewareFunc) HandlerFunc of package echo, where func (e *Echo)
 * ServeHTTP(w http.ResponseWriter, r *http.Request) calls it, since 4.0.0: with the handler that the router has found, and
 * once before it looks for one, where there is Echo.Pre. The path is a string of the tree of routes, which stays. */
int echo_found(struct pt_regs *ctx)
{
	struct goroutine_key key = {.goid = GO_G(ctx)};
	struct target *target = target_of(ctx, &key.slot);
	struct echo_lookup *lookup = target ? echo_lookups.lookup(&key) : 0;
	struct go_string route;

	if (!lookup)
		return 0;
	route = go_read_string(lookup->context, target->echo_path);
	/* Up to 4.1 the context has the request's own path where no route matched. */
	if (route.data != lookup->path)
		server_span_route(ctx, target, key.slot, route);
	echo_lookups.delete(&key);
	return 0;
}
