/* SPDX-License-Identifier: GPL-2.0-only
 *
 * Routes of httprouter. Declared in otel_goprobe/probes/httprouter.py.
 */

/* Of a route with more parameters, those behind stand with their values. */
#define HTTPROUTER_PARAMETERS 6

/* github.com/julienschmidt/httprouter v1.3.0, router.go, Param. */
struct httprouter_parameter {
	struct go_string key;
	struct go_string value;
};

/* Behind func (n *node) getValue(path string) (handle Handle, p Params, tsr bool) of package httprouter in
 * func (r *Router) ServeHTTP(w http.ResponseWriter, req *http.Request), 1.2.0 and 1.3.0. A value is a slice of path, a key
 * one of the tree's, behind a colon or, where the value is the rest of the path with its slash, an asterisk (tree.go).
 * Results: handle in the register of ARG1, nil without a route, p in those of ARG2 and ARG3. */
int httprouter_matched(struct pt_regs *ctx)
{
	struct httprouter_parameter parameter;
	struct server_span *span;
	struct route_text *text;
	struct target *target;
	struct go_string path;
	u64 length = 0, seen = 0, at, is_rest, is_own, url;
	u32 slot;

	target = target_of(ctx, &slot);
	if (!target || !GO_ARG1(ctx))
		return 0;
	span = span_of_router(ctx, target, slot);
	if (!span || !span->request)
		return 0;
	/* An HTTP/2 server of Go 1.27 has a request of its own, with the same URL as the one that the router is given. */
	is_own = go_read_word(span->request, target->request_uri) != span->request_target;
	url = go_read_word(span->request, is_own ? target->httprouter_http2_url : target->httprouter_request_url);
	path = go_read_string(url, target->httprouter_url_path);
	text = route_compose(span, slot);
	if (!text)
		return 0;
	for (u32 i = 0; i < HTTPROUTER_PARAMETERS; i++) {
		if (i >= GO_ARG3(ctx) || read_user_present(&parameter, sizeof(parameter), GO_ARG2(ctx) + i * sizeof(parameter)))
			break;
		at = parameter.value.data - path.data;
		if (at > path.length || at < seen)
			return 0; /* of another path than the request's own */
		is_rest = go_read_byte(parameter.key.data - 1, 0) == '*';
		length = route_append(text, length, path.data + seen, at - seen + is_rest);
		length = route_append(text, length, parameter.key.data - 1, parameter.key.length + 1);
		seen = at + parameter.value.length;
	}
	if (seen < path.length)
		length = route_append(text, length, path.data + seen, path.length - seen);
	route_composed(span, length);
	return 0;
}
