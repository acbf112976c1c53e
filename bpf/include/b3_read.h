/* SPDX-License-Identifier: GPL-2.0-only
 *
 * The headers of B3 propagation in a request of net/http, for include/b3.h. Only for programs that are attached where
 * OTEL_PROPAGATORS names b3 or b3multi.
 */

enum b3_header {
	B3_OTHER,
	B3_SINGLE,
	B3_TRACE_ID,
	B3_SPAN_ID,
	B3_SAMPLED,
	B3_FLAGS,
	B3_HEADERS = 8, /* a power of two */
};

/* Of a group or bucket; go.h tells how they lie. 8 groups hold 56 header names and more; those behind are not seen. */
#define B3_SLOTS 8
#define B3_GROUPS 8
/* As bits: 2, 10, 11, 12. */
#define B3_NAME_LENGTHS 0x1c04

struct b3_walk {
	struct go_string found[B3_HEADERS];
	struct b3_text text;
};

/* Which header a name of up to 12 bytes is, as net/textproto canonicalises it. */
static __always_inline u64 b3_header_of(u64 low, u64 high)
{
	return B3_SINGLE * is_zero((low ^ 0x3342ULL) | high) +
	       B3_FLAGS * is_zero((low ^ 0x616c462d33422d58ULL) | (high ^ 0x7367ULL)) +
	       B3_SPAN_ID * is_zero((low ^ 0x6170532d33422d58ULL) | (high ^ 0x64696eULL)) +
	       B3_TRACE_ID * is_zero((low ^ 0x6172542d33422d58ULL) | (high ^ 0x64696563ULL)) +
	       B3_SAMPLED * is_zero((low ^ 0x6d61532d33422d58ULL) | (high ^ 0x64656c70ULL));
}

/* Fills `found`, which is all zero, with the values of those headers that are there exactly once. */
static __always_inline void b3_headers(u64 map, u16 swiss_maps, struct go_string found[B3_HEADERS])
{
	u64 swiss = swiss_maps & 1;
	u64 slot_bytes = 16 + (SWISS_SLOT_BYTES - 16) * swiss;
	u64 values_offset = BUCKET_VALUES_OFFSET - (BUCKET_VALUES_OFFSET - 24) * swiss;
	u64 value_bytes = 24 + (SWISS_SLOT_BYTES - 24) * swiss;
	u64 group_bytes = BUCKET_BYTES - (BUCKET_BYTES - SWISS_GROUP_BYTES) * swiss;
	u64 flip = 0x80 * swiss, lowest = BUCKET_MIN_TOPHASH + (0x80 - BUCKET_MIN_TOPHASH) * swiss;
	u64 base, group, next, which, last, old, bytes, control = 0, words[2] = {};
	struct go_string name = {};
	struct go_map head = {};

	read_user_present(&head, sizeof(head), map);
	base = head.groups;
	if (!base || !head.used)
		return;
	last = ((1ULL << (head.log2_buckets >> 8 & 15)) - 1) & (swiss - 1);
	old = head.directory_length & (swiss - 1);
	if (head.directory_length & -swiss) {
		read_user(words, sizeof(words), go_read_word(base, 0) + SWISS_GROUPS_OFFSET);
		base = words[0];
		last = words[1];
	}
	group = base;
#pragma clang loop unroll(disable)
	for (u32 round = 0; round < B3_GROUPS * B3_SLOTS; round++) {
		u32 i = round % B3_SLOTS;

		if (!i)
			read_user(&control, sizeof(control), group);
		if (((control & 0xff) ^ flip) >= lowest) {
			read_user(&name, sizeof(name), group + 8 + i * slot_bytes);
			bytes = name.length;
			if (bytes <= 12 && B3_NAME_LENGTHS >> bytes & 1) {
				words[0] = words[1] = 0;
				CLAMP(bytes, 12);
				read_user(words, bytes, name.data);
				which = b3_header_of(words[0], words[1]);
				if (which) {
					read_user(words, sizeof(words), group + values_offset + i * value_bytes);
					if (words[1] == 1)
						read_user(&found[which & (B3_HEADERS - 1)], sizeof(*found), words[0]);
				}
			}
			if (!--head.used)
				break;
		}
		control >>= 8;
		if (i < B3_SLOTS - 1)
			continue;
		next = go_read_word(group, BUCKET_OVERFLOW_OFFSET) & (swiss - 1);
		if (!next) {
			if (last) {
				last--;
				next = base += group_bytes;
			} else {
				/* A map that grows: its old buckets, as go_headers does. */
				if (!old)
					break;
				next = base = old;
				old = 0;
				last = ((1ULL << (head.log2_buckets >> 8 & 15)) >>
					!(head.log2_buckets & BUCKET_SAME_SIZE_GROW)) - 1;
			}
		}
		group = next;
	}
}

/* At most `max` bytes of a value, zeros behind it. */
#define B3_READ(to, value, max)                                                                                           \
	do {                                                                                                              \
		u64 bytes = (value).length;                                                                               \
		CLAMP(bytes, max);                                                                                        \
		__builtin_memset(to, 0, sizeof(*(to)));                                                                   \
		read_user(to, bytes, (value).data);                                                                       \
	} while (0)

/* The caller's span id, 0 for none; `context` gets its trace, and as flags the decision, which this side makes where the
 * caller left it open. `*denied`: there is no trace, but the wish that there be none. The single header comes first. */
static __always_inline u64 b3_read(struct target *target, u64 header, struct b3_walk *walk, struct trace_context *context,
				   u32 *denied)
{
	enum b3_decision decision = B3_INVALID;
	u64 span_id = 0, sampled = 0, flags = 0, bytes;

	__builtin_memset(walk->found, 0, sizeof(walk->found));
	b3_headers(header, target->swiss_maps, walk->found);
	bytes = walk->found[B3_SINGLE].length;
	if (bytes && target->options & OPTION_b3) {
		B3_READ(&walk->text, walk->found[B3_SINGLE], 72);
		span_id = b3_parse(&walk->text, bytes, context, &decision);
	}
	if (decision == B3_INVALID && target->options & OPTION_b3multi) {
		B3_READ(&sampled, walk->found[B3_SAMPLED], 8);
		B3_READ(&flags, walk->found[B3_FLAGS], 8);
		decision = b3_multi_decision(sampled, flags);
		/* Both in one text: the trace id first, the span's in the last two words. */
		B3_READ(&walk->text, walk->found[B3_TRACE_ID], 32);
		bytes = walk->found[B3_SPAN_ID].length;
		CLAMP(bytes, 16);
		read_user(&walk->text.words[6], bytes, walk->found[B3_SPAN_ID].data);
		span_id = b3_parse_ids(&walk->text, walk->found[B3_TRACE_ID].length,
				       (struct b3_text *)&walk->text.words[6], walk->found[B3_SPAN_ID].length, context);
	}
	*denied = !span_id && decision == B3_DENIED;
	if (!span_id)
		return 0;
	context->flags = decision == B3_ACCEPTED;
	if (decision == B3_DEFERRED)
		context->flags = sampling_below(context->trace_id[1], target->sampling_bound);
	return span_id;
}
