/* SPDX-License-Identifier: GPL-2.0-only
 *
 * What every probe on Go code needs: argument registers, the current goroutine, strings and maps of the target.
 * Joined into one text with the other sources of the unit (BCC rewrites map methods in the main file alone), after the
 * generated header that defines struct target, the limits and the ids.
 */

/* Go's register ABI: integer arguments and results in this order, the current g in its own register.
 * Source: go1.17 and later, src/cmd/compile/abi-internal.md, "amd64 architecture". */
#define GO_ARG1(ctx) ((ctx)->ax)
#define GO_ARG2(ctx) ((ctx)->bx)
#define GO_ARG3(ctx) ((ctx)->cx)
#define GO_ARG4(ctx) ((ctx)->di)
#define GO_ARG5(ctx) ((ctx)->si)
#define GO_G(ctx) ((ctx)->r14)
#define GO_PC(ctx) ((ctx)->ip)

/* The verifier wants to see the bound on the very register that is passed as a length; clang, left alone, tests a copy
 * or turns the comparison into a signed one. */
#define CLAMP(n, max) asm volatile("if %0 <= " #max " goto +1\n%0 = " #max : "+r"(n))

#define EEXIST 17

/* An offset that the executable doesn't have. */
#define MISSING 0xffff

/* Reads the target's memory, faulting absent pages in; zeroes `to` where that fails. Where a program can't be sleepable the
 * loader makes bpf_probe_read_user of it (same signature), which loses what isn't present. */
#define read_user(to, size, from) bpf_copy_from_user(to, size, (void *)(from))

struct go_string {
	u64 data;
	u64 length;
};

static __always_inline u64 go_read_word(u64 object, u16 offset)
{
	u64 word = 0;

	if (object && offset != MISSING)
		read_user(&word, sizeof(word), object + offset);
	return word;
}

static __always_inline u8 go_read_byte(u64 object, u16 offset)
{
	u8 byte = 0;

	if (object && offset != MISSING)
		read_user(&byte, sizeof(byte), object + offset);
	return byte;
}

static __always_inline struct go_string go_read_string(u64 object, u16 offset)
{
	struct go_string string = {};

	if (object && offset != MISSING)
		read_user(&string, sizeof(string), object + offset);
	return string;
}

/* A map[string][]string. Up to Go 1.23, src/runtime/map.go (hmap, bmap): number of elements, flags, log2 of the number of
 * buckets (byte 9), …, buckets. Since 1.24, src/internal/runtime/maps/map.go (Map): number of elements, seed, directory
 * (one group, where its length is 0), its length; measured identical in 1.26.8 and 1.27.3. */
struct go_map {
	u64 used;
	u64 log2_buckets; /* second byte */
	u64 groups;
	u64 directory_length;
};
/* src/internal/runtime/maps/table.go: table.groups {data, lengthMask} */
#define SWISS_GROUPS_OFFSET 16
/* src/internal/runtime/maps/group.go: control word, then slots of key (16 bytes) and value (24) */
#define SWISS_SLOT_BYTES 40
#define SWISS_GROUP_BYTES 328
/* src/runtime/map.go: tophash[8], keys, values, overflow */
#define BUCKET_VALUES_OFFSET 136
#define BUCKET_OVERFLOW_OFFSET 328
#define BUCKET_BYTES 336
#define BUCKET_MIN_TOPHASH 5

#define HEADER_SLOTS 8
/* 8 groups or buckets hold 56 header names and more; a request with more loses this attribute, not its span. */
#define HEADER_GROUPS 8

static __always_inline int go_slot_used(u64 control, u16 swiss)
{
	return swiss ? !(control & 0x80) : (control & 0xff) >= BUCKET_MIN_TOPHASH;
}

/* The first value of a key of 9 to 16 bytes in a map[string][]string, {0, 0} where there is none. `low` holds the key's
 * first 8 bytes, `high` the others, zero-padded. One loop for both kinds of map: the verifier follows every branch of
 * every round. */
static __always_inline struct go_string go_header(u64 map, u16 swiss, u64 length, u64 low, u64 high)
{
	struct go_map head = {};
	struct go_string key, value = {};
	u64 table[2] = {}, bytes[2], base, group, next, last = 0, control = 0, found = 0;

	read_user(&head, sizeof(head), map);
	base = head.groups;
	if (!base)
		return value;
	if (!swiss) {
		last = (1ULL << (head.log2_buckets >> 8 & 15)) - 1;
	} else if (head.directory_length) {
		/* Only the first table: one holds up to 1024 slots. */
		read_user(table, sizeof(table), go_read_word(base, 0) + SWISS_GROUPS_OFFSET);
		base = table[0];
		last = table[1];
	}
	group = base;
	for (u32 round = 0; round < HEADER_GROUPS * HEADER_SLOTS; round++) {
		u32 i = round % HEADER_SLOTS;

		if (!i)
			control = go_read_word(group, 0);
		read_user(&key, sizeof(key), group + 8 + i * (swiss ? SWISS_SLOT_BYTES : sizeof(key)));
		if (key.length == length && go_slot_used(control >> (8 * i), swiss)) {
			bytes[0] = bytes[1] = 0;
			read_user(bytes, length, key.data);
			if (bytes[0] == low && bytes[1] == high) {
				found = group + (swiss ? 8 + i * SWISS_SLOT_BYTES + sizeof(key) : BUCKET_VALUES_OFFSET + 24 * i);
				break;
			}
		}
		if (i < HEADER_SLOTS - 1)
			continue;
		next = swiss ? 0 : go_read_word(group, BUCKET_OVERFLOW_OFFSET);
		if (!next) {
			if (!last--)
				break;
			next = base += swiss ? SWISS_GROUP_BYTES : BUCKET_BYTES;
		}
		group = next;
	}
	return found ? go_read_string(go_read_word(found, 0), 0) : value;
}
