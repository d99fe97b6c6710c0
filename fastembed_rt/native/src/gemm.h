/* Products of quantized rows with packed weights: acc[r, n] = sum_k q[r, k] * w[k, n], each tile with its epilogue.
 *
 *     q (rows, K) u8 (less OFFSET, see tiles), row by row         w (K, N) s8 in panels: [N / LANES][K / KR][LANES][KR]         acc s32, exact
 *
 * K is `depth` and N is `panels` * LANES, both rounded up; what was added is zeros.
 */
#ifndef FASTEMBED_RT_GEMM_H
#define FASTEMBED_RT_GEMM_H

#include "epilogue.h"

/* ---- packing ---------------------------------------------------------------------------------------------------- */

#if SATURATES
#define int8_packed_size paired_packed_size
#define int8_pack paired_pack
#define int8_is_packed paired_is_packed
#else
static size_t int8_packed_size(const Linear *layer, const Columns *blocks, size_t count) {
    (void)blocks, (void)count;
    return layer->panels * LANES * layer->depth * sizeof(PackedWeight);
}

/* Where w[k, n] lies in panels of K / KR = `steps` steps. */
INLINE size_t packed_index(size_t k, size_t n, size_t steps) {
    return ((n / LANES * steps + k / KR) * LANES + n % LANES) * KR + k % KR;
}

/* KR rows of LANES columns as a panel has them. */
INLINE void int8_pack_step(const int8_t *weight, size_t columns, PackedWeight *packed) {
    for (size_t n = 0; n < LANES; n++)
#pragma GCC unroll 8
        for (size_t k = 0; k < KR; k++)
            packed[n * KR + k] = weight[k * columns + n];
}

/* sums[n] += the same rows, of each column. */
INLINE void int8_sum_step(const int8_t *weight, size_t columns, int32_t *sums) {
    for (size_t n = 0; n < LANES; n++)
#pragma GCC unroll 8
        for (size_t k = 0; k < KR; k++)
            sums[n] += weight[k * columns + n];
}

/* Whether all KR rows and LANES columns of a step are there, and are one panel's. */
INLINE int is_whole_step(size_t rows, size_t column, size_t left) { return rows >= KR && column % LANES == 0 && left >= LANES; }

/* weight (inputs, columns) s8 -> the panels' columns from `from` on, and their compensation. */
static void int8_pack_columns(Linear *layer, const int8_t *weight, size_t columns, size_t from) {
    size_t steps = layer->depth / KR;
    for (size_t k = 0; k < layer->inputs; k += KR, weight += KR * columns)
        for (size_t n = 0; n < columns;) {
            PackedWeight *packed = (PackedWeight *)layer->packed + packed_index(k, from + n, steps);
            int32_t *sums = layer->compensation + from + n;
            if (is_whole_step(layer->inputs - k, from + n, columns - n)) {
                int8_pack_step(weight + n, columns, packed);
                int8_sum_step(weight + n, columns, sums);
                n += LANES;
                continue;
            }
            for (size_t r = 0; r < min_size(KR, layer->inputs - k); r++)
                *sums += packed[r] = weight[r * columns + n];
            n++;
        }
    for (size_t n = from; n < from + columns; n++)
        layer->compensation[n] *= OFFSET - layer->zero_point;
}

/* Whether `int8_pack_columns` with the same arguments would change nothing. */
static int int8_columns_are_packed(const Linear *layer, const int8_t *weight, size_t columns, size_t from) {
    size_t steps = layer->depth / KR;
    for (size_t k = 0; k < layer->inputs; k += KR, weight += KR * columns) {
        int different = 0;
        for (size_t n = 0; n < columns;) {
            const PackedWeight *packed = (const PackedWeight *)layer->packed + packed_index(k, from + n, steps);
            if (is_whole_step(layer->inputs - k, from + n, columns - n)) {
                PackedWeight step[LANES * KR];
                int8_pack_step(weight + n, columns, step);
                different |= memcmp(step, packed, sizeof step);
                n += LANES;
                continue;
            }
            for (size_t r = 0; r < min_size(KR, layer->inputs - k); r++)
                different |= packed[r] ^ weight[r * columns + n];
            n++;
        }
        if (different)
            return 0;
    }
    return 1;
}

static void int8_pack(Linear *layer, const Columns *blocks, size_t count) {
    size_t from = 0;
    for (const Columns *block = blocks; block < blocks + count; from += block++->count)
        int8_pack_columns(layer, block->weights, block->count, from);
}

static int int8_is_packed(const Linear *layer, const Columns *blocks, size_t count) {
    size_t from = 0;
    for (const Columns *block = blocks; block < blocks + count; from += block++->count)
        if (!int8_columns_are_packed(layer, block->weights, block->count, from))
            return 0;
    return 1;
}
#endif

/* ---- products --------------------------------------------------------------------------------------------------- */

#if !TILE_PRODUCTS
INLINE void product_tile(size_t mr, size_t vectors, const Gemm *work, size_t r0, size_t panel, float *to,
                         Strides strides) {
    const Linear *layer = work->layer;
    size_t depth = layer->depth, column = panel * LANES;
    const float *dither = layer->dither ? work->input->dither + r0 : NULL;
    const Quantized *a = work->input->q + r0 * depth;
    Ints acc[PRODUCT_MR * VECTORS];
#if SATURATES
    paired_tile(mr, layer, panel, a, acc);
#else
    tile(U8S8, mr, vectors, a, depth * sizeof(Quantized), (const PackedWeight *)layer->packed + column * depth,
         depth / KR, acc);
#endif
#pragma GCC unroll 3
    for (size_t v = 0; v < vectors; v++, column += LANES) {
        Ints compensation = load_ints(layer->compensation + column);
        Floats scales = load(layer->scales + column), bias = load(layer->bias + column);
        float *at = to + v * strides.panel;
        if (dither) {
            Floats less = sub(broadcast(0.0f), load(layer->dither_weights + column));
#pragma GCC unroll 8
            for (size_t r = 0; r < mr; r++, at += strides.row) {
                Floats y = dequantized(acc[r * VECTORS + v], compensation, scales, bias);
                store(at, fma16(broadcast(dither[r]), less, y));
            }
        } else {
#pragma GCC unroll 8
            for (size_t r = 0; r < mr; r++, at += strides.row)
                store(at, dequantized(acc[r * VECTORS + v], compensation, scales, bias));
        }
    }
}

/* C has no templates: a macro gives each size of tile a function of its own and a place in a table. */
#define DEFINE_PRODUCT(mr, vectors)                                                                                    \
    static void product_##mr##x##vectors(const Gemm *work, size_t r0, size_t panel, float *to, Strides strides) {      \
        product_tile(mr, vectors, work, r0, panel, to, strides);                                                       \
    }
#define PRODUCT_ENTRY(mr, vectors) [mr - 1][vectors - 1] = product_##mr##x##vectors,

PRODUCT_TILES(DEFINE_PRODUCT)

static ProductTile *const product_tiles[PRODUCT_MR][VECTORS] = {PRODUCT_TILES(PRODUCT_ENTRY)};

static void gemm_panels(const Gemm *work, size_t panel, size_t end) {
    gemm_columns(work, panel, end, INT8_WEIGHTS, PRODUCT_MR, product_tiles);
}
#endif

#endif
