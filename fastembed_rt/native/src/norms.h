/* Normalization of rows, behind a linear layer with a residual, or before one.
 *
 *     z[r, n] = x[r, n] + residual[r, n]
 *     out[r, n] = (z[r, n] - mean_r) / sqrt(mean_n((z[r, n] - mean_r)^2) + epsilon) * weight[n] + bias[n]
 *
 * f32 (rows, width). By root mean square, mean_r is 0. Norm first: z is x, and the residual is added to out.
 *
 * Row by row after the product, where memory is read in order: in the epilogue of the product's tiles, the residual
 * came too late from far caches.
 */
#ifndef FASTEMBED_RT_NORMS_H
#define FASTEMBED_RT_NORMS_H

#include "kernels.h"
#include "support.h"
#include "vectors.h"

enum { NORM_ROWS = 16 }; /* of one task */

/* The first of three passes over a row, at `n` channels from k on: the sum of z, which goes `to` where it is not x. */
INLINE Floats add_residual(const float *x, const float *residual, float *to, size_t k, size_t n, Floats sum) {
    Floats z = load_first(x + k, n);
    if (residual) {
        z = add(z, load_first(residual + k, n));
        store_first(to + k, z, n);
    }
    return add(sum, z);
}

INLINE Floats add_square(const float *row, size_t k, size_t n, Floats mean, Floats squares) {
    Floats centered = sub(load_first(row + k, n), mean);
    if (n < LANES)
        centered = keep_first(centered, n);
    return fma16(centered, centered, squares);
}

INLINE void scale_row(const Norm *norm, const float *row, const float *residual, float *to, size_t k, size_t n,
                      Floats mean, Floats scale) {
    Floats y = mul(sub(load_first(row + k, n), mean), scale), weight = load_first(norm->weight + k, n);
    y = norm->bias ? fma16(y, weight, load_first(norm->bias + k, n)) : mul(y, weight);
    store_first(to + k, residual ? add(y, load_first(residual + k, n)) : y, n);
}

/* x -> to, which may be x. Whole vectors of channels first, for which `n` is a constant, and nothing is asked again for
 * each of them. */
INLINE void norm_row(const Norm *norm, const float *x, const float *residual, int norm_first, float *to,
                     size_t width) {
    size_t whole = width / LANES * LANES, rest = width - whole;
    const float *before = norm_first ? NULL : residual, *behind = norm_first ? residual : NULL, *z = before ? to : x;
    Floats sum = broadcast(0.0f), squares = broadcast(0.0f);
    for (size_t k = 0; k < whole; k += LANES)
        sum = add_residual(x, before, to, k, LANES, sum);
    if (rest)
        sum = add_residual(x, before, to, whole, rest, sum);
    if (!norm->weight)
        return;
    float mean = norm->rms ? 0.0f : reduce_add(sum) / (float)width;
    for (size_t k = 0; k < whole; k += LANES)
        squares = add_square(z, k, LANES, broadcast(mean), squares);
    if (rest)
        squares = add_square(z, whole, rest, broadcast(mean), squares);
    float scale = 1.0f / __builtin_sqrtf(reduce_add(squares) / (float)width + norm->epsilon);
    for (size_t k = 0; k < whole; k += LANES)
        scale_row(norm, z, behind, to, k, LANES, broadcast(mean), broadcast(scale));
    if (rest)
        scale_row(norm, z, behind, to, whole, rest, broadcast(mean), broadcast(scale));
}

typedef struct {
    Norm norm;
    const float *x, *residual; /* row 0 of it here, or NULL */
    int norm_first;
    float *to;
    size_t rows, width;
} NormWork;

static void norm_task(void *argument, size_t index) {
    const NormWork *work = argument;
    const Norm norm = work->norm;
    size_t width = work->width, last = min_size(work->rows, (index + 1) * NORM_ROWS);
    for (size_t r = index * NORM_ROWS; r < last; r++)
        norm_row(&norm, work->x + r * width, work->residual ? work->residual + r * width : NULL, work->norm_first,
                 work->to + r * width, width);
}

static void norm_rows(const NormWork *work, const Pool *pool) {
    size_t count = (work->rows + NORM_ROWS - 1) / NORM_ROWS;
    if (count < 2)
        norm_task((void *)work, 0);
    else
        pool->run(pool, norm_task, (void *)work, count);
}

/* Of `rows` rows of out; the residual's begin at its row `first`. */
static void add_norm(const AddNorm *norm, size_t first, float *out, size_t rows, size_t width, const Pool *pool) {
    if (!norm->norm.weight && !norm->residual)
        return;
    NormWork work = {
        .norm = norm->norm, .x = out, .residual = norm->residual ? norm->residual + first * width : NULL,
        .norm_first = norm->norm_first, .to = out, .rows = rows, .width = width,
    };
    norm_rows(&work, pool);
}

/* Rows of x as a layer reads them: normalized, in `room` for as many, where there is a norm. */
static const float *normed(const Norm *norm, const float *x, size_t rows, size_t width, float *room,
                           const Pool *pool) {
    if (!norm->weight)
        return x;
    NormWork work = {.norm = *norm, .x = x, .to = room, .rows = rows, .width = width};
    norm_rows(&work, pool);
    return room;
}

#endif
