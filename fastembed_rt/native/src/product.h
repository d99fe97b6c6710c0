/* A layer's input and product, by the kind of its weights and what the processor multiplies with. */
#ifndef FASTEMBED_RT_PRODUCT_H
#define FASTEMBED_RT_PRODUCT_H

#include "bf16.h"
#include "gemm.h"

#if TILE_PRODUCTS
#include "amx.h"
enum { DEPTH_UNIT = 64, ROW_UNIT = 16 }; /* what K is rounded up to, and the rows of a block */
#else
enum { DEPTH_UNIT = 16, ROW_UNIT = MR };
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

static void product(const Gemm *work, const Pool *pool) {
#if TILE_PRODUCTS
    amx_gemm(work, pool);
#else
    if (work->layer->weights == BF16_WEIGHTS)
        bf16_gemm(work, pool);
    else
        gemm(work, pool);
#endif
}

#endif
