/* Attention of packed texts, a task a head of a text, without a matrix of all scores.
 *
 *     s[i, j] = scale * sum_d query[i, d] * key[j, d] + by_distance[j - i]   -1e30 where query i does not see key j
 *     p[i, j] = exp(s[i, j] - max_j s[i, j]) / sum_j exp(s[i, j] - max_j s[i, j])
 *     output[i, d] = sum_j p[i, j] * value[j, d]
 *
 * Both products are tiles of int16 (tiles.h): query and key have the head's own scale each, so that sums of D products
 * fit into int32; values likewise. Keys are taken in blocks of KEY_BLOCK, and a block's p are int16 steps that add up
 * to 2^15 or 2^16: their sum of products fits, too. Blocks are added in float, each with what its steps are worth in
 * the row. Nothing depends on other texts.
 *
 * What rounding p costs depends on no length: half a step a key is at most KEY_BLOCK / 2 steps of 2^-15 of each block's
 * part of the row, together at most 2^-9 of the largest value of the head; 2^-13 is usual, and the less the more blocks
 * there are. A key that holds nearly all of its block would leave few steps to the others: its value is added in float.
 * Rounding the values adds at most 2^-16 of the largest. Rounding queries and keys moves a score by at most
 * D * largest query * largest key / qk_limit(D), a fiftieth of it as a rule, and p by as much of itself.
 */
#ifndef FASTEMBED_RT_ATTENTION_H
#define FASTEMBED_RT_ATTENTION_H

#include "activations.h"
#include "head.h"

enum {
    FEW_STEPS = 32,   /* that a key has on average where another one is said to hold nearly all */
    ON_STACK = 32768  /* bytes, at most, where other threads' stacks may be small */
};
static const float P_LIMIT = 65400.0f;    /* steps; and half a step more for each key, times V_LIMIT: below 2^31 */
static const float LITTLE = 1.0f / 1024;  /* of a row's sum: a block below that needs no care */
static const float NOTHING = 1e-20f;      /* of a row's sum, which is 1 at least: hidden keys are e^-87 */
static const float HIDDEN = -1e30f;       /* score of a key that a query does not see */

/* Keys `first` to `last` of a text: whole vectors of those that a query of a tile sees. */
typedef struct {
    size_t first, last;
} Span;

/* ---- scores ----------------------------------------------------------------------------------------------------- */

/* scores[r, j] = unit * sum_d q[r, d] * k_panels[d, j], exact but for the last product. */
INLINE void score(const Head *head, size_t rows, Span seen, Floats unit) {
    size_t depth = head->depth, width = seen.last - seen.first;
    const int16_t *q = head->q, *k_panels = head->k_panels;
    float *scores = head->scores;
    Ints acc[MR * VECTORS];
    for (size_t k0 = seen.first; k0 < seen.last; k0 += NR) {
        size_t vectors = min_size(VECTORS, (seen.last - k0) / LANES);
        tile_s16(rows, vectors, q, depth, k_panels + k0 * depth, depth / KR_S16, acc);
        for (size_t r = 0; r < rows; r++)
            for (size_t v = 0; v < vectors; v++)
                store(scores + r * width + (k0 - seen.first) + v * LANES,
                      mul(to_floats(acc[r * VECTORS + v]), unit));
    }
}

/* Adds the bias by distance of head `number` to the scores of query `i`, a row of keys `seen`. */
INLINE void add_bias(const Attention *work, size_t number, float *row, Span seen, size_t length, int64_t i) {
    const float *bias = work->by_distance + number * (size_t)(2 * work->reach - 1) + work->reach - 1 - i;
    size_t last = min_size(seen.last, length);
    for (size_t k = seen.first; k < last; k += LANES) {
        float *at = row + k - seen.first;
        store(at, add(load(at), load_first(bias + k, last - k)));
    }
}

/* Hides all but the keys that query `i` sees. */
INLINE void hide(const Attention *work, float *row, Span seen, size_t length, int64_t i) {
    int64_t from = (int64_t)seen.first, to = (int64_t)seen.last;
    int64_t first = work->before >= 0 ? i - work->before : 0;
    int64_t last = work->after >= 0 && i + work->after < (int64_t)length - 1 ? i + work->after : (int64_t)length - 1;
    for (int64_t k = from; k < first && k < to; k++)
        row[k - from] = HIDDEN;
    for (int64_t k = last + 1 > from ? last + 1 : from; k < to; k++)
        row[k - from] = HIDDEN;
}

/* ---- softmax ---------------------------------------------------------------------------------------------------- */

/* The part of a block's sum beyond which one of its keys leaves few steps to the others. */
INLINE float nearly_all_of(size_t keys) { return 1.0f - (float)(int)(keys * FEW_STEPS) / 32768.0f; }

static float row_max(const float *row, size_t keys) {
    Floats most = load(row);
    for (size_t k = LANES; k < keys; k += LANES)
        most = maximum(most, load(row + k));
    return reduce_max(most);
}

/* Keys of block `first` to `last` that hold nearly all of its `sum`, in a row that begins with key `from` and has the
 * sum `whole`: their values are added to the output in float, and they are taken out. Returns the sum of the others. */
NOINLINE float take_out(const Head *head, float *row, size_t from, size_t first, size_t last, float sum, float whole,
                        float *output, int *written) {
    float nearly_all = nearly_all_of(min_size(KEY_BLOCK, head->keys - first / KEY_BLOCK * KEY_BLOCK));
    while (sum > whole * LITTLE) {
        float most = row_max(row + (first - from), last - first);
        if (most <= sum * nearly_all)
            break;
        size_t key = first;
        while (row[key - from] != most)
            key++;
        row[key - from] = 0.0f;
        Floats factor = broadcast(most / whole);
        for (size_t d = 0; d < head->size; d += LANES) {
            size_t n = head->size - d;
            Floats y = mul(load_first(head->value + key * head->value_stride + d, n), factor);
            store_first(output + d, *written ? add(load_first(output + d, n), y) : y, n);
        }
        *written = 1;
        Floats others = broadcast(0.0f);
        for (size_t k = first; k < last; k += LANES)
            others = add(others, load(row + (k - from)));
        sum = reduce_add(others);
    }
    return sum;
}

/* scores -> p and p_units, block by block:
 *
 *     e[j] = exp(scores[j] - max_j scores[j]),  sum_b = sum of e over block b,  whole = sum of e
 *     p[j] = round(e[j] * steps / sum_b),  p_units[b] = sum_b / (whole * steps)
 *
 * Blocks begin where the text's do, not where those begin that a query sees. */
NOINLINE void softmax(Head *head, size_t rows, Span seen, float *output, size_t stride) {
    size_t width = seen.last - seen.first;
    for (size_t r = 0; r < rows; r++) {
        float *row = head->scores + r * width;
        float *p_units = head->p_units + r * head->blocks; /* the sums, until those of all blocks are known */
        int16_t *p = head->p + r * width;
        Floats top = broadcast(row_max(row, width));
        float whole = 0.0f;
        for (size_t first = seen.first, block = 0, last; first < seen.last; first = last, block++) {
            size_t start = first / KEY_BLOCK * KEY_BLOCK;
            Floats lanes = broadcast(0.0f), most = broadcast(0.0f);
            last = min_size(seen.last, start + KEY_BLOCK);
            for (size_t k = first - seen.first; k < last - seen.first; k += LANES) {
                Floats e = exponential(sub(load(row + k), top));
                store(row + k, e);
                lanes = add(lanes, e);
                most = maximum(most, e);
            }
            float sum = reduce_add(lanes);
            whole += sum;
            /* The sign says that a key holds nearly all. */
            float nearly_all = sum * nearly_all_of(min_size(KEY_BLOCK, head->keys - start));
            p_units[block] = any_above(most, broadcast(nearly_all)) ? -sum : sum;
        }
        head->written[r] = 0;
        for (size_t first = seen.first, block = 0, last; first < seen.last; first = last, block++) {
            float sum = p_units[block];
            last = min_size(seen.last, first / KEY_BLOCK * KEY_BLOCK + KEY_BLOCK);
            if (sum < 0.0f)
                sum = take_out(head, row, seen.first, first, last, -sum, whole, output + r * stride,
                               head->written + r);
            /* Beside a sum of 2 no key has more than half: as int16, it may be of twice as many steps. */
            float steps = sum >= 2.0f ? P_LIMIT : 32767.0f;
            int nothing = sum <= NOTHING; /* and no NaN */
            p_units[block] = nothing ? 0.0f : sum / (whole * steps);
            Floats factor = broadcast(nothing ? 0.0f : steps / sum);
            for (size_t k = first - seen.first; k < last - seen.first; k += LANES)
                store_shorts(p + k, round_to_ints(mul(load(row + k), factor)));
        }
    }
}

/* ---- p @ value -------------------------------------------------------------------------------------------------- */

/* output[r, d] += p_units[r, b] * unit * sum_j p[r, j] * v_panels[j, d], j in block b, one block after the other. */
NOINLINE void weigh_values(Head *head, size_t rows, Span seen, float unit, float *output, size_t stride) {
    size_t depth = head->depth, size = head->size, p_stride = seen.last - seen.first;
    Ints acc[MR * VECTORS];
    for (size_t first = seen.first, block = 0, last; first < seen.last; first = last, block++) {
        size_t start = first / KEY_BLOCK * KEY_BLOCK, width = min_size(KEY_BLOCK, head->keys - start);
        const int16_t *p = head->p + (first - seen.first);
        last = min_size(seen.last, start + KEY_BLOCK);
        for (size_t d = 0; d < depth; d += NR) {
            size_t vectors = min_size(VECTORS, (depth - d) / LANES);
            const int16_t *panels = head->v_panels + start * depth + d * width;
            if (last - first == width)
                tile_s16(rows, vectors, p, p_stride, panels, width / KR_S16, acc);
            else /* the panels of values keep their whole stride */
                for (size_t v = 0; v < vectors; v++)
                    tile_s16(rows, 1, p, p_stride, panels + v * LANES * width + (first - start) * LANES,
                             (last - first) / KR_S16, acc + v);
            for (size_t v = 0; v < vectors && d + v * LANES < size; v++) {
                size_t column = d + v * LANES, n = size - column;
                for (size_t r = 0; r < rows; r++) {
                    float *to = output + r * stride + column;
                    Floats y = mul(to_floats(acc[r * VECTORS + v]),
                                   broadcast(head->p_units[r * head->blocks + block] * unit));
                    if (n >= LANES)
                        store(to, head->written[r] ? add(load(to), y) : y);
                    else
                        store_first(to, head->written[r] ? add(load_first(to, n), y) : y, n);
                }
            }
        }
        for (size_t r = 0; r < rows; r++)
            head->written[r] = 1;
    }
}

/* ---- tasks ------------------------------------------------------------------------------------------------------ */

/* Keys that one of the queries `first` to `first` + rows sees, rounded to whole panels. */
INLINE Span keys_seen(const Attention *work, size_t first, size_t rows, size_t keys) {
    Span seen = {0, keys};
    if (work->before >= 0 && first > (size_t)work->before)
        seen.first = (first - (size_t)work->before) / LANES * LANES;
    if (work->after >= 0)
        seen.last = min_size(keys, round_up(first + rows + (size_t)work->after, LANES));
    return seen;
}

static void attention_task(void *argument, size_t index) {
    const Attention *work = argument;
    size_t text = index / work->heads, number = index % work->heads, size = work->size;
    size_t kv_number = number / (work->heads / work->kv_heads);
    size_t start = (size_t)work->starts[text], length = (size_t)(work->starts[text + 1] - work->starts[text]);
    if (!length)
        return;
    size_t queries = work->first_only ? 1 : length;
    size_t query_row = work->first_only ? text : start;
    const float *query = work->query + query_row * work->query_stride + number * size;
    const float *key = work->key + start * work->key_stride + kv_number * size;
    const float *value = work->value + start * work->value_stride + kv_number * size;
    float *output = work->output + query_row * work->output_stride + number * size;

    size_t keys = round_up(length, LANES), depth = round_up(size, LANES), blocks = (keys + KEY_BLOCK - 1) / KEY_BLOCK;
    size_t bytes = head_bytes(keys, depth, blocks);
    _Alignas(64) int16_t near[ON_STACK / sizeof(int16_t)]; /* of short texts, for which an allocation takes long */
    int16_t *memory = bytes <= sizeof near ? near : allocate(bytes);
    if (!memory) {
        __atomic_store_n(work->short_of_memory, 1, __ATOMIC_RELAXED);
        return;
    }
    Head head = {
        .length = length, .size = size, .keys = keys, .depth = depth, .blocks = blocks,
        .value = value, .value_stride = work->value_stride,
    };
    lay_out(&head, memory);

    float limit = qk_limit(size);
    float q_max = absolute_max(query, work->query_stride, queries, size);
    float k_max = absolute_max(key, work->key_stride, length, size);
    float v_max = absolute_max(value, work->value_stride, length, size);
    float q_factor = q_max > 0 ? limit / q_max : 0.0f, k_factor = k_max > 0 ? limit / k_max : 0.0f;
    float v_factor = v_max > 0 ? V_LIMIT / v_max : 0.0f;
    float q_unit = q_max / limit, k_unit = k_max / limit, v_unit = v_max / V_LIMIT;
    pack_keys(&head, key, work->key_stride, k_factor);
    pack_values(&head, v_factor);

    Floats score_unit = broadcast(q_unit * k_unit * work->scale);
    for (size_t r0 = 0; r0 < queries; r0 += MR) {
        size_t rows = min_size(MR, queries - r0);
        Span seen = keys_seen(work, r0, rows, keys);
        float *to = output + r0 * work->output_stride;
        for (size_t r = 0; r < rows; r++)
            quantize_s16(query + (r0 + r) * work->query_stride, size, q_factor, head.q + r * depth);
        score(&head, rows, seen, score_unit);
        for (size_t r = 0; r < rows; r++) {
            float *row = head.scores + r * (seen.last - seen.first);
            if (work->by_distance)
                add_bias(work, number, row, seen, length, (int64_t)(r0 + r));
            hide(work, row, seen, length, (int64_t)(r0 + r));
        }
        softmax(&head, rows, seen, to, work->output_stride);
        weigh_values(&head, rows, seen, v_unit, to, work->output_stride);
    }
    if (memory != near)
        free(memory);
}

static int attention(const Attention *work, const Pool *pool) {
    int short_of_memory = 0;
    Attention here = *work;
    here.short_of_memory = &short_of_memory;
    pool->run(pool, attention_task, &here, work->texts * work->heads);
    return !short_of_memory;
}

#endif
