/* Attention of packed texts in float, without a matrix of all scores.
 *
 *     s[j, i] = sum_d key[j, d] * (query[i, d] * scale * log2 e) + log2 e * by_distance[j - i], and what relative.h adds;
 *               the sum may be capped first (cap.h)
 *     output[i, d] = sum_j 2^(s[j, i] - max_j s[j, i]) * value[j, d] / sum_j 2^(s[j, i] - max_j s[j, i])
 *
 * Queries lie side by side in the lanes, so that keys and values are read where they are and sums of a softmax are vectors.
 * Keys are taken in blocks of KEY_BLOCK: what the blocks before have added is multiplied by how much the largest score has
 * grown (Milakov and Gimelshein 2018, arXiv:1805.02867). A lane knows nothing of the others, and every sum has one order:
 * a query's result depends on no other text, and on no tile. Values are numbers up to FLT_MAX / their count for that: one
 * that is none may reach queries of its text that do not see it, as many as a tile has.
 */
#ifndef FASTEMBED_RT_FP32_ATTENTION_H
#define FASTEMBED_RT_FP32_ATTENTION_H

#include <float.h>

#include "cap.h"
#include "relative.h"
#include "scratch.h"

enum { TASK_SIDES = 192 / SIDE_QUERIES /* blocks of queries of a task, at most */ };
#define LOWEST (-FLT_MAX)              /* of the largest score, before the first key */
#define NOT_SEEN (-__builtin_inff())   /* score of a key that a query does not see */

/* 2^x for -126 <= x <= 0, relative error below 2e-7; 1 of 0, 0 of -127 and below, NaN of NaN (which x86's maximum has to
 * get second). A polynomial fitted to the least largest relative error on half a step around a whole number, which goes into
 * the exponent. */
INLINE Floats fine_power_of_two(Floats x) {
    const Floats shift = broadcast(0x1.8p23f); /* added, it leaves the whole part in the last bits */
    x = maximum(broadcast(-127.0f), x);
    Floats shifted = add(x, shift), rest = sub(x, sub(shifted, shift));
    Floats p = fma16(broadcast(0.0013264726891545461f), rest, broadcast(0.00967151291016428f));
    p = fma16(p, rest, broadcast(0.055507337465881955f));
    p = fma16(p, rest, broadcast(0.24022242081006898f));
    p = fma16(p, rest, broadcast(0.6931469775957922f));
    p = fma16(p, rest, broadcast(1.0f));
    Floats power = as_floats(add_ints(as_ints(p), shift_left(as_ints(shifted), 23)));
    return fma16(rest, broadcast(0.0f), power); /* whose sum may have made a number of a NaN */
}

/* ---- tiles ------------------------------------------------------------------------------------------------------ */

/* mixed[d] = mixed[d] * decay + sum_j e[j] * value[j, d] of mr channels and `keys` keys. */
INLINE void float_mix_tile(size_t mr, size_t vectors, const float *value, size_t stride, const float *e, size_t keys,
                           const float *decay, float *mixed) {
    const size_t width = vectors * LANES;
    Floats acc[FLOAT_MR * VECTORS];
#pragma GCC unroll 8
    for (size_t r = 0; r < mr; r++)
#pragma GCC unroll 3
        for (size_t v = 0; v < vectors; v++)
            acc[r * VECTORS + v] = mul(load(mixed + r * width + v * LANES), load(decay + v * LANES));
    float_tile(mr, vectors, value, e, (TileSteps){1, stride, width, LANES}, keys, 0, acc);
#pragma GCC unroll 8
    for (size_t r = 0; r < mr; r++)
#pragma GCC unroll 3
        for (size_t v = 0; v < vectors; v++)
            store(mixed + r * width + v * LANES, acc[r * VECTORS + v]);
}

typedef void FloatMixTile(const float *value, size_t stride, const float *e, size_t keys, const float *decay,
                          float *mixed);

#define DEFINE_FLOAT_MIX_TILE(mr, vectors)                                                                      \
    static void float_mix_##mr##x##vectors(const float *value, size_t stride, const float *e, size_t keys,             \
                                           const float *decay, float *mixed) {                                         \
        float_mix_tile(mr, vectors, value, stride, e, keys, decay, mixed);                                             \
    }
#define FLOAT_MIX_ENTRY(mr, vectors) [mr - 1][vectors - 1] = float_mix_##mr##x##vectors,

FLOAT_TILES(DEFINE_FLOAT_MIX_TILE)

static FloatMixTile *const float_mix_tiles[FLOAT_MR][VECTORS] = {FLOAT_TILES(FLOAT_MIX_ENTRY)};

/* ---- a block of queries and a block of keys ---------------------------------------------------------------------- */

/* Scores of the keys `first` to `last` - 1 for the queries from `i` on: what is added to them, and what is not seen. */
static void adjust(const Attention *work, const FloatHead *head, size_t i, size_t first, size_t last, int all) {
    float numbers[LANES];
    for (size_t k = 0; k < LANES; k++)
        numbers[k] = (float)k;
    for (size_t v = 0; v < head->width; v += LANES) {
        for (size_t j = first; j < last; j++) {
            Floats behind = add(load(numbers), broadcast((float)((int64_t)(i + v) - (int64_t)j))); /* the key */
            float *at = head->e + (j - first) * head->width + v;
            Floats s = load(at);
            if (head->bias)
                s = add(s, load(head->bias + i + v - j));
            if (!all && work->before >= 0)
                s = choose_above(behind, broadcast((float)work->before), broadcast(NOT_SEEN), s);
            if (!all && work->after >= 0)
                s = choose_above(broadcast(-(float)work->after), behind, broadcast(NOT_SEEN), s);
            store(at, s);
        }
    }
}

/* What a block of queries has so far, a number a query. */
typedef struct {
    _Alignas(64) float tops[SIDE_QUERIES], wholes[SIDE_QUERIES], decay[SIDE_QUERIES];
} SideBySide;

/* e of `keys` keys: scores -> powers of 2, and what they do to the sums. */
static void power_rows(const FloatHead *head, size_t keys, SideBySide *so_far) {
    size_t width = head->width;
    for (size_t v = 0; v < width; v += LANES) {
        float *e = head->e + v;
        Floats before = load(so_far->tops + v), top = before, sum = broadcast(0.0f);
        for (size_t j = 0; j < keys; j++)
            top = maximum(load(e + j * width), top); /* what is no number is left to the power */
        for (size_t j = 0; j < keys; j++) {
            Floats x = fine_power_of_two(sub(load(e + j * width), top));
            store(e + j * width, x);
            sum = add(sum, x);
        }
        Floats decay = fine_power_of_two(sub(before, top));
        store(so_far->tops + v, top);
        store(so_far->decay + v, decay);
        store(so_far->wholes + v, fma16(load(so_far->wholes + v), decay, sum));
    }
}

/* Queries `i` to `i` + rows - 1 of head `number`, rows <= head->width, the first of which is at `query`. */
static void attend_side(const Attention *work, const FloatHead *head, size_t i, size_t rows, const float *query,
                        float *output) {
    size_t size = work->size, width = head->width, vectors = width / LANES;
    const ScoreSteps steps = {size, work->key_stride, work->panel_stride, width, width};
    SideBySide so_far;
    float scale = work->scale * LOG2_E;
    for (size_t d = 0; d < size; d++) {
        const float *channel = query + d / LANES * work->panel_stride + d % LANES;
        float *q = head->q + d * width;
        for (size_t r = 0; r < rows; r++)
            q[r] = channel[r * work->query_stride] * scale;
        for (size_t r = rows; r < width; r++)
            q[r] = 0.0f;
    }
    memset(head->mixed, 0, size * width * sizeof(float));
    for (size_t v = 0; v < width; v += LANES) {
        store(so_far.tops + v, broadcast(LOWEST));
        store(so_far.wholes + v, broadcast(0.0f));
    }
    size_t from = work->before >= 0 && i > (size_t)work->before ? i - (size_t)work->before : 0;
    size_t to = work->after >= 0 ? min_size(head->length, i + rows + (size_t)work->after) : head->length;
    for (size_t block = from / KEY_BLOCK * KEY_BLOCK; block < to; block += KEY_BLOCK) {
        size_t first = block > from ? block : from, last = min_size(to, block + KEY_BLOCK), keys = last - first;
        for (size_t j = 0; j < keys; j += FLOAT_MR)
            float_score_tiles[min_size(FLOAT_MR, keys - j) - 1][vectors - 1](
                &steps, head->key + (first + j) * work->key_stride, head->q, head->e + j * width);
        if (work->cap > 0.0f)
            keep_within(work->cap, head->e, keys * width);
        if (head->met)
            meet_distances(work, head, i, rows, first, last);
        int all = (work->before < 0 || first + (size_t)work->before + 1 >= i + rows) &&
                  (work->after < 0 || last <= i + (size_t)work->after + 1);
        if (head->bias || !all)
            adjust(work, head, i, first, last, all);
        power_rows(head, keys, &so_far);
        for (size_t d = 0, mr; d < size; d += mr) {
            mr = min_size(FLOAT_MR, min_size(LANES - d % LANES, size - d));
            const float *value = head->value + first * work->value_stride + d / LANES * work->panel_stride + d % LANES;
            float_mix_tiles[mr - 1][vectors - 1](value, work->value_stride, head->e, keys, so_far.decay,
                                                 head->mixed + d * width);
        }
    }
    for (size_t d = 0; d < size; d++) {
        float *mixed = head->mixed + d * width;
        for (size_t v = 0; v < width; v += LANES) /* 0 added: what is too small to be held is 0 without a sign */
            store(mixed + v, add(divide(load(mixed + v), load(so_far.wholes + v)), broadcast(0.0f)));
        for (size_t r = 0; r < rows; r++)
            output[r * work->output_stride + d] = mixed[r];
    }
}

/* ---- tasks ------------------------------------------------------------------------------------------------------ */

/* A text: parts of the queries of each of its heads. */
typedef struct {
    const Attention *work;
    size_t text, parts;
} FloatText;

static size_t parts_of(const Attention *work, size_t text) {
    enum { PART = TASK_SIDES * SIDE_QUERIES };
    return (queries_of(work, text) + PART - 1) / PART;
}

static void float_task(void *argument, size_t index) {
    const FloatText *one = argument;
    const Attention *work = one->work;
    size_t number = index / one->parts, first = index % one->parts * TASK_SIDES * SIDE_QUERIES;
    size_t queries = queries_of(work, one->text), last = min_size(queries, first + TASK_SIDES * SIDE_QUERIES);
    size_t start = (size_t)work->starts[one->text], row = work->first_only ? one->text : start;
    size_t kv_number = number / (work->heads / work->kv_heads), length = keys_of(work, one->text);
    size_t width = min_size(SIDE_QUERIES, round_up(last - first, LANES)), channels = work->size * width;
    /* Keys behind and before a query, and lanes beyond the last one. */
    size_t biases = work->by_distance ? 2 * length + SIDE_QUERIES : 0, scores = min_size(KEY_BLOCK, length) * width;
    size_t floats = 2 * channels + scores + met_floats(work, length, width) + biases;
    _Alignas(64) float near[ON_STACK / sizeof(float)]; /* of short texts, for which an allocation takes long */
    float *memory = floats <= ON_STACK / sizeof(float) ? near : allocate_scratch(floats * sizeof(float));
    if (!memory) {
        fail(work);
        return;
    }
    FloatHead head = {
        .key = work->key + start * work->key_stride + kv_number * work->head_stride,
        .value = work->value + start * work->value_stride + kv_number * work->head_stride,
        .length = length, .width = width, .q = memory, .mixed = memory + channels, .e = memory + 2 * channels,
    };
    if (work->relative.row)
        begin_distances(work, &head, number, head.e + scores);
    if (biases) {
        const float *bias = bias_of(work, number);
        float *reversed = memory + floats - biases;
        for (size_t k = 0; k < biases; k++)
            reversed[k] = k + 1 < 2 * length ? bias[(int64_t)length - 1 - (int64_t)k] * LOG2_E : 0.0f;
        head.bias = reversed + length - 1;
    }
    const float *query = work->query + row * work->query_stride + number * work->head_stride;
    float *output = work->output + row * work->output_stride + number * work->size;
    for (size_t i = first; i < last; i += width)
        attend_side(work, &head, i, min_size(width, last - i), query + i * work->query_stride,
                    output + i * work->output_stride);
    if (memory != near)
        free_scratch(memory);
}

/* A head of a text of one part. */
static void float_whole_task(void *argument, size_t index) {
    const Attention *work = argument;
    FloatText one = {work, index / work->heads, 1};
    if (parts_of(work, one.text) == 1)
        float_task(&one, index % work->heads);
}

static void fp32_attention(const Attention *work, const Pool *pool) {
    int whole = 0;
    for (size_t text = 0; text < work->texts; text++) {
        FloatText one = {work, text, parts_of(work, text)};
        if (one.parts > 1)
            pool->run(pool, float_task, &one, work->heads * one.parts);
        else
            whole = 1;
    }
    if (whole)
        pool->run(pool, float_whole_task, (void *)work, work->texts * work->heads);
}

#endif
