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

/* Where a result lies: how far a row is from the last one, and 16 columns from the 16 before. */
typedef struct {
    size_t row, panel;
} Strides;

/* A product with its epilogue. */
typedef struct {
    const Linear *layer;
    const Input *input;     /* of the layer */
    size_t rows;
    Activation activation;
    int gated;              /* the second half of the outputs is multiplied with the activated first half */
    float *out;             /* (rows, outputs), or NULL where the result is quantized; */
    Strides strides;        /* of it */
    const Linear *next;     /* for this layer, which has no dither: the row is not known before its first channels are */
    const Input *next_input;
} Gemm;

enum { MOST_PANELS = VECTORS > 2 ? VECTORS : 2 }; /* side by side: those of a tile, or two of AMX */

/* 16 outputs of a row: its accumulators, and then what becomes of them. */
typedef union {
    Ints sums;
    Floats values;
} Cell;

/* In what follows, cells are [rows][vectors]: of rows from r0 on, and of the panels from `column` on. `vectors` is a
 * constant, so that what the rows share stays in registers. What is read from `work` is read once: as far as the
 * compiler knows, each store could have changed it. */

/* Adds to a row's cells what the clip has taken from it. Few rows have something. */
NOINLINE void add_clipped(const Gemm *work, Cell *cells, size_t vectors, size_t row, size_t column) {
    const Linear *layer = work->layer;
    const Input *input = work->input;
    for (size_t v = 0; v < vectors; v++) {
        size_t place = column + v * LANES;
        Floats y = cells[v].values;
        for (size_t j = 0; j < layer->outliers; j++) {
            float excess = input->excess[row * layer->outliers + j];
            if (excess != 0.0f)
                y = fma16(broadcast(excess), load(layer->outlier_rows + j * layer->panels * LANES + place), y);
        }
        if (layer->tails && input->tails.starts[row] < input->tails.starts[row + 1])
            y = fma16(tail_products(layer, &input->tails, row, place), load(layer->scales + place), y);
        cells[v].values = y;
    }
}

/* Accumulators -> y. */
INLINE void dequantize(const Gemm *work, Cell *cells, size_t rows, size_t vectors, size_t r0, size_t column) {
    const Linear *layer = work->layer;
    const Input *input = work->input;
    size_t outliers = layer->outliers;
    const float *excess = input->excess + r0 * outliers, *dither = layer->dither ? input->dither + r0 : NULL;
    const uint32_t *starts = layer->tails ? input->tails.starts + r0 : NULL;
    Ints compensation[MOST_PANELS];
    Floats scales[MOST_PANELS], bias[MOST_PANELS], dithered[MOST_PANELS];
#pragma GCC unroll 3
    for (size_t v = 0; v < vectors; v++) {
        size_t place = column + v * LANES;
        compensation[v] = load_ints(layer->compensation + place);
        scales[v] = load(layer->scales + place);
        bias[v] = load(layer->bias + place);
        dithered[v] = dither ? load(layer->dither_weights + place) : broadcast(0.0f);
    }
    for (size_t r = 0; r < rows; r++, cells += vectors) {
        int clipped = starts && starts[r] < starts[r + 1];
        for (size_t j = 0; j < outliers; j++)
            clipped |= excess[r * outliers + j] != 0.0f;
#pragma GCC unroll 3
        for (size_t v = 0; v < vectors; v++)
            cells[v].values = fma16(to_floats(add_ints(cells[v].sums, compensation[v])), scales[v], bias[v]);
        if (clipped)
            add_clipped(work, cells, vectors, r0 + r, column);
        if (dither) {
            Floats added = broadcast(-dither[r]);
#pragma GCC unroll 3
            for (size_t v = 0; v < vectors; v++)
                cells[v].values = fma16(added, dithered[v], cells[v].values);
        }
    }
}

/* y -> act(y), of `count` cells, a constant. */
INLINE void activate_cells(Cell *cells, size_t count, Activation activation) {
    Floats x[SIDE_BY_SIDE];
#pragma GCC unroll 6
    for (size_t k = 0; k < count; k++)
        x[k] = cells[k].values;
    activate(x, count, activation);
#pragma GCC unroll 6
    for (size_t k = 0; k < count; k++)
        cells[k].values = x[k];
}

/* What is clipped from the tails of a row for the next layer. Few rows have something. */
NOINLINE void note_tails(const Linear *next, const Tails *tails, const Cell *cells, size_t vectors, size_t row,
                         size_t column) {
    for (size_t v = 0; v < vectors; v++) {
        size_t place = column + v * LANES;
        find_tails(next, tails, in_steps(cells[v].values, load(next->factor + place)), row, place);
    }
}

/* h -> u8 for the next layer, and what is clipped from its outlier channels and tails. */
INLINE void requantize(const Gemm *work, const Cell *cells, size_t rows, size_t vectors, size_t r0, size_t column) {
    const Linear *next = work->next;
    const Input *input = work->next_input;
    Ints zero_point = broadcast_int(next->zero_point);
    size_t depth = next->depth;
    int tails = next->tails;
    float low = next->low, high = next->high;
    Quantized *to = input->q + r0 * depth + column;
    Floats factor[MOST_PANELS];
#pragma GCC unroll 3
    for (size_t v = 0; v < vectors; v++)
        factor[v] = load(next->factor + column + v * LANES);
    const Cell *from = cells;
    for (size_t r = 0; r < rows; r++, from += vectors, to += depth) {
        Floats least = in_steps(from[0].values, factor[0]), most = least;
        store_quantized(to, least, zero_point);
#pragma GCC unroll 3
        for (size_t v = 1; v < vectors; v++) {
            Floats steps = in_steps(from[v].values, factor[v]);
            store_quantized(to + v * LANES, steps, zero_point);
            least = minimum(least, steps);
            most = maximum(most, steps);
        }
        if (tails && __builtin_expect(any_beyond(least, most, low, high), 0))
            note_tails(next, &input->tails, from, vectors, r0 + r, column);
    }
    for (size_t j = 0; j < next->outliers; j++) {
        size_t channel = (size_t)next->channels[j] - column;
        if (channel < vectors * LANES)
            for (size_t r = 0; r < rows; r++) {
                float held[LANES];
                store(held, cells[r * vectors + channel / LANES].values);
                input->excess[(r0 + r) * next->outliers + j] =
                    excess_of(next, held[channel % LANES] * next->outlier_factor[j]);
            }
    }
}

/* h -> out, of `outputs` columns. */
INLINE void store_cells(const Gemm *work, const Cell *cells, size_t rows, size_t vectors, size_t r0, size_t column,
                        size_t outputs) {
    Strides strides = work->strides;
    float *out = work->out + r0 * strides.row + column / LANES * strides.panel;
    size_t left = outputs - column;
    for (size_t r = 0; r < rows; r++, cells += vectors, out += strides.row)
#pragma GCC unroll 3
        for (size_t v = 0; v < vectors; v++)
            store_first(out + v * strides.panel, cells[v].values, left - v * LANES);
}

/* Functions of their own, a step each: in one there would be more at a time than there are registers. */
#define DEFINE_STEPS(suffix, vectors)                                                                                  \
    NOINLINE void dequantize_##suffix(const Gemm *work, Cell *cells, size_t rows, size_t r0, size_t column) {          \
        dequantize(work, cells, rows, vectors, r0, column);                                                            \
    }                                                                                                                  \
    NOINLINE void requantize_##suffix(const Gemm *work, const Cell *cells, size_t rows, size_t r0, size_t column) {    \
        requantize(work, cells, rows, vectors, r0, column);                                                            \
    }                                                                                                                  \
    NOINLINE void store_##suffix(const Gemm *work, const Cell *cells, size_t rows, size_t r0, size_t column,           \
                                 size_t outputs) {                                                                     \
        store_cells(work, cells, rows, vectors, r0, column, outputs);                                                  \
    }

DEFINE_STEPS(tile, VECTORS)
DEFINE_STEPS(panel, 1)

#define DEFINE_ACTIVATION(name, activation)                                                                            \
    NOINLINE void name##_cells(Cell *cells, size_t count) {                                                            \
        size_t k = 0;                                                                                                  \
        for (; k + SIDE_BY_SIDE <= count; k += SIDE_BY_SIDE)                                                           \
            activate_cells(cells + k, SIDE_BY_SIDE, activation);                                                       \
        for (; k + 3 <= count; k += 3)                                                                                 \
            activate_cells(cells + k, 3, activation);                                                                  \
        for (; k < count; k++)                                                                                         \
            activate_cells(cells + k, 1, activation);                                                                  \
    }

DEFINE_ACTIVATION(gelu, GELU)
DEFINE_ACTIVATION(gelu_tanh, GELU_TANH)
DEFINE_ACTIVATION(silu, SILU)
DEFINE_ACTIVATION(relu, RELU)
DEFINE_ACTIVATION(tanh, TANH)

static void activate_all(Cell *cells, size_t count, Activation activation) {
    switch (activation) {
    case GELU: gelu_cells(cells, count); break;
    case GELU_TANH: gelu_tanh_cells(cells, count); break;
    case SILU: silu_cells(cells, count); break;
    case RELU: relu_cells(cells, count); break;
    case TANH: tanh_cells(cells, count); break;
    default: break;
    }
}

/* Where cells are in the output, of `outputs` columns in `panels` panels: half the layer's, where it is gated. */
typedef struct {
    size_t panels, outputs;
    size_t r0, rows;        /* rows from r0 on */
    size_t p0, vectors;     /* and panels from p0 on */
} Place;

/* cells [rows][vectors], 1 or VECTORS, -> out or next; other_cells likewise, of the layer's other half where it is
 * gated. */
static void finish_cells(const Gemm *work, Place at, Cell *cells, Cell *other_cells) {
    size_t column = at.p0 * LANES, count = at.rows * at.vectors;
    int one = at.vectors == 1;
    (one ? dequantize_panel : dequantize_tile)(work, cells, at.rows, at.r0, column);
    activate_all(cells, count, work->activation);
    if (work->gated) {
        (one ? dequantize_panel : dequantize_tile)(work, other_cells, at.rows, at.r0, at.panels * LANES + column);
        for (size_t k = 0; k < count; k++)
            cells[k].values = mul(cells[k].values, other_cells[k].values);
    }
    if (work->next)
        (one ? requantize_panel : requantize_tile)(work, cells, at.rows, at.r0, column);
    else
        (one ? store_panel : store_tile)(work, cells, at.rows, at.r0, column, at.outputs);
}

/* acc [rows][VECTORS] of a tile, of which `vectors` are there, -> out or next; other_acc likewise. */
static void epilogue(const Gemm *work, Place at, Cell *acc, Cell *other_acc) {
    if (at.vectors == VECTORS) {
        finish_cells(work, at, acc, other_acc);
        return;
    }
    Place panel = at;
    panel.vectors = 1;
    for (size_t v = 0; v < at.vectors; v++, panel.p0++) { /* at the layer's end */
        Cell cells[MR], other_cells[MR];
        for (size_t r = 0; r < at.rows; r++) {
            cells[r] = acc[r * VECTORS + v];
            other_cells[r] = other_acc[r * VECTORS + v];
        }
        finish_cells(work, panel, cells, other_cells);
    }
}

#endif
