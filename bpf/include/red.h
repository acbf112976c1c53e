/* SPDX-License-Identifier: GPL-2.0-only
 *
 * Durations of requests, added up where they end: a histogram for each combination of attributes, whether or not the
 * request becomes a span. otel_goprobe/durations.py reads them; the bounds are the libraries' declarations'.
 */

/* What tells series apart; each library's declaration says what it makes of the members that the engine doesn't fill:
 * all but `slot`, `kind` and `chunk`. */
struct red_key {
	u64 text;	/* id of a route or the like, whose bytes are in red_texts; 0: none */
	u64 other_text; /* the same of a server's name or the like */
	u64 word;	/* up to 8 bytes of text */
	u64 error;
	u32 number; /* a port or the like */
	u16 slot;
	u16 status;
	u8 kind;
	u8 chunk; /* of an exponential histogram: which RED_CHUNK of its buckets */
	u8 traits[6];
};

struct red_series {
	u64 sum_ns;
	u64 buckets[RED_BUCKETS];
};

#define RED_TEXT_WORDS 19

/* Zeros behind the text's end. */
struct red_text {
	u64 words[RED_TEXT_WORDS];
};

/* Stands for every text that found no room any more. */
#define RED_TEXT_OTHER (~0ULL)

BPF_HASH(red_durations, struct red_key, struct red_series, RED_MAX_SERIES);
BPF_HASH(red_overflow, struct red_key, struct red_series, RED_MAX_SERIES);
BPF_HASH(red_texts, u64, struct red_text, RED_MAX_SERIES);
/* Never written to: a new series, for which the stack has no room. */
BPF_ARRAY(red_blank, struct red_series, 1);

/* Reads a text of the target, cut to what fits, into `text`, which is all zero. Returns its length. */
static __always_inline u32 red_text_read(struct go_string string, struct red_text *text)
{
	u64 bytes = string.length;

	if (!bytes)
		return 0;
	CLAMP(bytes, 152);
	return read_user_present(text, bytes, string.data) ? 0 : bytes;
}

/* The id of a text, made of its content: an address on the heap can become another text's. Mixing as in splitmix64, whose
 * constant this is. */
static __always_inline u64 red_text_id(const struct red_text *text)
{
	u64 id = 0;

#pragma clang loop unroll(disable)
	for (u32 i = 0; i < RED_TEXT_WORDS; i++) {
		id = (id ^ text->words[i]) * 0x9e3779b97f4a7c15ULL;
		id ^= id >> 29;
	}
	return id == RED_TEXT_OTHER ? 1 : id;
}

/* Reads a text, keeps it at once, so that `text`, all zero before and after, is free for another one, and returns its id:
 * for a second text of a key. A look-up more a request than the first text costs, which red_count keeps. */
static __always_inline __attribute__((unused)) u64 red_text_keep(struct go_string string, struct red_text *text)
{
	u64 id = red_text_read(string, text) ? red_text_id(text) : 0;

	if (id && !red_texts.lookup(&id) && red_texts.update(&id, text))
		id = RED_TEXT_OTHER;
	__builtin_memset(text, 0, sizeof(*text));
	return id;
}

static __always_inline struct red_series *red_series_of(struct red_key *key, struct red_text *text)
{
	struct red_series *series = red_durations.lookup(key), *blank;
	u32 zero = 0;

	if (series)
		return series;
	blank = red_blank.lookup(&zero);
	if (!blank)
		return 0;
	if (!key->text || !red_texts.update(&key->text, text)) {
		red_durations.insert(key, blank);
		series = red_durations.lookup(key);
		if (series)
			return series;
	}
	/* Too many: one series stands for what can't be told apart any more. */
	count(key->slot, COUNTER_metric_overflow);
	key->text = RED_TEXT_OTHER;
	key->other_text = RED_TEXT_OTHER;
	key->number = 0;
	key->error = 0;
	series = red_overflow.lookup(key);
	if (series)
		return series;
	red_overflow.insert(key, blank);
	return red_overflow.lookup(key);
}

/* Counts one request. `key` may be changed. `text` has the bytes of `key->text`; `bucket` is RED_BUCKET_<stem> of the
 * duration, which is another one where histograms are exponential. */
static __always_inline void red_count(struct target *target, struct red_key *key, struct red_text *text, u64 duration_ns,
				      u32 bucket)
{
	struct red_series *series;

	if (target->options & OPTION_red_exponential) {
		bucket = exponential_bucket(duration_ns);
		key->chunk = bucket / RED_CHUNK;
		bucket %= RED_CHUNK;
	}
	series = red_series_of(key, text);
	if (!series || bucket >= RED_BUCKETS) {
		count(key->slot, COUNTER_metric_lost);
		return;
	}
	__sync_fetch_and_add(&series->sum_ns, duration_ns);
	__sync_fetch_and_add(&series->buckets[bucket], 1);
}
