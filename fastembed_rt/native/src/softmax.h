/* Softmax of a block of keys for the rows of a tile, with what the blocks before it have left.
 *
 *     top'     = max(top, max_j s[j])                              s: scores, logarithms to base 2
 *     decay    = 2^(top - top'),  rise = 2^(max_j s[j] - top')     one of both is 1
 *     e[j]     = 2^(s[j] - max_j s[j]),  sum = sum_j e[j]
 *     p[j]     = round(e[j] * steps / sum)                         int16
 *     weight   = rise * sum / steps                                what a step of p is worth beside the other blocks
 *     whole'   = decay * whole + rise * sum
 *
 * Keys are those of a block that a query of the tile sees. One that this query does not see has the score HIDDEN, and
 * adds 0 to everything: nothing depends on how many of them there are.
 */
#ifndef FASTEMBED_RT_SOFTMAX_H
#define FASTEMBED_RT_SOFTMAX_H

#include "head.h"
#include "vectors.h"

enum { FEW_STEPS = 32 };                  /* that a key has on average where another one is said to hold nearly all */
static const float P_LIMIT = 65400.0f;    /* steps; and half a step more for each key, times V_LIMIT: below 2^31 */
static const float LITTLE = 1.0f / 1024;  /* of a row's sum: a block below that needs no care */
static const float NOTHING = 1e-20f;      /* of a block's sum, which is 1 at least before keys are taken out */
static const float LOG2_E = 1.44269504f;
static const float HIDDEN = -1e30f;       /* score of a key that a query does not see */

/* Keys `first` to `last` of a text: whole vectors of those that a query of a tile sees. */
typedef struct {
    size_t first, last;
} Span;

/* 2^x for x <= 0, relative error below 3e-6, 1 of 0; 0 of -127 and below. The whole part of x goes into the exponent
 * that a polynomial of the rest has, fitted to the least largest relative error on [-1/2, 1/2]. */
INLINE Floats power_of_two(Floats x) {
    const Floats shift = broadcast(0x1.8p23f); /* added, it leaves the whole part, in the last bits */
    x = maximum(x, broadcast(-127.0f));
    Floats shifted = add(x, shift);
    Floats rest = sub(x, sub(shifted, shift));
    Floats p = fma16(broadcast(0.009581047110259533f), rest, broadcast(0.05590597167611122f));
    p = fma16(p, rest, broadcast(0.24024145305156708f));
    p = fma16(p, rest, broadcast(0.6931243538856506f));
    p = fma16(p, rest, broadcast(1.0f));
    return as_floats(add_ints(as_ints(p), shift_left(as_ints(shifted), 23)));
}

/* The part of a block's sum beyond which one of its keys leaves few steps to the others. */
INLINE float nearly_all_of(size_t keys) { return 1.0f - (float)(int)(keys * FEW_STEPS) / 32768.0f; }

/* Steps of a block's p. Beside a sum of 2 no key has more than half: as int16, it may be of twice as many steps. */
INLINE float steps_of(float sum) { return sum >= 2.0f ? P_LIMIT : 32767.0f; }

static float row_max(const float *row, size_t keys) {
    Floats most = load(row);
    for (size_t k = LANES; k < keys; k += LANES)
        most = maximum(most, load(row + k));
    return reduce_max(most);
}

/* Keys that hold more than `nearly_all` of the `sum` of e, which is their row: their values are added to `mixed` in
 * float, e * `factor` of each, and they are taken out. Returns the sum of the others. */
NOINLINE float take_out(const Head *head, float *e, Span part, float sum, float nearly_all, float factor,
                        float *mixed) {
    size_t keys = part.last - part.first;
    while (sum > NOTHING) {
        float most = row_max(e, keys);
        if (most <= sum * nearly_all)
            break;
        size_t key = 0;
        while (e[key] != most)
            key++;
        e[key] = 0.0f;
        const float *value = head->value + (part.first + key) * head->value_stride;
        Floats weight = broadcast(most * factor);
        for (size_t d = 0; d < head->depth; d += LANES, value += head->panel_stride)
            store(mixed + d, fma16(load_first(value, head->size - d), weight, load(mixed + d)));
        Floats others = broadcast(0.0f);
        for (size_t k = 0; k < keys; k += LANES)
            others = add(others, load(e + k));
        sum = reduce_add(others);
    }
    return sum;
}

/* What a tile's rows take over from a block: what is in `mixed` is multiplied by decay, products of p by weight. */
typedef struct {
    _Alignas(64) float decay[LANES], weight[LANES];
} Shares;

/* scores -> p of the keys `part`, for rows from r0 on of the block of queries; the largest scores are `most`. */
NOINLINE void softmax_block(const Head *head, size_t r0, size_t rows, Span part, const float *most, Shares *shares) {
    size_t keys = part.last - part.first, block = part.first / KEY_BLOCK * KEY_BLOCK;
    float nearly_all = nearly_all_of(min_size(KEY_BLOCK, head->keys - block));
    _Alignas(64) float sums[LANES] = {0}, rise[LANES], factors[MR];
    Floats lanes[MR];
    Floats before = load(head->tops + r0), here = load(most), top = maximum(before, here);
    store(shares->decay, power_of_two(sub(before, top)));
    store(rise, power_of_two(sub(here, top)));
    for (size_t r = 0; r < rows; r++) {
        float *e = head->scores + r * KEY_BLOCK;
        Floats own = broadcast(most[r]), sum = broadcast(0.0f);
        for (size_t k = 0; k < keys; k += LANES) {
            Floats x = power_of_two(sub(load(e + k), own));
            store(e + k, x);
            sum = add(sum, x);
        }
        lanes[r] = sum;
    }
    for (size_t r = 0; r < rows; r++)
        sums[r] = most[r] > HIDDEN ? reduce_add(lanes[r]) : 0.0f;
    Floats whole = fma16(load(head->wholes + r0), load(shares->decay), mul(load(sums), load(rise)));
    store_first(head->wholes + r0, whole, rows);
    store_first(head->tops + r0, top, rows);
    for (size_t r = 0; r < rows; r++) {
        float sum = sums[r];
        if (sum * nearly_all < 1.0f && sum * rise[r] > head->wholes[r0 + r] * LITTLE) { /* the largest e is 1 */
            float *mixed = head->mixed + (r0 + r) * head->depth;
            for (size_t d = 0; d < head->depth; d += LANES)
                store(mixed + d, mul(load(mixed + d), broadcast(shares->decay[r])));
            shares->decay[r] = 1.0f;
            sum = take_out(head, head->scores + r * KEY_BLOCK, part, sum, nearly_all, rise[r] / head->v_unit, mixed);
        }
        float steps = steps_of(sum);
        int nothing = !(sum > NOTHING);
        factors[r] = nothing ? 0.0f : steps / sum;
        shares->weight[r] = nothing ? 0.0f : rise[r] * (sum / steps);
    }
    for (size_t r = 0; r < rows; r++) {
        const float *e = head->scores + r * KEY_BLOCK;
        int16_t *p = head->p + r * KEY_BLOCK;
        for (size_t k = 0; k < keys; k += LANES)
            store_shorts(p + k, round_to_ints(mul(load(e + k), broadcast(factors[r]))));
    }
}

#endif
