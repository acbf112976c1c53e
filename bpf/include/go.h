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
#define GO_ARG6(ctx) ((ctx)->r8)
#define GO_ARG7(ctx) ((ctx)->r9)
#define GO_ARG8(ctx) ((ctx)->r10)
#define GO_ARG9(ctx) ((ctx)->r11)
#define GO_CLOSURE(ctx) ((ctx)->dx) /* what a closure captured, behind its code's address */
#define GO_G(ctx) ((ctx)->r14)
#define GO_PC(ctx) ((ctx)->ip)

/* The verifier wants to see the bound on the very register that is passed as a length; clang, left alone, tests a copy
 * or turns the comparison into a signed one. */
#define CLAMP(n, max) asm volatile("if %0 <= " #max " goto +1\n%0 = " #max : "+r"(n))

#define EEXIST 17

/* An offset that the executable doesn't have. */
#define MISSING 0xffff

/* Reads the target's memory, faulting absent pages in; zeroes `to` where that fails. Where a program can't be sleepable the
 * loader makes bpf_probe_read_user of it (same signature), which loses what isn't present.
 *
 * To the stack, where what is read fits there: of a map's or a record's memory the kernel looks up at each read what it
 * belongs to (mm/usercopy.c, check_heap_object), which takes 0.1 to 0.2 us when the caches are cold. */
#define read_user(to, size, from) bpf_copy_from_user(to, size, (void *)(from))

/* The same for what is read at every request: without faulting pages in, which takes a quarter of the time, then again by
 * read_user where that fails. */
#define read_user_present(to, size, from)                                                                                 \
	(__builtin_expect(bpf_probe_read_user(to, size, (void *)(from)), 0) ? read_user(to, size, from) : 0)

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

/* Fields of a struct that lie near each other, read at once: a read costs the same for 8 bytes and for 208. As many as
 * net/http.Request has up to the end of RequestURI, and the stack room for. */
#define GO_BLOCK_BYTES 208

struct go_block {
	u64 words[GO_BLOCK_BYTES / 8];
};

/* Fills the block, NULL where it can't. `start`: offset in the object, MISSING where its fields lie too far apart (Block in
 * otel_goprobe/probes/base.py). */
static __always_inline struct go_block *go_read_block(struct go_block *block, u64 object, u16 start)
{
	return start == MISSING || read_user_present(block, GO_BLOCK_BYTES, object + start) ? 0 : block;
}

/* Fetches a field of one word or, with `words` 2, a string, from the block or else from the object. */
static __always_inline void go_field(struct go_block *block, u64 object, u16 start, u16 offset, u64 *to, u32 words)
{
	u64 within = (u16)(offset - start);

	if (__builtin_expect(block != 0, 1)) {
		CLAMP(within, 192);
		block = (struct go_block *)((char *)block + (within & ~7ULL));
		to[0] = block->words[0];
		if (words > 1)
			to[1] = block->words[1];
	} else if (offset == MISSING || read_user(to, 8 * words, object + offset)) {
		__builtin_memset(to, 0, 8 * words);
	}
}

/* A map[string][]string. Up to Go 1.23, src/runtime/map.go (hmap, bmap): number of elements, flags, log2 of the number of
 * buckets (byte 9), …, buckets, old buckets while it grows. Since 1.24, src/internal/runtime/maps/map.go (Map): number of
 * elements, seed, directory
 * (one group, where its length is 0), its length; measured identical in 1.26.8 and 1.27.3. */
struct go_map {
	u64 used;
	u64 log2_buckets; /* second byte */
	u64 groups;
	u64 directory_length; /* old: old buckets */
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
#define BUCKET_SAME_SIZE_GROW 8

/* Half a group or bucket is read at once. */
#define HEADER_SLOTS 4
/* 16 groups or buckets hold 112 header names and more; of a request with more, those behind are not seen. */
#define HEADER_GROUPS 16

/* The request headers that programs ask for, all found in one walk. */
enum go_header {
	HEADER_OTHER,
	HEADER_TRACEPARENT,
	HEADER_TRACESTATE,
	HEADER_USER_AGENT,
	HEADERS, /* a power of two */
};

/* 1 where x, taken as signed, is negative. Without a branch, which clang would make of a comparison: the verifier follows
 * every branch of every round of the walk. */
static __always_inline u64 is_negative(u64 x)
{
	asm volatile("" : "+r"(x));
	return x >> 63;
}

/* 1 where x is 0. */
static __always_inline u64 is_zero(u64 x)
{
	u64 negative = -x;

	asm volatile("" : "+r"(negative));
	return (x | negative) >> 63 ^ 1;
}

/* Which header a name of 10 or 11 bytes is, as net/textproto canonicalises it or as HTTP/2 has it, in lower case; `low` holds
 * the first 8 bytes. */
static __always_inline u64 go_header_of(u64 low, u64 high)
{
	low |= 0x2020202020202020ULL;
	return HEADER_TRACEPARENT * is_zero((low ^ 0x7261706563617274ULL) | (high ^ 0x746e65ULL)) +
	       HEADER_TRACESTATE * is_zero((low ^ 0x6174736563617274ULL) | (high ^ 0x6574ULL)) +
	       HEADER_USER_AGENT * is_zero((low ^ 0x6567612d72657375ULL) | (high ^ 0x746eULL));
}

/* What the walk needs room for, on the stack, zeroed by the caller for the verifier; free for other use afterwards. */
struct go_walk {
	struct go_map head;
	u64 words[2];
	u64 control;
	u64 slots[(3 * SWISS_SLOT_BYTES + 16) / 8]; /* 4 slots, the last one's value excepted, or 4 keys of an old map */
};

/* Walks a map[string][]string once: found[h] gets the value of each header h whose bit is set in `wanted`, {0, 0} where it
 * isn't there exactly once. Left as soon as every element has been seen. A read costs far more than the bytes it reads:
 * half a group at a time.
 *
 * One loop for both kinds of map, told apart by arithmetic: the verifier follows every branch of every round, and each
 * value that it knows is another state. */
static __always_inline void go_headers(u64 map, u16 swiss_maps, u64 wanted, struct go_walk *walk,
				       struct go_string found[HEADERS])
{
	u64 swiss = swiss_maps & 1;
	u64 base, group, next, which, last, old, candidates, used, kind, slot_bytes, half_bytes;

	read_user_present(&walk->head, sizeof(walk->head), map);
	base = walk->head.groups;
	if (!base || !walk->head.used)
		return;
	last = ((1ULL << (walk->head.log2_buckets >> 8 & 15)) - 1) & (swiss - 1);
	old = walk->head.directory_length & (swiss - 1);
	if (walk->head.directory_length & -swiss) {
		/* Only the first table: one holds up to 1024 slots. */
		read_user(walk->words, sizeof(walk->words), go_read_word(base, 0) + SWISS_GROUPS_OFFSET);
		base = walk->words[0];
		last = walk->words[1];
	}
	group = base;
#pragma clang loop unroll(disable)
	for (u32 round = 0; round < 2 * HEADER_GROUPS; round++) {
		u64 first = round % 2 * HEADER_SLOTS;

		/* What follows from it is computed anew in each round: the stack has no room to keep it all. */
		kind = swiss;
		asm volatile("" : "+r"(kind));
		slot_bytes = 16 + (SWISS_SLOT_BYTES - 16) * kind;
		half_bytes = 3 * slot_bytes + 16;
		if (!first)
			read_user_present(&walk->control, 8 + half_bytes, group);
		else
			read_user_present(walk->slots, half_bytes, group + 8 + HEADER_SLOTS * slot_bytes);
		candidates = 0;
#pragma clang loop unroll(full)
		for (u32 i = 0; i < HEADER_SLOTS; i++) {
			struct go_string *name = (struct go_string *)((char *)walk->slots + i * slot_bytes);

			/* Used is where the control byte has no high bit, or the tophash is 5 or more. */
			used = is_negative(BUCKET_MIN_TOPHASH - 1 + (0x80 - BUCKET_MIN_TOPHASH) * kind -
					   ((walk->control & 0xff) ^ 0x80 * kind));
			walk->head.used -= used;
			walk->control >>= 8;
			candidates |= (used & is_zero((name->length - 10) >> 1)) << i;
		}
#pragma clang loop unroll(disable)
		for (u32 i = 0; i < HEADER_SLOTS; i++) {
			struct go_string *name = (struct go_string *)((char *)walk->slots + i * slot_bytes);
			u64 bytes = 10 + (name->length & 1), value;

			if (!(candidates >> i & 1))
				continue;
			walk->words[0] = walk->words[1] = 0;
			read_user_present(walk->words, bytes, name->data);
			which = go_header_of(walk->words[0], walk->words[1]);
			if (!(wanted >> which & 1))
				continue;
			value = group + BUCKET_VALUES_OFFSET - (BUCKET_VALUES_OFFSET - 24) * kind +
				(first + i) * (24 + (SWISS_SLOT_BYTES - 24) * kind);
			/* Tried once: a second read here is a third of all instructions that the verifier walks. */
			read_user(walk->words, sizeof(walk->words), value);
			if (walk->words[1] == 1)
				read_user_present(&found[which & (HEADERS - 1)], sizeof(*found), walk->words[0]);
		}
		if ((s64)walk->head.used <= 0)
			break;
		if (!first)
			continue;
		next = go_read_word(group, BUCKET_OVERFLOW_OFFSET) & (swiss - 1);
		if (!next) {
			if (last) {
				last--;
				next = base += BUCKET_BYTES - (BUCKET_BYTES - SWISS_GROUP_BYTES) * kind;
			} else {
				/* A map that grows still has elements in its old buckets, half as many as the new ones or, as a
				 * flag says, as many. */
				if (!old)
					break;
				next = base = old;
				old = 0;
				last = ((1ULL << (walk->head.log2_buckets >> 8 & 15)) >>
					!(walk->head.log2_buckets & BUCKET_SAME_SIZE_GROW)) - 1;
			}
		}
		group = next;
	}
}

/* `traceparent_parse` of a text in the target's memory; `text` is all zero. */
static __always_inline u64 traceparent_read(struct go_string string, struct traceparent_text *text,
					    struct trace_context *context)
{
	u64 bytes = string.length;

	if (bytes < TRACEPARENT_BYTES)
		return 0;
	CLAMP(bytes, 56);
	read_user((char *)text + 5, bytes, string.data);
	return traceparent_parse(text, string.length, context);
}
