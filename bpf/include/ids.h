/* SPDX-License-Identifier: GPL-2.0-only
 *
 * Ids of spans and traces. Pure C; tests/unit compiles it for the host.
 */

/* The finalizer of splitmix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators): one to one. */
static __always_inline u64 id_mix(u64 x)
{
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ULL;
	x = (x ^ x >> 27) * 0x94d049bb133111ebULL;
	return x ^ x >> 31;
}

/* The id of the span that the goroutine of `g` starts now, of which there is only one in a process. The seeds are random ones
 * of the process: to ask the kernel for as many random bits would take 150 ns. An id of zeros is invalid, W3C Trace Context
 * section 3.2.2.3 and 3.2.2.4. */
static __always_inline u64 id_of(u64 seed_high, u64 seed_low, u64 now_ns, u64 g)
{
	u64 high = id_mix(id_mix(seed_high ^ now_ns) ^ g);
	u64 low = id_mix(id_mix(seed_low ^ g) ^ now_ns);
	u64 span_id = id_mix(high ^ (low << 32 | low >> 32));

	return span_id ? span_id : 1;
}

/* The same span's trace, of which it is the root. */
static __always_inline void id_of_trace(u64 seed_high, u64 seed_low, u64 now_ns, u64 g, struct trace_context *root)
{
	u64 low = id_mix(id_mix(seed_low ^ g) ^ now_ns);

	root->trace_id[0] = id_mix(id_mix(seed_high ^ now_ns) ^ g);
	root->trace_id[1] = low ? low : 1;
	root->flags = 0;
}
