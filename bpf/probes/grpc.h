/* SPDX-License-Identifier: GPL-2.0-only
 *
 * What clients and servers of google.golang.org/grpc have in common: status codes and transports.
 */

#define GRPC_STATUS_NONE 0xffff /* no status was seen */
#define GRPC_STATUS_UNKNOWN 2	/* codes.Unknown: an error that says no more */

/* context.valueCtx: Context, key, val; src/context/context.go, the same in Go 1.17 to 1.27. */
struct grpc_value_context {
	u64 context[2];
	u64 key[2];
	u64 value[2];
};

/* The code of a *status.Status of genproto/googleapis/rpc, 0, OK, where it is nil. */
static __always_inline u16 grpc_status(struct target *target, u64 status)
{
	u32 code = 0;

	if (target->grpc_status_code == MISSING)
		return GRPC_STATUS_NONE;
	if (status)
		read_user_present(&code, sizeof(code), status + target->grpc_status_code);
	return code;
}

/* Whether a method is one of grpc.health.* or grpc.reflection.*, which the run may leave out. */
static __always_inline u32 grpc_is_left_out(struct target *target, struct go_string method)
{
	u64 words[2];

	if (!(target->options & OPTION_skip_grpc_health) || method.length < sizeof(words) ||
	    read_user_present(words, sizeof(words), method.data))
		return 0;
	return (words[0] == 0x65682e637072672fULL && (u32)words[1] == 0x68746c61) || /* "/grpc.he" "alth" */
	       (words[0] == 0x65722e637072672fULL && words[1] == 0x6e6f697463656c66ULL); /* "/grpc.re" "flection" */
}

/* The connection of a transport, NULL where nothing is known of it. */
static __always_inline struct connection *grpc_connection(struct target *target, u32 slot, u32 kind, u64 transport,
							  u16 conn_offset, u64 bias, u32 stream)
{
	struct goroutine_key own = {.goid = transport, .slot = slot, .kind = kind};

	if (conn_offset == MISSING)
		return 0;
	return connection_of_streams(target, &own, transport + conn_offset, bias, kind == KIND_grpc_server, stream);
}
