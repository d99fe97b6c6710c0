/* The epilogue of a product: what happens to a tile of accumulators before it is stored, 16 outputs of a row at a time.
 *
 *     y[r, n] = scales[n] * (acc[r, n] + compensation[n]) + bias[n]
 *               + sum_j excess[r, j] * outlier_rows[j, n]            outlier channels, in float
 *               + scales[n] * sum_k tail[r, k] * w[k, n]             what the clip took from the others
 *               - dither[r] * dither_weights[n]                      what was added before rounding
 *     h[r, n] = act(y[r, n])                                         gated: act(y[r, n]) * y[r, n + N / 2]
 *     out[r, n] = h[r, n] f32, or quantized for the layer that follows, as quantize.h has it
 *
 * compensation[n] = -zero_point * sum_k w[k, n]: q counts from the zero point, acc from 0.
 */
#ifndef FASTEMBED_RT_EPILOGUE_H
#define FASTEMBED_RT_EPILOGUE_H

#include "activations.h"
#include "quantize.h"

/* A product with its epilogue. */
typedef struct {
    const Linear *layer;
    const Input *input;     /* of the layer */
    size_t rows;
    Activation activation;
    int gated;              /* the second half of the outputs is multiplied with the activated first half */
    float *out;             /* (rows, outputs), or NULL where the result is quantized: */
    const Linear *next;     /* for this layer, which has no dither: the row is not known before its first channels are */
    const Input *next_input;
} Gemm;

/* What a row has at `vectors` <= SIDE_BY_SIDE panels from `column` on. In what follows `vectors` is a constant, so that these are
 * registers, and what the panels share is asked once: the panels' sums do not wait for one another. */
typedef struct { Floats v[SIDE_BY_SIDE]; } Cells;

/* y: accumulators of a row -> floats. */
INLINE Cells dequantized(const Gemm *work, const Ints *acc, size_t vectors, size_t row, size_t column) {
    const Linear *layer = work->layer;
    const Input *input = work->input;
    const float *scales = layer->scales + column;
    Cells y;
#pragma GCC unroll 3
    for (size_t v = 0; v < vectors; v++) {
        Ints sums = add_ints(acc[v], load_ints(layer->compensation + column + v * LANES));
        y.v[v] = fma16(to_floats(sums), load(scales + v * LANES), load(layer->bias + column + v * LANES));
    }
    for (size_t j = 0; j < layer->outliers; j++) {
        float excess = input->excess[row * layer->outliers + j];
        if (excess != 0.0f) { /* nearly all are */
            const float *weights = layer->outlier_rows + j * layer->panels * LANES + column;
#pragma GCC unroll 3
            for (size_t v = 0; v < vectors; v++)
                y.v[v] = fma16(broadcast(excess), load(weights + v * LANES), y.v[v]);
        }
    }
    if (layer->tails && input->tails.starts[row] < input->tails.starts[row + 1])
#pragma GCC unroll 3
        for (size_t v = 0; v < vectors; v++)
            y.v[v] = fma16(tail_products(layer, &input->tails, row, column + v * LANES), load(scales + v * LANES), y.v[v]);
    if (layer->dither) {
        Floats dither = broadcast(-input->dither[row]);
#pragma GCC unroll 3
        for (size_t v = 0; v < vectors; v++)
            y.v[v] = fma16(dither, load(layer->dither_weights + column + v * LANES), y.v[v]);
    }
    return y;
}

/* h -> u8 for the next layer, and what is clipped from its outlier channels and tails. */
INLINE void requantize(const Gemm *work, Cells h, size_t vectors, size_t row, size_t column) {
    const Linear *next = work->next;
    const Input *input = work->next_input;
    Ints zero_point = broadcast_int(next->zero_point);
    Quantized *to = input->q + row * next->depth + column;
    Cells steps;
#pragma GCC unroll 3
    for (size_t v = 0; v < vectors; v++)
        steps.v[v] = in_steps(h.v[v], load(next->factor + column + v * LANES));
#pragma GCC unroll 3
    for (size_t v = 0; v < vectors; v++)
        store_quantized(to + v * LANES, steps.v[v], zero_point);
    if (next->tails) {
        Floats least = steps.v[0], most = steps.v[0];
#pragma GCC unroll 3
        for (size_t v = 1; v < vectors; v++) {
            least = minimum(least, steps.v[v]);
            most = maximum(most, steps.v[v]);
        }
        if (__builtin_expect(any_beyond(least, most, next->low, next->high), 0))
#pragma GCC unroll 3
            for (size_t v = 0; v < vectors; v++)
                find_tails(next, &input->tails, steps.v[v], row, column + v * LANES);
    }
    for (size_t j = 0; j < next->outliers; j++) {
        size_t channel = (size_t)next->channels[j] - column;
        if (channel < vectors * LANES) {
            float held[SIDE_BY_SIDE * LANES];
#pragma GCC unroll 3
            for (size_t v = 0; v < vectors; v++)
                store(held + v * LANES, h.v[v]);
            input->excess[row * next->outliers + j] = excess_of(next, held[channel] * next->outlier_factor[j]);
        }
    }
}

/* Where a tile is in the output, of `outputs` columns in `panels` panels: half the layer's, where it is gated. */
typedef struct {
    size_t panels, outputs;
    size_t r0, rows;        /* the tile's rows from r0 on */
    size_t p0, vectors;     /* and its panels from p0 on */
} Place;

INLINE void finish_cells(const Gemm *work, Activation activation, Place at, size_t row, size_t panel, size_t vectors,
                         const Ints *acc, const Ints *other_acc) {
    size_t column = panel * LANES;
    Cells h = dequantized(work, acc, vectors, row, column);
    activate(h.v, vectors, activation);
    if (work->gated) {
        Cells other = dequantized(work, other_acc, vectors, row, at.panels * LANES + column);
#pragma GCC unroll 3
        for (size_t v = 0; v < vectors; v++)
            h.v[v] = mul(h.v[v], other.v[v]);
    }
    if (work->next) {
        requantize(work, h, vectors, row, column);
        return;
    }
    float *out = work->out + row * at.outputs + column;
#pragma GCC unroll 3
    for (size_t v = 0; v < vectors; v++)
        store_first(out + v * LANES, h.v[v], at.outputs - column - v * LANES);
}

/* acc [rows][VECTORS] of a tile -> out or next; other_acc likewise, of the layer's other half where it is gated. */
INLINE void epilogue(const Gemm *work, Activation activation, Place at, const Ints *acc, const Ints *other_acc) {
    for (size_t r = 0; r < at.rows; r++, acc += VECTORS, other_acc += VECTORS) {
        if (at.vectors == VECTORS)
            finish_cells(work, activation, at, at.r0 + r, at.p0, VECTORS, acc, other_acc);
        else
            for (size_t v = 0; v < at.vectors; v++)
                finish_cells(work, activation, at, at.r0 + r, at.p0 + v, 1, acc + v, other_acc + v);
    }
}

#endif
