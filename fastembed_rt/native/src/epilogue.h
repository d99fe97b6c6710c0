/* The epilogue of a product: what happens to a tile of accumulators before it is stored, 16 outputs of a row at a time.
 *
 *     y[r, n] = scales[n] * (acc[r, n] + compensation[n]) + bias[n]
 *               - dither[r] * dither_weights[n]                      what was added before rounding
 *               + sum_j excess[r, j] * outlier_rows[j, n]            outlier channels, in float
 *               + scales[n] * sum_k tail[r, k] * w[k, n]             what the clip took from the others
 *     h[r, n] = act(y[r, n])                                         gated: act(y[r, n]) * y[r, n + N / 2]
 *     out[r, n] = h[r, n] f32, or quantized for the layer that follows, as quantize.h has it
 *
 * Of layers with bfloat16 or float weights y is another (bf16.h, fp32.h), the rest the same.
 *
 * compensation[n] = -zero_point * sum_k w[k, n]: q counts from the zero point, acc from 0.
 */
#ifndef FASTEMBED_RT_EPILOGUE_H
#define FASTEMBED_RT_EPILOGUE_H

#include "activations.h"
#include "quantize.h"
#include "rounding.h"

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
    size_t first_panel;     /* of outputs: where `out` begins */
    const Linear *next;     /* for this layer, which has no dither: the row is not known before its first channels are */
    const Input *next_input;
} Gemm;

/* Panels of outputs; of a gated layer, of one half. */
INLINE size_t output_panels(const Gemm *work) { return work->layer->panels / (work->gated ? 2 : 1); }

enum {
    MOST_PANELS = VECTORS > 2 ? VECTORS : 2, /* side by side: those of a tile, or two of AMX */
    MOST_ROWS = 8                            /* of a tile */
};
_Static_assert((int)PRODUCT_MR <= (int)MOST_ROWS, "a tile has room for its rows");

/* ---- y ---------------------------------------------------------------------------------------------------------- */

/* Of a panel's 16 outputs of a row, without what is subtracted and added in float. */
INLINE Floats dequantized(Ints sums, Ints compensation, Floats scales, Floats bias) {
    return fma16(to_floats(add_ints(sums, compensation)), scales, bias);
}

/* Whether the clip has taken something from a row. Few have lost anything. */
INLINE int is_clipped(const Linear *layer, const Input *input, size_t row) {
    if (layer->tails && input->tails.starts[row] < input->tails.starts[row + 1])
        return 1;
    for (size_t j = 0; j < layer->outliers; j++)
        if (input->excess[row * layer->outliers + j] != 0.0f)
            return 1;
    return 0;
}

/* Adds the tails of `rows` rows from r0 on to their y, at `vectors` panels, a constant, from `column` on: from tail to
 * tail, since whether a row has any is what no processor foresees. In the order of channels. */
INLINE void add_tails_of(const Gemm *work, float *y, Strides strides, size_t vectors, size_t r0, size_t rows,
                         size_t column) {
    const Linear *layer = work->layer;
    const Tails *tails = &work->input->tails;
    const Tail *tail = tails->gathered + tails->starts[r0], *last = tails->gathered + tails->starts[r0 + rows];
    PanelChannels panels[MOST_PANELS];
    if (tail == last)
        return;
#pragma GCC unroll 3
    for (size_t v = 0; v < vectors; v++)
        panels[v] = channels_at(layer, column + v * LANES);
    while (tail < last) {
        uint32_t row = tail->row;
        Floats sums[MOST_PANELS];
#pragma GCC unroll 3
        for (size_t v = 0; v < vectors; v++)
            sums[v] = broadcast(0.0f);
        do {
#pragma GCC unroll 3
            for (size_t v = 0; v < vectors; v++)
                sums[v] = tail_product(&panels[v], tail, sums[v]);
            tail++;
        } while (tail < last && tail->row == row);
        float *at = y + (row - r0) * strides.row;
#pragma GCC unroll 3
        for (size_t v = 0; v < vectors; v++, at += strides.panel)
            store(at, fma16(sums[v], load(layer->scales + column + v * LANES), load(at)));
    }
}

NOINLINE void add_tails(const Gemm *work, float *y, Strides strides, size_t vectors, size_t r0, size_t rows,
                        size_t column) {
    if (vectors == MOST_PANELS) {
        add_tails_of(work, y, strides, MOST_PANELS, r0, rows, column);
        return;
    }
    for (size_t v = 0; v < vectors; v++)
        add_tails_of(work, y + v * strides.panel, strides, 1, r0, rows, column + v * LANES);
}

/* Adds to the y of a row what the clip has taken from it, at `vectors` panels from `column` on, `stride` floats apart. */
NOINLINE void add_clipped(const Gemm *work, float *y, size_t stride, size_t vectors, size_t row, size_t column) {
    const Linear *layer = work->layer;
    const Input *input = work->input;
    for (size_t v = 0; v < vectors; v++) {
        float *at = y + v * stride;
        size_t place = column + v * LANES;
        Floats sum = load(at);
        for (size_t j = 0; j < layer->outliers; j++) {
            float excess = input->excess[row * layer->outliers + j];
            if (excess != 0.0f)
                sum = fma16(broadcast(excess), load(layer->outlier_rows + j * layer->panels * LANES + place), sum);
        }
        store(at, sum);
    }
    if (layer->tails && input->tails.starts[row] < input->tails.starts[row + 1])
        add_tails(work, y, (Strides){0, stride}, vectors, row, 1, column);
}

/* ---- h ---------------------------------------------------------------------------------------------------------- */

/* What is clipped from the tails of a row for the next layer. Few rows have something. */
NOINLINE void note_tails(const Linear *next, const Tails *tails, const float *h, size_t vectors, size_t row,
                         size_t column) {
    for (size_t v = 0; v < vectors; v++, column += LANES)
        find_tails(next, tails, in_steps(load(h + v * LANES), load(next->factor + column)), row, column);
}

/* Whether the next layer has outlier channels among `vectors` panels of outputs from `column` on. */
INLINE int has_outliers(const Linear *next, size_t vectors, size_t column) {
    for (size_t j = 0; j < next->outliers; j++)
        if ((size_t)next->channels[j] - column < vectors * LANES)
            return 1;
    return 0;
}

/* What is clipped from those, h being rows NR apart. */
NOINLINE void note_outliers(const Gemm *work, const float *h, size_t rows, size_t vectors, size_t r0, size_t column) {
    const Linear *next = work->next;
    for (size_t j = 0; j < next->outliers; j++) {
        size_t channel = (size_t)next->channels[j] - column;
        if (channel < vectors * LANES)
            for (size_t r = 0; r < rows; r++)
                work->next_input->excess[(r0 + r) * next->outliers + j] =
                    excess_of(next, h[r * NR + channel] * next->outlier_factor[j]);
    }
}

/* h of a row -> u8 for the next layer, and its tails. */
INLINE void requantize(const Gemm *work, const Floats *h, size_t vectors, size_t row, size_t column) {
    const Linear *next = work->next;
    const Input *input = work->next_input;
    Ints zero_point = broadcast_int(next->zero_point);
    const float *factor = next->factor + column;
    Quantized *to = input->q + row * next->depth + column;
    Floats steps[MOST_PANELS], least, most;
#pragma GCC unroll 3
    for (size_t v = 0; v < vectors; v++) {
        steps[v] = in_steps(h[v], load(factor + v * LANES));
        least = v ? minimum(least, steps[v]) : steps[v];
        most = v ? maximum(most, steps[v]) : steps[v];
    }
    int tails = next->tails && __builtin_expect(any_beyond(least, most, next->low, next->high), 0);
#pragma GCC unroll 3
    for (size_t v = 0; v < vectors; v++) /* at last: these may change anything, as far as the compiler knows */
        store_quantized(to + v * LANES, steps[v], zero_point);
    if (tails) {
        float held[MOST_PANELS * LANES];
        for (size_t v = 0; v < vectors; v++)
            store(held + v * LANES, h[v]);
        note_tails(next, &input->tails, held, vectors, row, column);
    }
}

/* h of a row at `vectors` panels, a constant, from `column` on -> out or next; but for outliers. */
INLINE void put_row(const Gemm *work, Weights weights, const Floats *h, size_t vectors, size_t row, size_t column) {
    if (!work->next) {
        float *out = work->out + row * work->strides.row + (column / LANES - work->first_panel) * work->strides.panel;
        size_t left = work->layer->outputs / (work->gated ? 2 : 1) - column;
#pragma GCC unroll 3
        for (size_t v = 0; v < vectors; v++)
            store_first(out + v * work->strides.panel, h[v], left - v * LANES);
    } else if (weights == BF16_WEIGHTS) {
        Rounded *to = (Rounded *)work->next_input->numbers + row * work->next->depth + column;
#pragma GCC unroll 3
        for (size_t v = 0; v < vectors; v++)
            store_rounded(to + v * LANES, h[v]);
    } else if (weights == FP32_WEIGHTS) {
        float *to = (float *)work->next_input->numbers + row * work->next->depth + column;
#pragma GCC unroll 3
        for (size_t v = 0; v < vectors; v++)
            store(to + v * LANES, h[v]);
    } else {
        requantize(work, h, vectors, row, column);
    }
}

/* y of `count` rows, NR apart, at `vectors` panels -> act(y), gated with `other`, -> out or next; both constants, as
 * many as are activated together. Where `keep`, h is left in y. */
INLINE void finish_rows(const Gemm *work, Weights weights, Activation activation, size_t count, size_t vectors, float *y,
                        const float *other, size_t row, size_t column, int keep) {
    Floats h[SIDE_BY_SIDE];
#pragma GCC unroll 6
    for (size_t k = 0; k < count * vectors; k++)
        h[k] = load(y + k / vectors * NR + k % vectors * LANES);
    activate(h, count * vectors, activation);
    if (work->gated)
#pragma GCC unroll 6
        for (size_t k = 0; k < count * vectors; k++)
            h[k] = mul(h[k], load(other + k / vectors * NR + k % vectors * LANES));
    if (keep)
#pragma GCC unroll 6
        for (size_t k = 0; k < count * vectors; k++)
            store(y + k / vectors * NR + k % vectors * LANES, h[k]);
#pragma GCC unroll 6
    for (size_t i = 0; i < count; i++)
        put_row(work, weights, h + i * vectors, vectors, row + i, column);
}

/* y of a tile's rows from r0 on, NR apart, at 1 panel or VECTORS from `column` on -> out or next. */
typedef void Finish(const Gemm *work, float *y, const float *other, size_t rows, size_t r0, size_t column);

INLINE void finish(const Gemm *work, Weights weights, Activation activation, size_t vectors, float *y,
                   const float *other, size_t rows, size_t r0, size_t column) {
    const size_t together = SIDE_BY_SIDE / vectors;
    int keep = weights == INT8_WEIGHTS && work->next && has_outliers(work->next, vectors, column);
    size_t r = 0;
    for (; r + together <= rows; r += together)
        finish_rows(work, weights, activation, together, vectors, y + r * NR, other + r * NR, r0 + r, column, keep);
    for (; r < rows; r++)
        finish_rows(work, weights, activation, 1, vectors, y + r * NR, other + r * NR, r0 + r, column, keep);
    if (keep)
        note_outliers(work, y, rows, vectors, r0, column);
}

/* A function for each, so that each has its activation inlined. */
#define DEFINE_FINISH(name, weights, activation, vectors)                                                              \
    NOINLINE void name(const Gemm *work, float *y, const float *other, size_t rows, size_t r0, size_t column) {        \
        finish(work, weights, activation, vectors, y, other, rows, r0, column);                                        \
    }
#define DEFINE_BOTH(kind, weights, name, activation)                                                                   \
    DEFINE_FINISH(kind##_##name##_panel, weights, activation, 1)                                                       \
    DEFINE_FINISH(kind##_##name##_tile, weights, activation, VECTORS)
#define BOTH_ENTRY(kind, name, activation) [activation] = {kind##_##name##_panel, kind##_##name##_tile},

#define ACTIVATIONS(X, ...)                                                                                            \
    X(__VA_ARGS__, none, NO_ACTIVATION)                                                                                \
    X(__VA_ARGS__, gelu, GELU)                                                                                         \
    X(__VA_ARGS__, gelu_tanh, GELU_TANH)                                                                               \
    X(__VA_ARGS__, silu, SILU)                                                                                         \
    X(__VA_ARGS__, relu, RELU)                                                                                         \
    X(__VA_ARGS__, tanh, TANH)

#if !TILE_PRODUCTS /* which finish a row at a time, see amx.h */
ACTIVATIONS(DEFINE_BOTH, int8, INT8_WEIGHTS)
ACTIVATIONS(DEFINE_BOTH, bf16, BF16_WEIGHTS)
#endif
ACTIVATIONS(DEFINE_BOTH, fp32, FP32_WEIGHTS)

/* By kind of weights, activation, and whether it is a whole tile. */
static Finish *const finishes[FP32_WEIGHTS + 1][TANH + 1][2] = {
#if !TILE_PRODUCTS
    [INT8_WEIGHTS] = {ACTIVATIONS(BOTH_ENTRY, int8)},
    [BF16_WEIGHTS] = {ACTIVATIONS(BOTH_ENTRY, bf16)},
#endif
    [FP32_WEIGHTS] = {ACTIVATIONS(BOTH_ENTRY, fp32)},
};

/* ---- products --------------------------------------------------------------------------------------------------- */

/* y of a tile: its rows from r0 on, its panels from `panel` on. -> to, of these strides. */
typedef void ProductTile(const Gemm *work, size_t r0, size_t panel, float *to, Strides strides);

/* All rows, `most` at a time, by VECTORS panels from `panel` on, those before `end`, and as many of the second half where
 * it is gated. The panels stay in the first cache while the rows pass. What is not activated goes from the tile's registers
 * to where it stays. */
INLINE void gemm_columns(const Gemm *work, size_t panel, size_t end, Weights weights, size_t most,
                         ProductTile *const tiles[][VECTORS]) {
    const Linear *layer = work->layer;
    size_t sides = work->gated ? 2 : 1, panels = layer->panels / sides, column = panel * LANES;
    size_t vectors = min_size(VECTORS, end - panel);
    int plain = !work->next && !work->gated && work->activation == NO_ACTIVATION;
    int direct = plain && column + vectors * LANES <= layer->outputs;
    int tails_alone = weights == INT8_WEIGHTS && layer->tails && !layer->outliers;
    int clips = weights == INT8_WEIGHTS && layer->outliers;
    Finish *const *finish = finishes[weights][work->activation];
    _Alignas(64) float cells[2][MOST_ROWS * NR];
    for (size_t r0 = 0; r0 < work->rows; r0 += most) {
        size_t rows = min_size(most, work->rows - r0);
        float *out =
            direct ? work->out + r0 * work->strides.row + (panel - work->first_panel) * work->strides.panel : NULL;
        Strides strides = direct ? work->strides : (Strides){NR, LANES};
        for (size_t side = 0; side < sides; side++) {
            float *y = direct ? out : cells[side];
            tiles[rows - 1][vectors - 1](work, r0, side * panels + panel, y, strides);
            size_t place = side * panels * LANES + column;
            if (tails_alone)
                add_tails(work, y, strides, vectors, r0, rows, place);
            for (size_t r = 0; clips && r < rows; r++)
                if (is_clipped(layer, work->input, r0 + r))
                    add_clipped(work, y + r * strides.row, strides.panel, vectors, r0 + r, place);
        }
        if (direct)
            continue;
        if (vectors == VECTORS)
            finish[1](work, cells[0], cells[1], rows, r0, column);
        else
            for (size_t v = 0; v < vectors; v++)
                finish[0](work, cells[0] + v * LANES, cells[1] + v * LANES, rows, r0, column + v * LANES);
    }
}

#endif
