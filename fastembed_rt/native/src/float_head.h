/* A head of a text in float, and the tile that makes scores of it: what fp32_attention.h and relative.h share. */
#ifndef FASTEMBED_RT_FLOAT_HEAD_H
#define FASTEMBED_RT_FLOAT_HEAD_H

#include "float_tiles.h"
#include "texts.h"

enum { SIDE_QUERIES = VECTORS * LANES /* that pass a block of keys together */ };

/* A head of a text under work. */
typedef struct {
    const float *key, *value; /* of its first token */
    const float *bias;        /* log2 e * by_distance of a key i tokens before the query, for -length < i; NULL for none */
    size_t length, width;     /* keys; queries of a block, whole vectors */
    float *q;                 /* [size][width] */
    float *e;                 /* [keys of a block][width] scores, then powers of 2 */
    float *mixed;             /* [size][width] */
    Relative relative;        /* the head's own part of the tables */
    float *met;               /* [rows][width], then [FLOAT_MR][MET_COLUMNS]; NULL where there are no tables */
} FloatHead;

/* How far in floats it is, and how many channels there are. */
typedef struct {
    size_t size;       /* channels */
    size_t row, panel; /* on the left: to the next row, and to the next 16 channels of it */
    size_t next;       /* on the right: to the next channel */
    size_t to;         /* to the next row of what comes out */
} ScoreSteps;

/* to[r, n] = left[r] . right[:, n] of mr rows, whose channels lie in panels of 16. */
INLINE void float_score_tile(size_t mr, size_t vectors, const ScoreSteps *steps, const float *left, const float *right,
                             float *to) {
    Floats acc[FLOAT_MR * VECTORS];
    zero_sums(mr, vectors, acc);
    for (size_t d = 0; d < steps->size; d += LANES, left += steps->panel, right += LANES * steps->next)
        float_tile(mr, vectors, left, right, (TileSteps){steps->row, 1, steps->next, LANES},
                   min_size(LANES, steps->size - d), 0, acc);
#pragma GCC unroll 8
    for (size_t r = 0; r < mr; r++)
#pragma GCC unroll 3
        for (size_t v = 0; v < vectors; v++)
            store(to + r * steps->to + v * LANES, acc[r * VECTORS + v]);
}

typedef void FloatScoreTile(const ScoreSteps *steps, const float *left, const float *right, float *to);

#define DEFINE_FLOAT_SCORE_TILE(mr, vectors)                                                                           \
    static void float_score_##mr##x##vectors(const ScoreSteps *steps, const float *left, const float *right,           \
                                             float *to) {                                                              \
        float_score_tile(mr, vectors, steps, left, right, to);                                                         \
    }
#define FLOAT_SCORE_ENTRY(mr, vectors) [mr - 1][vectors - 1] = float_score_##mr##x##vectors,

FLOAT_TILES(DEFINE_FLOAT_SCORE_TILE)

static FloatScoreTile *const float_score_tiles[FLOAT_MR][VECTORS] = {FLOAT_TILES(FLOAT_SCORE_ENTRY)};

#endif
