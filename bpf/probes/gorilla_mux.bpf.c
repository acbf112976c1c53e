/* SPDX-License-Identifier: GPL-2.0-only
 *
 * Routes of gorilla/mux. Declared in otel_goprobe/probes/gorilla_mux.py.
 */

/* `regexp`: address of the routeRegexp of a route's path. It stays, as the route does. */
static __always_inline void gorilla_mux_route(struct pt_regs *ctx, struct target *target, u32 slot, u64 regexp)
{
	server_span_route(ctx, target, slot, go_read_string(regexp, target->gorilla_mux_template));
}

/* func requestWithRoute(r *http.Request, route *Route) *http.Request of package mux, since 1.7.4: (*Router).ServeHTTP calls
 * it behind a match, whose innermost route it has. Registers: route = ARG2, nil where a handler for 405 or 404 matched. */
int gorilla_mux_matched(struct pt_regs *ctx)
{
	struct target *target;
	u32 slot;

	target = target_of(ctx, &slot);
	if (target)
		gorilla_mux_route(ctx, target, slot, go_read_word(GO_ARG2(ctx), target->gorilla_mux_route_path));
	return 0;
}

/* func (v *routeRegexpGroup) setMatch(req *http.Request, m *RouteMatch, r *Route) of package mux, up to 1.6.2: called for each
 * route that matches, from the innermost, which is the match's, to those that have it as a subrouter's.
 * Registers: v = ARG1, m = ARG3, r = ARG4. */
int gorilla_mux_set_match(struct pt_regs *ctx)
{
	struct target *target;
	u32 slot;

	target = target_of(ctx, &slot);
	if (target && go_read_word(GO_ARG3(ctx), target->gorilla_mux_match_route) == GO_ARG4(ctx))
		gorilla_mux_route(ctx, target, slot, go_read_word(GO_ARG1(ctx), target->gorilla_mux_group_path));
	return 0;
}
