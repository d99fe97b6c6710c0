/* Products in AMX tiles: 16 rows by 16 outputs of accumulators, 64 bytes of K at a time.
 *
 *     u8 x s8     acc[r, n] += sum_k q[r, k] * w[k, n], k < 64       s32, exact: the bits of every other set
 *     bf16        acc[r, n] += sum of even k < 32 + sum of odd k     f32, each of the two sums one product after the
 *                 other from 0, with one rounding a product: not the order of bf16.h
 *
 * A panel of gemm.h is the right operand as it is: 16 of its steps, of 64 bytes, are a tile. K is rounded up to whole
 * tiles (DEPTH_UNIT), rows are computed in sixteens. A block has four accumulator tiles, which hide each other's
 * latency: two by two, or one by four for the last 16 rows. While a block is multiplied, the epilogue of the block
 * before it runs between the tiles: neither waits for the other's unit.
 */
#ifndef FASTEMBED_RT_AMX_H
#define FASTEMBED_RT_AMX_H

#include "amx_tiles.h"
#include "bf16.h"

enum { BLOCK_TILES = 4 };

/* A block under work: `rows` rows from r0 on, and `width` panels of outputs from p0 on; where the layer is gated, the
 * same of its second half behind them. */
typedef struct {
    size_t r0, rows, p0, width;
    size_t across;      /* tiles side by side: width, or twice as many */
    int32_t *acc;       /* [tiles][TILE_ROWS][LANES], 32 bits of either type */
} Block;

/* y of row `row` at `count` <= 2 panels, a constant, from `panel` on; sums in tiles that follow one another. */
INLINE void amx_row(const Gemm *work, Weights weights, const int32_t *sums, size_t row, size_t panel, size_t count,
                    Floats *y) {
    const Linear *layer = work->layer;
    size_t column = panel * LANES;
#pragma GCC unroll 2
    for (size_t k = 0; k < count; k++) {
        Ints acc = load_ints(sums + k * TILE_CELLS);
        size_t place = column + k * LANES;
        Floats bias = load(layer->bias + place);
        if (weights == BF16_WEIGHTS)
            y[k] = add(as_floats(acc), bias);
        else
            y[k] = dequantized(acc, load_ints(layer->compensation + place), load(layer->scales + place), bias);
        if (weights == INT8_WEIGHTS && layer->dither)
            y[k] = fma16(broadcast(-work->input->dither[row]), load(layer->dither_weights + place), y[k]);
    }
    if (weights == INT8_WEIGHTS && is_clipped(layer, work->input, row)) {
        float held[2 * LANES];
        for (size_t k = 0; k < count; k++)
            store(held + k * LANES, y[k]);
        add_clipped(work, held, LANES, count, row, column);
        for (size_t k = 0; k < count; k++)
            y[k] = load(held + k * LANES);
    }
}

/* The epilogue of row `r` of a block at `count` <= 2 of its panels, a constant, from `v` on. Inlined, unlike that of
 * other sets: between tiles there is a row at a time, and nothing stays in registers but its own. */
INLINE void finish_panels(const Gemm *work, Weights weights, Activation activation, const Block *block, size_t r,
                          size_t v, size_t count) {
    size_t row = block->r0 + r, panel = block->p0 + v;
    const int32_t *acc = block->acc + (r / TILE_ROWS * block->across + v) * TILE_CELLS + r % TILE_ROWS * LANES;
    Floats h[2], other[2];
    amx_row(work, weights, acc, row, panel, count, h);
    activate(h, count, activation);
    if (work->gated) {
        amx_row(work, weights, acc + block->width * TILE_CELLS, row, work->layer->panels / 2 + panel, count, other);
#pragma GCC unroll 2
        for (size_t k = 0; k < count; k++)
            h[k] = mul(h[k], other[k]);
    }
    put_row(work, weights, h, count, row, panel * LANES);
    if (weights == INT8_WEIGHTS && work->next && has_outliers(work->next, count, panel * LANES)) {
        float held[2 * LANES];
        for (size_t k = 0; k < count; k++)
            store(held + k * LANES, h[k]);
        note_outliers(work, held, 1, count, row, panel * LANES);
    }
}

/* The epilogue of rows `first` to `last` - 1 of a block that is multiplied. */
INLINE void finish_block(const Gemm *work, Weights weights, Activation activation, const Block *block, size_t first,
                        size_t last) {
    for (size_t r = first; r < last; r++) {
        size_t v = 0;
        for (; v + 2 <= block->width; v += 2)
            finish_panels(work, weights, activation, block, r, v, 2);
        if (v < block->width)
            finish_panels(work, weights, activation, block, r, v, 1);
    }
}

/* Tiles `left` and `right` multiplied into tile `to`: numbers of registers, written out. */
#define MULTIPLY_TILES(weights, to, left, right)                                                                       \
    do {                                                                                                               \
        if ((weights) == BF16_WEIGHTS)                                                                                 \
            _tile_dpbf16ps(to, left, right);                                                                           \
        else                                                                                                           \
            _tile_dpbusd(to, left, right);                                                                             \
    } while (0)

/* block->acc = products of its rows and panels; meanwhile the epilogue of `before`, where there is one. */
INLINE void multiply(const Gemm *work, Weights weights, Activation activation, const Block *block,
                     const Block *before) {
    const Linear *layer = work->layer;
    size_t row_bytes = layer->depth * (weights == BF16_WEIGHTS ? sizeof(uint16_t) : sizeof(uint8_t));
    size_t tiles = row_bytes / TILE_BYTES, panel_bytes = row_bytes * LANES, done = 0;
    const char *rows = weights == BF16_WEIGHTS ? (const char *)work->input->numbers : (const char *)work->input->q;
    const char *a = rows + block->r0 * row_bytes, *below = a + TILE_ROWS * row_bytes;
    const char *b[BLOCK_TILES];
    int two_rows = block->rows > TILE_ROWS;
    for (size_t t = 0; t < BLOCK_TILES; t++) {
        size_t panel = block->p0 + t; /* one that there is: it is multiplied for nobody */
        if (work->gated && t >= block->width)
            panel += layer->panels / 2 - block->width;
        b[t] = (const char *)layer->packed + (t < block->across ? panel : block->p0) * panel_bytes;
    }
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (size_t k = 0; k < tiles; k++) {
        size_t left = k * TILE_BYTES, right = k * TILE_BYTES * LANES;
        _tile_loadd(4, a + left, row_bytes);
        _tile_loadd(6, b[0] + right, TILE_BYTES);
        MULTIPLY_TILES(weights, 0, 4, 6);
        _tile_loadd(7, b[1] + right, TILE_BYTES);
        MULTIPLY_TILES(weights, 1, 4, 7);
        if (two_rows) {
            _tile_loadd(5, below + left, row_bytes);
            MULTIPLY_TILES(weights, 2, 5, 6);
            MULTIPLY_TILES(weights, 3, 5, 7);
        } else if (block->across > 2) {
            _tile_loadd(5, b[2] + right, TILE_BYTES);
            MULTIPLY_TILES(weights, 2, 4, 5);
            _tile_loadd(6, b[3] + right, TILE_BYTES);
            MULTIPLY_TILES(weights, 3, 4, 6);
        }
        if (before) {
            size_t upto = before->rows * (k + 1) / tiles;
            finish_block(work, weights, activation, before, done, upto);
            done = upto;
        }
    }
    /* Tiles in the order of `across`: a lower row's come behind all of the upper one's. */
    _tile_stored(0, block->acc, TILE_BYTES);
    if (block->across > 1)
        _tile_stored(1, block->acc + TILE_CELLS, TILE_BYTES);
    if (two_rows) {
        _tile_stored(2, block->acc + block->across * TILE_CELLS, TILE_BYTES);
        if (block->across > 1)
            _tile_stored(3, block->acc + 3 * TILE_CELLS, TILE_BYTES);
    } else if (block->across > 2) {
        _tile_stored(2, block->acc + 2 * TILE_CELLS, TILE_BYTES);
        _tile_stored(3, block->acc + 3 * TILE_CELLS, TILE_BYTES);
    }
}

/* All rows by the panels of outputs from `first` to `last` - 1. */
INLINE void amx_columns(const Gemm *work, size_t first, size_t last, Weights weights, Activation activation) {
    _Alignas(64) int32_t acc[2][BLOCK_TILES * TILE_CELLS];
    Block blocks[2] = {{.acc = acc[0]}, {.acc = acc[1]}}, *before = NULL;
    size_t now = 0, sides = work->gated ? 2 : 1, both = work->rows;
    if (both % (2 * TILE_ROWS) <= TILE_ROWS)
        both -= both % (2 * TILE_ROWS); /* rows in blocks of 32; at most 16 are left */
    _tile_loadconfig(&tile_config);
    for (size_t step = 0; step < 2; step++) {
        size_t height = step ? TILE_ROWS : 2 * TILE_ROWS, most = (step ? BLOCK_TILES : 2) / sides;
        size_t from = step ? both : 0, to = step ? work->rows : both;
        for (size_t p = first; p < last; p += most)
            for (size_t r = from; r < to; r += height) {
                Block *block = blocks + now;
                size_t width = min_size(most, last - p);
                *block = (Block){r, min_size(height, to - r), p, width, width * sides, block->acc};
                multiply(work, weights, activation, block, before);
                before = block;
                now = !now;
            }
    }
    if (before)
        finish_block(work, weights, activation, before, 0, before->rows);
    _tile_release();
}

INLINE void amx_activated(const Gemm *work, size_t first, size_t last, Weights weights) {
    switch (work->activation) { /* so that each loop has its activation inlined */
    case GELU: amx_columns(work, first, last, weights, GELU); break;
    case GELU_TANH: amx_columns(work, first, last, weights, GELU_TANH); break;
    case SILU: amx_columns(work, first, last, weights, SILU); break;
    case RELU: amx_columns(work, first, last, weights, RELU); break;
    case TANH: amx_columns(work, first, last, weights, TANH); break;
    default: amx_columns(work, first, last, weights, NO_ACTIVATION); break;
    }
}

static void amx_int8_panels(const Gemm *work, size_t first, size_t last) {
    amx_activated(work, first, last, INT8_WEIGHTS);
}
static void amx_bf16_panels(const Gemm *work, size_t first, size_t last) {
    amx_activated(work, first, last, BF16_WEIGHTS);
}

#endif
