/* SPDX-License-Identifier: GPL-2.0-only
 *
 * Durations to the buckets of OTLP's exponential histogram. Pure C; tests/unit compiles it for the host.
 * Source: opentelemetry-proto, metrics/v1/metrics.proto, ExponentialHistogramDataPoint: base = 2^(2^-scale), and bucket i holds
 * base^i < value <= base^(i+1).
 */

/* 8 buckets for each power of two. otel_goprobe/durations.py has both numbers too. */
#define EXPONENTIAL_SCALE 3
/* Added to an index, so that 1 ns, which is 10^-9 s, has 0. */
#define EXPONENTIAL_BIAS 240

/* 1 where a > b; both below 2^63. Not a branch, of which the verifier would follow both ways, with all that follows. */
#define EXPONENTIAL_ABOVE(a, b) (((b) - (a)) >> 63)

/* A second, times 2^32. Below, its products with 2^(1/8) … 2^(7/8), rounded down: as good as the products themselves,
 * since what they are compared with is a whole number. */
#define EXPONENTIAL_SECOND 0x3b9aca0000000000ULL

/* The index, plus the bias, of the bucket that a duration falls into; exact. Below 1 ns is as 1 ns, above 146 years as
 * that. */
static __always_inline u32 exponential_bucket(u64 ns)
{
	u64 value = ns, shift = 0, step, above;

	if (value - 1 >= (1ULL << 62) - 1)
		value = value ? (1ULL << 62) - 1 : 1;
	/* Shifted so that its highest bit is bit 61 … */
#define EXPONENTIAL_NORMALISE(bits)                                                                                       \
	do {                                                                                                              \
		step = EXPONENTIAL_ABOVE(1ULL << (62 - (bits)), value) * (bits);                                          \
		value <<= step;                                                                                           \
		shift += step;                                                                                            \
	} while (0)
	EXPONENTIAL_NORMALISE(32);
	EXPONENTIAL_NORMALISE(16);
	EXPONENTIAL_NORMALISE(8);
	EXPONENTIAL_NORMALISE(4);
	EXPONENTIAL_NORMALISE(2);
	EXPONENTIAL_NORMALISE(1);
#undef EXPONENTIAL_NORMALISE
	/* … and then so that it lies between a second and two, the upper one included. */
	above = EXPONENTIAL_ABOVE(value, EXPONENTIAL_SECOND);
	value <<= 1 - above;
	return ((61 - shift + above) << EXPONENTIAL_SCALE) + EXPONENTIAL_ABOVE(value, 0x40ffd3d4aa4e5371ULL) +
	       EXPONENTIAL_ABOVE(value, 0x46e1dc4b00b253ecULL) +
	       EXPONENTIAL_ABOVE(value, 0x4d4c3382a6a891c8ULL) +
	       EXPONENTIAL_ABOVE(value, 0x544b2fba5f832838ULL) +
	       EXPONENTIAL_ABOVE(value, 0x5bec4509686ecf50ULL) +
	       EXPONENTIAL_ABOVE(value, 0x643e1f3e81e6df61ULL) +
	       EXPONENTIAL_ABOVE(value, 0x6d50be1668caaaedULL);
}
