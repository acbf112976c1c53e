/* SPDX-License-Identifier: GPL-2.0-only
 *
 * Headers and metadata that the user has named: their values go into a record, one behind the other, each as the number of
 * its name, its length and its text. otel_goprobe/spans/captured.py reads them.
 */

/* Of all values of a record, and of each. A value begins only where the longest one fits. */
#define CAPTURED_BYTES 448
#define CAPTURED_VALUE_BYTES 124
#define CAPTURED_HEAD_BYTES 2
#define CAPTURED_LAST 320 /* CAPTURED_BYTES less the largest power of two that a value with its head fits into, 128 */
/* Of one name. */
#define CAPTURED_VALUES 4
/* What is walked of a map: 8 groups or buckets. */
#define CAPTURED_SLOTS 64

struct captured_name {
	u64 option; /* OPTION_<name> of the flag that has it */
	u64 name[CAPTURED_NAME_BYTES / 8]; /* in lower case, zeros behind it */
};

/* To the number of the name, from 1 on. The agent fills it before the first target. */
BPF_HASH(captured_names, struct captured_name, u32, 4 * CAPTURED_NAMES);

/* A record's texts. */
struct captured {
	char bytes[CAPTURED_BYTES];
};

/* What the walk needs room for: in the record that is being filled, where something else comes to stand afterwards. The stack
 * has no room, and the verifier, which knows nothing of what it reads back from there, doesn't take the values of each round
 * for another state. */
struct captured_walk {
	u64 group;
	u64 base; /* the first group or bucket of the array */
	u64 left; /* in the array behind it */
	u64 old;  /* buckets of a map that grows, which are looked at when those of the new ones have been */
	u64 elements;
	u64 at; /* how many bytes of texts have been written */
	struct go_map head;
	struct go_string text; /* a name, then one of its values */
	struct go_string values; /* where the elements of its []string are, and how many */
	u64 context[6];		 /* for those that look for the map */
};

/* The number of a name, 0 if nobody asked for it. */
static __always_inline u32 captured_number(u64 option, struct go_string text)
{
	struct captured_name name = {.option = option};
	u64 bytes = text.length, upper;
	u32 *number;

	if (!bytes || bytes > CAPTURED_NAME_BYTES)
		return 0;
	CLAMP(bytes, 40);
	if (read_user_present(name.name, bytes, text.data))
		return 0;
#pragma clang loop unroll(full)
	for (u32 i = 0; i < CAPTURED_NAME_BYTES / 8; i++) {
		/* The high bit of each byte from 'A' to 'Z'; a name is ASCII. */
		upper = (name.name[i] + 0x3f3f3f3f3f3f3f3fULL) & ~(name.name[i] + 0x2525252525252525ULL) &
			0x8080808080808080ULL;
		name.name[i] |= upper >> 2;
	}
	number = captured_names.lookup(&name);
	return number ? *number : 0;
}

/* Appends `walk->text`. */
static __always_inline void captured_add(struct captured *to, struct captured_walk *walk, u32 slot, u32 number)
{
	u64 at = walk->at, bytes = walk->text.length;

	if (at > CAPTURED_LAST) {
		count(slot, COUNTER_captured_cut);
		return;
	}
	if (bytes > CAPTURED_VALUE_BYTES)
		count(slot, COUNTER_captured_cut);
	CLAMP(at, 320);
	CLAMP(bytes, 124);
	if (read_user_present(to->bytes + at + CAPTURED_HEAD_BYTES, bytes, walk->text.data))
		return;
	to->bytes[at] = number;
	to->bytes[at + 1] = bytes;
	walk->at = at + CAPTURED_HEAD_BYTES + bytes;
}

/* Appends the elements of `walk->values`. */
static __always_inline void captured_add_all(struct captured *to, struct captured_walk *walk, u32 slot, u32 number)
{
	if (walk->values.length > CAPTURED_VALUES)
		count(slot, COUNTER_captured_cut);
#pragma clang loop unroll(disable)
	for (u32 i = 0; i < CAPTURED_VALUES; i++) {
		if (i >= walk->values.length ||
		    read_user_present(&walk->text, sizeof(walk->text), walk->values.data + i * sizeof(walk->text)))
			break;
		captured_add(to, walk, slot, number);
	}
}

/* Appends what a map[string][]string has of the names of a flag; go.h tells how the map lies. Both kinds of map are told
 * apart by arithmetic, as in go_headers. */
static __always_inline void captured_map(struct captured *to, struct captured_walk *walk, u32 slot, u64 option, u64 map,
					 u16 swiss_maps)
{
	u64 swiss = swiss_maps & 1, control = 0, words[2], kind, used, next;
	u32 number;

	if (read_user_present(&walk->head, sizeof(walk->head), map) || !walk->head.groups || !walk->head.used)
		return;
	walk->base = walk->head.groups;
	walk->left = ((1ULL << (walk->head.log2_buckets >> 8 & 15)) - 1) & (swiss - 1);
	walk->old = walk->head.directory_length & (swiss - 1);
	walk->elements = walk->head.used;
	if (walk->head.directory_length & -swiss) {
		/* Only the first table, as there. */
		if (read_user_present(words, sizeof(words), go_read_word(walk->head.groups, 0) + SWISS_GROUPS_OFFSET))
			return;
		walk->base = words[0];
		walk->left = words[1];
	}
	walk->group = walk->base;
#pragma clang loop unroll(disable)
	for (u32 i = 0; i < CAPTURED_SLOTS; i++) {
		u64 within = i % 8;

		kind = swiss;
		asm volatile("" : "+r"(kind));
		if (!within && read_user_present(&control, sizeof(control), walk->group))
			return;
		used = is_negative(BUCKET_MIN_TOPHASH - 1 + (0x80 - BUCKET_MIN_TOPHASH) * kind -
				   ((control & 0xff) ^ 0x80 * kind));
		control >>= 8;
		number = 0;
		if (used) {
			walk->elements--;
			if (read_user_present(&walk->text, sizeof(walk->text),
					      walk->group + 8 + within * (16 + (SWISS_SLOT_BYTES - 16) * kind)))
				return;
			number = captured_number(option, walk->text);
		}
		if (number &&
		    !read_user_present(&walk->values, sizeof(walk->values),
				       walk->group + BUCKET_VALUES_OFFSET - (BUCKET_VALUES_OFFSET - 24) * kind +
					       within * (24 + (SWISS_SLOT_BYTES - 24) * kind)))
			captured_add_all(to, walk, slot, number);
		if (!walk->elements)
			return;
		if (within < 7)
			continue;
		next = go_read_word(walk->group, BUCKET_OVERFLOW_OFFSET) & (kind - 1);
		if (!next) {
			if (walk->left) {
				walk->left--;
				next = walk->base += BUCKET_BYTES - (BUCKET_BYTES - SWISS_GROUP_BYTES) * kind;
			} else if (walk->old) {
				next = walk->base = walk->old;
				walk->old = 0;
				walk->left = ((1ULL << (walk->head.log2_buckets >> 8 & 15)) >>
					      !(walk->head.log2_buckets & BUCKET_SAME_SIZE_GROW)) - 1;
			} else {
				return;
			}
		}
		walk->group = next;
	}
	count(slot, COUNTER_captured_cut);
}
