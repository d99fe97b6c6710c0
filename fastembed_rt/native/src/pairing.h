/* Which steps of half a panel of byte weights are multiplied together, where an instruction adds products in 16 bits.
 *
 * vpmaddubsw adds two products of u8 x s8 into int16. Those of two steps have room there as long as, in each lane, their
 * positive weights add up to PAIR_LIMIT at most, and their negative ones to -PAIR_LIMIT at least: 255 * 128 is below 2^15.
 * Steps are looked through a window of K at a time. One that is beyond the limit alone is split into two parts that have
 * half of each of its weights. Of each part a partner is sought that leaves it room, the hardest to please first.
 */
#ifndef FASTEMBED_RT_PAIRING_H
#define FASTEMBED_RT_PAIRING_H

#include "kernels.h"
#include "support.h"
#include "tiles.h"

enum {
    HALF = 8,
    HALF_STEP = HALF * KR,
    PAIR_LIMIT = 128,
    WINDOW = 256, /* steps: what rows have of it stays in the first cache */
    TRIES = 64    /* partners that a part is held against */
};

INLINE size_t halves_of(const Linear *layer) { return layer->panels * 2; }
INLINE size_t steps_of(const Linear *layer) { return layer->depth / KR; }
INLINE size_t windows_of(const Linear *layer) { return (steps_of(layer) + WINDOW - 1) / WINDOW; }

INLINE __m256i load_half(const PackedWeight *from) { return _mm256_loadu_si256((const __m256i *)from); }
INLINE void store_half(PackedWeight *to, __m256i weights) { _mm256_storeu_si256((__m256i *)to, weights); }

/* The columns of half a panel, from which of the blocks side by side they come. */
typedef struct {
    const int8_t *from[HALF]; /* the first input's; NULL beyond the last column */
    size_t stride[HALF];
    int side_by_side;         /* in one block */
} HalfColumns;

static HalfColumns columns_of(const Columns *blocks, size_t count, size_t half) {
    HalfColumns found = {{NULL}, {0}, 0};
    size_t first = half * HALF, begin = 0;
    for (size_t i = 0; i < count; begin += blocks[i++].count) {
        size_t end = begin + blocks[i].count;
        for (size_t c = 0; c < HALF; c++)
            if (first + c >= begin && first + c < end) {
                found.from[c] = (const int8_t *)blocks[i].weights + (first + c - begin);
                found.stride[c] = blocks[i].count;
            }
        found.side_by_side |= first >= begin && first + HALF <= end;
    }
    return found;
}

INLINE __m128i eight_bytes(const int8_t *from) { return _mm_loadl_epi64((const __m128i *)from); }

/* Weights [HALF][KR] of a step. */
INLINE __m256i read_half(const Linear *layer, const HalfColumns *columns, size_t step) {
    size_t first = step * KR, rows = first < layer->inputs ? min_size(KR, layer->inputs - first) : 0;
    if (columns->side_by_side && rows == KR) {
        size_t stride = columns->stride[0];
        const int8_t *row = columns->from[0] + first * stride;
        __m128i low = _mm_unpacklo_epi8(eight_bytes(row), eight_bytes(row + stride));
        row += 2 * stride;
        __m128i high = _mm_unpacklo_epi8(eight_bytes(row), eight_bytes(row + stride));
        return _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_unpacklo_epi16(low, high)),
                                       _mm_unpackhi_epi16(low, high), 1);
    }
    int8_t found[HALF_STEP] = {0};
    for (size_t c = 0; c < HALF && columns->from[c]; c++)
        for (size_t k = 0; k < rows; k++)
            found[c * KR + k] = columns->from[c][(first + k) * columns->stride[c]];
    return load_half(found);
}

INLINE __m256i sums_of_pairs(__m256i weights) { return _mm256_maddubs_epi16(_mm256_set1_epi8(1), weights); }

/* What a step takes of the room of its lanes: of each what its positive weights add up to, and its negative ones. */
INLINE __m256i room_taken(__m256i weights) {
    __m256i positive = sums_of_pairs(_mm256_max_epi8(weights, _mm256_setzero_si256()));
    return _mm256_packus_epi16(positive, _mm256_sub_epi16(positive, sums_of_pairs(weights)));
}

INLINE int fits(__m256i taken) {
    const __m256i limit = _mm256_set1_epi8((char)PAIR_LIMIT);
    return _mm256_movemask_epi8(_mm256_cmpeq_epi8(_mm256_max_epu8(taken, limit), limit)) == -1;
}

INLINE int fit_together(__m256i taken, __m256i too) { return fits(_mm256_adds_epu8(taken, too)); }

/* Half of each weight, rounded down. The other half is the rest. */
INLINE __m256i halved(__m256i weights) {
    __m256i shifted = _mm256_srli_epi16(_mm256_xor_si256(weights, _mm256_set1_epi8((char)0x80)), 1);
    return _mm256_sub_epi8(_mm256_and_si256(shifted, _mm256_set1_epi8(0x7F)), _mm256_set1_epi8(0x40));
}

INLINE size_t most_of_bytes(__m256i bytes) {
    __m128i most = _mm_max_epu8(_mm256_castsi256_si128(bytes), _mm256_extracti128_si256(bytes, 1));
    __m128i least = _mm_xor_si128(_mm_max_epu8(most, _mm_srli_epi16(most, 8)), _mm_set1_epi8(-1));
    return 255 - (size_t)_mm_extract_epi8(_mm_minpos_epu16(_mm_and_si128(least, _mm_set1_epi16(255))), 0);
}

/* What is multiplied with a step of a row: all of the step's weights, or half of each. */
enum { MOST_PARTS = 2 * WINDOW, NO_PART = MOST_PARTS };

/* A window of half a panel: its parts in the order of steps, and what was paired. */
typedef struct {
    __m256i weights[MOST_PARTS], taken[MOST_PARTS];
    uint16_t steps[MOST_PARTS];
    uint16_t next[MOST_PARTS]; /* of those without a partner, the one that takes as much or less */
    uint16_t pairs[MOST_PARTS][2];
    size_t parts, paired; /* how many */
} Window;

INLINE void add_part(Window *window, size_t step, __m256i weights, __m256i taken) {
    window->weights[window->parts] = weights;
    window->taken[window->parts] = taken;
    window->steps[window->parts++] = (uint16_t)step;
}

/* A chain of all parts, those first that take most of one lane: the hardest to find partners for. Its first. */
static size_t chain_parts(Window *window) {
    uint16_t first[PAIR_LIMIT + 1], last[PAIR_LIMIT + 1];
    size_t begin = NO_PART;
    memset(first, 0xFF, sizeof first);
    for (size_t part = window->parts; part-- > 0;) {
        size_t most = most_of_bytes(window->taken[part]);
        if (first[most] == UINT16_MAX)
            last[most] = (uint16_t)part;
        window->next[part] = first[most];
        first[most] = (uint16_t)part;
    }
    for (size_t most = 0; most <= PAIR_LIMIT; most++)
        if (first[most] != UINT16_MAX) {
            window->next[last[most]] = (uint16_t)begin;
            begin = first[most];
        }
    return begin;
}

/* Finds partners for the steps of half a panel from `first` on, WINDOW at most. */
NOINLINE void pair_window(const Linear *layer, const HalfColumns *columns, size_t first, Window *window) {
    size_t last = min_size(steps_of(layer), first + WINDOW);
    window->parts = window->paired = 0;
    for (size_t step = first; step < last; step++) {
        __m256i weights = read_half(layer, columns, step), taken = room_taken(weights);
        if (fits(taken)) {
            add_part(window, step, weights, taken);
        } else {
            __m256i half = halved(weights), rest = _mm256_sub_epi8(weights, half);
            add_part(window, step, half, room_taken(half));
            add_part(window, step, rest, room_taken(rest));
        }
    }
    for (size_t part = chain_parts(window); part != NO_PART; part = window->next[part]) {
        size_t before = part, other = window->next[part], tries = TRIES;
        while (other != NO_PART && !fit_together(window->taken[part], window->taken[other])) {
            before = other;
            other = --tries ? window->next[other] : NO_PART;
        }
        if (other != NO_PART)
            window->next[before] = window->next[other];
        uint16_t *pair = window->pairs[window->paired++];
        pair[0] = (uint16_t)part;
        pair[1] = (uint16_t)other;
    }
}

#endif
