/* Softmax of a block of keys for the rows of a tile, with what the blocks before it have left.
 *
 *     e[j]     = 2^(s[j] - own)                                    s: scores, logarithms to base 2
 *     sum      = sum_j e[j]
 *     p[j]     = round(e[j] * steps / sum)                         int16
 *     weight   = rise * sum / sum_j p[j]                           what a step of p is worth beside the other blocks
 *     whole'   = decay * whole + rise * sum
 *
 * The weight is of the shares as they have been rounded. Where all e are alike, all are rounded the same way: what they
 * miss of `steps` does not average out, and would be missing in every layer of a text of one word over and over.
 *
 * Where no score of a row can be farther from 0 than FAR, own is 0 and decay and rise are 1: e is made of products as
 * they leave their tile, and is still a number with all its bits. Of the other rows
 *
 *     own      = max_j s[j],  top' = max(top, own)
 *     decay    = 2^(top - top'),  rise = 2^(own - top')            one of both is 1
 *
 * Keys are those of a block that a query of the tile sees. One that this query does not see has the score HIDDEN or e 0,
 * and adds 0 to everything: nothing depends on how many of them there are.
 */
#ifndef FASTEMBED_RT_SOFTMAX_H
#define FASTEMBED_RT_SOFTMAX_H

#include "head.h"
#include "vectors.h"

enum { FEW_STEPS = 32 };                  /* that a key has on average where another one is said to hold nearly all */
static const float P_LIMIT = 65400.0f;    /* steps; and half a step more for each key, times V_LIMIT: below 2^31 */
static const float LITTLE = 1.0f / 1024;  /* of a row's sum: a block below that needs no care */
static const float NOTHING = 1e-20f;      /* of the largest e, beyond which a block's sum is before keys are taken out */
static const float HIDDEN = -1e30f;       /* score of a key that a query does not see */

/* Keys `first` to `last` of a text: whole vectors of those that a query of a tile sees. */
typedef struct {
    size_t first, last;
} Span;

static const float WHOLE = 0x1.8p23f; /* added to a float, it leaves the whole part of that, in the last bits */

/* 2^(n + rest), n as `shifted` has it in its last bits and -127 <= n < 128, |rest| <= 1/2: n goes into the exponent that
 * a polynomial of the rest has, fitted to the least largest relative error, below 3e-6, and exact at 0. */
INLINE Floats power_of_parts(Floats shifted, Floats rest) {
    Floats p = fma16(broadcast(0.009581047110259533f), rest, broadcast(0.05590597167611122f));
    p = fma16(p, rest, broadcast(0.24024145305156708f));
    p = fma16(p, rest, broadcast(0.6931243538856506f));
    p = fma16(p, rest, broadcast(1.0f));
    return as_floats(add_ints(as_ints(p), shift_left(as_ints(shifted), 23)));
}

/* 2^x for x < 128, 1 of 0; 0 of -127 and below. */
INLINE Floats power_of_two(Floats x) {
    const Floats shift = broadcast(WHOLE);
    x = maximum(x, broadcast(-127.0f));
    Floats shifted = add(x, shift);
    return power_of_parts(shifted, sub(x, sub(shifted, shift)));
}

/* 2^(x * unit), for -127 < x * unit < 128. */
INLINE Floats power_of_product(Floats x, Floats unit) {
    const Floats shift = broadcast(WHOLE);
    Floats shifted = fma16(x, unit, shift);
    return power_of_parts(shifted, fma16(x, unit, sub(shift, shifted)));
}

/* The part of a block's sum beyond which one of its keys leaves few steps to the others. */
INLINE float nearly_all_of(size_t keys) { return 1.0f - (float)(int)(keys * FEW_STEPS) / 32768.0f; }

static float row_max(const float *row, size_t keys) {
    Floats most = load(row);
    for (size_t k = LANES; k < keys; k += LANES)
        most = maximum(most, load(row + k));
    return reduce_max(most);
}

/* The lanes of a row of e: their sums and the largest. */
INLINE void add_up(const float *e, size_t keys, Floats *sum, Floats *most) {
    *sum = *most = broadcast(0.0f);
    for (size_t k = 0; k < keys; k += LANES) {
        *sum = add(*sum, load(e + k));
        *most = maximum(*most, load(e + k));
    }
}

/* Keys that hold more than `nearly_all` of the `sum` of e, which is their row: their values are added to `mixed` in
 * float, e * `factor` of each, and they are taken out. Returns the sum of the others. */
NOINLINE float take_out(const Head *head, float *e, Span part, float sum, float nearly_all, float factor,
                        float *mixed) {
    size_t keys = part.last - part.first;
    float most = row_max(e, keys), nothing = NOTHING * most;
    while (sum > nothing && most > sum * nearly_all) {
        size_t key = 0;
        while (e[key] != most)
            key++;
        e[key] = 0.0f;
        const float *value = head->value + (part.first + key) * head->value_stride;
        Floats weight = broadcast(most * factor);
        for (size_t d = 0; d < head->depth; d += LANES, value += head->panel_stride)
            store(mixed + d, fma16(load_first(value, head->size - d), weight, load(mixed + d)));
        Floats others, top;
        add_up(e, keys, &others, &top);
        sum = reduce_add(others);
        most = reduce_max(top);
    }
    return sum;
}

/* What a tile's rows take over from a block: what is in `mixed` is multiplied by decay, products of p by weight. */
typedef struct {
    _Alignas(64) float decay[LANES], weight[LANES];
} Shares;

/* scores -> e = 2^(score - own[r]) of the keys `part`, and the lanes of each row added up. */
NOINLINE void powers(const Head *head, size_t rows, Span part, const float *own, Floats *sums, Floats *most) {
    size_t keys = part.last - part.first;
    for (size_t r = 0; r < rows; r++) {
        float *e = head->scores + r * KEY_BLOCK;
        Floats from = broadcast(own[r]), sum = broadcast(0.0f), top = sum;
        for (size_t k = 0; k < keys; k += LANES) {
            Floats x = power_of_two(sub(load(e + k), from));
            store(e + k, x);
            sum = add(sum, x);
            top = maximum(top, x);
        }
        int sees_some = own[r] > HIDDEN;
        sums[r] = sees_some ? sum : broadcast(0.0f);
        most[r] = sees_some ? top : broadcast(0.0f);
    }
}

/* e -> p of the keys `part`, for rows from r0 on of the block of queries. Of each row: the sum of e and the largest, and
 * what is done to what the blocks before have left (shares->decay) and to this block's (rise). */
NOINLINE void share_out(const Head *head, size_t r0, size_t rows, Span part, Floats sum, Floats most, Floats rise,
                        Shares *shares) {
    size_t keys = part.last - part.first, block = part.first / KEY_BLOCK * KEY_BLOCK;
    float nearly_all = nearly_all_of(min_size(KEY_BLOCK, head->keys - block));
    Floats own = mul(sum, rise), whole = fma16(load(head->wholes + r0), load(shares->decay), own);
    _Alignas(64) float factors[LANES];
    store_first(head->wholes + r0, whole, rows);
    unsigned crowded = lanes_outside(mul(sum, broadcast(nearly_all)), most, broadcast(__builtin_inff())) &
                       lanes_outside(own, broadcast(-1.0f), mul(whole, broadcast(LITTLE)));
    if (crowded) { /* a key holds nearly all */
        _Alignas(64) float sums[LANES], rises[LANES];
        store(sums, sum);
        store(rises, rise);
        for (size_t r = 0; r < rows; r++) {
            if (!(crowded >> r & 1))
                continue;
            float *mixed = head->mixed + (r0 + r) * head->depth;
            for (size_t d = 0; d < head->depth; d += LANES)
                store(mixed + d, mul(load(mixed + d), broadcast(shares->decay[r])));
            shares->decay[r] = 1.0f;
            sums[r] = take_out(head, head->scores + r * KEY_BLOCK, part, sums[r], nearly_all, rises[r] / head->v_unit,
                               mixed);
        }
        sum = load(sums);
    }
    /* Beside a sum of twice the largest no key has more than half: as int16, it may be of twice as many steps. */
    Floats nothing = mul(most, broadcast(NOTHING)), zero = broadcast(0.0f);
    Floats steps = choose_above(add(most, most), sum, broadcast(32767.0f), broadcast(P_LIMIT));
    store(factors, choose_above(sum, nothing, divide(steps, sum), zero));
    Floats totals[ATTEND_ROWS]; /* of p, exact: below 2^17 */
    for (size_t r = 0; r < rows; r++) {
        const float *e = head->scores + r * KEY_BLOCK;
        int16_t *p = head->p + r * KEY_BLOCK;
        Floats factor = broadcast(factors[r]);
        Ints total = broadcast_int(0);
        size_t k = 0;
        for (; k + LANES < keys; k += 2 * LANES) {
            Ints here = round_to_ints(mul(load(e + k), factor)), next = round_to_ints(mul(load(e + k + LANES), factor));
            total = add_ints(total, add_ints(here, next));
            store_shorts_of_two(p + k, here, next);
        }
        if (k < keys) {
            Ints here = round_to_ints(mul(load(e + k), factor));
            total = add_ints(total, here);
            store_shorts(p + k, here);
        }
        totals[r] = to_floats(total);
    }
    Floats total = reduce_tile_add(totals, rows);
    store(shares->weight, choose_above(total, zero, mul(rise, divide(sum, total)), zero));
}

#endif
