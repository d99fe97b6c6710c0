/* Attention of packed texts, without a matrix of all scores. A task is a head of a text; of a long text, a head's keys
 * and values are packed by one task and read by several.
 *
 *     s[i, j] = scale * sum_d query[i, d] * key[j, d] + by_distance[j - i]   -1e30 where query i does not see key j;
 *                                                                            the product may be capped (cap.h)
 *     p[i, j] = exp(s[i, j] - max_j s[i, j]) / sum_j exp(s[i, j] - max_j s[i, j])
 *     output[i, d] = sum_j p[i, j] * value[j, d]
 *
 * Both products are tiles of int16 (tiles.h): a query has its own scale, keys and values have the head's, so that sums
 * of D products fit into int32. Keys are taken in blocks of KEY_BLOCK, a block's p are int16 steps that add up to 2^15
 * or 2^16: their sum of products fits, too. A block of queries passes a block of keys after another; what the blocks
 * before have added is kept in float, relative to 1 or to the largest score so far (softmax.h). Nothing depends on other
 * texts or on the queries that share a tile, and memory beside keys and values is of one size.
 *
 * What rounding p costs depends on no length: half a step a key is at most KEY_BLOCK / 2 steps of 2^-15 of each block's
 * part of the row, together at most 2^-9 of the largest value of the head; 2^-13 is usual, the less the more blocks there
 * are, and 0 where all p are alike. A key that holds nearly all of its block would leave few steps to the others: its
 * value is added in float. Rounding the values adds at most 2^-16 of the largest. Rounding queries and keys moves a score
 * by at most D * largest of the query * largest key / qk_limit(D), a fiftieth of it as a rule, and p by as much of
 * itself. Numbers below 2^-127 count as 0.
 */
#ifndef FASTEMBED_RT_ATTENTION_H
#define FASTEMBED_RT_ATTENTION_H

#include "cap.h"
#include "fp32_attention.h"
#include "kernels.h"
#include "scratch.h"
#include "softmax.h"
#if TILE_PRODUCTS
#include "amx_attention.h"
#endif

enum {
    TASK_QUERIES = 12 * QUERY_BLOCK, /* of a head, at most; texts of more are long */
    PART_QUERIES = 4 * QUERY_BLOCK   /* of a task of those */
};

/* ---- tiles ------------------------------------------------------------------------------------------------------ */

/* scores[r, j] = units[r] * sum_d q[r, d] * k_panels[d, j], exact but for the last product. */
INLINE void score_tile(size_t mr, size_t vectors, const int16_t *q, size_t depth, const int16_t *panels,
                       const float *units, float *scores) {
    Ints acc[MR * VECTORS];
    tile(S16, mr, vectors, q, depth * sizeof *q, panels, depth / KR_S16, acc);
#pragma GCC unroll 8
    for (size_t r = 0; r < mr; r++)
#pragma GCC unroll 3
        for (size_t v = 0; v < vectors; v++)
            store(scores + r * KEY_BLOCK + v * LANES, mul(to_floats(acc[r * VECTORS + v]), broadcast(units[r])));
}

/* e[r, j] = 2^score of the same, where no score is farther from 0 than FAR; added to the lanes of sums[r], and most[r]
 * their largest. */
INLINE void power_tile(size_t mr, size_t vectors, const int16_t *q, size_t depth, const int16_t *panels,
                       const float *units, float *e, Floats *sums, Floats *most) {
    Ints acc[MR * VECTORS];
    tile(S16, mr, vectors, q, depth * sizeof *q, panels, depth / KR_S16, acc);
#pragma GCC unroll 8
    for (size_t r = 0; r < mr; r++) {
        Floats unit = broadcast(units[r]), sum = sums[r], top = most[r]; /* e might be them, for all a compiler knows */
#pragma GCC unroll 3
        for (size_t v = 0; v < vectors; v++) {
            Floats x = power_of_product(to_floats(acc[r * VECTORS + v]), unit);
            store(e + r * KEY_BLOCK + v * LANES, x);
            sum = add(sum, x);
            top = maximum(top, x);
        }
        sums[r] = sum;
        most[r] = top;
    }
}

/* mixed[r, d] = mixed[r, d] * decay[r] + weight[r] * sum_j p[r, j] * v_panels[j, d] */
INLINE void mix_tile(size_t mr, size_t vectors, const int16_t *p, const int16_t *panels, size_t keys,
                     const Shares *shares, float *mixed, size_t depth) {
    Ints acc[MR * VECTORS];
    tile(S16, mr, vectors, p, KEY_BLOCK * sizeof *p, panels, keys / KR_S16, acc);
#pragma GCC unroll 8
    for (size_t r = 0; r < mr; r++)
#pragma GCC unroll 3
        for (size_t v = 0; v < vectors; v++) {
            float *to = mixed + r * depth + v * LANES;
            Floats kept = mul(load(to), broadcast(shares->decay[r]));
            store(to, fma16(to_floats(acc[r * VECTORS + v]), broadcast(shares->weight[r]), kept));
        }
}

typedef void ScoreTile(const int16_t *q, size_t depth, const int16_t *panels, const float *units, float *scores);
typedef void PowerTile(const int16_t *q, size_t depth, const int16_t *panels, const float *units, float *e,
                       Floats *sums, Floats *most);
typedef void MixTile(const int16_t *p, const int16_t *panels, size_t keys, const Shares *shares, float *mixed,
                     size_t depth);

#define DEFINE_ATTENTION_TILES(mr, vectors)                                                                            \
    static void score_##mr##x##vectors(const int16_t *q, size_t depth, const int16_t *panels, const float *units,      \
                                       float *scores) {                                                                \
        score_tile(mr, vectors, q, depth, panels, units, scores);                                                      \
    }                                                                                                                  \
    static void power_##mr##x##vectors(const int16_t *q, size_t depth, const int16_t *panels, const float *units,      \
                                       float *e, Floats *sums, Floats *most) {                                         \
        power_tile(mr, vectors, q, depth, panels, units, e, sums, most);                                               \
    }                                                                                                                  \
    static void mix_##mr##x##vectors(const int16_t *p, const int16_t *panels, size_t keys, const Shares *shares,       \
                                     float *mixed, size_t depth) {                                                     \
        mix_tile(mr, vectors, p, panels, keys, shares, mixed, depth);                                                  \
    }
#define SCORE_ENTRY(mr, vectors) [mr - 1][vectors - 1] = score_##mr##x##vectors,
#define POWER_ENTRY(mr, vectors) [mr - 1][vectors - 1] = power_##mr##x##vectors,
#define MIX_ENTRY(mr, vectors) [mr - 1][vectors - 1] = mix_##mr##x##vectors,

TILES(DEFINE_ATTENTION_TILES)

static ScoreTile *const score_tiles[MR][VECTORS] = {TILES(SCORE_ENTRY)};
static PowerTile *const power_tiles[MR][VECTORS] = {TILES(POWER_ENTRY)};
static MixTile *const mix_tiles[MR][VECTORS] = {TILES(MIX_ENTRY)};

/* ---- a tile of queries and a block of keys ---------------------------------------------------------------------- */

/* Scores of rows from r0 on and the keys `part`. */
static void score_block(const Head *head, size_t r0, size_t rows, Span part) {
#if TILE_PRODUCTS
    if (head->planes) {
        score_block_in_tiles(head, r0, rows, part);
        return;
    }
#endif
    size_t depth = head->depth;
    for (size_t k = part.first; k < part.last; k += NR) {
        size_t vectors = min_size(VECTORS, (part.last - k) / LANES);
        score_tiles[rows - 1][vectors - 1](head->q + r0 * depth, depth, head->k_panels + k * depth, head->units + r0,
                                           head->scores + (k - part.first));
    }
}

/* e of rows from r0 on and the keys `part`, none of which is hidden from a query but those behind the text's last. */
static void power_block(const Head *head, size_t r0, size_t rows, Span part, Floats *sums, Floats *most) {
#if TILE_PRODUCTS
    if (head->planes) {
        power_block_in_tiles(head, r0, rows, part, sums, most);
        return;
    }
#endif
    size_t depth = head->depth, whole = min_size(part.last, head->length / LANES * LANES);
    const int16_t *q = head->q + r0 * depth;
    const float *units = head->units + r0;
    for (size_t r = 0; r < MR; r++) /* a constant: gcc makes a slow instruction of other loops */
        sums[r] = most[r] = broadcast(0.0f);
    for (size_t k = part.first; k < whole; k += NR) {
        size_t vectors = min_size(VECTORS, (whole - k) / LANES);
        power_tiles[rows - 1][vectors - 1](q, depth, head->k_panels + k * depth, units, head->scores + (k - part.first),
                                           sums, most);
    }
    if (whole < part.last) { /* a vector of which the text has a part */
        Floats apart[2 * MR];
        float *e = head->scores + (whole - part.first);
        for (size_t r = 0; r < 2 * MR; r++)
            apart[r] = broadcast(0.0f);
        power_tiles[rows - 1][0](q, depth, head->k_panels + whole * depth, units, e, apart, apart + rows);
        for (size_t r = 0; r < rows; r++) {
            Floats x = keep_first(load(e + r * KEY_BLOCK), head->length - whole);
            store(e + r * KEY_BLOCK, x);
            sums[r] = add(sums[r], x);
            most[r] = maximum(most[r], x);
        }
    }
}

/* mixed of rows from r0 on: what is kept of it, and the values of the keys `part` by their shares. */
static void mix_block(const Head *head, size_t r0, size_t rows, Span part, const Shares *shares) {
#if TILE_PRODUCTS
    if (head->planes) {
        mix_block_in_tiles(head, r0, rows, part, shares);
        return;
    }
#endif
    size_t depth = head->depth, keys = part.last - part.first;
    size_t block = part.first / KEY_BLOCK * KEY_BLOCK, width = min_size(KEY_BLOCK, head->keys - block);
    /* Panels of values that are not multiplied whole do not follow one another. */
    size_t most = keys == width ? VECTORS : 1;
    for (size_t d = 0; d < depth; d += most * LANES) {
        size_t vectors = min_size(most, (depth - d) / LANES);
        mix_tiles[rows - 1][vectors - 1](head->p,
                                         head->v_panels + block * depth + d * width + (part.first - block) * LANES,
                                         keys, shares, head->mixed + r0 * depth + d, depth);
    }
}

/* Adds the bias by distance of head `number` to the scores of query `i`, a row of keys `part`. */
INLINE void add_bias(const Attention *work, size_t number, float *row, Span part, size_t length, size_t i) {
    const float *bias = bias_of(work, number) - i;
    size_t last = min_size(part.last, length);
    for (size_t k = part.first; k < last; k += LANES) {
        float *at = row + k - part.first;
        store(at, fma16(load_first(bias + k, last - k), broadcast(LOG2_E), load(at)));
    }
}

/* The largest of them for a text of `length`, without its sign. */
static float largest_bias(const Attention *work, size_t number, size_t length) {
    const float *bias = bias_of(work, number);
    float most = 0.0f;
    for (const float *at = bias - (length - 1); at < bias + length; at++)
        most = __builtin_fabsf(*at) > most ? __builtin_fabsf(*at) : most;
    return most * LOG2_E;
}

/* Has all but the keys that query `i` sees be `hidden`. */
INLINE void hide(const Attention *work, float *row, Span part, size_t length, size_t i, float hidden) {
    size_t first = work->before >= 0 && i > (size_t)work->before ? i - (size_t)work->before : 0;
    size_t last = work->after >= 0 ? min_size(length, i + (size_t)work->after + 1) : length;
    for (size_t k = part.first; k < first && k < part.last; k++)
        row[k - part.first] = hidden;
    for (size_t k = last > part.first ? last : part.first; k < part.last; k++)
        row[k - part.first] = hidden;
}

/* Keys that one of the queries `first` to `first` + rows sees, rounded to whole panels. */
INLINE Span keys_seen(const Attention *work, size_t first, size_t rows, size_t keys) {
    Span seen = {0, keys};
    if (work->before >= 0 && first > (size_t)work->before)
        seen.first = (first - (size_t)work->before) / LANES * LANES;
    if (work->after >= 0)
        seen.last = min_size(keys, round_up(first + rows + (size_t)work->after, LANES));
    return seen;
}

/* Whether the queries from `i` on, `rows` of them, see all keys of `part` that the text has. */
INLINE int sees_all(const Attention *work, size_t i, size_t rows, Span part, size_t length) {
    return (work->before < 0 || part.first + (size_t)work->before + 1 >= i + rows) &&
           (work->after < 0 || min_size(part.last, length) <= i + (size_t)work->after + 1);
}

/* How many of the rows from r0 on, `most` at most, are alike in being far. What is done to a row must not depend on the
 * others that are in its tile: of a longer text, or where all queries run and not the first alone, they are others. */
INLINE size_t alike(const Head *head, size_t r0, size_t most) {
    size_t rows = 1;
    while (rows < most && (head->far >> (r0 + rows) & 1) == (head->far >> r0 & 1))
        rows++;
    return rows;
}

/* Rows from r0 on, which are alike and whose first query is `i`, of head `number`: what they take from the keys
 * `part`. */
INLINE void attend(const Attention *work, const Head *head, size_t number, size_t r0, size_t rows, size_t i,
                   Span part) {
    Floats sums[ATTEND_ROWS], lanes[ATTEND_ROWS], one = broadcast(1.0f), rise = one;
    _Alignas(64) float own[LANES] = {0}; /* what a row's scores are relative to */
    Shares shares;
    int far = head->far >> r0 & 1, all = sees_all(work, i, rows, part, head->length);
    store(shares.decay, one);
    if (!far && !work->by_distance && work->cap == 0.0f) {
        power_block(head, r0, rows, part, sums, lanes);
        if (!all)
            for (size_t r = 0; r < rows; r++) {
                float *row = head->scores + r * KEY_BLOCK;
                hide(work, row, part, head->length, i + r, 0.0f);
                add_up(row, part.last - part.first, sums + r, lanes + r);
            }
    } else {
        score_block(head, r0, rows, part);
        for (size_t r = 0; r < rows; r++) {
            float *row = head->scores + r * KEY_BLOCK;
            if (work->cap > 0.0f)
                keep_within(work->cap, row, part.last - part.first);
            if (work->by_distance)
                add_bias(work, number, row, part, head->length, i + r);
            if (!all || part.last > head->length)
                hide(work, row, part, head->length, i + r, HIDDEN);
            if (far)
                own[r] = row_max(row, part.last - part.first);
        }
        if (far) {
            Floats before = load(head->tops + r0), here = load(own), top = maximum(before, here);
            store(shares.decay, power_of_two(sub(before, top)));
            rise = power_of_two(sub(here, top));
            store_first(head->tops + r0, top, rows);
        }
        powers(head, rows, part, own, sums, lanes);
    }
    Floats sum = reduce_tile_add(sums, rows), most = reduce_tile_max(lanes, rows);
    share_out(head, r0, rows, part, sum, most, rise, &shares);
    mix_block(head, r0, rows, part, &shares);
}

/* Rows of `mixed`, in steps of values and of the row's sum -> output. */
static void end_rows(const Head *head, size_t rows, float *output, size_t stride) {
    for (size_t r = 0; r < rows; r++) {
        Floats share = broadcast(1.0f / head->wholes[r]), unit = broadcast(head->v_unit);
        for (size_t d = 0; d < head->size; d += LANES) {
            /* 0 added: what is too small to be held is 0 without a sign. */
            Floats y = add(mul(mul(load(head->mixed + r * head->depth + d), share), unit), broadcast(0.0f));
            store_first(output + r * stride + d, y, head->size - d);
        }
    }
}

/* ---- tasks ------------------------------------------------------------------------------------------------------ */

static int is_long(const Attention *work, size_t text) { return queries_of(work, text) > TASK_QUERIES; }

/* A head before it has memory. */
static Head head_of(const Attention *work, size_t text, size_t kv_number) {
    size_t length = keys_of(work, text), start = (size_t)work->starts[text];
    return (Head){
        .length = length,
        .size = work->size,
        .keys = round_up(length, LANES),
        .depth = round_up(work->size, LANES),
        .value = work->value + start * work->value_stride + kv_number * work->head_stride,
        .value_stride = work->value_stride,
        .panel_stride = work->panel_stride,
    };
}

/* Panels, or planes of AMX tiles. */
#if TILE_PRODUCTS
static int is_tiled(const Attention *work, size_t length) { return !work->first_only && length >= TILED_KEYS; }

static size_t packed_bytes(const Head *head, int tiled) {
    return tiled ? keys_bytes(0, head->depth) + key_planes_bytes(head->keys, head->depth)
                 : keys_bytes(head->keys, head->depth);
}

static size_t task_bytes(const Head *head, int tiled) {
    return tiled ? round_up(rows_bytes(TILE_ROWS, head->depth), 64) + row_planes_bytes(head->depth)
                 : rows_bytes(MR, head->depth);
}

/* Those behind what lay_out_keys lays out without panels. */
static Planes planes_of_keys(const Head *head) {
    Planes planes = {0};
    lay_out_key_planes(&planes, head->k_panels, head->keys, head->depth);
    return planes;
}

static void pack_both(Head *head, int tiled, const float *key, size_t stride, float k_factor, float v_factor) {
    if (tiled) {
        Planes planes = planes_of_keys(head);
        head->planes = &planes;
        pack_keys_in_planes(head, key, stride, k_factor);
        pack_values_in_planes(head, v_factor);
        head->planes = NULL;
    } else {
        pack_keys(head, key, stride, k_factor);
        pack_values(head, v_factor);
    }
}

static void begin_task(Head *head, void *memory, int tiled) {
    lay_out_rows(head, memory, tiled ? TILE_ROWS : MR);
    if (tiled) {
        Planes keys = planes_of_keys(head);
        head->planes = lay_out_planes((char *)memory + round_up(rows_bytes(TILE_ROWS, head->depth), 64), &keys);
        _tile_loadconfig(&tile_config);
    }
}

static void end_task(int tiled) {
    if (tiled)
        _tile_release();
}

static void split_rows(const Head *head, size_t rows) {
    if (head->planes)
        split_queries(head, rows);
}
#else
#define is_tiled(work, length) 0
#define packed_bytes(head, tiled) keys_bytes((head)->keys, (head)->depth)
#define task_bytes(head, tiled) rows_bytes(MR, (head)->depth)
#define begin_task(head, memory, tiled) lay_out_rows(head, memory, MR)
#define end_task(tiled) (void)(tiled)
#define split_rows(head, rows)
static void pack_both(Head *head, int tiled, const float *key, size_t stride, float k_factor, float v_factor) {
    (void)tiled;
    pack_keys(head, key, stride, k_factor);
    pack_values(head, v_factor);
}
#endif

/* Keys and values of a head of a text -> `memory` of packed_bytes. */
static void pack_head(const Attention *work, Head *head, size_t text, size_t kv_number, void *memory, int tiled) {
    size_t start = (size_t)work->starts[text];
    const float *key = work->key + start * work->key_stride + kv_number * work->head_stride;
    lay_out_keys(head, memory, tiled ? 0 : head->keys);
    float limit = qk_limit(head->size), k_most, v_most;
    k_most = absolute_max(key, work->key_stride, head->length, head->size, head->panel_stride, head->k_most);
    v_most = absolute_max(head->value, head->value_stride, head->length, head->size, head->panel_stride, NULL);
    head->k_unit = k_most / limit;
    head->v_unit = v_most / V_LIMIT;
    /* Beside values that are smaller, a share of 2^FAR is more than a float holds. */
    head->spread = v_most < 0x1p-14f ? __builtin_inff() : 0.0f;
    pack_both(head, tiled, key, work->key_stride, limit / k_most, V_LIMIT / v_most);
}

/* Queries `from` to `to` of head `number` of a text. */
static void attend_queries(const Attention *work, Head *head, size_t text, size_t number, size_t from, size_t to) {
    size_t query_row = work->first_only ? text : (size_t)work->starts[text];
    size_t query_stride = work->query_stride, output_stride = work->output_stride;
    const float *query = work->query + query_row * query_stride + number * work->head_stride;
    float *output = work->output + query_row * output_stride + number * head->size;
    if (work->by_distance)
        head->spread += largest_bias(work, number, head->length);
    for (size_t q0 = from; q0 < to; q0 += QUERY_BLOCK) {
        size_t here = min_size(QUERY_BLOCK, to - q0);
        Span seen = keys_seen(work, q0, here, head->keys);
        begin_rows(head, query + q0 * query_stride, query_stride, here, work->scale * LOG2_E, HIDDEN);
        split_rows(head, here);
        for (size_t block = seen.first / KEY_BLOCK * KEY_BLOCK; block < seen.last; block += KEY_BLOCK)
            for (size_t r0 = 0, rows; r0 < here; r0 += rows) {
                rows = alike(head, r0, min_size(head->planes ? ATTEND_ROWS : MR, here - r0));
                Span some = keys_seen(work, q0 + r0, rows, head->keys);
                some.first = some.first > block ? some.first : block;
                some.last = min_size(some.last, block + KEY_BLOCK);
                if (some.first < some.last)
                    attend(work, head, number, r0, rows, q0 + r0, some);
            }
        end_rows(head, here, output + q0 * output_stride, output_stride);
    }
}

/* A head of a text that is not long. */
static void whole_task(void *argument, size_t index) {
    const Attention *work = argument;
    size_t text = index / work->heads, number = index % work->heads, kv_number = number / (work->heads / work->kv_heads);
    if (!queries_of(work, text) || is_long(work, text))
        return;
    Head head = head_of(work, text, kv_number);
    int tiled = is_tiled(work, head.length);
    size_t packed = packed_bytes(&head, tiled), bytes = packed + task_bytes(&head, tiled);
    _Alignas(64) char near[ON_STACK]; /* of short texts, for which an allocation takes long */
    char *memory = bytes <= sizeof near ? near : allocate_scratch(bytes);
    if (!memory) {
        fail(work);
        return;
    }
    pack_head(work, &head, text, kv_number, memory, tiled);
    begin_task(&head, memory + packed, tiled);
    attend_queries(work, &head, text, number, 0, queries_of(work, text));
    end_task(tiled);
    if (memory != near)
        free_scratch(memory);
}

/* A long text: its heads, whose keys and values are in `memory`, and parts of its queries. */
typedef struct {
    const Attention *work;
    size_t text, parts, bytes; /* bytes: of a head */
    Head *heads;
    char *memory;
} LongText;

static void pack_task(void *argument, size_t kv_number) {
    const LongText *one = argument;
    Head head = head_of(one->work, one->text, kv_number);
    pack_head(one->work, &head, one->text, kv_number, one->memory + kv_number * one->bytes,
              is_tiled(one->work, head.length));
    one->heads[kv_number] = head;
}

static void part_task(void *argument, size_t index) {
    const LongText *one = argument;
    const Attention *work = one->work;
    size_t number = index / one->parts, from = index % one->parts * PART_QUERIES;
    Head head = one->heads[number / (work->heads / work->kv_heads)];
    if (!head.k_most) /* onnxruntime failed before it was packed: the call is an error */
        return;
    int tiled = is_tiled(work, head.length);
    size_t bytes = task_bytes(&head, tiled);
    _Alignas(64) char near[ON_STACK];
    char *memory = bytes <= sizeof near ? near : allocate_scratch(bytes);
    if (!memory) {
        fail(work);
        return;
    }
    begin_task(&head, memory, tiled);
    attend_queries(work, &head, one->text, number, from, min_size(from + PART_QUERIES, queries_of(work, one->text)));
    end_task(tiled);
    if (memory != near)
        free_scratch(memory);
}

static void attend_long(const Attention *work, size_t text, const Pool *pool) {
    Head any = head_of(work, text, 0);
    size_t bytes = packed_bytes(&any, is_tiled(work, any.length));
    LongText one = {
        .work = work, .text = text, .parts = (queries_of(work, text) + PART_QUERIES - 1) / PART_QUERIES,
        .bytes = bytes,
        .heads = allocate_scratch(work->kv_heads * sizeof(Head)), .memory = allocate_scratch(work->kv_heads * bytes),
    };
    if (one.heads && one.memory) {
        memset(one.heads, 0, work->kv_heads * sizeof(Head));
        pool->run(pool, pack_task, &one, work->kv_heads);
        pool->run(pool, part_task, &one, work->heads * one.parts);
    } else {
        fail(work);
    }
    free_scratch(one.memory);
    free_scratch(one.heads);
}

static int attention(const Attention *work, const Pool *pool) {
    int short_of_memory = 0;
    int all_long = 1;
    Attention here = *work;
    here.short_of_memory = &short_of_memory;
    if (!here.panel_stride) {
        here.head_stride = here.size;
        here.panel_stride = LANES;
    }
    if (here.in_float) {
        fp32_attention(&here, pool);
        return !short_of_memory;
    }
    for (size_t text = 0; text < work->texts; text++)
        if (is_long(work, text))
            attend_long(&here, text, pool);
        else
            all_long = 0;
    if (!all_long)
        pool->run(pool, whole_task, &here, work->texts * work->heads);
    return !short_of_memory;
}

#endif
