/* Activations -> u8 for a product, and what the rounding to u8 clips from them, kept in float.
 *
 *     u[r, k] = x[r, k] * factor[k] + dither[r]                      steps of the input's scale, after smoothing
 *     q[r, k] = clip(round(u) + zero_point, 0, 255)                  round: half to even
 *     excess[r, j] = what the clip takes from u of outlier channel j, in units of x
 *     tails: of the other channels, u - (255 - zero_point) above, u + zero_point below, in steps
 *
 * dither[r] in [-1/2, 1/2) is 0 without `dither`, else a hash of the row's own first channels: subtracted again behind
 * the product (Roberts 1962, doi:10.1109/TIT.1962.1057702), it leaves the size of rounding errors as it is, and makes
 * those of nearly equal rows independent, so that they average out: those of a word that a text repeats add up else.
 */
#ifndef FASTEMBED_RT_QUANTIZE_H
#define FASTEMBED_RT_QUANTIZE_H

#include "kernels.h"
#include "scratch.h"
#include "support.h"
#include "tiles.h"
#if SATURATES
#include "pairs.h"
#endif

/* Steps of a channel that fit into an integer; what is beyond counts as that many. */
#define MOST_STEPS 1e6f

/* u = x * factor, and no more than integers hold, as is NaN. What is less than they hold is rounded to their least. */
INLINE Floats in_steps(Floats x, Floats factor) { return minimum(mul(x, factor), broadcast(MOST_STEPS)); }

/* q of 16 channels. */
INLINE void store_quantized(Quantized *p, Floats steps, Ints zero_point) {
    Ints v = add_ints(round_to_ints(steps), zero_point);
#if defined(__aarch64__)
    store_clipped(p, v);
#elif defined(__AVX512VNNI__)
    store_bytes(p, minimum_ints(maximum_ints(v, broadcast_int(0)), broadcast_int(255)));
#else
    store_bytes(p, v); /* clips, too */
#endif
}

/* Channels and steps that tell rows apart: finer ones would tell apart what differs by the order of a sum. */
enum { HASHED = 16 };
#define HASHED_STEP 0.0625f

static float dither_of(const Linear *layer, const float *row) {
    if (!layer->dither)
        return 0.0f;
    int32_t whole[HASHED];
    size_t n = min_size(HASHED, layer->inputs);
    Floats steps = maximum(in_steps(load_first(row, n), load(layer->factor)), broadcast(-MOST_STEPS));
    store_ints(whole, round_to_ints(mul(steps, broadcast(1.0f / HASHED_STEP))));
    uint32_t hash = 0;
    for (size_t k = 0; k < n; k++)
        hash = (hash + (uint32_t)whole[k]) * 0x9E3779B1u;
    hash = (hash ^ hash >> 15) * 0x85EBCA77u;
    hash ^= hash >> 13;
    return (float)(hash >> 8) * 0x1p-24f - 0.5f;
}

/* What the clip takes from x, which is smoothed already. */
static float excess_of(const Linear *layer, float x) {
    float low = (float)(0 - layer->zero_point) * layer->scale, high = (float)(255 - layer->zero_point) * layer->scale;
    return x < low ? x - low : x > high ? x - high : 0.0f;
}

/* An element of a row with a tail. */
typedef struct {
    float beyond;           /* the part that the clip takes, in steps */
    uint32_t row;
    uint32_t step;          /* where the weights of the channel's step begin in a panel */
    Quantized ones[KR];     /* of that step's weights, 1 for the channel's, else 0 */
} Tail;

/* The tails of some quantized rows. Found 16 channels at a time, in any order; gathered row by row, in the order of
 * channels. */
typedef struct {
    uint16_t *masks;        /* (rows, depth / 16) a bit for each channel that has one, */
    float *beyond;          /* (rows, depth) and its value, where there is one */
    Tail *gathered;
    uint32_t *starts;       /* (rows + 1) where the tails of a row begin in `gathered` */
} Tails;

/* 0 where there is no memory. A layer without tails needs none. */
static int allocate_tails(const Linear *layer, size_t rows, Tails *tails) {
    size_t cells = rows * layer->depth;
    *tails = (Tails){0};
    if (!layer->tails)
        return 1;
    tails->gathered =
        allocate_scratch(cells * (sizeof(Tail) + sizeof(float)) + (rows + 1) * sizeof(uint32_t) + cells / LANES * 2);
    if (!tails->gathered)
        return 0;
    tails->beyond = (float *)(tails->gathered + cells);
    tails->starts = (uint32_t *)(tails->beyond + cells);
    tails->masks = (uint16_t *)(tails->starts + rows + 1);
    return 1;
}

/* Nothing is found yet. */
static void clear_tails(const Linear *layer, const Tails *tails, size_t rows) {
    if (layer->tails)
        memset(tails->masks, 0, rows * layer->depth / LANES * sizeof(uint16_t));
}

/* Notes the tails among the u of 16 channels from `column` on. */
INLINE void find_tails(const Linear *layer, const Tails *tails, Floats steps, size_t row, size_t column) {
    if (__builtin_expect(!any_beyond(steps, steps, layer->low, layer->high), 1))
        return;
    Floats low = broadcast(layer->low), high = broadcast(layer->high);
    size_t place = row * layer->depth + column;
    steps = maximum(steps, broadcast(-MOST_STEPS));
    store(tails->beyond + place, sub(steps, maximum(minimum(steps, high), low)));
    tails->masks[place / LANES] = (uint16_t)(lanes_outside(steps, low, high) & layer->tail_channels[column / LANES]);
}

static void gather_tails(const Linear *layer, const Tails *tails, size_t rows) {
    if (!layer->tails)
        return;
    size_t groups = layer->depth / LANES;
    uint32_t count = 0;
    for (size_t r = 0; r < rows; r++) {
        const uint16_t *masks = tails->masks + r * groups;
        tails->starts[r] = count;
        for (size_t g = 0; g < groups; g++) {
            uint64_t four;
            if (g % 4 == 0 && g + 4 <= groups && (memcpy(&four, masks + g, sizeof four), !four)) {
                g += 3; /* nearly everywhere */
                continue;
            }
            for (unsigned mask = masks[g]; mask; mask &= mask - 1) {
                size_t channel = g * LANES + (size_t)__builtin_ctz(mask);
                Tail *tail = tails->gathered + count++;
                *tail = (Tail){tails->beyond[r * layer->depth + channel], (uint32_t)r,
                               (uint32_t)(channel / KR * LANES * KR), {0}};
                tail->ones[channel % KR] = 1;
            }
        }
    }
    tails->starts[rows] = count;
}

/* The panel of weights at some 16 outputs, as channels of it are looked up. */
#if SATURATES
INLINE PanelChannels channels_at(const Linear *layer, size_t column) { return panel_channels(layer, column / LANES); }
#else
typedef const PackedWeight *PanelChannels;
INLINE PanelChannels channels_at(const Linear *layer, size_t column) {
    return (const PackedWeight *)layer->packed + column * layer->depth;
}
#endif

/* tail * w[k, n] + sum, for its channel k and the 16 outputs n of a panel. */
INLINE Floats tail_product(const PanelChannels *panel, const Tail *tail, Floats sum) {
#if SATURATES
    Ints weights = paired_channel(panel, tail->step / (LANES * KR), tail->ones);
#else
    Ints weights = channel_weights(*panel + tail->step, tail->ones);
#endif
    return fma16(broadcast(tail->beyond), to_floats(weights), sum);
}

/* Rows of a layer's input, quantized. */
typedef struct {
    Quantized *q;           /* (rows, depth), zeros beyond the inputs */
    void *numbers;          /* instead of all others, of a layer with weights of bfloat16 or float */
    float *excess;          /* (rows, outliers) */
    float *dither;          /* (rows) */
    Tails tails;
} Input;

/* 0 where there is no memory. `free_input` frees what there is. */
static int allocate_input(const Linear *layer, size_t rows, Input *input) {
    input->numbers = NULL;
    input->q = allocate_scratch(rows * layer->depth * sizeof(Quantized));
    input->excess = allocate_scratch(rows * layer->outliers * sizeof(float));
    input->dither = allocate_scratch(rows * sizeof(float));
    return allocate_tails(layer, rows, &input->tails) && input->q && input->excess && input->dither;
}

static void free_input(Input *input) {
    free_scratch(input->tails.gathered);
    free_scratch(input->dither);
    free_scratch(input->excess);
    free_scratch(input->numbers);
    free_scratch(input->q);
}

/* u of `count` <= 4 vectors of channels from k on, a constant -> q, and the tails among them. */
INLINE void quantize_vectors(const Linear *layer, const float *row, const float *factor, const Input *input, size_t r,
                             size_t k, size_t count, Floats dither, Ints zero_point, Quantized *to, int tails) {
    Floats steps[4];
#pragma GCC unroll 4
    for (size_t v = 0; v < count; v++) {
        steps[v] = add(in_steps(load(row + k + v * LANES), load(factor + k + v * LANES)), dither);
        store_quantized(to + k + v * LANES, steps[v], zero_point);
    }
    if (tails) {
        Floats least = steps[0], most = steps[0];
#pragma GCC unroll 4
        for (size_t v = 1; v < count; v++) {
            least = minimum(least, steps[v]);
            most = maximum(most, steps[v]);
        }
        if (__builtin_expect(any_beyond(least, most, layer->low, layer->high), 0))
#pragma GCC unroll 4
            for (size_t v = 0; v < count; v++)
                find_tails(layer, &input->tails, steps[v], r, k + v * LANES);
    }
}

/* x (rows, inputs) f32 -> an input. */
static void quantize_rows(const Linear *layer, const float *x, size_t rows, const Input *input) {
    Ints zero_point = broadcast_int(layer->zero_point);
    const Tails *tails = &input->tails;
    const float *factor = layer->factor;
    size_t inputs = layer->inputs, depth = layer->depth;
    int tailed = layer->tails;
    clear_tails(layer, tails, rows);
    for (size_t r = 0; r < rows; r++) {
        const float *row = x + r * inputs;
        Quantized *to = input->q + r * depth;
        float own = dither_of(layer, row);
        Floats dither = broadcast(own);
        size_t k = 0;
        for (; k + 4 * LANES <= inputs; k += 4 * LANES)
            quantize_vectors(layer, row, factor, input, r, k, 4, dither, zero_point, to, tailed);
        for (; k + LANES <= inputs; k += LANES)
            quantize_vectors(layer, row, factor, input, r, k, 1, dither, zero_point, to, tailed);
        if (k < inputs) {
            Quantized held[LANES];
            size_t n = inputs - k;
            Floats steps = add(in_steps(load_first(row + k, n), load_first(factor + k, n)), dither);
            store_quantized(held, steps, zero_point);
            if (tailed)
                find_tails(layer, tails, steps, r, k);
            memcpy(to + k, held, n * sizeof(Quantized));
            memset(to + inputs, 0, (depth - inputs) * sizeof(Quantized));
        }
        for (size_t j = 0; j < layer->outliers; j++)
            input->excess[r * layer->outliers + j] =
                excess_of(layer, row[layer->channels[j]] * layer->outlier_factor[j] + own * layer->scale);
        input->dither[r] = own;
    }
    gather_tails(layer, tails, rows);
}

#endif
