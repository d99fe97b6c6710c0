/* Heads between their projection and attention: normalized, those of queries and keys then turned by where their token is.
 *
 *     y[r, d] = (x[r, d] - mean_r) / sqrt(mean_d((x[r, d] - mean_r)^2) + epsilon) * weight[d] + bias[d]
 *     out[r, d] = y[r, d] * cosine[r, d] - y[r, d + D / 2] * sine[r, d]           d < D / 2
 *     out[r, d + D / 2] = y[r, d + D / 2] * cosine[r, d] + y[r, d] * sine[r, d]
 *
 * Rotary positions in halves (Su et al. 2021, arXiv:2104.09864, as transformers has them). A head lies panel by panel of
 * 16 channels, of which D are an even number.
 */
#ifndef FASTEMBED_RT_TURN_H
#define FASTEMBED_RT_TURN_H

#include "kernels.h"
#include "support.h"
#include "vectors.h"

/* A row of `panels` vectors, `apart` numbers from one to the next. */
INLINE void norm_head(const Norm *norm, float *row, size_t panels, size_t apart) {
    Floats sum = broadcast(0.0f), squares = broadcast(0.0f);
    float size = (float)(panels * LANES);
    for (size_t p = 0; p < panels && !norm->rms; p++)
        sum = add(sum, load(row + p * apart));
    Floats mean = broadcast(norm->rms ? 0.0f : reduce_add(sum) / size);
    for (size_t p = 0; p < panels; p++) {
        Floats centered = sub(load(row + p * apart), mean);
        squares = fma16(centered, centered, squares);
    }
    Floats scale = broadcast(1.0f / __builtin_sqrtf(reduce_add(squares) / size + norm->epsilon));
    for (size_t p = 0; p < panels; p++) {
        Floats y = mul(sub(load(row + p * apart), mean), scale), weight = load(norm->weight + p * LANES);
        store(row + p * apart, norm->bias ? fma16(y, weight, load(norm->bias + p * LANES)) : mul(y, weight));
    }
}

/* A head of `rows` tokens, in place; `part` says of what. */
static void turn_head(const Turn *turn, int part, float *head, size_t rows, size_t size) {
    const Norm *norm = &turn->norms[part];
    size_t panels = size / LANES, half = panels / 2, apart = rows * LANES;
    for (size_t r = 0; r < rows; r++) {
        float *row = head + r * LANES;
        if (norm->weight)
            norm_head(norm, row, panels, apart);
        if (!turn->cosine || part == VALUE)
            continue;
        const float *cosine = turn->cosine + r * (size / 2), *sine = turn->sine + r * (size / 2);
        for (size_t p = 0; p < half; p++) {
            float *left = row + p * apart, *right = left + half * apart;
            Floats a = load(left), b = load(right), c = load(cosine + p * LANES), s = load(sine + p * LANES);
            store(left, sub(mul(a, c), mul(b, s)));
            store(right, add(mul(b, c), mul(a, s)));
        }
    }
}

static int turns(const Turn *turn) {
    return turn->cosine || turn->norms[QUERY].weight || turn->norms[KEY].weight || turn->norms[VALUE].weight;
}

/* All heads of queries, behind them those of keys, then of values, a head after another. */
typedef struct {
    const Turn *turn;
    float *heads;
    size_t rows, size, queries, keys; /* heads of them */
} TurnWork;

static void turn_task(void *argument, size_t index) {
    const TurnWork *work = argument;
    int part = index < work->queries ? QUERY : index < work->queries + work->keys ? KEY : VALUE;
    turn_head(work->turn, part, work->heads + index * work->size * work->rows, work->rows, work->size);
}

#endif
