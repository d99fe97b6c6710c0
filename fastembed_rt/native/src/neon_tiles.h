/* The register tile of integer products in NEON: what tiles.h has for x86, with instructions of three generations.
 *
 *     set           processors             u8 x s8, instruction and its MACs      a step of a panel
 *     neoni8mm      ARMv8.6, FEAT_I8MM     usmmla, 2 x 2 outputs of 8: 32         [LANES][8] s8
 *     neondotprod   ARMv8.2, FEAT_DotProd  sdot, 4 outputs of 4: 16               [LANES][4] s8
 *     neon          all of ARMv8           smlal, 4 outputs of 1: 4               [LANES] s8
 *
 * int16 products are smlal on all three, 4 MACs an instruction: there is none in NEON that adds up several of int16.
 *
 * An activation is 0..255 and a weight -128..127, and only usmmla (and usdot, of the same extension) multiplies such a
 * pair. Without it activations are stored as q - 128, which is a byte with a sign: the sum lacks 128 * sum_k w[k, n],
 * which compensation[n] has (OFFSET; it has the zero point's part as well), so that the sums behind it are the same
 * integers. udot would need unsigned weights, and a sum of every row's activations instead of one that is known when
 * the weights are packed. smlal multiplies int16: activations are stored as such, weights are widened on their way.
 *
 * 6 rows by 16 outputs are 24 registers of accumulators, which leaves 8 for the operands; what widens weights needs more
 * of those, and has 4 rows. Rows of a are read 16 bytes at a time: K is a multiple of 16, as depths and numbers of keys are.
 */
#ifndef FASTEMBED_RT_NEON_TILES_H
#define FASTEMBED_RT_NEON_TILES_H

#include "vectors.h"

/* Quantized: an activation in 0..255 less OFFSET. PackedWeight: a weight in -128..127. */
#if defined(__ARM_FEATURE_MATMUL_INT8)
#define NEON_I8MM 1
#define SET_NAME "neoni8mm"
typedef uint8_t Quantized;
enum { MR = 6, KR = 8, OFFSET = 0 };
#elif defined(__ARM_FEATURE_DOTPROD)
#define NEON_DOTPROD 1
#define SET_NAME "neondotprod"
typedef int8_t Quantized;
enum { MR = 6, KR = 4, OFFSET = 128 };
#else
#define SET_NAME "neon"
typedef int16_t Quantized;
enum { MR = 4, KR = 1, OFFSET = 0 };
#endif
typedef int8_t PackedWeight;
enum { VECTORS = 1, KR_S16 = 1 };

/* 16 activations, clipped to 0..255. */
INLINE void store_clipped(Quantized *p, Ints v) {
    uint8x16_t clipped = narrow_to_bytes(v);
#if defined(NEON_I8MM)
    vst1q_u8(p, clipped);
#elif defined(NEON_DOTPROD)
    vst1q_s8(p, vreinterpretq_s8_u8(veorq_u8(clipped, vdupq_n_u8(0x80)))); /* q - 128 */
#else
    vst1q_s16(p, vreinterpretq_s16_u16(vmovl_u8(vget_low_u8(clipped))));
    vst1q_s16(p + 8, vreinterpretq_s16_u16(vmovl_high_u8(clipped)));
#endif
}

/* w[n] of the channel whose place among the KR of a step is 1 in `ones`, 0 elsewhere, for the step's 16 outputs n. */
INLINE Ints channel_weights(const PackedWeight *step, const Quantized ones[KR]) {
    int32_t held[LANES];
    size_t place = 0;
    while (place + 1 < KR && !ones[place])
        place++;
    for (size_t n = 0; n < LANES; n++)
        held[n] = step[n * KR + place];
    return load_ints(held);
}

/* KR_S16 rows of 16 int16, `stride` apart -> a step of a panel. */
INLINE void store_step_s16(int16_t *step, const int16_t *rows, size_t stride) {
    (void)stride; /* one row */
    memcpy(step, rows, LANES * sizeof(int16_t));
}

/* ---- tiles ------------------------------------------------------------------------------------------------------- */

typedef enum { U8S8, S16 } Operands;

/* acc[r][2 * half ...] += a[r][lane] * b: 8 columns at a time, a register of b. */
#define ADD_PRODUCTS(lane, half)                                                                                       \
    {                                                                                                                  \
        int16x8_t right = load_eight(operands, panel, (lane) * LANES + (half) * 8);                                    \
        _Pragma("GCC unroll 6") for (size_t r = 0; r < mr; r++) {                                                      \
            acc[r][2 * (half)] = vmlal_laneq_s16(acc[r][2 * (half)], vget_low_s16(right), left[r], lane);              \
            acc[r][2 * (half) + 1] = vmlal_high_laneq_s16(acc[r][2 * (half) + 1], right, left[r], lane);               \
        }                                                                                                              \
    }
#define ADD_STEP(lane) ADD_PRODUCTS(lane, 0) ADD_PRODUCTS(lane, 1)

/* 8 elements of a panel, which are int16, or weights to be widened. */
INLINE int16x8_t load_eight(Operands operands, const char *panel, size_t index) {
    if (operands == S16)
        return vld1q_s16((const int16_t *)panel + index);
    return vmovl_s8(vld1_s8((const int8_t *)panel + index));
}

/* smlal: a (mr, K) int16, rows `lda` bytes apart; b [K][LANES] of int16, or of weights. */
INLINE void tile_by_smlal(Operands operands, size_t mr, const char *row, size_t lda, const char *panel, size_t depth,
                          Ints *out) {
    enum { AT_ONCE = 8 };
    size_t step_bytes = LANES * (operands == S16 ? sizeof(int16_t) : sizeof(PackedWeight));
    int32x4_t acc[MR][4];
    int16x8_t left[MR];
#pragma GCC unroll 6
    for (size_t r = 0; r < mr; r++)
#pragma GCC unroll 4
        for (size_t n = 0; n < 4; n++)
            acc[r][n] = vdupq_n_s32(0);
    for (size_t k = 0; k < depth; k += AT_ONCE, row += AT_ONCE * sizeof(int16_t), panel += AT_ONCE * step_bytes) {
#pragma GCC unroll 6
        for (size_t r = 0; r < mr; r++)
            left[r] = vld1q_s16((const int16_t *)(row + r * lda));
        ADD_STEP(0) ADD_STEP(1) ADD_STEP(2) ADD_STEP(3) ADD_STEP(4) ADD_STEP(5) ADD_STEP(6) ADD_STEP(7)
    }
#pragma GCC unroll 6
    for (size_t r = 0; r < mr; r++)
        out[r] = four_ints(acc[r][0], acc[r][1], acc[r][2], acc[r][3]);
}

#if defined(NEON_I8MM)

/* usmmla: a (mr, K) u8; b [K / 8][LANES][8]. A register of a has 8 of K of two rows, one of b those of two columns; of
 * an odd number of rows the last is there twice. */
INLINE void tile_u8(size_t mr, const char *row, size_t lda, const char *panel, size_t depth, Ints *out) {
    enum { PAIRS = LANES / 2 };
    size_t pairs = (mr + 1) / 2;
    int32x4_t acc[MR / 2][PAIRS];
    uint8x16_t left[MR / 2];
#pragma GCC unroll 3
    for (size_t p = 0; p < pairs; p++)
#pragma GCC unroll 8
        for (size_t n = 0; n < PAIRS; n++)
            acc[p][n] = vdupq_n_s32(0);
    for (size_t k = 0; k < depth; k += KR, row += KR, panel += KR * LANES) { /* two at a time would not fit */
#pragma GCC unroll 3
        for (size_t p = 0; p < pairs; p++) {
            const uint8_t *even = (const uint8_t *)row + 2 * p * lda;
            left[p] = vcombine_u8(vld1_u8(even), vld1_u8(2 * p + 1 < mr ? even + lda : even));
        }
#pragma GCC unroll 8
        for (size_t n = 0; n < PAIRS; n++) {
            int8x16_t right = vld1q_s8((const int8_t *)panel + n * 2 * KR);
#pragma GCC unroll 3
            for (size_t p = 0; p < pairs; p++)
                acc[p][n] = vusmmlaq_s32(acc[p][n], left[p], right);
        }
    }
    /* [row 0: two columns][row 1: two columns] -> rows */
#define ROW_OF(zip, p, n)                                                                                              \
    vreinterpretq_s32_s64(zip(vreinterpretq_s64_s32(acc[p][n]), vreinterpretq_s64_s32(acc[p][(n) + 1])))
#pragma GCC unroll 3
    for (size_t p = 0; p < pairs; p++) {
        out[2 * p] = four_ints(ROW_OF(vzip1q_s64, p, 0), ROW_OF(vzip1q_s64, p, 2), ROW_OF(vzip1q_s64, p, 4),
                               ROW_OF(vzip1q_s64, p, 6));
        if (2 * p + 1 < mr)
            out[2 * p + 1] = four_ints(ROW_OF(vzip2q_s64, p, 0), ROW_OF(vzip2q_s64, p, 2), ROW_OF(vzip2q_s64, p, 4),
                                       ROW_OF(vzip2q_s64, p, 6));
    }
#undef ROW_OF
}

#elif defined(NEON_DOTPROD)

/* acc[r][n] += sum of the four of a[r] at `lane` * b, a register of b with four columns at a time. */
#define ADD_PRODUCTS_OF_FOUR(lane, n)                                                                                  \
    {                                                                                                                  \
        int8x16_t right = vld1q_s8((const int8_t *)panel + ((lane) * LANES + (n) * 4) * KR);                           \
        _Pragma("GCC unroll 6") for (size_t r = 0; r < mr; r++)                                                        \
            acc[r][n] = vdotq_laneq_s32(acc[r][n], right, left[r], lane);                                              \
    }
#define ADD_STEP_OF_FOUR(lane) \
    ADD_PRODUCTS_OF_FOUR(lane, 0) ADD_PRODUCTS_OF_FOUR(lane, 1) ADD_PRODUCTS_OF_FOUR(lane, 2) ADD_PRODUCTS_OF_FOUR(lane, 3)

/* sdot: a (mr, K) s8; b [K / 4][LANES][4]. */
INLINE void tile_u8(size_t mr, const char *row, size_t lda, const char *panel, size_t depth, Ints *out) {
    enum { AT_ONCE = 16 };
    int32x4_t acc[MR][4];
    int8x16_t left[MR];
#pragma GCC unroll 6
    for (size_t r = 0; r < mr; r++)
#pragma GCC unroll 4
        for (size_t n = 0; n < 4; n++)
            acc[r][n] = vdupq_n_s32(0);
    for (size_t k = 0; k < depth; k += AT_ONCE, row += AT_ONCE, panel += AT_ONCE * LANES) {
#pragma GCC unroll 6
        for (size_t r = 0; r < mr; r++)
            left[r] = vld1q_s8((const int8_t *)(row + r * lda));
        ADD_STEP_OF_FOUR(0) ADD_STEP_OF_FOUR(1) ADD_STEP_OF_FOUR(2) ADD_STEP_OF_FOUR(3)
    }
#pragma GCC unroll 6
    for (size_t r = 0; r < mr; r++)
        out[r] = four_ints(acc[r][0], acc[r][1], acc[r][2], acc[r][3]);
}

#else

INLINE void tile_u8(size_t mr, const char *row, size_t lda, const char *panel, size_t depth, Ints *out) {
    tile_by_smlal(U8S8, mr, row, lda, panel, depth, out);
}

#endif

/* out[r] = acc of row r, for mr <= MR rows `lda` bytes apart and a panel of `steps` steps. `operands` and mr are
 * constants where this is inlined, and the loops over them unrolled: only then are the accumulators registers. */
INLINE void tile(Operands operands, size_t mr, size_t vectors, const void *a, size_t lda, const void *b, size_t steps,
                 Ints *out) {
    (void)vectors; /* 1 */
    if (operands == U8S8)
        tile_u8(mr, a, lda, b, steps * KR, out);
    else
        tile_by_smlal(S16, mr, a, lda, b, steps * KR_S16, out);
}

#if defined(NEON_I8MM) || defined(NEON_DOTPROD)
#define TILES(X) X(1, 1) X(2, 1) X(3, 1) X(4, 1) X(5, 1) X(6, 1)
#else
#define TILES(X) X(1, 1) X(2, 1) X(3, 1) X(4, 1)
#endif

#endif
