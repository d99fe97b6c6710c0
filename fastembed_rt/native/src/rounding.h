/* bfloat16 numbers, as inputs of a layer with weights of them are kept: see bf16.h. */
#ifndef FASTEMBED_RT_ROUNDING_H
#define FASTEMBED_RT_ROUNDING_H

#include "vectors.h"

/* Rounded: a number that is rounded, as bfloat16, or as float where they are multiplied so. */
#if defined(__AVX512BF16__) || defined(BF16_DOT_IN_C)
#define BF16_DOT 1
typedef uint16_t Rounded;
#else
#define BF16_DOT 0
typedef float Rounded;
#endif

/* x as the nearest bfloat16, half to even, in a float; below 2^-56 as a multiple of 2^-63.
 *
 * 3 * 2^15 times its power of two added, the sum has no bits below those that stay, and an even multiple of the last
 * of them was added: its rounding is the one wanted. */
INLINE Floats rounded(Floats x) {
    Floats power = as_floats(and_ints(as_ints(x), broadcast_int(0x7F800000)));
    Floats shift = mul(maximum(power, broadcast(0x1p-56f)), broadcast(0x1.8p16f));
    return sub(add(x, shift), shift);
}

INLINE float rounded_one(float x) {
    float held[LANES];
    store(held, rounded(broadcast(x)));
    return held[0];
}

INLINE float widened(uint16_t x) {
    uint32_t bits = (uint32_t)x << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

INLINE uint16_t narrowed(float x) { /* of one that is rounded */
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return (uint16_t)(bits >> 16);
}

#if BF16_DOT
#if defined(__AVX512F__)
INLINE Ints upper_halves(Floats x) { return _mm512_srai_epi32(as_ints(x), 16); }
#else
INLINE Ints upper_halves(Floats x) {
    return pair_ints(_mm256_srai_epi32(as_ints(x).a, 16), _mm256_srai_epi32(as_ints(x).b, 16));
}
#endif
INLINE void store_rounded(Rounded *p, Floats x) { store_shorts((int16_t *)p, upper_halves(rounded(x))); }
#else
INLINE void store_rounded(Rounded *p, Floats x) { store(p, rounded(x)); }
#endif

#endif
