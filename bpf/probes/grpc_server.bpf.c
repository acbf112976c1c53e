/* SPDX-License-Identifier: GPL-2.0-only
 *
 * Calls that a google.golang.org/grpc server answers, unary and streams alike. Declared in
 * otel_goprobe/probes/grpc_server.py.
 */

/* context.WithValue's of the call's metadata is the last of these. */
#define GRPC_CONTEXT_HOPS 6

/* The map of the metadata that came with a call, given its context's words; 0: none. A metadata.MD is map[string][]string
 * with names in lower case; internal/transport/http2_server.go, operateHeaders, puts it into the context. */
static __always_inline u64 grpc_metadata(struct target *target, u64 bias, u64 type, u64 data,
					  struct grpc_value_context *value)
{
	if (!target->grpc_metadata_type)
		return 0;
#pragma clang loop unroll(disable)
	for (u32 hop = 0; hop < GRPC_CONTEXT_HOPS; hop++) {
		if (type != target->value_context_itab + bias || read_user_present(value, sizeof(*value), data))
			return 0;
		if (value->value[0] == target->grpc_metadata_type + bias)
			return value->value[1];
		type = value->context[0];
		data = value->context[1];
	}
	return 0;
}

/* What is known of the connection that a call came over: joins the call with its client's and fills in the addresses. */
static __always_inline void grpc_server_join(struct target *target, u32 slot, u64 transport,
					     struct grpc_server_in_flight *call)
{
	struct connection_key *key = &call->joined;
	struct connection *connection;
	u32 stream = key->stream;

	connection = grpc_connection(target, slot, KIND_grpc_server, transport, target->grpc_server_conn, call->bias, stream);
	if (!connection)
		return;
	__builtin_memcpy(call->peer, connection->tuple.remote_ip, sizeof(call->peer));
	__builtin_memcpy(call->local, connection->tuple.local_ip, sizeof(call->local));
	call->peer_port = connection->tuple.remote_port;
	call->local_port = connection->tuple.local_port;
	if (!(target->options & OPTION_local) || !stream)
		return;
	*key = connection->key;
	key->stream = stream;
	call->parent_span_id = connection_adopt(key, call->start_ns, &call->context, call->parent_span_id);
}

/* What the call's goroutine, and what has its context, begins from now on is the call's. */
static __always_inline void grpc_server_publish(struct pt_regs *ctx, struct target *target, u32 slot,
						struct grpc_server_in_flight *call, u64 context)
{
	struct server_span *span = active_span_begin(ctx, target, slot);

	if (!span)
		return;
	span->span_id = call->span_id;
	span->context = call->context;
	span->parent_span_id = call->parent_span_id;
	span->request = 0;
	live_span_publish_own(ctx, target, slot, context, call->bias, &span->live);
	span->start_ns = call->start_ns;
}

/* func (s *Server) handleStream(t transport.ServerTransport, stream *transport.ServerStream), since grpc 1.0, which had
 * a *transport.Stream up to 1.68 and one argument more up to 1.57: each call, on a goroutine that does nothing else
 * meanwhile. Registers: s = ARG1, t = ARG2 (itab), ARG3 (data), stream = ARG4. */
int grpc_server_call_start(struct pt_regs *ctx)
{
	union grpc_server_scratch scratch = {};
	struct go_string *headers;
	struct grpc_server_in_flight *call;
	struct goroutine_key key;
	struct go_string method;
	struct server_span *outer;
	struct target *target;
	u64 stream, metadata, sampled, own_context, g, words[2] = {};
	u32 slot, zero = 0, id = 0;

	target = target_of(ctx, &slot);
	if (!target)
		return 0;
	key = grpc_server_key(ctx, slot);
	stream = grpc_stream(target, GO_ARG4(ctx));
	method = go_read_string(stream, target->grpc_stream_method);
	if (grpc_is_left_out(target, method))
		return 0;
	count(slot, COUNTER_started);
	call = grpc_server_inflight.lookup(&key);
	if (call) {
		count(slot, COUNTER_abandoned); /* its end was never seen */
	} else {
		call = grpc_server_blank.lookup(&zero);
		if (!call || grpc_server_inflight.insert(&key, call)) {
			count(slot, COUNTER_in_flight_full);
			return 0;
		}
		call = grpc_server_inflight.lookup(&key);
		if (!call)
			return 0;
	}
	call->start_ns = bpf_ktime_get_ns();
	call->bias = GO_PC(ctx) - target->grpc_server_start_address;
	call->status = GRPC_STATUS_NONE;
	call->peer_port = call->local_port = 0;
	call->tracestate.length = 0;
	call->parent_span_id = 0;
	headers = call->headers;
	__builtin_memset(headers, 0, sizeof(call->headers));
	call->method = method;
	if (target->grpc_stream_ctx != MISSING)
		read_user_present(words, sizeof(words), stream + target->grpc_stream_ctx);
	if (target->grpc_stream_id != MISSING)
		read_user_present(&id, sizeof(id), stream + target->grpc_stream_id);
	/* From here on in the map's memory, of which the verifier knows no values: each would be another walk of the headers. */
	call->joined.stream = id;
	headers[HEADER_OTHER].data = words[0];
	headers[HEADER_OTHER].length = words[1];
	call->metadata = 0;
	if (target->options & (OPTION_tracecontext | OPTION_grpc_metadata)) {
		metadata = grpc_metadata(target, call->bias, headers[HEADER_OTHER].data, headers[HEADER_OTHER].length,
					 &scratch.value);
		call->metadata = metadata;
		if (metadata && target->options & OPTION_tracecontext)
			go_headers(metadata, target->swiss_maps, 1 << HEADER_TRACEPARENT | 1 << HEADER_TRACESTATE,
				   &scratch.walk, headers);
	}
	if (headers[HEADER_TRACEPARENT].length) {
		__builtin_memset(&scratch.text, 0, sizeof(scratch.text));
		call->parent_span_id = traceparent_read(headers[HEADER_TRACEPARENT], &scratch.text, &call->context);
		if (call->parent_span_id && headers[HEADER_TRACESTATE].length <= GRPC_MAX_TRACESTATE)
			call->tracestate = headers[HEADER_TRACESTATE];
		else if (call->parent_span_id)
			count(slot, COUNTER_tracestate_dropped);
	}
	own_context = headers[HEADER_OTHER].length;
	if (GO_ARG2(ctx) == target->grpc_http2_server_itab + call->bias) {
		grpc_server_join(target, slot, GO_ARG3(ctx), call);
	} else if (target->traits & TARGET_FINDS_PARENTS) {
		/* serverHandlerTransport: a request of net/http's server, whose span has taken what the caller sent. */
		outer = parent_by_context(target, slot, &headers[HEADER_OTHER].data, call->bias, &g);
		if (outer) {
			call->context = outer->context;
			call->parent_span_id = outer->span_id;
			call->tracestate.length = 0;
		}
	}
	call->span_id = id_make(target, call->start_ns, key.goid);
	if (!call->parent_span_id)
		id_make_trace(target, call->start_ns, key.goid, &call->context);
	sampled = sampling_decides(&call->context, call->parent_span_id, target->sampling_parents, target->sampling_bound);
	call->context.flags = (call->context.flags & ~TRACE_FLAG_SAMPLED) | sampled;
	if (target->traits & TARGET_FINDS_PARENTS)
		grpc_server_publish(ctx, target, slot, call, own_context);
	return 0;
}

/* func (t *http2Server) writeStatus(s *ServerStream, st *status.Status) error, WriteStatus up to grpc 1.68, and the same of
 * serverHandlerTransport: "the final call made on a stream and always occurs" (internal/transport/transport.go), by the
 * call's own goroutine. Registers: st = ARG3. */
int grpc_server_status(struct pt_regs *ctx)
{
	struct grpc_server_in_flight *call;
	struct goroutine_key key;
	struct target *target;
	u32 slot;

	target = target_of(ctx, &slot);
	if (!target)
		return 0;
	key = grpc_server_key(ctx, slot);
	call = grpc_server_inflight.lookup(&key);
	if (call)
		/* The one field of grpc's own *status.Status, in each version. */
		call->status = grpc_status(target, go_read_word(GO_ARG3(ctx), 0));
	return 0;
}

static __always_inline void grpc_server_count(struct target *target, u32 slot, struct grpc_server_in_flight *call,
					      u64 duration_ns)
{
	struct red_key key = {.slot = slot, .kind = KIND_grpc_server, .status = call->status};
	struct red_text text = {};

	if (red_text_read(call->method, &text))
		key.text = red_text_id(&text);
	red_count(target, &key, &text, duration_ns, RED_BUCKET_grpc_server(duration_ns));
}

static __always_inline void grpc_server_submit(struct target *target, u32 slot, struct grpc_server_in_flight *call,
					       struct grpc_server_fixed *fixed)
{
	__builtin_memcpy(fixed->peer, call->peer, sizeof(fixed->peer));
	__builtin_memcpy(fixed->local, call->local, sizeof(fixed->local));
	fixed->peer_port = call->peer_port;
	fixed->local_port = call->local_port;
	fixed->status = call->status;
	SPAN_HEADER(fixed, KIND_grpc_server, slot, call);
	if (call->method.length <= 152 && !call->tracestate.length && !(target->options & OPTION_grpc_metadata)) {
		struct grpc_server_record_256 *record = ring_256.ringbuf_reserve(sizeof(*record));

		if (!record) {
			count(slot, COUNTER_ring_full);
			return;
		}
		record->fixed = *fixed;
		COPY(record, method, call->method, 152);
		ring_256.ringbuf_submit(record, RB_NO_WAKEUP);
	} else {
		struct grpc_server_record_1024 *record = ring_1024.ringbuf_reserve(sizeof(*record));
		struct captured_walk *walk;

		if (!record) {
			count(slot, COUNTER_ring_full);
			return;
		}
		record->fixed = *fixed;
		COPY(record, method, call->method, 296);
		walk = (struct captured_walk *)record->tracestate;
		walk->at = 0;
		if (target->options & OPTION_grpc_metadata && call->metadata)
			captured_map(&record->metadata, walk, slot, OPTION_grpc_metadata, call->metadata,
				     target->swiss_maps);
		record->fixed.metadata_bytes = walk->at;
		COPY(record, tracestate, call->tracestate, 176);
		ring_1024.ringbuf_submit(record, RB_NO_WAKEUP);
	}
}

/* Behind handleStream, in what calls it; a panic that nobody recovers ends the process. */
int grpc_server_call_end(struct pt_regs *ctx)
{
	struct grpc_server_in_flight *call;
	struct grpc_server_fixed fixed = {};
	struct server_span *span;
	struct goroutine_key key;
	struct target *target;
	u64 duration_ns;
	u32 slot, kept;

	target = target_of(ctx, &slot);
	if (!target)
		return 0;
	key = grpc_server_key(ctx, slot);
	call = grpc_server_inflight.lookup(&key);
	if (!call)
		return 0;
	fixed.header.end_ns = bpf_ktime_get_ns();
	duration_ns = fixed.header.end_ns - call->start_ns;
	kept = call->context.flags & TRACE_FLAG_SAMPLED;
	if (!kept) {
		span = active_span_with(key.goid, slot, call->span_id, 0);
		kept = fixed.header.late = live_span_late(target, slot, duration_ns, GRPC_SERVER_FAILED(call->status),
							  span && span->live.child_kept);
	}
	if (kept)
		grpc_server_submit(target, slot, call, &fixed);
	if (target->options & OPTION_red)
		grpc_server_count(target, slot, call, duration_ns);
	active_span_end(key.goid, slot, call->span_id);
	grpc_server_inflight.delete(&key);
	return 0;
}
