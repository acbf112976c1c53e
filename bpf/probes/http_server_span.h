/* SPDX-License-Identifier: GPL-2.0-only
 *
 * What the spans of http_server, http2_server and fasthttp_server have in common.
 */

/* A request's tracestate goes with its traceparent, and whole or not at all: cut off it would be another one. */
static __always_inline void http_server_check_tracestate(u32 slot, struct go_string *tracestate, u64 header_span_id)
{
	if (!header_span_id) {
		tracestate->length = 0;
	} else if (tracestate->length > HTTP_SERVER_MAX_TRACESTATE) {
		tracestate->length = 0;
		count(slot, COUNTER_tracestate_dropped);
	}
}

/* Adds up a request's duration. `fixed`: of its record; `route_id`: as metrics know `route`, where it has one; `bucket`: as
 * red_count has it. */
static __always_inline void http_server_red(struct target *target, u32 slot, u32 kind, u64 method,
					    const struct http_server_fixed *fixed, u64 route_id, struct red_text *route,
					    u64 duration_ns, u32 bucket)
{
	struct red_key key = {.word = method, .slot = slot, .kind = kind, .status = fixed->status};

	/* As net/http answers a handler that wrote no header, or as the upgrade that it made of the connection. */
	if (!key.status && fixed->end != HTTP_SERVER_PANICKED)
		key.status = fixed->end == HTTP_SERVER_ANSWERED ? 200 : 101;
	if (fixed->end == HTTP_SERVER_PANICKED)
		key.error = fixed->panic_type ? fixed->panic_type : HTTP_SERVER_GOEXIT;
	key.traits[0] = fixed->tls;
	key.traits[1] = fixed->protocol_major << 4 | (fixed->protocol_minor & 15);
	if (fixed->route_bytes)
		key.text = route_id;
	red_count(target, &key, route, duration_ns, bucket);
}
