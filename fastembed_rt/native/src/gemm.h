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

static size_t packed_size(const Linear *layer) { return layer->panels * LANES * layer->depth * sizeof(PackedWeight); }

/* Where w[k, n] lies in panels of K / KR = `steps` steps. */
INLINE size_t packed_index(size_t k, size_t n, size_t steps) {
    return ((n / LANES * steps + k / KR) * LANES + n % LANES) * KR + k % KR;
}

/* weight (inputs, columns) s8 -> the panels' columns from `from` on, and their compensation. */
static void pack(Linear *layer, const int8_t *weight, size_t columns, size_t from) {
    PackedWeight *packed = layer->packed;
    size_t steps = layer->depth / KR;
    for (size_t k = 0; k < layer->inputs; k++) {
        for (size_t n = 0; n < columns; n++) {
            int8_t value = weight[k * columns + n];
            packed[packed_index(k, from + n, steps)] = value;
            layer->compensation[from + n] -= (layer->zero_point - OFFSET) * value;
        }
    }
}

/* Whether `pack` with the same arguments would change nothing. */
static int is_packed(const Linear *layer, const int8_t *weight, size_t columns, size_t from) {
    const PackedWeight *packed = layer->packed;
    size_t steps = layer->depth / KR;
    for (size_t k = 0; k < layer->inputs; k++) {
        int different = 0;
        for (size_t n = 0; n < columns; n++)
            different |= packed[packed_index(k, from + n, steps)] ^ weight[k * columns + n];
        if (different)
            return 0;
    }
    return 1;
}

/* ---- products --------------------------------------------------------------------------------------------------- */

#if !TILE_PRODUCTS
/* A task: all rows by NR outputs, and as many of the second half where it is gated. The panels stay in the first cache
 * while the rows pass. */
static void gemm_task(void *argument, size_t index) {
    const Gemm *work = argument;
    const Linear *layer = work->layer;
    size_t depth = layer->depth, steps = depth / KR, panel_size = steps * LANES * KR, sides = work->gated ? 2 : 1;
    Place at = {.panels = layer->panels / sides, .outputs = layer->outputs / sides, .p0 = index * VECTORS};
    at.vectors = min_size(VECTORS, at.panels - at.p0);
    const PackedWeight *w = (const PackedWeight *)layer->packed + at.p0 * panel_size;
    Cell acc[MR * VECTORS], other_acc[MR * VECTORS];
    for (; at.r0 < work->rows; at.r0 += MR) {
        at.rows = min_size(MR, work->rows - at.r0);
        const Quantized *q = work->input->q + at.r0 * depth;
        tile_u8s8(at.rows, at.vectors, q, depth, w, steps, &acc->sums);
        if (work->gated)
            tile_u8s8(at.rows, at.vectors, q, depth, w + at.panels * panel_size, steps, &other_acc->sums);
        epilogue(work, at, acc, other_acc);
    }
}

static void gemm(const Gemm *work, const Pool *pool) {
    size_t panels = work->gated ? work->layer->panels / 2 : work->layer->panels;
    pool->run(pool, gemm_task, (void *)work, (panels + VECTORS - 1) / VECTORS);
}
#endif

#endif
