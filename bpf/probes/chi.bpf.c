/* SPDX-License-Identifier: GPL-2.0-only
 *
 * Routes of chi. Declared in otel_goprobe/probes/chi.py.
 */

/* Routers within routers whose patterns are joined. */
#define CHI_PATTERNS 6

/* The *Context of the look-up that a goroutine, by the address of its g, is in. */
BPF_TABLE("lru_hash", struct goroutine_key, u64, chi_contexts, 16384);

/* Behind func (x *Context) RoutePattern() string of package chi in func (mx *Mux) routeHTTP(w http.ResponseWriter, r
 * *http.Request), since 5.2.3, which stores it in the request. The string can be gone before the request's end: it is copied.
 * Results: the registers of ARG1, ARG2. */
int chi_pattern(struct pt_regs *ctx)
{
	struct server_span *span;
	struct route_text *text;
	struct target *target;
	u32 slot;

	target = target_of(ctx, &slot);
	if (!target)
		return 0;
	span = span_of_router(ctx, target, slot);
	text = span && span->request ? route_compose(span, slot) : 0;
	if (text)
		route_composed(span, route_append(text, 0, GO_ARG1(ctx), GO_ARG2(ctx)));
	return 0;
}

/* func (n *node) FindRoute(rctx *Context, method methodTyp, path string) (*node, endpoints, http.Handler) of package chi,
 * where routeHTTP calls it, since 5.0.0. Registers: rctx = ARG2. */
int chi_finds(struct pt_regs *ctx)
{
	struct goroutine_key key = {.goid = GO_G(ctx)};
	u64 context = GO_ARG2(ctx);

	if (target_of(ctx, &key.slot))
		chi_contexts.update(&key, &context);
	return 0;
}

/* Behind it. The patterns of all routers up to this one are in the context; all but the last one end in an asterisk, in place
 * of which the next one stands. Results: the handler in the registers of ARG3, ARG4, nil without a route. */
int chi_found(struct pt_regs *ctx)
{
	struct goroutine_key key = {.goid = GO_G(ctx)};
	struct go_string patterns, pattern;
	struct server_span *span;
	struct route_text *text;
	struct target *target;
	u64 length = 0, *context;
	u32 is_mounted;

	target = target_of(ctx, &key.slot);
	if (!target || !GO_ARG3(ctx))
		return 0;
	context = chi_contexts.lookup(&key);
	span = span_of_router(ctx, target, key.slot);
	if (!context || !span || !span->request)
		return 0;
	patterns = go_read_string(*context, target->chi_patterns);
	chi_contexts.delete(&key);
	text = route_compose(span, key.slot);
	if (!text)
		return 0;
	for (u32 i = 0; i < CHI_PATTERNS; i++) {
		if (i >= patterns.length || read_user_present(&pattern, sizeof(pattern), patterns.data + i * sizeof(pattern)))
			break;
		is_mounted = i + 1 < patterns.length && pattern.length > 1;
		length = route_append(text, length, pattern.data, pattern.length - 2 * is_mounted);
	}
	/* As RoutePattern: no slash at the end. */
	CLAMP(length, 152);
	if (length > 1 && text->bytes[length - 1] == '/')
		text->bytes[--length] = 0;
	route_composed(span, length);
	return 0;
}
