/* Scores that distances between tokens take part in, as DeBERTa's do: He et al. 2020, arXiv:2006.03654.
 *
 *     s[j, i] += query[i] . c2p[row] + log2 e * key[j] . p2c[row]        row: that of the distance i - j
 *
 * Rows rise with the distance, by one or not at all: one at a time near the token, fewer farther away where distances
 * share them. So a block of queries and a block of keys meet rows that follow one another, and products of these with
 * all of the queries, or all of the keys, are a tile's. What comes out lies by rows; where each distance has its own, it
 * is moved to the pairs by whole vectors, else number by number. The same sums in the same order either way.
 */
#ifndef FASTEMBED_RT_RELATIVE_H
#define FASTEMBED_RT_RELATIVE_H

#include "float_head.h"

enum {
    MET_COLUMNS = (SIDE_QUERIES + FLOAT_MR + LANES - 1) / LANES * LANES /* rows that they and a tile's keys meet, at most */
};

/* ---- from rows to pairs ------------------------------------------------------------------------------------------ */

/* Which rows some pairs meet. */
typedef struct {
    const int32_t *of; /* the row of a distance, at [distance] */
    size_t first, count;
    int each;          /* each distance has its own, also those of lanes beyond the last query */
} Rows;

/* Those of the distances `least` to `most`; to `known`, where not each has its own. */
INLINE Rows rows_between(const Attention *work, int64_t least, int64_t most, int64_t known) {
    const Relative *relative = &work->relative;
    Rows rows = {.of = relative->row + work->reach - 1, .each = least >= relative->first && most <= relative->last};
    rows.first = (size_t)rows.of[least];
    rows.count = (size_t)rows.of[rows.each ? most : known] - rows.first + 1;
    return rows;
}

/* x[l], but x[l + step * stride] in the lanes whose number has the bit `step`. */
INLINE Floats step_down(const float *x, size_t step, size_t stride, Floats has_bit) {
    return choose_above(has_bit, broadcast(0.5f), load(x + step * stride), load(x));
}

/* e[keys - 1 - r, l] += met[r + l, l] of all lanes: met is moved down by a lane's number, a bit of it at a time. */
static void add_moved(float *met, size_t keys, size_t width, float *e) {
    _Alignas(64) static const float bits[4][LANES] = {
        {0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1},
        {0, 0, 1, 1, 0, 0, 1, 1, 0, 0, 1, 1, 0, 0, 1, 1},
        {0, 0, 0, 0, 1, 1, 1, 1, 0, 0, 0, 0, 1, 1, 1, 1},
        {0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1},
    };
    for (size_t v = 0; v < width; v += LANES) {
        float *x = met + v * width + v;
        size_t rows = keys + LANES - 1;
        for (size_t bit = 0; bit < 3; bit++) {
            Floats has_bit = load(bits[bit]);
            rows -= (size_t)1 << bit;
            for (size_t r = 0; r < rows; r++)
                store(x + r * width, step_down(x + r * width, (size_t)1 << bit, width, has_bit));
        }
        Floats has_bit = load(bits[3]);
        for (size_t r = 0; r < keys; r++) {
            float *at = e + (keys - 1 - r) * width + v;
            store(at, add(load(at), step_down(x + r * width, 8, width, has_bit)));
        }
    }
}

/* Queries `i` to `i` + queries - 1 meet the rows of their distances to the keys `first` to `last` - 1. */
static void add_c2p(const Attention *work, const FloatHead *head, size_t i, size_t queries, size_t first, size_t last) {
    size_t width = head->width, keys = last - first;
    int64_t least = (int64_t)i - (int64_t)last + 1, most = (int64_t)i - (int64_t)first;
    Rows rows = rows_between(work, least, most + (int64_t)width - 1, most + (int64_t)queries - 1);
    const ScoreSteps steps = {work->size, head->relative.width, LANES, width, width};
    for (size_t r = 0; r < rows.count; r += FLOAT_MR)
        float_score_tiles[min_size(FLOAT_MR, rows.count - r) - 1][width / LANES - 1](
            &steps, head->relative.c2p + (rows.first + r) * steps.row, head->q, head->met + r * width);
    if (rows.each) {
        add_moved(head->met, keys, width, head->e);
        return;
    }
    for (size_t j = first; j < last; j++) {
        const int32_t *row = rows.of + ((int64_t)i - (int64_t)j);
        float *e = head->e + (j - first) * width;
        for (size_t l = 0; l < queries; l++)
            e[l] += head->met[((size_t)row[l] - rows.first) * width + l];
    }
}

/* Keys `first` to `last` - 1 meet those of their distances to the queries. */
static void add_p2c(const Attention *work, const FloatHead *head, size_t i, size_t queries, size_t first, size_t last) {
    size_t width = head->width, columns = head->relative.columns;
    const ScoreSteps steps = {work->size, work->key_stride, work->panel_stride, columns, MET_COLUMNS};
    for (size_t j0 = first, mr; j0 < last; j0 += mr) {
        mr = min_size(FLOAT_MR, last - j0);
        int64_t least = (int64_t)i - (int64_t)(j0 + mr) + 1, most = (int64_t)i - (int64_t)j0;
        Rows rows = rows_between(work, least, most + (int64_t)width - 1, most + (int64_t)queries - 1);
        size_t wide = round_up(rows.count, LANES), start = min_size(rows.first, columns - wide);
        for (size_t c = 0, vectors; c < wide; c += vectors * LANES) {
            vectors = min_size(VECTORS, (wide - c) / LANES);
            float_score_tiles[mr - 1][vectors - 1](&steps, head->key + j0 * work->key_stride,
                                                   head->relative.p2c + start + c, head->met + c);
        }
        for (size_t r = 0; r < mr; r++) {
            const int32_t *row = rows.of + ((int64_t)i - (int64_t)(j0 + r));
            const float *met = head->met + r * MET_COLUMNS;
            float *e = head->e + (j0 + r - first) * width;
            if (rows.each)
                for (size_t v = 0; v < width; v += LANES)
                    store(e + v, add(load(e + v), mul(load(met + ((size_t)row[0] - start) + v), broadcast(LOG2_E))));
            else
                for (size_t l = 0; l < queries; l++)
                    e[l] += met[(size_t)row[l] - start] * LOG2_E;
        }
    }
}

/* Adds both to the scores. */
static void meet_distances(const Attention *work, const FloatHead *head, size_t i, size_t queries, size_t first,
                           size_t last) {
    if (head->relative.c2p)
        add_c2p(work, head, i, queries, first, last);
    if (head->relative.p2c)
        add_p2c(work, head, i, queries, first, last);
}

/* ---- a head ------------------------------------------------------------------------------------------------------ */

/* The tables from a channel on. */
INLINE Relative of_head(const Relative *all, size_t channel) {
    Relative own = *all;
    own.c2p = all->c2p ? all->c2p + channel : NULL;
    own.p2c = all->p2c ? all->p2c + channel * all->columns : NULL;
    return own;
}

/* Floats of `met`. */
INLINE size_t met_floats(const Attention *work, size_t length, size_t width) {
    size_t by_rows = (min_size(KEY_BLOCK, length) + width) * width, by_keys = FLOAT_MR * MET_COLUMNS;
    if (!work->relative.row)
        return 0;
    return by_rows > by_keys ? by_rows : by_keys;
}

INLINE void begin_distances(const Attention *work, FloatHead *head, size_t number, float *met) {
    head->relative = of_head(&work->relative, number * work->size);
    head->met = met;
}

#endif
