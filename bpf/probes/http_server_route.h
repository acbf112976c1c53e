/* SPDX-License-Identifier: GPL-2.0-only
 *
 * Where the route of a net/http request is, over HTTP/1 and 2.
 */

/* The route that a router or a mux has told, or that net/http has left in the request that the mux saw. */
static __always_inline struct go_string http_server_route(struct target *target, struct server_span *request)
{
	struct go_string none = {};

	if (request->route.length)
		return request->route;
	if (!request->mux_request)
		return none;
	/* A copy may be garbage by now: take it only while it still is one. */
	if (request->mux_request != request->request &&
	    go_read_word(request->mux_request, target->request_uri) != request->request_target)
		return none;
	if (target->request_pattern != MISSING) {
		read_user_present(&none, sizeof(none), request->mux_request + target->request_pattern);
		return none;
	}
	/* Go 1.22 */
	return go_read_string(go_read_word(request->mux_request, target->request_pat), target->pattern_str);
}
