/* What follows a linear layer: a residual, then a normalization; either may be missing.
 *
 *     z[r, n] = out[r, n] + residual[r, n]
 *     out[r, n] = (z[r, n] - mean_r) / sqrt(mean_n((z[r, n] - mean_r)^2) + epsilon) * weight[n] + bias[n]
 *
 * f32 (rows, width), in place. By root mean square, mean_r is 0.
 *
 * Row by row after the product, where memory is read in order: in the epilogue of the product's tiles, the residual
 * came too late from far caches.
 */
#ifndef FASTEMBED_RT_ADD_NORM_H
#define FASTEMBED_RT_ADD_NORM_H

#include "kernels.h"
#include "support.h"
#include "vectors.h"

enum { ADD_NORM_ROWS = 16 }; /* of one task */

typedef struct {
    const AddNorm *norm;
    const float *residual;  /* row 0 of it here, or NULL */
    float *out;
    size_t rows, width;
} AddNormWork;

static void add_norm_task(void *argument, size_t index) {
    const AddNormWork *work = argument;
    const AddNorm *norm = work->norm;
    size_t width = work->width, last = min_size(work->rows, (index + 1) * ADD_NORM_ROWS);
    for (size_t r = index * ADD_NORM_ROWS; r < last; r++) {
        float *row = work->out + r * width;
        Floats sum = broadcast(0.0f), squares = broadcast(0.0f);
        if (work->residual) {
            const float *residual = work->residual + r * width;
            for (size_t k = 0; k < width; k += LANES) {
                Floats z = add(load_first(row + k, width - k), load_first(residual + k, width - k));
                store_first(row + k, z, width - k);
                sum = add(sum, z);
            }
        } else {
            for (size_t k = 0; k < width; k += LANES)
                sum = add(sum, load_first(row + k, width - k));
        }
        if (!norm->weight)
            continue;
        float mean = norm->rms ? 0.0f : reduce_add(sum) / (float)width;
        for (size_t k = 0; k < width; k += LANES) {
            Floats centered = keep_first(sub(load_first(row + k, width - k), broadcast(mean)), width - k);
            squares = fma16(centered, centered, squares);
        }
        float scale = 1.0f / __builtin_sqrtf(reduce_add(squares) / (float)width + norm->epsilon);
        for (size_t k = 0; k < width; k += LANES) {
            size_t n = width - k;
            Floats y = mul(sub(load_first(row + k, n), broadcast(mean)), broadcast(scale));
            Floats weight = load_first(norm->weight + k, n);
            y = norm->bias ? fma16(y, weight, load_first(norm->bias + k, n)) : mul(y, weight);
            store_first(row + k, y, n);
        }
    }
}

/* Of `rows` rows of out; the residual's begin at its row `first`. */
static void add_norm(const AddNorm *norm, size_t first, float *out, size_t rows, size_t width, const Pool *pool) {
    if (!norm->weight && !norm->residual)
        return;
    AddNormWork work = {norm, norm->residual ? norm->residual + first * width : NULL, out, rows, width};
    size_t count = (rows + ADD_NORM_ROWS - 1) / ADD_NORM_ROWS;
    if (count < 2)
        add_norm_task(&work, 0);
    else
        pool->run(pool, add_norm_task, &work, count);
}

#endif
