/* Layers with float weights.
 *
 *     y[r, n] = bias[n] + sum_k x[r, k] * w[k, n]                    a chain of fused multiply-adds, k = 0, 1, ...
 *     h[r, n] = act(y[r, n])                                         gated: act(y[r, n]) * y[r, n + N / 2]
 *
 * Weights lie in the panels of gemm.h, one k a step; inputs row by row. Nothing beyond the inputs is multiplied: 0 added
 * would turn a sum of -0.
 */
#ifndef FASTEMBED_RT_FP32_H
#define FASTEMBED_RT_FP32_H

#include "float_tiles.h"
#include "scratch.h"

/* 0 where there is no memory. */
static int fp32_allocate_input(const Linear *layer, size_t rows, Input *input) {
    *input = (Input){.numbers = allocate_scratch(rows * layer->depth * sizeof(float))};
    return input->numbers != NULL;
}

/* x (rows, inputs) f32 -> an input. */
static void fp32_copy_rows(const Linear *layer, const float *x, size_t rows, const Input *input) {
    for (size_t r = 0; r < rows; r++)
        memcpy((float *)input->numbers + r * layer->depth, x + r * layer->inputs, layer->inputs * sizeof(float));
}

/* ---- packing ---------------------------------------------------------------------------------------------------- */

static size_t fp32_packed_size(const Linear *layer) { return layer->panels * LANES * layer->depth * sizeof(float); }

/* The columns of `weight` (inputs, columns) at any address, a panel's part of a k at a time: `fn` gets where it lies packed,
 * where it comes from, and its bytes. Stops where that is not 0. */
INLINE int fp32_each(const Linear *layer, const void *weight, size_t columns, size_t from,
                     int (*fn)(void *packed, const void *weight, size_t bytes)) {
    float *packed = layer->packed;
    for (size_t n = 0, width; n < columns; n += width) {
        size_t column = from + n;
        width = min_size(LANES - column % LANES, columns - n);
        float *to = packed + column / LANES * layer->depth * LANES + column % LANES;
        for (size_t k = 0; k < layer->inputs; k++)
            if (fn(to + k * LANES, (const char *)weight + (k * columns + n) * sizeof(float), width * sizeof(float)))
                return 1;
    }
    return 0;
}

static void fp32_pack(Linear *layer, const void *weight, size_t columns, size_t from) {
    fp32_each(layer, weight, columns, from, copy_packed);
}

/* Whether `fp32_pack` with the same arguments would change nothing. */
static int fp32_is_packed(const Linear *layer, const void *weight, size_t columns, size_t from) {
    return !fp32_each(layer, weight, columns, from, differs);
}

/* ---- products --------------------------------------------------------------------------------------------------- */

INLINE void fp32_product_tile(size_t mr, size_t vectors, const Gemm *work, size_t r0, size_t panel, float *to,
                              Strides strides) {
    const Linear *layer = work->layer;
    size_t depth = layer->depth, column = panel * LANES;
    Floats acc[FLOAT_MR * VECTORS];
    zero_sums(mr, vectors, acc);
    float_tile(mr, vectors, (const float *)work->input->numbers + r0 * depth,
               (const float *)layer->packed + column * depth, (TileSteps){depth, 1, LANES, depth * LANES}, layer->inputs,
               AHEAD, acc);
    store_outputs(mr, vectors, layer, column, acc, to, strides);
}

#define DEFINE_FP32_PRODUCT(mr, vectors)                                                                               \
    static void fp32_##mr##x##vectors(const Gemm *work, size_t r0, size_t panel, float *to, Strides strides) {         \
        fp32_product_tile(mr, vectors, work, r0, panel, to, strides);                                                  \
    }
#define FP32_ENTRY(mr, vectors) [mr - 1][vectors - 1] = fp32_##mr##x##vectors,

FLOAT_TILES(DEFINE_FP32_PRODUCT)

static ProductTile *const fp32_tiles[FLOAT_MR][VECTORS] = {FLOAT_TILES(FP32_ENTRY)};

static void fp32_panels(const Gemm *work, size_t panel, size_t end) {
    gemm_columns(work, panel, end, FP32_WEIGHTS, FLOAT_MR, fp32_tiles);
}

#endif
