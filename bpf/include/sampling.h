/* SPDX-License-Identifier: GPL-2.0-only
 *
 * Which requests become spans. Pure C; tests/unit compiles it for the host. otel_goprobe/sampling.py makes the numbers.
 */

/* What a sampler does with the caller's decision, `sampling_parents` of struct target. */
enum sampling_parents {
	SAMPLING_IGNORES_PARENTS,
	SAMPLING_FOLLOWS_PARENTS,
};

/* Spans that are kept although the sampler left them out, `sampling_late` of struct target. */
#define SAMPLING_LATE_ERRORS 1
#define SAMPLING_LATE_SLOW 2

/* Whether a trace id is below the bound, ratio * 2^63. The Go SDK's rule (sdk/trace/sampling.go, TraceIDRatioBased: the
 * last 8 bytes, big endian, without their lowest bit) and the Python SDK's (sdk/trace/sampling.py, TraceIdRatioBased: the
 * same bytes against ratio * 2^64) alike. `id_end`: the last 8 bytes as they lie in memory. */
static __always_inline u32 sampling_below(u64 id_end, u64 bound)
{
	return __builtin_bswap64(id_end) >> 1 < bound;
}

/* The decision: TRACE_FLAG_SAMPLED or 0. */
static __always_inline u32 sampling_decides(const struct trace_context *context, u64 parent_span_id, u32 parents,
					    u64 bound)
{
	if (parent_span_id && parents == SAMPLING_FOLLOWS_PARENTS)
		return context->flags & TRACE_FLAG_SAMPLED;
	return sampling_below(context->trace_id[1], bound);
}

/* Whether the span of a request that wasn't sampled is kept all the same, now that it is known what became of it. */
static __always_inline u32 sampling_late(u32 rules, u64 slow_ns, u64 duration_ns, u32 failed)
{
	return (rules & SAMPLING_LATE_ERRORS && failed) || (rules & SAMPLING_LATE_SLOW && duration_ns >= slow_ns);
}
