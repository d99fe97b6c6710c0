/* The register tile of products in float: FLOAT_MR rows by NR columns of sums, one value of K at a time.
 *
 *     acc[r, n] = fma(a[r, k], b[k, n], acc[r, n])                   k = 0, 1, ..., K - 1
 *
 * Every sum is one chain of fused multiply-adds in the order of k, whatever the tile: the same bits on all instruction
 * sets, and from any number of rows.
 */
#ifndef FASTEMBED_RT_FLOAT_TILES_H
#define FASTEMBED_RT_FLOAT_TILES_H

#include "epilogue.h"

/* Rows and panels of a tile, 3 or 1 as in tiles.h: 24 sums of 32 registers, 12 of 16. */
#if defined(__AVX512F__)
enum { FLOAT_MR = 8 };
#define FLOAT_TILES(X)                                                                                                 \
    X(1, 1) X(2, 1) X(3, 1) X(4, 1) X(5, 1) X(6, 1) X(7, 1) X(8, 1)                                                    \
    X(1, 2) X(2, 2) X(3, 2) X(4, 2) X(5, 2) X(6, 2) X(7, 2) X(8, 2)                                                    \
    X(1, 3) X(2, 3) X(3, 3) X(4, 3) X(5, 3) X(6, 3) X(7, 3) X(8, 3)
#else
enum { FLOAT_MR = 6 };
#define FLOAT_TILES(X) X(1, 1) X(2, 1) X(3, 1) X(4, 1) X(5, 1) X(6, 1)
#endif

_Static_assert((int)FLOAT_MR <= (int)MOST_ROWS, "a tile has room for its rows");

/* What is done with weights as they are packed: they are put where they lie, or compared with what is there. */
INLINE int copy_packed(void *packed, const void *weight, size_t bytes) {
    memcpy(packed, weight, bytes);
    return 0;
}

INLINE int differs(void *packed, const void *weight, size_t bytes) { return memcmp(packed, weight, bytes); }

/* How far in floats it is to the next row of `a`, the next k of it; the next k of `b`, the next 16 columns of it. */
typedef struct {
    size_t row, k, next_k, next_panel;
} TileSteps;

/* Sums of a tile, before the first product. */
INLINE void zero_sums(size_t mr, size_t vectors, Floats *acc) {
#pragma GCC unroll 8
    for (size_t r = 0; r < mr; r++)
#pragma GCC unroll 3
        for (size_t v = 0; v < vectors; v++)
            acc[r * VECTORS + v] = broadcast(0.0f);
}

/* Those of a layer's outputs from `column` on, and their biases -> to. */
INLINE void store_outputs(size_t mr, size_t vectors, const Linear *layer, size_t column, const Floats *acc, float *to,
                          Strides strides) {
#pragma GCC unroll 3
    for (size_t v = 0; v < vectors; v++) {
        Floats bias = load(layer->bias + column + v * LANES);
        float *at = to + v * strides.panel;
#pragma GCC unroll 8
        for (size_t r = 0; r < mr; r++, at += strides.row)
            store(at, add(acc[r * VECTORS + v], bias));
    }
}

/* `a` may be at any address. Adds `count` products to each of acc[r * VECTORS + v], r < mr <= FLOAT_MR and v < vectors <= VECTORS, both constants.
 * `ahead`: b is prefetched so many bytes before it is read, past its end what lies behind it; 0: it is near. */
INLINE void float_tile(size_t mr, size_t vectors, const float *a, const float *b, TileSteps steps, size_t count,
                       size_t ahead, Floats *acc) {
    for (size_t k = 0; k < count; k++, a += steps.k, b += steps.next_k) {
        Floats right[VECTORS];
#pragma GCC unroll 3
        for (size_t v = 0; v < vectors; v++) {
            right[v] = load(b + v * steps.next_panel);
            if (ahead)
                __builtin_prefetch((const char *)(b + v * steps.next_panel) + ahead);
        }
#pragma GCC unroll 8
        for (size_t r = 0; r < mr; r++) {
            Floats left = broadcast(float_at(a, r * steps.row));
#pragma GCC unroll 3
            for (size_t v = 0; v < vectors; v++)
                acc[r * VECTORS + v] = fma16(left, right[v], acc[r * VECTORS + v]);
        }
    }
}

#endif
