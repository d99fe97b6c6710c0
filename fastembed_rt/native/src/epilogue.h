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

/* y: accumulators of a row at the outputs from `column` on -> floats. */
INLINE Floats dequantized(const Gemm *work, Ints acc, size_t row, size_t column) {
    const Linear *layer = work->layer;
    const Input *input = work->input;
    Floats y = to_floats(add_ints(acc, load_ints(layer->compensation + column)));
    y = fma16(y, load(layer->scales + column), load(layer->bias + column));
    for (size_t j = 0; j < layer->outliers; j++) {
        float excess = input->excess[row * layer->outliers + j];
        if (excess != 0.0f) /* nearly all are */
            y = fma16(broadcast(excess), load(layer->outlier_rows + j * layer->panels * LANES + column), y);
    }
    if (layer->tails && input->tails.starts[row] < input->tails.starts[row + 1])
        y = fma16(tail_products(layer, &input->tails, row, column), load(layer->scales + column), y);
    if (layer->dither)
        y = fma16(broadcast(-input->dither[row]), load(layer->dither_weights + column), y);
    return y;
}

/* h -> u8 for the next layer, and what is clipped from its outlier channels and tails. */
INLINE void requantize(const Gemm *work, Floats h, size_t row, size_t column) {
    const Linear *next = work->next;
    Floats steps = in_steps(h, load(next->factor + column));
    store_quantized(work->next_input->q + row * next->depth + column, steps, broadcast_int(next->zero_point));
    if (next->tails)
        find_tails(next, &work->next_input->tails, steps, row, column);
    for (size_t j = 0; j < next->outliers; j++) {
        size_t channel = (size_t)next->channels[j];
        if (channel - column < LANES) {
            float held[LANES];
            store(held, h);
            work->next_input->excess[row * next->outliers + j] =
                excess_of(next, held[channel - column] * next->outlier_factor[j]);
        }
    }
}

/* Where a tile is in the output, of `outputs` columns in `panels` panels: half the layer's, where it is gated. */
typedef struct {
    size_t panels, outputs;
    size_t r0, rows;        /* the tile's rows from r0 on */
    size_t p0, vectors;     /* and its panels from p0 on */
} Place;

/* acc [rows][VECTORS] of a tile -> out or next; other_acc likewise, of the layer's other half where it is gated. */
INLINE void epilogue(const Gemm *work, Activation activation, Place at, const Ints *acc, const Ints *other_acc) {
    for (size_t r = 0; r < at.rows; r++) {
        size_t row = at.r0 + r;
        for (size_t v = 0; v < at.vectors; v++) {
            size_t column = (at.p0 + v) * LANES;
            Floats h = activated(dequantized(work, acc[r * VECTORS + v], row, column), activation);
            if (work->gated)
                h = mul(h, dequantized(work, other_acc[r * VECTORS + v], row, at.panels * LANES + column));
            if (work->next)
                requantize(work, h, row, column);
            else
                store_first(work->out + row * at.outputs + column, h, at.outputs - column);
        }
    }
}

#endif
