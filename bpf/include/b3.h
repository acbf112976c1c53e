/* SPDX-License-Identifier: GPL-2.0-only
 *
 * B3 propagation: the texts of its headers to ids and a decision. Pure C; tests/unit compiles it for the host.
 * Source of the grammar: https://github.com/openzipkin/b3-propagation, README.md, "Single Header" and "Multiple Headers".
 */

/* {TraceId}-{SpanId}-{SamplingState}-{ParentSpanId}, the last two optional; or {SamplingState} alone. */
#define B3_BYTES (32 + 1 + 16 + 1 + 1 + 1 + 16)

/* What is read of each header, zeros behind it. */
struct b3_text {
	u64 words[9];
};

enum b3_decision {
	B3_DEFERRED, /* to whoever is asked */
	B3_DENIED,
	B3_ACCEPTED, /* or debugged: accepted by all */
	B3_INVALID,
};

static __always_inline enum b3_decision b3_decision_of(u32 character)
{
	return character == '0' ? B3_DENIED : character == '1' || character == 'd' ? B3_ACCEPTED : B3_INVALID;
}

/* `bytes` (16 or 32) digits to the trace id, which is left-padded with zeros. Returns bits where a character is no digit. */
static __always_inline u64 b3_trace_id(const u8 *text, u32 bytes, struct trace_context *context)
{
	const u8 *low = text + (bytes - 16);
	u64 wrong = 0;

	context->trace_id[0] = 0;
	if (bytes == 32) {
		context->trace_id[0] = hex_bytes(*(const u64 *)text, &wrong);
		context->trace_id[0] |= (u64)hex_bytes(*(const u64 *)(text + 8), &wrong) << 32;
	}
	context->trace_id[1] = hex_bytes(*(const u64 *)low, &wrong);
	context->trace_id[1] |= (u64)hex_bytes(*(const u64 *)(low + 8), &wrong) << 32;
	return wrong | !(context->trace_id[0] | context->trace_id[1]);
}

static __always_inline u64 b3_span_id(const u8 *text, u64 *wrong)
{
	u64 span_id = hex_bytes(*(const u64 *)text, wrong);

	return span_id | (u64)hex_bytes(*(const u64 *)(text + 8), wrong) << 32;
}

/* Behind the ids of a single header: nothing, or the decision, and a parent's id, which nobody asks for. */
static __always_inline enum b3_decision b3_state(const u8 *text, u64 bytes)
{
	if (!bytes)
		return B3_DEFERRED;
	if (text[0] != '-' || (bytes != 2 && (bytes != 2 + 17 || text[2] != '-')))
		return B3_INVALID;
	return b3_decision_of(text[1]);
}

/* The header `b3`: the caller's span id, 0 where the text holds none or isn't valid. `length`: of the whole text.
 * `*decision`: valid in either case, B3_INVALID where the text isn't. */
static __always_inline u64 b3_parse(const struct b3_text *text, u64 length, struct trace_context *context,
				    enum b3_decision *decision)
{
	const u8 *bytes = (const u8 *)text->words;
	u64 wrong, span_id;

	*decision = B3_INVALID;
	context->flags = 0;
	if (length == 1) {
		*decision = b3_decision_of(bytes[0]);
		return 0;
	}
	if (length > B3_BYTES)
		return 0;
	if (length >= 49 && bytes[32] == '-') {
		wrong = b3_trace_id(bytes, 32, context);
		span_id = b3_span_id(bytes + 33, &wrong);
		*decision = b3_state(bytes + 49, length - 49);
	} else if (length >= 33 && bytes[16] == '-') {
		wrong = b3_trace_id(bytes, 16, context);
		span_id = b3_span_id(bytes + 17, &wrong);
		*decision = b3_state(bytes + 33, length - 33);
	} else {
		return 0;
	}
	if (wrong || !span_id)
		*decision = B3_INVALID;
	return *decision == B3_INVALID ? 0 : span_id;
}

/* X-B3-TraceId and X-B3-SpanId: as `b3_parse`, without a decision. */
static __always_inline u64 b3_parse_ids(const struct b3_text *trace, u64 trace_bytes, const struct b3_text *span,
					u64 span_bytes, struct trace_context *context)
{
	u64 wrong, span_id;

	context->flags = 0;
	if (span_bytes != 16)
		return 0;
	if (trace_bytes == 32)
		wrong = b3_trace_id((const u8 *)trace->words, 32, context);
	else if (trace_bytes == 16)
		wrong = b3_trace_id((const u8 *)trace->words, 16, context);
	else
		return 0;
	span_id = b3_span_id((const u8 *)span->words, &wrong);
	return wrong ? 0 : span_id;
}

/* X-B3-Sampled and X-B3-Flags, whose first 8 bytes these are, zeros behind them. */
static __always_inline enum b3_decision b3_multi_decision(u64 sampled, u64 flags)
{
	if (flags == '1' || sampled == '1' || sampled == 0x65757274 /* "true", as early tracers sent it */)
		return B3_ACCEPTED;
	if (sampled == '0' || sampled == 0x65736c6166ULL /* "false" */)
		return B3_DENIED;
	return B3_DEFERRED;
}
