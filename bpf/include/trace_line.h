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

/* Writes a whole header line of version 00; `line` needn't be aligned. */
static __always_inline void traceparent_line(u8 *line, const u64 trace_id[2], u64 span_id, u64 flags)
{
	__builtin_memcpy(line, "traceparent: 00-", 16);
	*(u64 *)(line + 16) = hex_digits(trace_id[0]);
	*(u64 *)(line + 24) = hex_digits(trace_id[0] >> 32);
	*(u64 *)(line + 32) = hex_digits(trace_id[1]);
	*(u64 *)(line + 40) = hex_digits(trace_id[1] >> 32);
	line[48] = '-';
	*(u64 *)(line + 49) = hex_digits(span_id);
	*(u64 *)(line + 57) = hex_digits(span_id >> 32);
	line[65] = '-';
	line[66] = '0';
	line[67] = '0' + (flags & (TRACE_FLAG_SAMPLED | TRACE_FLAG_RANDOM));
	line[68] = '\r';
	line[69] = '\n';
}
