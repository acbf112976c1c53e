/* SPDX-License-Identifier: GPL-2.0-only
 *
 * Calls that a google.golang.org/grpc client makes: a span each, however often grpc repeats it. Declared in
 * otel_goprobe/probes/grpc_client.py.
 */

#define GRPC_CLIENT_ID_BIT (1ULL << 62)

/* func newClientStream(ctx context.Context, desc *StreamDesc, cc *ClientConn, method string, opts ...CallOption)
 * (_ ClientStream, err error), since grpc 1.4: behind all interceptors, once a call, unary ones too.
 * Registers: ctx = ARG1, ARG2, cc = ARG4, method = ARG5, ARG6. */
int grpc_client_call_start(struct pt_regs *ctx)
{
	struct grpc_client_in_flight call = {};
	struct goroutine_key key;
	struct target *target;
	u64 words[2];
	u32 slot;

	target = target_of(ctx, &slot);
	if (!target)
		return 0;
	key = grpc_client_key(GO_G(ctx), slot);
	call.start_ns = bpf_ktime_get_ns();
	call.bias = GO_PC(ctx) - target->grpc_client_start_address;
	call.client_conn = GO_ARG4(ctx);
	call.method.data = GO_ARG5(ctx);
	call.method.length = GO_ARG6(ctx);
	if (grpc_is_left_out(target, call.method)) {
		grpc_client_repeats.delete(&key); /* its stream is no repetition */
		return 0;
	}
	words[0] = call.ctx[0] = GO_ARG1(ctx);
	words[1] = call.ctx[1] = GO_ARG2(ctx);
	client_span_begin(ctx, target, slot, GRPC_CLIENT_ID_BIT, words, call.bias, 0, (struct client_span *)&call);
	if (client_span_replaces(slot, grpc_client_inflight.insert(&key, &call)))
		grpc_client_inflight.update(&key, &call);
	return 0;
}

/* func (cs *clientStream) retryLocked(attempt *csAttempt, lastErr error) error, in grpc 1.19 to 1.85, in older ones without
 * attempt: one has failed, and whoever found that makes the next ones, with cs locked. Registers: cs = ARG1. */
int grpc_client_repeat(struct pt_regs *ctx)
{
	struct grpc_client_repeated repeated = {.stream = GO_ARG1(ctx)};
	struct goroutine_key key;
	struct target *target;
	u32 slot;

	target = target_of(ctx, &slot);
	if (!target)
		return 0;
	key = grpc_client_key(repeated.stream, slot);
	if (!grpc_client_inflight.lookup(&key))
		return 0; /* the goroutine has it still */
	key.goid = GO_G(ctx);
	repeated.goid = go_read_word(key.goid, target->g_goid);
	if (repeated.goid)
		grpc_client_repeats.update(&key, &repeated);
	return 0;
}

/* func (t *http2Client) NewStream.func5() bool of internal/transport, grpc 1.30 to 1.85: `checkForHeaderListSize() &&
 * checkForStreamQuota()` or the other way round, which the transport asks with its lock held, on the call's goroutine: if
 * both agree the stream gets the next number, before anything of it is sent. Both are closures that begin with t. */
int grpc_client_stream(struct pt_regs *ctx)
{
	struct grpc_client_in_flight *call;
	struct connection *connection;
	struct goroutine_key key;
	struct target *target;
	u64 transport;
	u32 slot, stream = 0;

	target = target_of(ctx, &slot);
	if (!target)
		return 0;
	key = grpc_client_key(GO_G(ctx), slot);
	call = grpc_client_inflight.lookup(&key);
	if (!call)
		call = grpc_client_repeated_by(target, &key);
	if (!call || target->grpc_client_next_id == MISSING)
		return 0;
	transport = go_read_word(go_read_word(GO_CLOSURE(ctx), 8), 8);
	if (!transport || read_user_present(&stream, sizeof(stream), transport + target->grpc_client_next_id))
		return 0;
	/* Asked again, or the call is repeated. */
	connection_retract(&call->connection, call->span_id);
	call->connection.port = 0;
	connection = grpc_connection(target, slot, KIND_grpc_client, transport, target->grpc_client_conn, call->bias, stream);
	if (!connection || !(stream & 1))
		return 0;
	__builtin_memcpy(call->peer, connection->tuple.remote_ip, sizeof(call->peer));
	call->peer_port = connection->tuple.remote_port;
	call->connection = connection->key;
	call->connection.stream = stream;
	connection_publish(target, &call->connection, &call->context, call->span_id);
	return 0;
}

/* The status code that an error stands for, given the words of the interface value. */
static __always_inline u16 grpc_client_status(struct target *target, u64 bias, u64 itab, u64 data)
{
	struct go_string text;
	u32 letters = 0;

	if (!itab)
		return 0;
	if (itab == target->grpc_status_error_itab + bias) {
		/* Since grpc 1.31 in a Status of grpc's own, as its only field. */
		if (target->grpc_status_error_s != MISSING)
			return grpc_status(target, go_read_word(go_read_word(data, target->grpc_status_error_s), 0));
		return grpc_status(target, go_read_word(data, target->grpc_status_error_e));
	}
	/* Up to grpc 1.27 the error is that status itself. */
	if (itab == target->grpc_old_status_error_itab + bias)
		return grpc_status(target, data);
	if (itab == target->error_string_itab + bias) {
		/* io.EOF, "Ending a stream with EOF indicates a success": stream.go, finish. */
		text = go_read_string(data, 0);
		if (text.length == 3)
			read_user(&letters, 3, text.data);
		if (letters == 0x464f45)
			return 0;
	}
	return GRPC_STATUS_UNKNOWN;
}

static __always_inline void grpc_client_count(struct target *target, u32 slot, struct grpc_client_in_flight *call, u16 status,
					      struct go_string to, u64 duration_ns)
{
	struct red_key key = {.slot = slot, .kind = KIND_grpc_client, .status = status};
	struct red_text text = {};

	key.other_text = red_text_keep(to, &text);
	if (red_text_read(call->method, &text))
		key.text = red_text_id(&text);
	red_count(target, &key, &text, duration_ns, RED_BUCKET_grpc_client(duration_ns));
}

/* The metadata.rawMD that a call's context has: fills `walk->context`, zeros for none. NewOutgoingContext and AppendToOutgoingContext
 * wrap the context by a context.WithValue of one, the outermost of which has all of it; since grpc 1.8. */
static __always_inline void grpc_client_raw_metadata(struct target *target, struct grpc_client_in_flight *call,
						     struct captured_walk *walk)
{
	struct grpc_value_context *context = (struct grpc_value_context *)walk->context;

#pragma clang loop unroll(disable)
	for (u32 hop = 0; hop < PARENT_HOPS; hop++) {
		/* All that wraps a context begins with it. What wraps none ends in a type that isn't looked into. */
		if (call->ctx[0] == target->value_context_itab + call->bias) {
			if (read_user_present(context, sizeof(*context), call->ctx[1]))
				break;
			if (context->value[0] == target->grpc_raw_metadata_type + call->bias) {
				read_user_present(walk->context, 3 * sizeof(u64), context->value[1]);
				return;
			}
		} else if (!call->ctx[1] ||
			   read_user_present(context->context, sizeof(context->context), call->ctx[1])) {
			break;
		}
		call->ctx[0] = context->context[0];
		call->ctx[1] = context->context[1];
	}
	__builtin_memset(walk->context, 0, sizeof(walk->context));
}

/* Appends what a call was given of the metadata that the user has named. metadata.rawMD: md MD, added [][]string, in which
 * each AppendToOutgoingContext put a name, a value, a name …, names as the program wrote them (FromOutgoingContext). */
static __always_inline void grpc_client_metadata(struct target *target, u32 slot, struct grpc_client_in_flight *call,
						 struct captured *to, struct captured_walk *walk)
{
	struct go_string *pair = (struct go_string *)walk->context;
	u64 md;
	u32 number;

	if (!target->grpc_raw_metadata_type)
		return;
	grpc_client_raw_metadata(target, call, walk);
	md = walk->context[0];
	if (md)
		captured_map(to, walk, slot, OPTION_grpc_metadata, md, target->swiss_maps);
	walk->base = walk->context[1];
	walk->old = walk->context[2]; /* slices behind the one at hand, which has `left` strings from `group` on */
	walk->left = 0;
#pragma clang loop unroll(disable)
	for (u32 i = 0; i < GRPC_CLIENT_PAIRS; i++) {
		if (walk->left < 2) {
			if (!walk->old)
				return;
			walk->old--;
			if (read_user_present(pair, sizeof(*pair), walk->base))
				return;
			walk->base += 3 * sizeof(u64);
			walk->group = pair->data;
			walk->left = pair->length;
		}
		if (walk->left < 2)
			continue;
		if (read_user_present(pair, 2 * sizeof(*pair), walk->group))
			return;
		walk->group += 2 * sizeof(*pair);
		walk->left -= 2;
		number = captured_number(OPTION_grpc_metadata, pair[0]);
		walk->text = pair[1];
		if (number)
			captured_add(to, walk, slot, number);
	}
	if (walk->left || walk->old)
		count(slot, COUNTER_captured_cut);
}

static __always_inline void grpc_client_submit(struct target *target, u32 slot, struct grpc_client_in_flight *call,
					       struct grpc_client_fixed *fixed, struct go_string to, u32 metadata)
{
	__builtin_memcpy(fixed->peer, call->peer, sizeof(fixed->peer));
	fixed->peer_port = call->peer_port;
	SPAN_HEADER(fixed, KIND_grpc_client, slot, call);
	if (!call->parent_span_id)
		fixed->header.links = links_of(target, slot, call->span_id);
	if (call->method.length <= 96 && to.length <= 72 && !metadata) {
		struct grpc_client_record_256 *record = ring_256.ringbuf_reserve(sizeof(*record));

		if (!record) {
			count(slot, COUNTER_ring_full);
			return;
		}
		record->fixed = *fixed;
		COPY(record, method, call->method, 96);
		COPY(record, target, to, 72);
		ring_256.ringbuf_submit(record, RB_NO_WAKEUP);
	} else {
		struct grpc_client_record_1024 *record = ring_1024.ringbuf_reserve(sizeof(*record));
		struct captured_walk *walk;

		if (!record) {
			count(slot, COUNTER_ring_full);
			return;
		}
		record->fixed = *fixed;
		COPY(record, method, call->method, 232);
		walk = (struct captured_walk *)record->target;
		walk->at = 0;
		if (metadata)
			grpc_client_metadata(target, slot, call, &record->metadata, walk);
		record->fixed.metadata_bytes = walk->at;
		COPY(record, target, to, 256);
		ring_1024.ringbuf_submit(record, RB_NO_WAKEUP);
	}
}

/* Counts, records and forgets a call that has ended. `metadata`: whether its context is there still and the user has named
 * some. */
static __always_inline void grpc_client_finish(struct target *target, u32 slot, struct goroutine_key *key,
					       struct grpc_client_in_flight *call, u16 status, u32 metadata)
{
	struct grpc_client_fixed fixed = {};
	struct go_string to;
	u64 duration_ns;
	u32 kept;

	/* Read back, it is no constant to the verifier, which else follows all below for each. */
	*(volatile u16 *)&call->status = status;
	status = *(volatile u16 *)&call->status;
	fixed.status = status;
	fixed.header.end_ns = bpf_ktime_get_ns();
	duration_ns = fixed.header.end_ns - call->start_ns;
	connection_retract(&call->connection, call->span_id);
	kept = client_span_is_kept(target, slot, (struct client_span *)call, duration_ns, status != 0, &fixed.header.late);
	if (kept || target->options & OPTION_red) {
		to = go_read_string(call->client_conn, target->grpc_client_target);
		if (kept)
			grpc_client_submit(target, slot, call, &fixed, to, metadata);
		if (target->options & OPTION_red)
			grpc_client_count(target, slot, call, status, to, duration_ns);
	}
	grpc_client_inflight.delete(key);
}

/* func (cs *clientStream) finish(err error), since grpc 1.0: the end of each call that has a stream, by whatever comes
 * first: the last message, an error, its context's end, the connection's; a second time it does nothing.
 * Registers: cs = ARG1, err = ARG2 (itab), ARG3 (data). */
int grpc_client_call_end(struct pt_regs *ctx)
{
	struct grpc_client_in_flight *call;
	struct goroutine_key key, ended;
	struct target *target;
	u32 slot;

	target = target_of(ctx, &slot);
	if (!target)
		return 0;
	key = grpc_client_key(GO_ARG1(ctx), slot);
	call = grpc_client_inflight.lookup(&key);
	if (call) {
		ended = grpc_client_key(call->span_id, slot);
		if (grpc_client_ended.insert(&ended, &slot))
			return 0;
	} else {
		key.goid = GO_G(ctx);
		call = grpc_client_inflight.lookup(&key);
		if (!call)
			return 0;
	}
	grpc_client_finish(target, slot, &key, call, grpc_client_status(target, call->bias, GO_ARG2(ctx), GO_ARG3(ctx)),
			   (target->options & OPTION_grpc_metadata) != 0);
	return 0;
}

/* The returns of func invoke(ctx context.Context, method string, req, reply any, cc *ClientConn, opts ...CallOption) error,
 * since grpc 1.0, that are behind newClientStream's failure. Results: error = ARG1, ARG2. */
int grpc_client_refused(struct pt_regs *ctx)
{
	struct grpc_client_in_flight *call;
	struct goroutine_key key;
	struct target *target;
	u32 slot;

	target = target_of(ctx, &slot);
	if (!target)
		return 0;
	key = grpc_client_key(GO_G(ctx), slot);
	call = grpc_client_inflight.lookup(&key);
	if (call)
		grpc_client_finish(target, slot, &key, call,
				   grpc_client_status(target, call->bias, GO_ARG1(ctx), GO_ARG2(ctx)), 0);
	return 0;
}

/* The returns of func (cc *ClientConn) NewStream(ctx context.Context, desc *StreamDesc, method string, opts ...CallOption)
 * (ClientStream, error), since grpc 1.8, single-stepped, once a stream. Results: ClientStream = ARG1, ARG2, error = ARG3,
 * ARG4. */
int grpc_client_opened(struct pt_regs *ctx)
{
	struct grpc_client_in_flight *call, moved;
	struct goroutine_key key;
	struct target *target;
	u64 words[2] = {GO_ARG1(ctx), GO_ARG2(ctx)};
	u32 slot;

	target = target_of(ctx, &slot);
	if (!target)
		return 0;
	key = grpc_client_key(GO_G(ctx), slot);
	call = grpc_client_inflight.lookup(&key);
	if (!call)
		return 0;
	if (GO_ARG3(ctx)) {
		grpc_client_finish(target, slot, &key, call,
				   grpc_client_status(target, call->bias, GO_ARG3(ctx), GO_ARG4(ctx)), 0);
		return 0;
	}
	moved = *call;
	grpc_client_inflight.delete(&key);
#pragma clang loop unroll(disable)
	for (u32 i = 0; i < GRPC_CLIENT_WRAPPERS; i++) {
		/* internal/abi/iface.go, ITab: Inter, Type. */
		if (!words[0] || go_read_word(words[0], 8) == target->grpc_client_stream_type + moved.bias)
			break;
		if (read_user_present(words, sizeof(words), words[1]))
			words[0] = 0;
	}
	key.goid = words[1];
	if (!words[0] || go_read_word(words[0], 8) != target->grpc_client_stream_type + moved.bias) {
		connection_retract(&moved.connection, moved.span_id);
		count(slot, COUNTER_abandoned); /* nothing tells its end */
	} else if (grpc_client_inflight.update(&key, &moved)) {
		count(slot, COUNTER_in_flight_full);
	}
	return 0;
}

/* func gopanic(e any) of package runtime, since Go 1.0: leaves a unary call without its end. */
int grpc_client_panic(struct pt_regs *ctx)
{
	struct grpc_client_in_flight *call;
	struct goroutine_key key;
	struct target *target;
	u32 slot;

	target = target_of(ctx, &slot);
	if (!target)
		return 0;
	key = grpc_client_key(GO_G(ctx), slot);
	call = grpc_client_inflight.lookup(&key);
	if (call)
		grpc_client_finish(target, slot, &key, call, GRPC_STATUS_NONE, 0);
	return 0;
}
