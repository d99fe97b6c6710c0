/* Byte weights for an instruction that adds products in 16 bits and saturates, packed so that it never does, and the tile
 * that multiplies them: products of two steps are added before they are widened. The sums are exact, as VNNI's.
 *
 *     ranges    (N / HALF, windows) where the weights of a window's pairs (pairing.h) begin, in lines behind all vectors,
 *               and how many pairs there are
 *     vectors   (N / HALF, K / KR)[2] u16, which vectors of its window have a step's weights; the second is of zeros where
 *               one has all
 *     of each window:
 *         steps     (pairs)[2] u16, the steps of a row that they are multiplied with
 *         weights   (pairs)[2][HALF][KR] s8, a vector each; zeros where a part has no partner, and a line of them at last
 *
 * each from a multiple of 64 bytes on, which is a line.
 */
#ifndef FASTEMBED_RT_PAIRS_H
#define FASTEMBED_RT_PAIRS_H

#include "pairing.h"

enum { PAIR_BYTES = 2 * HALF_STEP, LINE = 64 };

typedef struct {
    uint32_t begin, count;
} Range;

/* A layer's packed weights. */
typedef struct {
    size_t steps, windows; /* of half a panel */
    Range *ranges;
    uint16_t (*vectors)[2];
    char *pairs;
} Packed;

/* The pairs of a window. */
typedef struct {
    size_t count;
    uint16_t (*steps)[2];
    PackedWeight *weights;
} Pairs;

INLINE size_t ranges_bytes(const Linear *layer) {
    return round_up(halves_of(layer) * windows_of(layer) * sizeof(Range), LINE);
}
INLINE size_t vectors_bytes(const Linear *layer) {
    return round_up(halves_of(layer) * steps_of(layer) * 2 * sizeof(uint16_t), LINE);
}

INLINE Packed packed_of(const Linear *layer) {
    char *ranges = layer->packed, *vectors = ranges + ranges_bytes(layer);
    return (Packed){steps_of(layer), windows_of(layer), (Range *)ranges, (uint16_t(*)[2])vectors,
                    vectors + vectors_bytes(layer)};
}

/* In lines: of steps, of weights. */
INLINE size_t paired_steps_size(size_t pairs) { return (pairs * 2 * sizeof(uint16_t) + LINE - 1) / LINE; }
INLINE size_t paired_weights_size(size_t pairs) { return pairs * (PAIR_BYTES / LINE) + 1; }

INLINE PackedWeight *weights_at(const Packed *packed, const Range *range) {
    return (PackedWeight *)packed->pairs + range->begin * (size_t)LINE;
}

INLINE Pairs pairs_at(const Packed *packed, Range range) {
    PackedWeight *weights = weights_at(packed, &range);
    return (Pairs){range.count, (uint16_t(*)[2])(weights - paired_steps_size(range.count) * LINE), weights};
}

/* ---- packing ---------------------------------------------------------------------------------------------------- */

/* What is done with window `number` of half a panel, whose pairs are at `at`; all stops where that is not 0. */
typedef int WindowFn(const Linear *layer, const Window *window, size_t half, size_t number, Range at);

/* Calls `fn`, if any, with every window in order. The lines of all pairs; SIZE_MAX where it has stopped. */
static size_t each_window(const Linear *layer, const Columns *blocks, size_t count, WindowFn *fn) {
    Window window;
    size_t lines = 0;
    for (size_t half = 0; half < halves_of(layer); half++) {
        HalfColumns columns = columns_of(blocks, count, half);
        for (size_t number = 0; number < windows_of(layer); number++) {
            pair_window(layer, &columns, number * WINDOW, &window);
            lines += paired_steps_size(window.paired);
            if (fn && fn(layer, &window, half, number, (Range){(uint32_t)lines, (uint32_t)window.paired}))
                return SIZE_MAX;
            lines += paired_weights_size(window.paired);
        }
    }
    return lines;
}

static size_t paired_packed_size(const Linear *layer, const Columns *blocks, size_t count) {
    size_t lines = each_window(layer, blocks, count, NULL);
    return ranges_bytes(layer) + vectors_bytes(layer) + lines * LINE;
}

/* A pair as it is packed. */
typedef struct {
    uint16_t steps[2];
    __m256i weights[2];
} Pair;

INLINE Pair pair_of(const Window *window, size_t number) {
    const uint16_t *parts = window->pairs[number];
    Pair pair = {{window->steps[parts[0]], window->steps[parts[0]]}, {window->weights[parts[0]], _mm256_setzero_si256()}};
    if (parts[1] != NO_PART) {
        pair.steps[1] = window->steps[parts[1]];
        pair.weights[1] = window->weights[parts[1]];
    }
    return pair;
}

/* Which vectors of a window's pairs have the weights of each of its steps; the number of steps. */
static size_t find_vectors(const Window *window, uint16_t vectors[WINDOW][2]) {
    uint16_t found[MOST_PARTS + 1];
    size_t steps = 0;
    for (size_t vector = 0; vector < 2 * window->paired; vector++)
        found[window->pairs[vector / 2][vector % 2]] = (uint16_t)vector;
    for (size_t part = 0; part < window->parts; part++) {
        steps = window->steps[part] - window->steps[0] + 1u;
        int split = part && window->steps[part] == window->steps[part - 1];
        vectors[steps - 1][split] = found[part];
        if (!split)
            vectors[steps - 1][1] = (uint16_t)(2 * window->paired);
    }
    return steps;
}

static int pack_window(const Linear *layer, const Window *window, size_t half, size_t number, Range at) {
    const __m256i ones = _mm256_set1_epi16(1);
    Packed packed = packed_of(layer);
    Pairs pairs = pairs_at(&packed, at);
    __m256i *compensation = (__m256i *)(layer->compensation + half * HALF);
    __m256i sums = _mm256_setzero_si256();
    packed.ranges[half * packed.windows + number] = at;
    find_vectors(window, packed.vectors + half * packed.steps + window->steps[0]);
    for (size_t k = 0; k < window->paired; k++) {
        Pair pair = pair_of(window, k);
        memcpy(pairs.steps[k], pair.steps, sizeof pair.steps);
        for (size_t i = 0; i < 2; i++) {
            store_half(pairs.weights + k * PAIR_BYTES + i * HALF_STEP, pair.weights[i]);
            sums = accumulated(sums, _mm256_madd_epi16(sums_of_pairs(pair.weights[i]), ones));
        }
    }
    memset(pairs.weights + window->paired * PAIR_BYTES, 0, LINE);
    sums = _mm256_mullo_epi32(sums, _mm256_set1_epi32(OFFSET - layer->zero_point));
    _mm256_storeu_si256(compensation, _mm256_add_epi32(_mm256_loadu_si256(compensation), sums));
    return 0;
}

/* All weights -> packed, and their compensation. */
static void paired_pack(Linear *layer, const Columns *blocks, size_t count) {
    each_window(layer, blocks, count, pack_window);
}

INLINE int are_same(const PackedWeight *have, __m256i want) {
    return _mm256_movemask_epi8(_mm256_cmpeq_epi8(load_half(have), want)) == -1;
}

static int window_differs(const Linear *layer, const Window *window, size_t half, size_t number, Range at) {
    static const PackedWeight zeros[LINE];
    Packed packed = packed_of(layer);
    uint16_t vectors[WINDOW][2];
    size_t steps = find_vectors(window, vectors);
    /* At first where it lies: packed memory is as large as these weights need. */
    if (memcmp(&packed.ranges[half * packed.windows + number], &at, sizeof at) ||
        memcmp(packed.vectors + half * packed.steps + window->steps[0], vectors, steps * sizeof *vectors))
        return 1;
    Pairs pairs = pairs_at(&packed, at);
    for (size_t k = 0; k < window->paired; k++) {
        Pair pair = pair_of(window, k);
        if (memcmp(pairs.steps[k], pair.steps, sizeof pair.steps) ||
            !are_same(pairs.weights + k * PAIR_BYTES, pair.weights[0]) ||
            !are_same(pairs.weights + k * PAIR_BYTES + HALF_STEP, pair.weights[1]))
            return 1;
    }
    return memcmp(pairs.weights + window->paired * PAIR_BYTES, zeros, LINE) != 0;
}

/* Whether `paired_pack` with the same arguments would change nothing in what is packed. */
static int paired_is_packed(const Linear *layer, const Columns *blocks, size_t count) {
    return each_window(layer, blocks, count, window_differs) != SIZE_MAX;
}

/* ---- products --------------------------------------------------------------------------------------------------- */

/* sums[r] of half a panel, for mr rows of `a`, a constant. */
INLINE void half_tile(size_t mr, const Packed *packed, size_t half, const Quantized *a, size_t lda, __m256i *sums) {
    const Range *range = packed->ranges + half * packed->windows, *last = range + packed->windows;
    const __m256i ones = _mm256_set1_epi16(1);
    const Quantized *row[PRODUCT_MR];
    __m256i acc[PRODUCT_MR];
#pragma GCC unroll 8
    for (size_t r = 0; r < mr; r++) {
        acc[r] = _mm256_setzero_si256();
        row[r] = a + r * lda;
        __asm__("" : "+r"(row[r])); /* held, or compilers add lda in the loop, twice for each row */
    }
    for (; range < last; range++) {
        Pairs pairs = pairs_at(packed, *range);
        for (size_t k = 0; k < pairs.count; k++, pairs.weights += PAIR_BYTES) {
            size_t one = pairs.steps[k][0] * (size_t)KR, other = pairs.steps[k][1] * (size_t)KR;
            __m256i with_one = load_half(pairs.weights), with_other = load_half(pairs.weights + HALF_STEP);
            _mm_prefetch((const char *)pairs.weights + AHEAD, _MM_HINT_T0);
#pragma GCC unroll 8
            for (size_t r = 0; r < mr; r++) {
                __m256i products = _mm256_add_epi16(_mm256_maddubs_epi16(broadcast_step(row[r] + one), with_one),
                                                    _mm256_maddubs_epi16(broadcast_step(row[r] + other), with_other));
                acc[r] = accumulated(acc[r], _mm256_madd_epi16(products, ones));
            }
        }
    }
#pragma GCC unroll 8
    for (size_t r = 0; r < mr; r++)
        sums[r] = acc[r];
}

/* sums[r] of a panel, for mr rows of `a`, a constant. */
INLINE void paired_tile(size_t mr, const Linear *layer, size_t panel, const Quantized *a, Ints *sums) {
    Packed packed = packed_of(layer);
    __m256i low[PRODUCT_MR], high[PRODUCT_MR];
    half_tile(mr, &packed, 2 * panel, a, layer->depth * sizeof(Quantized), low);
    half_tile(mr, &packed, 2 * panel + 1, a, layer->depth * sizeof(Quantized), high);
#pragma GCC unroll 8
    for (size_t r = 0; r < mr; r++)
        sums[r] = pair_ints(low[r], high[r]);
}

/* Where the weights of a panel's channels are looked up: the first window's range and the first step's vectors of each
 * half. */
typedef struct {
    Packed packed;
    const Range *ranges[2];
    const uint16_t (*vectors[2])[2];
} PanelChannels;

INLINE PanelChannels panel_channels(const Linear *layer, size_t panel) {
    PanelChannels found = {packed_of(layer), {NULL}, {NULL}};
    for (size_t i = 0; i < 2; i++) {
        found.ranges[i] = found.packed.ranges + (2 * panel + i) * found.packed.windows;
        found.vectors[i] = (const uint16_t(*)[2])found.packed.vectors + (2 * panel + i) * found.packed.steps;
    }
    return found;
}

/* w[n] of half a panel's outputs n, for the channel whose place among the KR of a step is 1 in `ones`, 0 elsewhere. */
INLINE __m256i channel_of_half(const PanelChannels *panel, size_t half, size_t step, Step ones) {
    const PackedWeight *weights = weights_at(&panel->packed, panel->ranges[half] + step / WINDOW);
    const uint16_t *vectors = panel->vectors[half][step];
    __m256i one = load_half(weights + vectors[0] * (size_t)HALF_STEP);
    __m256i other = load_half(weights + vectors[1] * (size_t)HALF_STEP);
    /* Their sum is a weight again. */
    return _mm256_madd_epi16(_mm256_maddubs_epi16(ones, _mm256_add_epi8(one, other)), _mm256_set1_epi16(1));
}

/* Likewise of a panel's. */
INLINE Ints paired_channel(const PanelChannels *panel, size_t step, const Quantized ones[KR]) {
    Step one = broadcast_step(ones);
    return pair_ints(channel_of_half(panel, 0, step, one), channel_of_half(panel, 1, step, one));
}

#endif
