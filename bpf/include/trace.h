/* SPDX-License-Identifier: GPL-2.0-only
 *
 * W3C Trace Context: the text of a traceparent header to ids. Pure C; tests/unit compiles it for the host.
 * Source of the grammar: https://www.w3.org/TR/trace-context-2/, sections 3.2 and 4.
 */

#define TRACE_FLAG_SAMPLED 1
#define TRACE_FLAG_RANDOM 2 /* level 2 of the recommendation; what a version leaves undefined is not passed on */

/* version "-" trace-id "-" parent-id "-" trace-flags, of version 00; later ones may only append. */
#define TRACEPARENT_BYTES 55

struct trace_context {
	u64 trace_id[2]; /* bytes as they stand in the text */
	u64 flags;
};

#define EACH_BYTE(x) ((x) * 0x0101010101010101ULL)

/* 8 lower-case hexadecimal digits, the first in the lowest byte, to 4 bytes in the same order; sets bits of `*wrong`
 * where there is another character. A letter has bit 6, and counts from 9 on in its low 4 bits. */
static __always_inline u32 hex_bytes(u64 digits, u64 *wrong)
{
	u64 letters = (digits & EACH_BYTE(0x40)) >> 6;
	u64 values = (digits & EACH_BYTE(0x0f)) + 9 * letters;

	*wrong |= (digits & EACH_BYTE(0xf0)) ^ (EACH_BYTE(0x30) + 0x30 * letters);
	*wrong |= values & EACH_BYTE(0x10);					/* behind f */
	*wrong |= ((values + EACH_BYTE(0x06)) & EACH_BYTE(0x10)) ^ letters << 4; /* a letter is 10 or more, a digit less */
	values = (values << 4 | values >> 8) & 0x00ff00ff00ff00ffULL;
	values = (values | values >> 8) & 0x0000ffff0000ffffULL;
	return values | values >> 16;
}

/* The first 56 bytes of a traceparent, from byte 5 on, so that its trace id is aligned; zeros around them. */
struct traceparent_text {
	u64 words[8];
};

/* The parent's span id, 0 where the text isn't valid: `context` holds rubbish then. `length` is the whole text's. */
static __always_inline u64 traceparent_parse(const struct traceparent_text *text, u64 length,
					     struct trace_context *context)
{
	const u64 *words = text->words;
	u64 wrong = 0, prefix = words[0] >> 40, suffix = words[7] >> 8, digits;
	u32 version, flags, ids[6];

	/* A loop leaves more of the stack than 6 copies: 4 words of the trace id, 2 of the span id, which isn't aligned. */
#pragma clang loop unroll(disable)
	for (u32 i = 0; i < 6; i++) {
		digits = words[i + 1];
		if (i >= 4)
			digits = digits >> 8 | words[i + 2] << 56;
		ids[i] = hex_bytes(digits, &wrong);
	}
	/* Two digits and a dash each; what lacks to 8 digits is made up. */
	version = hex_bytes(EACH_BYTE('0') << 16 | (prefix & 0xffff), &wrong) & 0xff;
	flags = hex_bytes(EACH_BYTE('0') << 16 | (suffix >> 8 & 0xffff), &wrong) & 0xff;
	wrong |= (prefix >> 16 ^ '-') | ((words[5] & 0xff) ^ '-') | ((suffix & 0xff) ^ '-');
	context->trace_id[0] = ids[0] | (u64)ids[1] << 32;
	context->trace_id[1] = ids[2] | (u64)ids[3] << 32;
	context->flags = flags & (TRACE_FLAG_SAMPLED | TRACE_FLAG_RANDOM);
	if (wrong || version == 0xff || !(context->trace_id[0] | context->trace_id[1]))
		return 0;
	if (length != TRACEPARENT_BYTES && (!version || length < TRACEPARENT_BYTES || (suffix >> 24 & 0xff) != '-'))
		return 0;
	return ids[4] | (u64)ids[5] << 32;
}
