/* A layer's input, packed weights and product, by the kind of its weights and what the processor multiplies with. */
#ifndef FASTEMBED_RT_PRODUCT_H
#define FASTEMBED_RT_PRODUCT_H

#include "bf16.h"
#include "fp32.h"
#include "gemm.h"

#if TILE_PRODUCTS
#include "amx.h"
/* What K is rounded up to, the rows of a block, and the panels of a task. */
enum { DEPTH_UNIT = 64, ROW_UNIT = 16, TASK_PANELS = 4 };
#else
enum { DEPTH_UNIT = 16, ROW_UNIT = PRODUCT_MR, TASK_PANELS = VECTORS };
#endif

/* ---- packed weights --------------------------------------------------------------------------------------------- */

static size_t packed_size(const Linear *layer, const Columns *blocks, size_t count) {
    switch (layer->weights) {
    case BF16_WEIGHTS: return bf16_packed_size(layer);
    case FP32_WEIGHTS: return fp32_packed_size(layer);
    default: return int8_packed_size(layer, blocks, count);
    }
}

static void pack_weights(Linear *layer, const Columns *blocks, size_t count) {
    size_t from = 0;
    if (layer->weights == INT8_WEIGHTS) {
        int8_pack(layer, blocks, count);
        return;
    }
    for (const Columns *block = blocks; block < blocks + count; from += block++->count)
        (layer->weights == BF16_WEIGHTS ? bf16_pack : fp32_pack)(layer, block->weights, block->count, from);
}

static int is_packed(const Linear *layer, const Columns *blocks, size_t count) {
    size_t from = 0;
    if (layer->weights == INT8_WEIGHTS)
        return int8_is_packed(layer, blocks, count);
    for (const Columns *block = blocks; block < blocks + count; from += block++->count)
        if (!(layer->weights == BF16_WEIGHTS ? bf16_is_packed : fp32_is_packed)(layer, block->weights, block->count, from))
            return 0;
    return 1;
}

/* ---- products --------------------------------------------------------------------------------------------------- */

/* 0 where there is no memory. `free_input` frees what there is. */
static int allocate_rows(const Linear *layer, size_t rows, Input *input) {
    switch (layer->weights) {
    case BF16_WEIGHTS: return bf16_allocate_input(layer, rows, input);
    case FP32_WEIGHTS: return fp32_allocate_input(layer, rows, input);
    default: return allocate_input(layer, rows, input);
    }
}

/* x (rows, inputs) f32 -> an input, quantized or rounded where the weights are. */
static void prepare_rows(const Linear *layer, const float *x, size_t rows, const Input *input) {
    switch (layer->weights) {
    case BF16_WEIGHTS: bf16_round_rows(layer, x, rows, input); break;
    case FP32_WEIGHTS: fp32_copy_rows(layer, x, rows, input); break;
    default: quantize_rows(layer, x, rows, input); break;
    }
}

typedef void Panels(const Gemm *work, size_t first, size_t last);

/* All rows by the panels of outputs from `first` to `last` - 1, in this thread. */
static void product_panels(const Gemm *work, size_t first, size_t last) {
#if TILE_PRODUCTS
    static Panels *const tiled[FP32_WEIGHTS + 1] = {[INT8_WEIGHTS] = amx_int8_panels, [BF16_WEIGHTS] = amx_bf16_panels};
    static Panels *const plain[FP32_WEIGHTS + 1] = {[FP32_WEIGHTS] = fp32_panels};
    if (tiled[work->layer->weights]) {
        tiled[work->layer->weights](work, first, last);
        return;
    }
#else
    static Panels *const plain[FP32_WEIGHTS + 1] = {
        [INT8_WEIGHTS] = gemm_panels, [BF16_WEIGHTS] = bf16_panels, [FP32_WEIGHTS] = fp32_panels,
    };
#endif
    size_t count = last - first, tiles = (count + VECTORS - 1) / VECTORS, width = (count + tiles - 1) / tiles;
    for (size_t panel = first; panel < last; panel += width) /* tiles as equal as can be */
        plain[work->layer->weights](work, panel, min_size(last, panel + width));
}

static void product_task(void *argument, size_t index) {
    const Gemm *work = argument;
    product_panels(work, index * TASK_PANELS, min_size(output_panels(work), (index + 1) * TASK_PANELS));
}

static void product(const Gemm *work, const Pool *pool) {
    pool->run(pool, product_task, (void *)work, (output_panels(work) + TASK_PANELS - 1) / TASK_PANELS);
}

#endif
