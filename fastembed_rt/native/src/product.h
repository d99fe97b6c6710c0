/* A layer's input and product, by the kind of its weights and what the processor multiplies with. */
#ifndef FASTEMBED_RT_PRODUCT_H
#define FASTEMBED_RT_PRODUCT_H

#include "bf16.h"
#include "gemm.h"

#if TILE_PRODUCTS
#include "amx.h"
/* What K is rounded up to, the rows of a block, and the panels of a task. */
enum { DEPTH_UNIT = 64, ROW_UNIT = 16, TASK_PANELS = 4 };
#else
enum { DEPTH_UNIT = 16, ROW_UNIT = MR, TASK_PANELS = VECTORS };
#endif

/* 0 where there is no memory. `free_input` frees what there is. */
static int allocate_rows(const Linear *layer, size_t rows, Input *input) {
    return layer->weights == BF16_WEIGHTS ? bf16_allocate_input(layer, rows, input)
                                          : allocate_input(layer, rows, input);
}

/* x (rows, inputs) f32 -> an input, quantized or rounded. */
static void prepare_rows(const Linear *layer, const float *x, size_t rows, const Input *input) {
    if (layer->weights == BF16_WEIGHTS)
        bf16_round_rows(layer, x, rows, input);
    else
        quantize_rows(layer, x, rows, input);
}

/* All rows by the panels of outputs from `first` to `last` - 1, in this thread. */
static void product_panels(const Gemm *work, size_t first, size_t last) {
    int is_bf16 = work->layer->weights == BF16_WEIGHTS;
#if TILE_PRODUCTS
    (is_bf16 ? amx_bf16_panels : amx_int8_panels)(work, first, last);
#else
    size_t count = last - first, tiles = (count + VECTORS - 1) / VECTORS, width = (count + tiles - 1) / tiles;
    for (size_t panel = first; panel < last; panel += width) /* tiles as equal as can be */
        (is_bf16 ? bf16_panels : gemm_panels)(work, panel, min_size(last, panel + width));
#endif
}

static void product_task(void *argument, size_t index) {
    const Gemm *work = argument;
    product_panels(work, index * TASK_PANELS, min_size(output_panels(work), (index + 1) * TASK_PANELS));
}

static void product(const Gemm *work, const Pool *pool) {
    pool->run(pool, product_task, (void *)work, (output_panels(work) + TASK_PANELS - 1) / TASK_PANELS);
}

#endif
