/* Layers with bfloat16 weights: products of bfloat16 numbers, summed in float.
 *
 *     y[r, n] = bias[n] + sum_k round(x[r, k]) * w[k, n]             round: to bfloat16, half to even
 *     h[r, n] = act(y[r, n])                                         gated: act(y[r, n]) * y[r, n + N / 2]
 *     out[r, n] = h[r, n] f32, or rounded for the layer that follows
 *
 * The sum is that of VDPBF16PS, two k a step, each product exact and added with one rounding:
 *
 *     acc = fma(a[2s + 1], b[2s + 1], acc), then acc = fma(a[2s], b[2s], acc)
 *
 * Without that instruction the numbers are widened to float, for two fused multiply-adds: the same bits, in twice the
 * time. Tiles (amx.h) add in another order. The instruction takes subnormals as 0, which a fused multiply-add does not,
 * but there are none: what is rounded, inputs and weights, is a multiple of 2^-63, so that products and their sums are
 * multiples of 2^-126.
 *
 * Weights lie in the panels of gemm.h with two k a step, inputs row by row, as bfloat16 or as float where they are
 * multiplied so. What is 2^112 or more, or no number, makes its row NaN.
 */
#ifndef FASTEMBED_RT_BF16_H
#define FASTEMBED_RT_BF16_H

#include "float_tiles.h"
#include "scratch.h"

enum { KR_BF16 = 2 };   /* of a step */

/* ---- inputs ----------------------------------------------------------------------------------------------------- */

/* 0 where there is no memory. The columns beyond the inputs, which nobody writes, are 0: a weight of 0 times what is no
 * number would be none. */
static int bf16_allocate_input(const Linear *layer, size_t rows, Input *input) {
    size_t bytes = rows * layer->depth * sizeof(Rounded);
    *input = (Input){.numbers = allocate_scratch(bytes)};
    if (input->numbers && layer->depth > round_up(layer->inputs, LANES))
        memset(input->numbers, 0, bytes);
    return input->numbers != NULL;
}

/* x (rows, inputs) f32 -> an input. */
static void bf16_round_rows(const Linear *layer, const float *x, size_t rows, const Input *input) {
    size_t inputs = layer->inputs;
    for (size_t r = 0; r < rows; r++) {
        const float *row = x + r * inputs;
        Rounded *to = (Rounded *)input->numbers + r * layer->depth;
        size_t k = 0;
        for (; k + LANES <= inputs; k += LANES)
            store_rounded(to + k, load(row + k));
        if (k < inputs)
            store_rounded(to + k, load_first(row + k, inputs - k));
    }
}

/* ---- packing ---------------------------------------------------------------------------------------------------- */

static size_t bf16_packed_size(const Linear *layer) { return layer->panels * LANES * layer->depth * sizeof(uint16_t); }

INLINE uint16_t bf16_at(const void *weights, size_t index) {
    uint16_t value;
    memcpy(&value, (const char *)weights + index * sizeof value, sizeof value);
    return value;
}

/* Whether a weight is packed as it is: nearly all are. */
INLINE int is_plain(uint16_t value) {
    int power = (value >> 7 & 0xFF) - 127;
    return power >= -56 && power < 112;
}

INLINE uint16_t bf16_weight(const void *weights, size_t index) {
    uint16_t value = bf16_at(weights, index);
    return is_plain(value) ? value : narrowed(rounded_one(widened(value)));
}

/* Two rows of LANES columns as a panel has them; 0 where some have to be rounded, and are not. */
INLINE int bf16_plain_step(const void *weight, size_t columns, uint16_t *packed) {
    int other = 0;
    for (size_t n = 0; n < LANES; n++)
#pragma GCC unroll 2
        for (size_t k = 0; k < KR_BF16; k++) {
            uint16_t value = bf16_at(weight, k * columns + n);
            packed[n * KR_BF16 + k] = value;
            other |= !is_plain(value);
        }
    return !other;
}

enum { BF16_STEP = LANES * KR_BF16 }; /* weights of a step in a panel */

/* weight (inputs, columns) bf16 at any address, by what is of one panel and step: `fn` gets it as it is packed, where it
 * lies there, and the bytes. Stops where that is not 0. What a step has beyond the inputs or this weight's columns is
 * none of it. */
INLINE int bf16_each(const Linear *layer, const void *weight, size_t columns, size_t from,
                     int (*fn)(void *packed, const void *step, size_t bytes)) {
    size_t steps = layer->depth / KR_BF16;
    for (size_t k = 0; k < layer->inputs; k += KR_BF16)
        for (size_t n = 0, width; n < columns; n += width) {
            size_t lane = (from + n) % LANES, rows = min_size(KR_BF16, layer->inputs - k);
            const char *first = (const char *)weight + (k * columns + n) * sizeof(uint16_t);
            uint16_t step[BF16_STEP], *packed = (uint16_t *)layer->packed + ((from + n) / LANES * steps + k / KR_BF16) * BF16_STEP;
            width = min_size(LANES - lane, columns - n);
            if (width == LANES && rows == KR_BF16 && bf16_plain_step(first, columns, step)) {
                if (fn(packed, step, sizeof step))
                    return 1;
                continue;
            }
            for (size_t j = 0; j < width; j++)
                for (size_t r = 0; r < rows; r++) {
                    uint16_t value = bf16_weight(first, r * columns + j);
                    if (fn(packed + (lane + j) * KR_BF16 + r, &value, sizeof value))
                        return 1;
                }
        }
    return 0;
}

/* weight (inputs, columns) bf16 -> the panels' columns from `from` on. */
static void bf16_pack(Linear *layer, const void *weight, size_t columns, size_t from) {
    bf16_each(layer, weight, columns, from, copy_packed);
}

/* Whether `bf16_pack` with the same arguments would change nothing. */
static int bf16_is_packed(const Linear *layer, const void *weight, size_t columns, size_t from) {
    return !bf16_each(layer, weight, columns, from, differs);
}

/* ---- products --------------------------------------------------------------------------------------------------- */

#if !TILE_PRODUCTS
#if BF16_DOT && !defined(BF16_DOT_IN_C)
INLINE Floats dot_bf16(Floats acc, Step a, Ints b) {
    return as_floats(held(as_ints(_mm512_dpbf16_ps(acc, (__m512bh)a, (__m512bh)b))));
}
#elif BF16_DOT
INLINE Floats dot_bf16(Floats acc, Step a, Ints b) {
    float sums[LANES];
    uint32_t left[8], right[LANES]; /* a step has the same two numbers in every lane */
    store(sums, acc);
    memcpy(left, &a, sizeof left);
    store_ints((int32_t *)right, b);
    for (size_t n = 0; n < LANES; n++)
        sums[n] = vdpbf16ps_in_c(sums[n], left[0], right[n]);
    return load(sums);
}
#endif

/* out[r, v] = sums of row r and panel v, for mr <= FLOAT_MR rows `lda` elements apart and `vectors` <= VECTORS
 * panels that follow one another, `steps` steps each; see `tile` in tiles.h. */
INLINE void bf16_tile(size_t mr, size_t vectors, const Rounded *a, size_t lda, const uint16_t *b, size_t steps,
                      Floats *out) {
    size_t panel_size = steps * LANES * KR_BF16;
    Floats acc[FLOAT_MR][VECTORS];
#pragma GCC unroll 8
    for (size_t r = 0; r < mr; r++)
#pragma GCC unroll 3
        for (size_t v = 0; v < vectors; v++)
            acc[r][v] = broadcast(0.0f);
    for (size_t s = 0; s < steps; s++, a += KR_BF16, b += LANES * KR_BF16) {
        Ints right[VECTORS];
#pragma GCC unroll 3
        for (size_t v = 0; v < vectors; v++) {
            right[v] = load_ints((const int32_t *)(b + v * panel_size));
            __builtin_prefetch((const char *)(b + v * panel_size) + AHEAD);
        }
#if BF16_DOT
#pragma GCC unroll 8
        for (size_t r = 0; r < mr; r++) {
            Step left = broadcast_step(a + r * lda);
#pragma GCC unroll 3
            for (size_t v = 0; v < vectors; v++)
                acc[r][v] = dot_bf16(acc[r][v], left, right[v]);
        }
#else
        Floats wide[VECTORS];
#pragma GCC unroll 3
        for (size_t v = 0; v < vectors; v++)
            wide[v] = as_floats(and_ints(right[v], broadcast_int((int32_t)0xFFFF0000)));
#pragma GCC unroll 8
        for (size_t r = 0; r < mr; r++)
#pragma GCC unroll 3
            for (size_t v = 0; v < vectors; v++)
                acc[r][v] = fma_in_place(acc[r][v], broadcast(a[r * lda + 1]), wide[v]);
#pragma GCC unroll 3
        for (size_t v = 0; v < vectors; v++)
            wide[v] = as_floats(shift_left(right[v], 16));
#pragma GCC unroll 8
        for (size_t r = 0; r < mr; r++)
#pragma GCC unroll 3
            for (size_t v = 0; v < vectors; v++)
                acc[r][v] = fma_in_place(acc[r][v], broadcast(a[r * lda]), wide[v]);
#endif
    }
#pragma GCC unroll 8
    for (size_t r = 0; r < mr; r++)
#pragma GCC unroll 3
        for (size_t v = 0; v < vectors; v++)
            out[r * VECTORS + v] = acc[r][v];
}

INLINE void bf16_product_tile(size_t mr, size_t vectors, const Gemm *work, size_t r0, size_t panel, float *to,
                              Strides strides) {
    const Linear *layer = work->layer;
    size_t depth = layer->depth, column = panel * LANES;
    Floats acc[FLOAT_MR * VECTORS];
    bf16_tile(mr, vectors, (const Rounded *)work->input->numbers + r0 * depth, depth,
              (const uint16_t *)layer->packed + column * depth, depth / KR_BF16, acc);
    store_outputs(mr, vectors, layer, column, acc, to, strides);
}

#define DEFINE_BF16_PRODUCT(mr, vectors)                                                                               \
    static void bf16_##mr##x##vectors(const Gemm *work, size_t r0, size_t panel, float *to, Strides strides) {         \
        bf16_product_tile(mr, vectors, work, r0, panel, to, strides);                                                  \
    }
#define BF16_ENTRY(mr, vectors) [mr - 1][vectors - 1] = bf16_##mr##x##vectors,

FLOAT_TILES(DEFINE_BF16_PRODUCT)

static ProductTile *const bf16_tiles[FLOAT_MR][VECTORS] = {FLOAT_TILES(BF16_ENTRY)};

static void bf16_panels(const Gemm *work, size_t panel, size_t end) {
    gemm_columns(work, panel, end, BF16_WEIGHTS, FLOAT_MR, bf16_tiles);
}
#endif

#endif
