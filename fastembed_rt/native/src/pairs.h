/* Weights packed for an instruction that multiplies bytes and saturates, so that it never does, and a tile that adds twice
 * before its sums are widened.
 *
 * vpmaddubsw adds two products of u8 x s8 into int16. Those of two steps have room there as long as, in each lane, their
 * positive weights add up to PAIR_LIMIT at most, and their negative ones to -PAIR_LIMIT at least. So the steps of half a
 * panel, a vector each, are packed two by two: of each a partner is sought that leaves it room, wherever in a window of K
 * that lies. A step that is beyond the limit alone, one of six of a trained model's, is split into two that have half of
 * each of its weights. What finds no partner has zeros for one: few do. All sums are exact, as VNNI's.
 *
 *     windows   (N / HALF, K / KR / WINDOW rounded up) of half a panel: where its pairs begin, in lines of 64 bytes behind
 *               the places, and how many there are
 *     places    (N / HALF, K / KR)[2] u16, which of its window's vectors have a step's weights, alike where it is one
 *     of each window:
 *         steps     (pairs)[2] u16, the steps of a row that they are multiplied with
 *         weights   (pairs)[2][HALF][KR] s8
 *
 * each from a multiple of 64 bytes on.
 */
#ifndef FASTEMBED_RT_PAIRS_H
#define FASTEMBED_RT_PAIRS_H

#include "kernels.h"
#include "support.h"
#include "tiles.h"

enum {
    HALF = 8,
    HALF_STEP = HALF * KR,
    PAIR_BYTES = 2 * HALF_STEP,
    PAIR_LIMIT = 128,
    WINDOW = 256, /* steps: the rows' part of it stays in the first cache, and more of them find no better partners */
    TRIES = 64,   /* partners that a part is held against */
    LINE = 64
};

typedef struct {
    uint32_t begin, count;
} Place;

/* A layer's packed weights. */
typedef struct {
    size_t steps, count; /* of half a panel: steps, windows */
    Place *windows;
    uint16_t (*places)[2];
    char *pairs;
} Packed;

/* The pairs of a window. */
typedef struct {
    size_t count;
    uint16_t (*steps)[2];
    PackedWeight *weights;
} Pairs;

INLINE size_t halves_of(const Linear *layer) { return layer->panels * 2; }
INLINE size_t steps_of(const Linear *layer) { return layer->depth / KR; }
INLINE size_t windows_of(const Linear *layer) { return (steps_of(layer) + WINDOW - 1) / WINDOW; }
INLINE size_t windows_bytes(const Linear *layer) {
    return round_up(halves_of(layer) * windows_of(layer) * sizeof(Place), LINE);
}
INLINE size_t places_bytes(const Linear *layer) {
    return round_up(halves_of(layer) * steps_of(layer) * 2 * sizeof(uint16_t), LINE);
}

INLINE Packed packed_of(const Linear *layer) {
    char *windows = layer->packed, *places = windows + windows_bytes(layer);
    return (Packed){steps_of(layer), windows_of(layer), (Place *)windows, (uint16_t(*)[2])places,
                    places + places_bytes(layer)};
}

/* In lines. */
INLINE size_t paired_steps_size(size_t pairs) { return (pairs * 2 * sizeof(uint16_t) + LINE - 1) / LINE; }
INLINE size_t pairs_size(size_t pairs) { return paired_steps_size(pairs) + pairs * (PAIR_BYTES / LINE); }

INLINE Pairs pairs_at(const Packed *packed, Place place) {
    char *begin = packed->pairs + place.begin * (size_t)LINE;
    return (Pairs){place.count, (uint16_t(*)[2])begin, (PackedWeight *)begin + paired_steps_size(place.count) * LINE};
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

/* What a step takes of the room of its lanes: of each what its positive weights add up to, and its negative ones. */
INLINE __m256i room_taken(__m256i weights) {
    __m256i positive = sums_of_pairs(_mm256_max_epi8(weights, _mm256_setzero_si256()));
    return _mm256_packus_epi16(positive, _mm256_sub_epi16(positive, sums_of_pairs(weights)));
}

INLINE int has_room(__m256i taken) {
    const __m256i limit = _mm256_set1_epi8((char)PAIR_LIMIT);
    return _mm256_movemask_epi8(_mm256_cmpeq_epi8(_mm256_max_epu8(taken, limit), limit)) == -1;
}

INLINE int have_room(__m256i taken, __m256i too) { return has_room(_mm256_adds_epu8(taken, too)); }

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
    size_t first, parts, paired; /* its first step; how many */
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
    window->first = first;
    window->parts = window->paired = 0;
    for (size_t step = first; step < last; step++) {
        __m256i weights = read_half(layer, columns, step), taken = room_taken(weights);
        if (has_room(taken)) {
            add_part(window, step, weights, taken);
        } else {
            __m256i half = halved(weights), rest = _mm256_sub_epi8(weights, half);
            add_part(window, step, half, room_taken(half));
            add_part(window, step, rest, room_taken(rest));
        }
    }
    for (size_t part = chain_parts(window); part != NO_PART; part = window->next[part]) {
        size_t before = part, other = window->next[part], tries = TRIES;
        while (other != NO_PART && !have_room(window->taken[part], window->taken[other])) {
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

/* What is done with each window of each half of a panel, in order: `at` is its place. Stops where that is not 0. */
typedef int WindowFn(const Linear *layer, const Window *window, size_t half, size_t number, Place at);

/* Lines of all pairs, once `fn` has been called with every window; a number that is none where it has stopped. */
static size_t each_window(const Linear *layer, const Columns *blocks, size_t count, WindowFn *fn) {
    Window window;
    size_t lines = 0;
    for (size_t half = 0; half < halves_of(layer); half++) {
        HalfColumns columns = columns_of(blocks, count, half);
        for (size_t number = 0; number < windows_of(layer); number++) {
            pair_window(layer, &columns, number * WINDOW, &window);
            if (fn(layer, &window, half, number, (Place){(uint32_t)lines, (uint32_t)window.paired}))
                return SIZE_MAX;
            lines += pairs_size(window.paired);
        }
    }
    return lines;
}

static int do_nothing(const Linear *layer, const Window *window, size_t half, size_t number, Place at) {
    (void)layer, (void)window, (void)half, (void)number, (void)at;
    return 0;
}

static size_t paired_packed_size(const Linear *layer, const Columns *blocks, size_t count) {
    size_t lines = each_window(layer, blocks, count, do_nothing);
    return windows_bytes(layer) + places_bytes(layer) + lines * LINE;
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

/* Of each step of a window; how many there are. */
static size_t find_places(const Window *window, uint16_t places[WINDOW][2]) {
    uint16_t found[MOST_PARTS + 1];
    size_t steps = 0;
    for (size_t vector = 0; vector < 2 * window->paired; vector++)
        found[window->pairs[vector / 2][vector % 2]] = (uint16_t)vector;
    for (size_t part = 0; part < window->parts; part++) {
        steps = window->steps[part] - window->first + 1u;
        int split = part && window->steps[part] == window->steps[part - 1];
        places[steps - 1][0] = found[part - (size_t)split];
        places[steps - 1][1] = found[part];
    }
    return steps;
}

static int pack_window(const Linear *layer, const Window *window, size_t half, size_t number, Place at) {
    const __m256i ones = _mm256_set1_epi16(1);
    Packed packed = packed_of(layer);
    Pairs pairs = pairs_at(&packed, at);
    __m256i *compensation = (__m256i *)(layer->compensation + half * HALF);
    __m256i sums = _mm256_setzero_si256();
    packed.windows[half * packed.count + number] = at;
    find_places(window, packed.places + half * packed.steps + window->first);
    for (size_t k = 0; k < window->paired; k++) {
        Pair pair = pair_of(window, k);
        memcpy(pairs.steps[k], pair.steps, sizeof pair.steps);
        for (size_t i = 0; i < 2; i++) {
            store_half(pairs.weights + k * PAIR_BYTES + i * HALF_STEP, pair.weights[i]);
            sums = accumulated(sums, _mm256_madd_epi16(sums_of_pairs(pair.weights[i]), ones));
        }
    }
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

static int window_differs(const Linear *layer, const Window *window, size_t half, size_t number, Place at) {
    Packed packed = packed_of(layer);
    uint16_t places[WINDOW][2];
    size_t steps = find_places(window, places);
    /* At first where it lies: packed memory is as large as these weights need. */
    if (memcmp(&packed.windows[half * packed.count + number], &at, sizeof at) ||
        memcmp(packed.places + half * packed.steps + window->first, places, steps * sizeof *places))
        return 1;
    Pairs pairs = pairs_at(&packed, at);
    for (size_t k = 0; k < window->paired; k++) {
        Pair pair = pair_of(window, k);
        if (memcmp(pairs.steps[k], pair.steps, sizeof pair.steps) ||
            !are_same(pairs.weights + k * PAIR_BYTES, pair.weights[0]) ||
            !are_same(pairs.weights + k * PAIR_BYTES + HALF_STEP, pair.weights[1]))
            return 1;
    }
    return 0;
}

/* Whether `paired_pack` with the same arguments would change nothing in what is packed. */
static int paired_is_packed(const Linear *layer, const Columns *blocks, size_t count) {
    return each_window(layer, blocks, count, window_differs) != SIZE_MAX;
}

/* ---- products --------------------------------------------------------------------------------------------------- */

/* sums[r] of half a panel, for mr rows of `a`, a constant. */
INLINE void half_tile(size_t mr, const Packed *packed, size_t half, const Quantized *a, size_t lda, __m256i *sums) {
    const Place *window = packed->windows + half * packed->count, *last = window + packed->count;
    const __m256i ones = _mm256_set1_epi16(1);
    const Quantized *row[PRODUCT_MR];
    __m256i acc[PRODUCT_MR];
#pragma GCC unroll 8
    for (size_t r = 0; r < mr; r++) {
        acc[r] = _mm256_setzero_si256();
        row[r] = a + r * lda;
        __asm__("" : "+r"(row[r])); /* held, or compilers add lda in the loop, twice for each row */
    }
    for (; window < last; window++) {
        Pairs pairs = pairs_at(packed, *window);
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

/* w[n] of half a panel's outputs n, for the channel whose place among the KR of a step is 1 in `ones`, 0 elsewhere. */
INLINE __m256i channel_of_half(const Packed *packed, size_t half, size_t step, Step ones) {
    Pairs pairs = pairs_at(packed, packed->windows[half * packed->count + step / WINDOW]);
    const uint16_t *places = packed->places[half * packed->steps + step];
    __m256i weights = load_half(pairs.weights + places[0] * (size_t)HALF_STEP);
    __m256i others = load_half(pairs.weights + places[1] * (size_t)HALF_STEP);
    others = _mm256_and_si256(others, _mm256_set1_epi8(places[0] == places[1] ? 0 : -1));
    /* Their sum is a weight again. */
    return dot_half_u8s8(_mm256_setzero_si256(), ones, _mm256_add_epi8(weights, others));
}

/* Likewise of a panel's. */
INLINE Ints paired_channel(const Linear *layer, size_t panel, size_t step, const Quantized ones[KR]) {
    Packed packed = packed_of(layer);
    Step one = broadcast_step(ones);
    return pair_ints(channel_of_half(&packed, 2 * panel, step, one), channel_of_half(&packed, 2 * panel + 1, step, one));
}

#endif
