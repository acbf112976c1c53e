/* SPDX-License-Identifier: GPL-2.0-only
 *
 * Ids to the line of a traceparent header, the way back of trace.h. Pure C; tests/unit compiles it for the host.
 */

/* The inverse of `hex_bytes`: 4 bytes to 8 lower-case digits. */
static __always_inline u64 hex_digits(u32 bytes)
{
	u64 values = bytes, letters;

	values = (values | values << 16) & 0x0000ffff0000ffffULL;
	values = (values | values << 8) & 0x00ff00ff00ff00ffULL;
	values = (values >> 4 & 0x000f000f000f000fULL) | (values & 0x000f000f000f000fULL) << 8;
	letters = (values + EACH_BYTE(0x06)) >> 4 & EACH_BYTE(0x01);
	return values + EACH_BYTE('0') + letters * ('a' - '0' - 10);
}

/* "traceparent: ", the text, CR LF */
#define TRACEPARENT_LINE_BYTES (13 + TRACEPARENT_BYTES + 2)

#define TRACEPARENT_LINE_WORDS 9

/* A whole header line of version 00, two zeros behind it; the stack of a program takes whole words only. */
static __always_inline void traceparent_words(u64 words[TRACEPARENT_LINE_WORDS], const u64 trace_id[2], u64 span_id,
					      u64 flags)
{
	u64 low = hex_digits(span_id), high = hex_digits(span_id >> 32);

	words[0] = 0x7261706563617274ULL; /* "tracepar" */
	words[1] = 0x2d3030203a746e65ULL; /* "ent: 00-" */
	words[2] = hex_digits(trace_id[0]);
	words[3] = hex_digits(trace_id[0] >> 32);
	words[4] = hex_digits(trace_id[1]);
	words[5] = hex_digits(trace_id[1] >> 32);
	words[6] = '-' | low << 8;
	words[7] = low >> 56 | high << 8;
	/* "-0", the flags, CR LF */
	words[8] = high >> 56 | 0x0a0d30302d00ULL | (flags & (TRACE_FLAG_SAMPLED | TRACE_FLAG_RANDOM)) << 24;
}
