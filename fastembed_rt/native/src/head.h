/* A head of attention in int16: its arrays, and query, key and value on their way into them.
 *
 *     q[i, d] = round(query[i, d] * qk_limit / max_d |query[i, d]|)       round: half to even
 *     k[j, d] = round(key[j, d] * qk_limit / max |key|)                   value likewise with V_LIMIT
 *
 * Scores are q @ k_panels and the output p @ v_panels, tiles of int16 (tiles.h): what is a column there is a key or a
 * channel here. Longer texts are multiplied in AMX tiles where there are some (amx_attention.h): their keys and values
 * lie in planes instead.
 */
#ifndef FASTEMBED_RT_HEAD_H
#define FASTEMBED_RT_HEAD_H

#include "texts.h"
#include "support.h"
#include "tiles.h"

enum {
    QUERY_BLOCK = 48, /* queries that pass a block of keys while it is in the first caches: a multiple of each MR */
    ATTEND_ROWS = TILE_PRODUCTS ? 16 : MR /* queries of a tile, at most */
};
static const float V_LIMIT = 32767.0f;
static const float FAR = 96.0f;              /* from 0, up to which scores are powers of 2 without further care */
static const float SMALLEST_MAX = 0x1p-112f; /* what is divided by: 32767 / it is still a number */

/* A head of a text under work: keys and values, which tasks of a long text share, and a task's own rows. Rows are
 * queries: `q`, `mixed` and what is known of each row have QUERY_BLOCK of them, scores and p those of a tile. */
typedef struct {
    size_t length, size;    /* keys, channels (D); */
    size_t keys, depth;     /* and both rounded up to whole vectors */
    const float *value;     /* (length, value_stride), */
    size_t value_stride;
    size_t panel_stride;    /* and how far 16 channels of it, of keys and of queries are from the 16 before */
    float k_unit, v_unit;   /* what a step of k and of v is worth */
    float spread;           /* what is added to scores by distance, at most; infinite: `far` is to be all rows */
    uint64_t far;           /* a bit a row: a score of it may be farther from 0 than FAR */
    struct Planes *planes;  /* of AMX tiles; NULL: k_panels and v_panels */
    /* Keys and values: */
    float *k_most;          /* [depth] the largest of each channel, without its sign */
    int16_t *k_panels;      /* [keys / LANES][depth / KR_S16][LANES][KR_S16] */
    int16_t *v_panels;      /* of each block: [depth / LANES][keys of it / KR_S16][LANES][KR_S16] */
    int16_t *staged;        /* [STAGED][depth] on their way into panels */
    /* Rows: */
    int16_t *q;             /* [rows][depth] */
    int16_t *p;             /* [of a tile][KEY_BLOCK] */
    float *scores;          /* [of a tile][KEY_BLOCK] */
    float *mixed;           /* [rows][depth] */
    /* [rows], each with LANES behind them that may be read: */
    float *units;           /* what a product of q and k adds to a score, */
    float *tops;            /* the largest score so far, */
    float *wholes;          /* and the sum of all shares so far */
} Head;

enum {
    ROW_FLOATS = QUERY_BLOCK + LANES,
    STAGED = TILE_PRODUCTS ? 4 : 2 /* keys of a step of K, at most */
};

/* Memory of both parts, whole lines of 64 bytes; keys and values without panels where they lie in planes. */
static size_t keys_bytes(size_t in_panels, size_t depth) {
    return depth * sizeof(float) + (2 * in_panels + STAGED) * depth * sizeof(int16_t);
}
static size_t rows_bytes(size_t tile_rows, size_t depth) {
    return (QUERY_BLOCK * depth + tile_rows * KEY_BLOCK) * (sizeof(int16_t) + sizeof(float)) +
           3 * ROW_FLOATS * sizeof(float);
}

static void lay_out_keys(Head *head, void *memory, size_t in_panels) {
    head->k_most = memory;
    head->staged = (int16_t *)(head->k_most + head->depth);
    head->k_panels = head->staged + STAGED * head->depth;
    head->v_panels = head->k_panels + in_panels * head->depth;
}

static void lay_out_rows(Head *head, void *memory, size_t tile_rows) {
    head->scores = memory;
    head->mixed = head->scores + tile_rows * KEY_BLOCK;
    head->units = head->mixed + QUERY_BLOCK * head->depth;
    head->tops = head->units + ROW_FLOATS;
    head->wholes = head->tops + ROW_FLOATS;
    head->p = (int16_t *)(head->wholes + ROW_FLOATS);
    head->q = head->p + tile_rows * KEY_BLOCK;
}

/* max |x| of each channel of x (rows, size), rows `stride` apart and 16 channels `panel_stride`; SMALLEST_MAX at
 * least. Returns that of all; `channels` may be NULL. */
INLINE float absolute_max(const float *x, size_t stride, size_t rows, size_t size, size_t panel_stride,
                          float *channels) {
    Floats all = broadcast(SMALLEST_MAX);
    for (size_t k = 0; k < size; k += LANES, x += panel_stride) {
        Floats most = broadcast(SMALLEST_MAX);
        if (k + LANES <= size)
            for (size_t r = 0; r < rows; r++)
                most = maximum(most, absolute(load(x + r * stride)));
        else
            for (size_t r = 0; r < rows; r++)
                most = maximum(most, absolute(load_first(x + r * stride, size - k)));
        if (channels)
            store(channels + k, most);
        all = maximum(all, most);
    }
    return reduce_max(all);
}

/* Largest int16 whose products of two, summed `size` times, stay within int32. */
static float qk_limit(size_t size) {
    float limit = __builtin_floorf(__builtin_sqrtf(2147483000.0f / (float)size)) - 1.0f;
    return limit < 32767.0f ? limit : 32767.0f;
}

/* What reduce_rows_add and reduce_rows_max give for the rows of a tile, of which there may be more than those take. */
#define DEFINE_REDUCE_TILE(name, reduce_rows)                                                                          \
    INLINE Floats name(const Floats *rows, size_t n) {                                                                 \
        enum { MOST = 8 };                                                                                             \
        float held[MOST + LANES];                                                                                      \
        if ((int)ATTEND_ROWS <= (int)MOST || n <= MOST)                                                              \
            return reduce_rows(rows, n);                                                                               \
        store(held, reduce_rows(rows, MOST));                                                                          \
        store(held + MOST, reduce_rows(rows + MOST, n - MOST));                                                        \
        return load(held);                                                                                             \
    }
DEFINE_REDUCE_TILE(reduce_tile_add, reduce_rows_add)
DEFINE_REDUCE_TILE(reduce_tile_max, reduce_rows_max)
#undef DEFINE_REDUCE_TILE

/* to[k] = round(x[k] * factor), k < size, half to even; zeros up to whole vectors. */
INLINE void quantize_s16(const float *x, size_t size, size_t panel_stride, float factor, int16_t *to) {
    size_t k = 0;
    for (; k + LANES <= size; k += LANES, x += panel_stride)
        store_shorts(to + k, round_to_ints(mul(load(x), broadcast(factor))));
    if (k < size)
        store_shorts(to + k, round_to_ints(mul(load_first(x, size - k), broadcast(factor))));
}

/* Rows of queries f32 -> q, and what is known of each before the first key. `scale` is that of the scores, which are
 * logarithms to base 2 here. */
NOINLINE void begin_rows(Head *head, const float *query, size_t stride, size_t rows, float scale, float lowest) {
    size_t size = head->size;
    float limit = qk_limit(size), unit = head->k_unit * scale;
    head->far = 0;
    for (size_t r = 0; r < rows; r += MR) {
        size_t here = min_size(MR, rows - r);
        Floats most[MR], products[MR];
        for (size_t k = 0; k < here; k++) {
            const float *x = query + (r + k) * stride;
            most[k] = broadcast(SMALLEST_MAX);
            products[k] = broadcast(0.0f);
            for (size_t d = 0; d < size; d += LANES, x += head->panel_stride) {
                Floats q = absolute(load_first(x, size - d));
                most[k] = maximum(most[k], q);
                products[k] = fma16(q, load(head->k_most + d), products[k]);
            }
        }
        _Alignas(64) float factors[LANES];
        Floats row_most = reduce_rows_max(most, here);
        store(factors, divide(broadcast(limit), row_most));
        store_first(head->units + r, mul(divide(row_most, broadcast(limit)), broadcast(unit)), here);
        /* No score is farther from 0 than the sum of each channel's largest products. */
        Floats bound = fma16(reduce_rows_add(products, here), broadcast(__builtin_fabsf(scale)), broadcast(head->spread));
        bound = choose_above(broadcast(FAR), bound, bound, broadcast(2 * FAR)); /* of NaN, too */
        head->far |= (uint64_t)lanes_outside(bound, broadcast(0.0f), broadcast(FAR)) << r;
        for (size_t k = 0; k < here; k++)
            quantize_s16(query + (r + k) * stride, size, head->panel_stride, factors[k],
                         head->q + (r + k) * head->depth);
    }
    for (size_t r = 0; r < rows; r++) {
        head->tops[r] = lowest;
        head->wholes[r] = 0.0f;
    }
    memset(head->mixed, 0, rows * head->depth * sizeof(float));
}

/* key (length, stride) f32 -> k_panels: a key is a column, and K its channels. */
NOINLINE void pack_keys(const Head *head, const float *key, size_t stride, float factor) {
    size_t depth = head->depth, size = head->size, length = head->length;
    int16_t *staged = head->staged;
    if (length < head->keys)
        memset(head->k_panels + (head->keys - LANES) * depth, 0, LANES * depth * sizeof(int16_t));
    for (size_t k = 0; k < length; k++) {
        int16_t *panel = head->k_panels + k / LANES * depth * LANES + k % LANES * KR_S16;
        quantize_s16(key + k * stride, size, head->panel_stride, factor, staged);
        for (size_t d = 0; d < depth; d += LANES, panel += LANES * LANES)
            for (size_t step = 0; step < LANES / KR_S16; step++)
                memcpy(panel + step * LANES * KR_S16, staged + d + step * KR_S16, KR_S16 * sizeof(int16_t));
    }
}

/* value (length, stride) f32 -> v_panels: a channel is a column, and K the keys of a block, KR_S16 a step. */
NOINLINE void pack_values(const Head *head, float factor) {
    size_t depth = head->depth, size = head->size, length = head->length, stride = head->value_stride;
    const float *value = head->value;
    int16_t *staged = head->staged;
    for (size_t k = 0; k < head->keys; k += KR_S16) {
        size_t first = k / KEY_BLOCK * KEY_BLOCK, width = min_size(KEY_BLOCK, head->keys - first);
        int16_t *panel = head->v_panels + first * depth + (k - first) * LANES;
        for (size_t j = 0; j < KR_S16; j++)
            if (k + j < length)
                quantize_s16(value + (k + j) * stride, size, head->panel_stride, factor, staged + j * depth);
            else
                memset(staged + j * depth, 0, depth * sizeof(int16_t));
        for (size_t d = 0; d < depth; d += LANES)
            store_step_s16(panel + d * width, staged + d, depth);
    }
}

#endif
