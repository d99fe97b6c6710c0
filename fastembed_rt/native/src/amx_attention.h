/* Attention's products in AMX tiles: numbers of int16 in two bytes each, whose four products are added apart.
 *
 *     a = 2^8 * high(a) + low(a)                          low: u8, high: s8
 *     sum a * b = 2^16 * sum high(a) * high(b) + 2^8 * sum (high(a) * low(b) + low(a) * high(b)) + sum low(a) * low(b)
 *
 * The whole is below 2^31 and the parts are added modulo 2^32: the integers of tiles.h, and so the bits of every other
 * set. Each of the three sums has a tile of its own, 16 queries by 16 keys or channels. While one is multiplied, what
 * follows the one before it runs: scores to powers of 2, or products to what is mixed.
 *
 * Texts of fewer keys than a tile of values takes, and those with one query, are multiplied as tiles.h has it.
 */
#ifndef FASTEMBED_RT_AMX_ATTENTION_H
#define FASTEMBED_RT_AMX_ATTENTION_H

#include "amx_tiles.h"
#include "softmax.h"

enum {
    LOW, HIGH,                      /* planes of bytes */
    SUMS = 3,                       /* of products: of low bytes, of both, of high bytes */
    TILED_KEYS = TILE_BYTES,        /* that a text has, at least */
    PLANE_STEP = 4,                 /* bytes of K in a cell of a tile */
    PLANE_ROWS = QUERY_BLOCK + TILE_ROWS /* of q: a tile may begin at any of its rows */
};
_Static_assert((int)ATTEND_ROWS == (int)TILE_ROWS && KEY_BLOCK % TILE_BYTES == 0, "tiles have the rows of a block");

/* Numbers of bytes, and sums of products. Beyond a head's channels q is 0; beyond the keys of a block that take part, p:
 * what is in the other operand there is multiplied by 0. */
typedef struct Planes {
    size_t depth;                   /* channels, rounded up to whole tiles */
    uint8_t *q[2];                  /* [PLANE_ROWS][depth] */
    uint8_t *k[2];                  /* [keys / LANES][depth / 4][LANES][4] */
    uint8_t *v[2];                  /* [keys / TILE_BYTES][channels / LANES][TILE_ROWS][LANES][4] four keys of a channel */
    uint8_t *p[2];                  /* [TILE_ROWS][KEY_BLOCK] */
    int32_t *sums;                  /* [2][SUMS][TILE_CELLS] of two blocks in turn */
} Planes;

/* What the compiler has in registers is in memory, and is read from there again: it does not know what tiles load. */
INLINE void settle(const void *memory) { __asm__ __volatile__("" : : "r"(memory) : "memory"); }

/* ---- memory ----------------------------------------------------------------------------------------------------- */

INLINE size_t plane_depth(size_t depth) { return round_up(depth, TILE_BYTES); }

enum { PLANES_BYTES = (sizeof(Planes) + 63) / 64 * 64 };

static size_t key_planes_bytes(size_t keys, size_t depth) {
    return 2 * (keys * plane_depth(depth) + round_up(keys, TILE_BYTES) * depth);
}
static size_t row_planes_bytes(size_t depth) {
    return PLANES_BYTES + 2 * (PLANE_ROWS * plane_depth(depth) + TILE_ROWS * KEY_BLOCK) +
           2 * SUMS * TILE_CELLS * sizeof(int32_t);
}

/* Planes of keys and values in `memory` of key_planes_bytes, at a multiple of 64 as are all of them. */
static void lay_out_key_planes(Planes *planes, void *memory, size_t keys, size_t depth) {
    uint8_t *at = memory;
    planes->depth = plane_depth(depth);
    for (size_t half = 0; half < 2; half++) {
        planes->k[half] = at;
        planes->v[half] = at + keys * planes->depth;
        at = planes->v[half] + round_up(keys, TILE_BYTES) * depth;
    }
}

/* The other planes and `planes` itself, in memory of row_planes_bytes; keys' and values' are in `keys`. */
static Planes *lay_out_planes(void *memory, const Planes *keys) {
    Planes *planes = memory;
    uint8_t *at = (uint8_t *)memory + PLANES_BYTES;
    *planes = *keys;
    planes->sums = (int32_t *)at;
    at += 2 * SUMS * TILE_CELLS * sizeof(int32_t);
    for (size_t half = 0; half < 2; half++) {
        planes->q[half] = at;
        planes->p[half] = at + PLANE_ROWS * planes->depth;
        at = planes->p[half] + TILE_ROWS * KEY_BLOCK;
        memset(planes->q[half], 0, PLANE_ROWS * planes->depth);
    }
    return planes;
}

/* `n` int16, a multiple of LANES -> their bytes. */
INLINE void split(const int16_t *from, size_t n, uint8_t *low, uint8_t *high) {
    size_t k = 0;
#if defined(__AVX512BW__)
    for (; k + 2 * LANES <= n; k += 2 * LANES) {
        __m512i both = _mm512_loadu_si512(from + k);
        _mm256_storeu_si256((__m256i *)(low + k), _mm512_cvtepi16_epi8(both));
        _mm256_storeu_si256((__m256i *)(high + k), _mm512_cvtepi16_epi8(_mm512_srli_epi16(both, 8)));
    }
#endif
    for (; k < n; k += LANES) {
        Ints both = load_shorts(from + k), byte = broadcast_int(0xFF);
        store_bytes(low + k, and_ints(both, byte));
        store_bytes(high + k, and_ints(shift_right(both, 8), byte));
    }
}

/* ---- packing ---------------------------------------------------------------------------------------------------- */

/* The rows of head->q -> planes. */
NOINLINE void split_queries(const Head *head, size_t rows) {
    const Planes *planes = head->planes;
    for (size_t r = 0; r < rows; r++)
        split(head->q + r * head->depth, head->depth, planes->q[LOW] + r * planes->depth,
              planes->q[HIGH] + r * planes->depth);
}

/* key (length, stride) f32 -> planes, where pack_keys has panels. */
NOINLINE void pack_keys_in_planes(const Head *head, const float *key, size_t stride, float factor) {
    const Planes *planes = head->planes;
    size_t depth = head->depth, length = head->length, panel = planes->depth * LANES;
    uint8_t *bytes[2] = {(uint8_t *)(head->staged + depth), (uint8_t *)(head->staged + depth) + depth};
    for (size_t half = 0; length < head->keys && half < 2; half++)
        memset(planes->k[half] + (head->keys / LANES - 1) * panel, 0, panel);
    for (size_t k = 0; k < length; k++) {
        size_t place = k / LANES * panel + k % LANES * PLANE_STEP;
        quantize_s16(key + k * stride, head->size, head->panel_stride, factor, head->staged);
        split(head->staged, depth, bytes[LOW], bytes[HIGH]);
        for (size_t half = 0; half < 2; half++)
            for (size_t d = 0; d < depth; d += PLANE_STEP)
                memcpy(planes->k[half] + place + d * LANES, bytes[half] + d, PLANE_STEP);
    }
}

/* value (length, stride) f32 -> planes, where pack_values has panels. */
NOINLINE void pack_values_in_planes(const Head *head, float factor) {
    const Planes *planes = head->planes;
    size_t depth = head->depth, length = head->length, stride = head->value_stride;
    const float *value = head->value;
    int16_t *staged = head->staged;
    const Ints low = broadcast_int(0xFF), high = broadcast_int(0xFF00);
    for (size_t k = 0; k < head->keys; k += PLANE_STEP) {
        for (size_t j = 0; j < PLANE_STEP; j++)
            if (k + j < length)
                quantize_s16(value + (k + j) * stride, head->size, head->panel_stride, factor, staged + j * depth);
            else
                memset(staged + j * depth, 0, depth * sizeof(int16_t));
        size_t place = k / TILE_BYTES * TILE_BYTES * depth + k % TILE_BYTES / PLANE_STEP * TILE_BYTES;
        for (size_t d = 0; d < depth; d += LANES, place += TILE_ROWS * TILE_BYTES) {
            const int16_t *at = staged + d;
            Ints a = load_shorts(at), b = load_shorts(at + depth), c = load_shorts(at + 2 * depth),
                 e = load_shorts(at + 3 * depth);
            Ints lows = or_ints(or_ints(and_ints(a, low), shift_left(and_ints(b, low), 8)),
                                or_ints(shift_left(and_ints(c, low), 16), shift_left(e, 24)));
            Ints highs = or_ints(or_ints(shift_right(and_ints(a, high), 8), and_ints(b, high)),
                                 or_ints(shift_left(and_ints(c, high), 8), shift_left(and_ints(e, high), 16)));
            store_ints((int32_t *)(planes->v[LOW] + place), lows);
            store_ints((int32_t *)(planes->v[HIGH] + place), highs);
        }
    }
}

/* ---- products --------------------------------------------------------------------------------------------------- */

/* Tiles 0 to 2 = the three sums of left (TILE_ROWS, tiles * TILE_BYTES), rows `stride` bytes apart, and right tiles `next`
 * bytes apart. High bytes of the left are signed or not, a constant; those of the right are. */
INLINE void multiply_planes(uint8_t *const left[2], size_t from, size_t stride, uint8_t *const right[2], size_t at,
                            size_t next, size_t tiles, int is_signed) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    for (size_t k = 0; k < tiles; k++, from += TILE_BYTES, at += next) {
        _tile_loadd(3, left[LOW] + from, stride);
        _tile_loadd(4, left[HIGH] + from, stride);
        _tile_loadd(5, right[LOW] + at, TILE_BYTES);
        _tile_loadd(6, right[HIGH] + at, TILE_BYTES);
        _tile_dpbuud(0, 3, 5);
        _tile_dpbusd(1, 3, 6);
        if (is_signed) {
            _tile_dpbssd(2, 4, 6);
            _tile_dpbsud(1, 4, 5);
        } else {
            _tile_dpbusd(2, 4, 6);
            _tile_dpbuud(1, 4, 5);
        }
    }
}

/* Those tiles -> sums. */
INLINE void store_sums(int32_t *sums) {
    _tile_stored(0, sums, TILE_BYTES);
    _tile_stored(1, sums + TILE_CELLS, TILE_BYTES);
    _tile_stored(2, sums + 2 * TILE_CELLS, TILE_BYTES);
}

/* The products of a row's 16 columns. */
INLINE Floats products_of(const int32_t *sums, size_t row) {
    const int32_t *at = sums + row * LANES;
    Ints middle = shift_left(load_ints(at + TILE_CELLS), 8), high = shift_left(load_ints(at + 2 * TILE_CELLS), 16);
    return to_floats(add_ints(add_ints(high, middle), load_ints(at)));
}

/* Products of rows from r0 on and a panel of keys from `key` on -> their scores, the first of them at `to`. Or, a
 * constant, to powers: e as power_tile has it, with the lanes of its sums and the largest. */
INLINE void finish_scores(const Head *head, const int32_t *products, size_t r0, size_t rows, size_t key, float *to,
                          int to_powers, Floats *sums, Floats *most) {
    size_t here = head->length - key;
    for (size_t r = 0; r < rows; r++, to += KEY_BLOCK) {
        Floats x = products_of(products, r), unit = broadcast(head->units[r0 + r]);
        if (!to_powers) {
            store(to, mul(x, unit));
            continue;
        }
        x = power_of_product(x, unit);
        if (here < LANES)
            x = keep_first(x, here);
        store(to, x);
        sums[r] = add(sums[r], x);
        most[r] = maximum(most[r], x);
    }
}

/* A block of keys: score_block or power_block of attention.h. */
INLINE void scores_in_tiles(const Head *head, size_t r0, size_t rows, Span part, int to_powers, Floats *sums,
                            Floats *most) {
    const Planes *planes = head->planes;
    size_t depth = planes->depth, now = 0;
    settle(planes->q[LOW]);
    for (size_t key = part.first; key < part.last; key += LANES, now = !now) {
        int32_t *here = planes->sums + now * SUMS * TILE_CELLS, *before = planes->sums + !now * SUMS * TILE_CELLS;
        multiply_planes(planes->q, r0 * depth, depth, planes->k, key * depth, TILE_ROWS * TILE_BYTES,
                        depth / TILE_BYTES, 1);
        if (key > part.first)
            finish_scores(head, before, r0, rows, key - LANES, head->scores + (key - LANES - part.first), to_powers,
                          sums, most);
        store_sums(here);
    }
    size_t last = part.last - LANES;
    finish_scores(head, planes->sums + !now * SUMS * TILE_CELLS, r0, rows, last, head->scores + (last - part.first),
                  to_powers, sums, most);
}

NOINLINE void score_block_in_tiles(const Head *head, size_t r0, size_t rows, Span part) {
    scores_in_tiles(head, r0, rows, part, 0, NULL, NULL);
}

NOINLINE void power_block_in_tiles(const Head *head, size_t r0, size_t rows, Span part, Floats *sums, Floats *most) {
    for (size_t r = 0; r < TILE_ROWS; r++)
        sums[r] = most[r] = broadcast(0.0f);
    scores_in_tiles(head, r0, rows, part, 1, sums, most);
}

/* p of a block's keys, none of which is below 0, -> planes, zeros around them up to whole tiles. */
INLINE void split_shares(const Head *head, size_t rows, size_t first, size_t last, size_t from, size_t to) {
    for (size_t r = 0; r < rows; r++) {
        uint8_t *low = head->planes->p[LOW] + r * KEY_BLOCK, *high = head->planes->p[HIGH] + r * KEY_BLOCK;
        split(head->p + r * KEY_BLOCK, last - first, low + first, high + first);
        if (from == first && last == to)
            continue;
        memset(low + from, 0, first - from);
        memset(high + from, 0, first - from);
        memset(low + last, 0, to - last);
        memset(high + last, 0, to - last);
    }
}

/* What mix_tile does with its products, for the channels from `d` on. */
INLINE void finish_mixed(const Head *head, const int32_t *products, size_t r0, size_t rows, size_t d,
                         const Shares *shares) {
    float *to = head->mixed + r0 * head->depth + d;
    for (size_t r = 0; r < rows; r++, to += head->depth) {
        Floats kept = mul(load(to), broadcast(shares->decay[r]));
        store(to, fma16(products_of(products, r), broadcast(shares->weight[r]), kept));
    }
}

NOINLINE void mix_block_in_tiles(const Head *head, size_t r0, size_t rows, Span part, const Shares *shares) {
    const Planes *planes = head->planes;
    size_t depth = head->depth, block = part.first / KEY_BLOCK * KEY_BLOCK, now = 0;
    size_t first = part.first - block, last = part.last - block;
    size_t from = first / TILE_BYTES * TILE_BYTES, to = round_up(last, TILE_BYTES);
    split_shares(head, rows, first, last, from, to);
    settle(planes->p[LOW]);
    for (size_t d = 0; d < depth; d += LANES, now = !now) {
        int32_t *here = planes->sums + now * SUMS * TILE_CELLS, *before = planes->sums + !now * SUMS * TILE_CELLS;
        multiply_planes(planes->p, from, KEY_BLOCK, planes->v, (block + from) * depth + d * TILE_BYTES,
                        depth * TILE_BYTES, (to - from) / TILE_BYTES, 0);
        if (d)
            finish_mixed(head, before, r0, rows, d - LANES, shares);
        store_sums(here);
    }
    finish_mixed(head, planes->sums + !now * SUMS * TILE_CELLS, r0, rows, depth - LANES, shares);
}

#endif
