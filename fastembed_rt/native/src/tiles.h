/* The register tile of integer products: MR rows by NR columns of accumulators, KR values of K at a time.
 *
 *     acc[r, n] = sum_k a[r, k] * b[k, n]       a (MR, K) u8 or s16, b (K, NR) s8 or s16, acc (MR, NR) s32, exact
 *
 * a lies row by row, K rounded up to a multiple of KR. b lies in packed panels of LANES columns, and a panel step by
 * step: [K / KR][LANES][KR], so that a step of a panel is one vector (or half of one that is widened), and a step of a
 * row of a is 4 bytes, which are broadcast to all lanes. A tile takes VECTORS panels side by side: NR = VECTORS * LANES.
 *
 * VNNI multiplies bytes and adds four products a lane. Without it, bytes are multiplied to pairs of 16 bits, which
 * saturate: weights are packed so that none does, and have tiles of their own (pairs.h). neon_tiles.h has the tiles of Arm.
 */
#ifndef FASTEMBED_RT_TILES_H
#define FASTEMBED_RT_TILES_H

/* Whether products are made in AMX tiles, see amx.h; what is here is for short texts' attention then. */
#if defined(__AMX_INT8__) && defined(__AMX_BF16__)
#define TILE_PRODUCTS 1
#else
#define TILE_PRODUCTS 0
#endif

/* Whether products of bytes saturate, see pairing.h. */
#if defined(__aarch64__) || defined(__AVX512VNNI__) || defined(__AVXVNNI__) || defined(AVXVNNI_AS_AVX512VL)
#define SATURATES 0
#else
#define SATURATES 1
#endif

#if defined(__aarch64__)
#include "neon_tiles.h"
#else

#include "vectors.h"

/* Quantized: an activation in 0..255. PackedWeight: a weight in -128..127. */
#if defined(__AVX512VNNI__)
#define SET_NAME "avx512vnni"
typedef uint8_t Quantized;
typedef int8_t PackedWeight;
enum { KR = 4, MR = 8, VECTORS = 3 };
#elif defined(__AVXVNNI__)
#define SET_NAME "avxvnni"
typedef uint8_t Quantized;
typedef int8_t PackedWeight;
enum { KR = 4, MR = 6, VECTORS = 1 };
#else
#define SET_NAME "avx2"
typedef uint8_t Quantized;
typedef int8_t PackedWeight;
enum { KR = 4, MR = 4, VECTORS = 1 };
#endif
#if TILE_PRODUCTS || defined(__AVX512BF16__)
#undef SET_NAME
#define SET_NAME (TILE_PRODUCTS ? "amx" : "avx512bf16")
#endif

enum {
    OFFSET = 0,     /* that Quantized lacks */
    KR_S16 = 2,     /* of products of int16 */
    STEP_BYTES = 4  /* of a row, in a step of any type: KR * sizeof(Quantized), KR_S16 * sizeof(int16_t) */
};

/* A step of a row of a, broadcast. */
#if defined(__AVX512VNNI__)
typedef __m512i Step;
INLINE Step broadcast_step(const void *p) {
    int32_t step;
    memcpy(&step, p, STEP_BYTES);
    return _mm512_set1_epi32(step);
}
#else
typedef __m256i Step;
INLINE Step broadcast_step(const void *p) {
    int32_t step;
    memcpy(&step, p, STEP_BYTES);
    return _mm256_set1_epi32(step);
}
#endif

/* acc[n] + sum_j a[j] * b[n, j] of 16 lanes n: j < KR of (Quantized, PackedWeight), j < KR_S16 of int16. */
#if defined(__AVX512VNNI__)
INLINE Ints dot_u8s8(Ints acc, Step a, Ints b) { return held(_mm512_dpbusd_epi32(acc, a, b)); }
INLINE Ints dot_s16(Ints acc, Step a, Ints b) { return held(_mm512_dpwssd_epi32(acc, a, b)); }
#elif defined(__AVXVNNI__)
INLINE Ints dot_u8s8(Ints acc, Step a, Ints b) {
    return held(pair_ints(_mm256_dpbusd_avx_epi32(acc.a, a, b.a), _mm256_dpbusd_avx_epi32(acc.b, a, b.b)));
}
INLINE Ints dot_s16(Ints acc, Step a, Ints b) {
    return held(pair_ints(_mm256_dpwssd_avx_epi32(acc.a, a, b.a), _mm256_dpwssd_avx_epi32(acc.b, a, b.b)));
}
#else
/* acc + x, in acc's register: gcc 12 copies accumulators before each step otherwise. */
INLINE __m256i accumulated(__m256i acc, __m256i x) {
    __asm__("vpaddd %1, %0, %0" : "+x"(acc) : "x"(x));
    return acc;
}
INLINE __m256i dot_half_u8s8(__m256i acc, Step a, __m256i b) {
    return accumulated(acc, _mm256_madd_epi16(_mm256_maddubs_epi16(a, b), _mm256_set1_epi16(1)));
}
INLINE Ints dot_u8s8(Ints acc, Step a, Ints b) {
    return pair_ints(dot_half_u8s8(acc.a, a, b.a), dot_half_u8s8(acc.b, a, b.b));
}
INLINE Ints dot_s16(Ints acc, Step a, Ints b) {
    return pair_ints(accumulated(acc.a, _mm256_madd_epi16(a, b.a)), accumulated(acc.b, _mm256_madd_epi16(a, b.b)));
}
#endif

/* A step of a panel of weights, as dot_u8s8 takes it. */
INLINE Ints load_weights(const PackedWeight *p) { return load_ints((const int32_t *)p); }

#if !SATURATES
/* w[n] of the channel whose place among the KR of a step is 1 in `ones`, 0 elsewhere, for the step's 16 outputs n. */
INLINE Ints channel_weights(const PackedWeight *step, const Quantized ones[KR]) {
    return dot_u8s8(broadcast_int(0), broadcast_step(ones), load_weights(step));
}
#endif

/* KR_S16 rows of 16 int16, `stride` apart -> a step of a panel: both of a column side by side. */
INLINE void store_step_s16(int16_t *step, const int16_t *rows, size_t stride) {
    Ints low = and_ints(load_shorts(rows), broadcast_int(0xFFFF));
    store_ints((int32_t *)step, or_ints(low, shift_left(load_shorts(rows + stride), 16)));
}

typedef enum { U8S8, S16 } Operands;

INLINE Ints dot(Operands operands, Ints acc, Step a, Ints b) {
    return operands == U8S8 ? dot_u8s8(acc, a, b) : dot_s16(acc, a, b);
}

/* out[r, v] = acc of row r and panel v, for mr <= MR rows `lda` bytes apart and `vectors` <= VECTORS panels that follow
 * one another, `steps` steps each. `operands`, mr and vectors are constants where this is inlined, and the loops over
 * them unrolled: only then are the accumulators registers. (8 and 3 are the largest MR and VECTORS.)
 *
 * A panel of weights is prefetched AHEAD bytes before it is read, past its end the one behind it. */
INLINE void tile(Operands operands, size_t mr, size_t vectors, const void *a, size_t lda, const void *b, size_t steps,
                 Ints *out) {
    const char *row = a, *panel = b;
    const size_t step_bytes = operands == U8S8 ? LANES * KR * sizeof(PackedWeight) : LANES * STEP_BYTES;
    size_t panel_bytes = steps * step_bytes;
    Ints acc[MR][VECTORS], right[VECTORS];
#pragma GCC unroll 8
    for (size_t r = 0; r < mr; r++)
#pragma GCC unroll 3
        for (size_t v = 0; v < vectors; v++)
            acc[r][v] = broadcast_int(0);
    for (size_t s = 0; s < steps; s++, row += STEP_BYTES, panel += step_bytes) {
#pragma GCC unroll 3
        for (size_t v = 0; v < vectors; v++) {
            const char *from = panel + v * panel_bytes;
            right[v] = operands == U8S8 ? load_weights((const PackedWeight *)from) : load_ints((const int32_t *)from);
            if (operands == U8S8)
                _mm_prefetch(from + AHEAD, _MM_HINT_T0);
        }
#pragma GCC unroll 8
        for (size_t r = 0; r < mr; r++) {
            Step left = broadcast_step(row + r * lda);
#pragma GCC unroll 3
            for (size_t v = 0; v < vectors; v++)
                acc[r][v] = dot(operands, acc[r][v], left, right[v]);
        }
    }
#pragma GCC unroll 8
    for (size_t r = 0; r < mr; r++)
#pragma GCC unroll 3
        for (size_t v = 0; v < vectors; v++)
            out[r * VECTORS + v] = acc[r][v];
}

/* Every (rows, panels) that a tile of this instruction set may have, for edges, too. */
#if defined(__AVX512VNNI__)
#define TILES(X) \
    X(1, 1) X(2, 1) X(3, 1) X(4, 1) X(5, 1) X(6, 1) X(7, 1) X(8, 1) \
    X(1, 2) X(2, 2) X(3, 2) X(4, 2) X(5, 2) X(6, 2) X(7, 2) X(8, 2) \
    X(1, 3) X(2, 3) X(3, 3) X(4, 3) X(5, 3) X(6, 3) X(7, 3) X(8, 3)
#elif defined(__AVXVNNI__)
#define TILES(X) X(1, 1) X(2, 1) X(3, 1) X(4, 1) X(5, 1) X(6, 1)
#else
#define TILES(X) X(1, 1) X(2, 1) X(3, 1) X(4, 1)
#endif

#endif

enum { NR = VECTORS * LANES };

/* Rows of a tile of products of bytes, and every (rows, panels) that it may have. */
#if SATURATES
enum { PRODUCT_MR = 8 };
#define PRODUCT_TILES(X) X(1, 1) X(2, 1) X(3, 1) X(4, 1) X(5, 1) X(6, 1) X(7, 1) X(8, 1)
#else
enum { PRODUCT_MR = MR };
#define PRODUCT_TILES TILES
#endif

#endif
