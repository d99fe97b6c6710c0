/* Weights packed for an instruction that multiplies bytes and saturates, so that it never does.
 *
 * vpmaddubsw adds two products of u8 x s8 into int16, which has room for 255 * (w + v) as long as |w + v| <= 128. Of a
 * pair that is beyond, the panels hold what fits, and its surplus lies behind them, to be multiplied once more: the sums
 * are exact, as VNNI's. Few pairs of a trained model's weights have a surplus. A step of half a panel, which is one
 * vector, has one where any of its 16 pairs has.
 *
 *     panels    [N / LANES][K / KR][LANES][KR] s8, what fits
 *     starts    (N / HALF + 1) where half a panel's begin among all that have a surplus
 *     marks     (N / HALF, K / KR / 32 rounded up) a bit for each step, whether it has one
 *     places    (all) the step
 *     surplus   (all)[HALF][KR] s8
 *
 * each from a multiple of 64 bytes on.
 */
#ifndef FASTEMBED_RT_SURPLUS_H
#define FASTEMBED_RT_SURPLUS_H

#include "kernels.h"
#include "support.h"
#include "tiles.h"

enum { HALF = 8, HALF_STEP = HALF * KR, PAIR_LIMIT = 128, MARKS = 32 };

typedef struct {
    uint32_t *starts, *marks, *places;
    PackedWeight *weights;
    size_t words; /* of marks, for half a panel */
} Surplus;

INLINE size_t room_of(size_t count) { return round_up(count * sizeof(uint32_t), 64); }
INLINE size_t halves_of(const Linear *layer) { return layer->panels * 2; }
INLINE size_t steps_of(const Linear *layer) { return layer->depth / KR; }
INLINE size_t mark_words(const Linear *layer) { return (steps_of(layer) + MARKS - 1) / MARKS; }

/* Bytes before the places. */
INLINE size_t panels_size(const Linear *layer) { return round_up(layer->panels * LANES * layer->depth, 64); }
INLINE size_t starts_size(const Linear *layer) { return room_of(halves_of(layer) + 1); }
INLINE size_t marks_size(const Linear *layer) { return room_of(halves_of(layer) * mark_words(layer)); }

/* Where they lie in a layer's packed weights; `weights` once the starts have been written. */
INLINE Surplus surplus_of(const Linear *layer) {
    char *starts = (char *)layer->packed + panels_size(layer), *marks = starts + starts_size(layer);
    char *places = marks + marks_size(layer);
    size_t all = ((uint32_t *)starts)[halves_of(layer)];
    return (Surplus){(uint32_t *)starts, (uint32_t *)marks, (uint32_t *)places, (PackedWeight *)places + room_of(all),
                     mark_words(layer)};
}

INLINE uint32_t is_marked(const Surplus *all, size_t half, size_t step) {
    return all->marks[half * all->words + step / MARKS] >> step % MARKS & 1;
}

INLINE __m256i load_half(const PackedWeight *from) { return _mm256_loadu_si256((const __m256i *)from); }
INLINE void store_half(PackedWeight *to, __m256i weights) { _mm256_storeu_si256((__m256i *)to, weights); }

/* ---- packing ---------------------------------------------------------------------------------------------------- */

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

INLINE int is_beyond(__m256i weights) {
    __m256i sizes = _mm256_abs_epi16(sums_of_pairs(weights));
    return _mm256_movemask_epi8(_mm256_cmpgt_epi16(sizes, _mm256_set1_epi16(PAIR_LIMIT))) != 0;
}

/* What the first of a pair has too much, 0 in the second. A pair that is beyond is of one sign, and neither of it is more
 * than the limit: the first has as much. */
INLINE __m256i surplus_in(__m256i weights) {
    __m256i sums = sums_of_pairs(weights);
    __m256i fits = _mm256_min_epi16(sums, _mm256_set1_epi16(PAIR_LIMIT));
    fits = _mm256_max_epi16(fits, _mm256_set1_epi16(-PAIR_LIMIT));
    return _mm256_and_si256(_mm256_sub_epi16(sums, fits), _mm256_set1_epi16(0xFF));
}

INLINE int are_same(const PackedWeight *have, __m256i want) {
    return _mm256_movemask_epi8(_mm256_cmpeq_epi8(load_half(have), want)) == -1;
}

/* Where the panels have a step of half a panel. */
INLINE PackedWeight *place_of(const Linear *layer, size_t half, size_t step) {
    return (PackedWeight *)layer->packed + half / 2 * (LANES * layer->depth) + (2 * step + half % 2) * HALF_STEP;
}

static size_t surplus_packed_size(const Linear *layer, const Columns *blocks, size_t count) {
    size_t all = 0;
    for (size_t half = 0; half < halves_of(layer); half++) {
        HalfColumns columns = columns_of(blocks, count, half);
        for (size_t step = 0; step < steps_of(layer); step++)
            all += (size_t)is_beyond(read_half(layer, &columns, step));
    }
    return panels_size(layer) + starts_size(layer) + marks_size(layer) + room_of(all) + all * HALF_STEP;
}

/* All weights -> packed, and their compensation. */
static void surplus_pack(Linear *layer, const Columns *blocks, size_t count) {
    const __m256i ones = _mm256_set1_epi16(1);
    Surplus all = surplus_of(layer);
    uint32_t at = 0;
    memset(all.marks, 0, marks_size(layer));
    for (size_t half = 0; half < halves_of(layer); half++) {
        HalfColumns columns = columns_of(blocks, count, half);
        all.starts[half] = at;
        for (size_t step = 0; step < steps_of(layer); step++)
            if (is_beyond(read_half(layer, &columns, step))) {
                all.marks[half * all.words + step / MARKS] |= 1u << step % MARKS;
                at++;
            }
    }
    all.starts[halves_of(layer)] = at;
    all = surplus_of(layer);
    at = 0;
    for (size_t half = 0; half < halves_of(layer); half++) {
        HalfColumns columns = columns_of(blocks, count, half);
        __m256i sums = _mm256_setzero_si256();
        for (size_t step = 0; step < steps_of(layer); step++) {
            __m256i weights = read_half(layer, &columns, step), surplus = surplus_in(weights);
            sums = accumulated(sums, _mm256_madd_epi16(sums_of_pairs(weights), ones));
            store_half(place_of(layer, half, step), _mm256_sub_epi8(weights, surplus));
            if (is_marked(&all, half, step)) {
                all.places[at] = (uint32_t)step;
                store_half(all.weights + at++ * (size_t)HALF_STEP, surplus);
            }
        }
        __m256i *compensation = (__m256i *)(layer->compensation + half * HALF);
        _mm256_storeu_si256(compensation, _mm256_mullo_epi32(sums, _mm256_set1_epi32(OFFSET - layer->zero_point)));
    }
}

/* Whether `surplus_pack` with the same arguments would change nothing in what is packed. */
static int surplus_is_packed(const Linear *layer, const Columns *blocks, size_t count) {
    Surplus all = surplus_of(layer);
    uint32_t at = 0;
    /* At first what says where the rest lies: packed memory is as large as these weights need. */
    for (size_t half = 0; half < halves_of(layer); half++) {
        HalfColumns columns = columns_of(blocks, count, half);
        if (all.starts[half] != at)
            return 0;
        for (size_t step = 0; step < steps_of(layer); step++) {
            uint32_t beyond = (uint32_t)is_beyond(read_half(layer, &columns, step));
            if (is_marked(&all, half, step) != beyond)
                return 0;
            at += beyond;
        }
    }
    if (all.starts[halves_of(layer)] != at)
        return 0;
    at = 0;
    for (size_t half = 0; half < halves_of(layer); half++) {
        HalfColumns columns = columns_of(blocks, count, half);
        for (size_t step = 0; step < steps_of(layer); step++) {
            __m256i weights = read_half(layer, &columns, step), surplus = surplus_in(weights);
            if (!are_same(place_of(layer, half, step), _mm256_sub_epi8(weights, surplus)))
                return 0;
            if (is_marked(&all, half, step)) {
                if (all.places[at] != step || !are_same(all.weights + at * (size_t)HALF_STEP, surplus))
                    return 0;
                at++;
            }
        }
    }
    return 1;
}

/* ---- products --------------------------------------------------------------------------------------------------- */

/* sums[r] += of `half` of a panel, for mr rows, a constant, what the surplus of its weights gives. */
INLINE void add_half_surplus(const Surplus *all, size_t half, size_t mr, const Quantized *a, size_t lda, __m256i *sums) {
    const uint32_t *place = all->places + all->starts[half], *last = all->places + all->starts[half + 1];
    const PackedWeight *weights = all->weights + all->starts[half] * (size_t)HALF_STEP;
    for (; place < last; place++, weights += HALF_STEP) {
        const Quantized *row = a + *place * (size_t)KR;
        __m256i right = load_half(weights);
#pragma GCC unroll 4
        for (size_t r = 0; r < mr; r++, row += lda)
            sums[r] = dot_half_u8s8(sums[r], broadcast_step(row), right);
    }
}

/* acc += what the surplus of a panel's weights gives, for mr rows, a constant. */
INLINE void add_surplus(const Linear *layer, size_t mr, size_t panel, const Quantized *a, size_t lda, Ints *acc) {
    Surplus all = surplus_of(layer);
    __m256i low[MR], high[MR];
#pragma GCC unroll 4
    for (size_t r = 0; r < mr; r++) {
        low[r] = acc[r].a;
        high[r] = acc[r].b;
    }
    add_half_surplus(&all, 2 * panel, mr, a, lda, low);
    add_half_surplus(&all, 2 * panel + 1, mr, a, lda, high);
#pragma GCC unroll 4
    for (size_t r = 0; r < mr; r++)
        acc[r] = pair_ints(low[r], high[r]);
}

INLINE __m256i find_surplus(const Surplus *all, size_t half, size_t step) {
    uint32_t at = all->starts[half];
    if (!is_marked(all, half, step))
        return _mm256_setzero_si256();
    while (all->places[at] < step)
        at++;
    return load_half(all->weights + at * (size_t)HALF_STEP);
}

/* What `channel_weights` (tiles.h) of a panel's step lacks. */
INLINE Ints channel_surplus(const Linear *layer, size_t panel, size_t step, const Quantized ones[KR]) {
    Surplus all = surplus_of(layer);
    Ints weights = pair_ints(find_surplus(&all, 2 * panel, step), find_surplus(&all, 2 * panel + 1, step));
    return dot_u8s8(broadcast_int(0), broadcast_step(ones), weights);
}

#endif
