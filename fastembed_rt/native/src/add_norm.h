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

/* The first of three passes over a row, at `n` channels from k on: z, and its sum. */
INLINE Floats add_residual(float *row, const float *residual, size_t k, size_t n, Floats sum) {
    Floats z = load_first(row + k, n);
    if (residual) {
        z = add(z, load_first(residual + k, n));
        store_first(row + k, z, n);
    }
    return add(sum, z);
}

INLINE Floats add_square(const float *row, size_t k, size_t n, Floats mean, Floats squares) {
    Floats centered = sub(load_first(row + k, n), mean);
    if (n < LANES)
        centered = keep_first(centered, n);
    return fma16(centered, centered, squares);
}

INLINE void scale_row(const AddNorm *norm, float *row, size_t k, size_t n, Floats mean, Floats scale) {
    Floats y = mul(sub(load_first(row + k, n), mean), scale), weight = load_first(norm->weight + k, n);
    store_first(row + k, norm->bias ? fma16(y, weight, load_first(norm->bias + k, n)) : mul(y, weight), n);
}

/* Whole vectors of channels first, for which `n` is a constant, and nothing is asked again for each of them. */
static void add_norm_task(void *argument, size_t index) {
    const AddNormWork *work = argument;
    const AddNorm norm = *work->norm;
    size_t width = work->width, whole = width / LANES * LANES, rest = width - whole;
    size_t last = min_size(work->rows, (index + 1) * ADD_NORM_ROWS);
    for (size_t r = index * ADD_NORM_ROWS; r < last; r++) {
        float *row = work->out + r * width;
        const float *residual = work->residual ? work->residual + r * width : NULL;
        Floats sum = broadcast(0.0f), squares = broadcast(0.0f);
        for (size_t k = 0; k < whole; k += LANES)
            sum = add_residual(row, residual, k, LANES, sum);
        if (rest)
            sum = add_residual(row, residual, whole, rest, sum);
        if (!norm.weight)
            continue;
        float mean = norm.rms ? 0.0f : reduce_add(sum) / (float)width;
        for (size_t k = 0; k < whole; k += LANES)
            squares = add_square(row, k, LANES, broadcast(mean), squares);
        if (rest)
            squares = add_square(row, whole, rest, broadcast(mean), squares);
        float scale = 1.0f / __builtin_sqrtf(reduce_add(squares) / (float)width + norm.epsilon);
        for (size_t k = 0; k < whole; k += LANES)
            scale_row(&norm, row, k, LANES, broadcast(mean), broadcast(scale));
        if (rest)
            scale_row(&norm, row, whole, rest, broadcast(mean), broadcast(scale));
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
