/* Products and an attention against plain loops, once a process, before anything is believed that kernels compute.
 *
 * Numbers are chosen so that the loops are exact. What a wrong compiler, emulator or processor does to the kernels is
 * seen here; how near they are to float64 is the tests' matter.
 */
#include "selfcheck.h"

#include <string.h>

/* Runs tasks one after another. */
static void run_serial(const Pool *pool, void (*fn)(void *, size_t), void *argument, size_t count) {
    (void)pool;
    for (size_t index = 0; index < count; index++)
        fn(argument, index);
}

static const Pool serial = {run_serial, NULL, NULL};

/* The next of a fixed row of whole numbers from `low` to `high`. */
static int next_whole(uint32_t *state, int low, int high) {
    *state = *state * 1664525u + 1013904223u;
    return low + (int)((*state >> 8) % (uint32_t)(high - low + 1));
}

/* y[r, n] = (sum_k clip(round(x[r, k])) * w[k, n]) / 2 + bias[n] without rounding anywhere: sums stay below 2^24.
 *
 * Rows, inputs and outputs are no multiples of any tile, and row 0 with columns 0 and 1 reaches the largest sums, where
 * products of bytes would saturate. */
static int product_is_right(const Kernels *kernels) {
    enum { ROWS = 41, INPUTS = 37, DEPTH = 64, OUTPUTS = 70, PANELS = 5, ZERO = 113, MOST_PACKED = PANELS * 16 * DEPTH };
    _Alignas(64) int16_t packed[MOST_PACKED] = {0};
    float x[ROWS * INPUTS], y[ROWS * OUTPUTS], factor[DEPTH + 16] = {0}, scales[PANELS * 16], bias[PANELS * 16];
    int32_t compensation[PANELS * 16] = {0};
    int steps[ROWS * INPUTS];
    int8_t weight[INPUTS * OUTPUTS];
    uint32_t state = 1;
    for (size_t k = 0; k < INPUTS; k++)
        factor[k] = 1.0f;
    for (size_t n = 0; n < PANELS * 16; n++) {
        scales[n] = 0.5f;
        bias[n] = (float)next_whole(&state, -1000, 1000);
    }
    for (size_t k = 0; k < INPUTS; k++) {
        for (size_t n = 2; n < OUTPUTS; n++)
            weight[k * OUTPUTS + n] = (int8_t)next_whole(&state, -128, 127);
        weight[k * OUTPUTS] = 127;
        weight[k * OUTPUTS + 1] = -128;
    }
    for (size_t i = 0; i < ROWS * INPUTS; i++) {
        int step = i < INPUTS ? 255 - ZERO : next_whole(&state, -ZERO - 20, 255 - ZERO + 20); /* some are clipped */
        x[i] = (float)step + 0.25f * (float)next_whole(&state, -1, 1);
        steps[i] = step < -ZERO ? -ZERO : step > 255 - ZERO ? 255 - ZERO : step;
    }
    Linear layer = {
        .inputs = INPUTS, .outputs = OUTPUTS, .depth = DEPTH, .panels = PANELS, .scale = 1.0f, .zero_point = ZERO,
        .factor = factor, .low = (float)-ZERO, .high = (float)(255 - ZERO), .packed = packed,
        .compensation = compensation, .scales = scales, .bias = bias,
    };
    const AddNorm nothing = {0};
    if (kernels->packed_size(&layer) > sizeof packed)
        return 0;
    kernels->pack(&layer, weight, OUTPUTS, 0);
    if (!kernels->linear(&layer, x, ROWS, NO_ACTIVATION, &nothing, y, &serial))
        return 0;
    for (size_t r = 0; r < ROWS; r++) {
        int sums[OUTPUTS] = {0};
        for (size_t k = 0; k < INPUTS; k++)
            for (size_t n = 0; n < OUTPUTS; n++)
                sums[n] += steps[r * INPUTS + k] * weight[k * OUTPUTS + n];
        for (size_t n = 0; n < OUTPUTS; n++)
            if (!(y[r * OUTPUTS + n] == 0.5f * (float)sums[n] + bias[n]))
                return 0;
    }
    return 1;
}

/* y[r, n] = sum_k x[r, k] * w[k, n] + bias[n] with bfloat16 weights, of whole numbers up to 256 and halves of them that
 * tell where a number is rounded: without rounding of a sum, in whatever order it is made. */
static int bf16_product_is_right(const Kernels *kernels) {
    enum { ROWS = 41, INPUTS = 37, DEPTH = 64, OUTPUTS = 70, PANELS = 5 };
    _Alignas(64) uint16_t packed[PANELS * 16 * DEPTH] = {0};
    uint16_t weight[INPUTS * OUTPUTS];
    float x[ROWS * INPUTS], y[ROWS * OUTPUTS], bias[PANELS * 16];
    int whole_x[ROWS * INPUTS], whole_weight[INPUTS * OUTPUTS];
    uint32_t state = 3;
    for (size_t n = 0; n < PANELS * 16; n++)
        bias[n] = (float)next_whole(&state, -1000, 1000);
    for (size_t i = 0; i < INPUTS * OUTPUTS; i++) {
        float value = (float)(whole_weight[i] = next_whole(&state, -256, 256));
        uint32_t bits;
        memcpy(&bits, &value, sizeof bits);
        weight[i] = (uint16_t)(bits >> 16);
    }
    for (size_t i = 0; i < ROWS * INPUTS; i++) {
        int half = next_whole(&state, 128, 254); /* halfway between it and the next: to the even one */
        int halfway = next_whole(&state, 0, 1);
        whole_x[i] = half + (halfway && half % 2);
        x[i] = (float)half + 0.5f * (float)halfway;
    }
    Linear layer = {
        .weights = BF16_WEIGHTS, .inputs = INPUTS, .outputs = OUTPUTS, .depth = DEPTH, .panels = PANELS,
        .packed = packed, .bias = bias,
    };
    const AddNorm nothing = {0};
    if (kernels->bf16_packed_size(&layer) > sizeof packed)
        return 0;
    kernels->bf16_pack(&layer, weight, OUTPUTS, 0);
    if (!kernels->linear(&layer, x, ROWS, NO_ACTIVATION, &nothing, y, &serial))
        return 0;
    for (size_t r = 0; r < ROWS; r++)
        for (size_t n = 0; n < OUTPUTS; n++) {
            int sum = (int)bias[n];
            for (size_t k = 0; k < INPUTS; k++)
                sum += whole_x[r * INPUTS + k] * whole_weight[k * OUTPUTS + n];
            if (!(y[r * OUTPUTS + n] == (float)sum))
                return 0;
        }
    return 1;
}

/* y[q] = sum_k 2^(query[q] . key[k]) * value[k] / sum_k 2^(query[q] . key[k]), for two texts, two heads on one of keys.
 *
 * The scale is log 2 and the scores are whole, so that the shares are powers of two. One text is long enough for AMX
 * tiles, and no multiple of any. */
static int attention_is_right(const Kernels *kernels) {
    enum { TOKENS = 92, HEADS = 2, SIZE = 40, WIDTH = HEADS * SIZE, ASKED = 8 }; /* channels of a query that are not 0 */
    static const int64_t starts[] = {0, 71, TOKENS};
    const float tolerance = 2e-3f; /* of values up to 8; shares and values are 16 bits in the kernels */
    float query[TOKENS * WIDTH], key[TOKENS * SIZE], value[TOKENS * SIZE], y[TOKENS * WIDTH];
    uint32_t state = 2;
    for (size_t i = 0; i < TOKENS * WIDTH; i++)
        query[i] = i % SIZE < ASKED ? (float)next_whole(&state, -1, 1) : 0.0f;
    for (size_t i = 0; i < TOKENS * SIZE; i++) {
        key[i] = (float)next_whole(&state, -1, 1);
        value[i] = (float)next_whole(&state, -8, 8);
    }
    const Attention work = {
        .query = query, .key = key, .value = value, .output = y, .query_stride = WIDTH, .key_stride = SIZE,
        .value_stride = SIZE, .output_stride = WIDTH, .starts = starts, .texts = 2, .heads = HEADS, .kv_heads = 1,
        .size = SIZE, .scale = 0.69314718f, .before = -1, .after = -1,
    };
    if (!kernels->attention(&work, &serial))
        return 0;
    for (size_t text = 0; text < 2; text++)
        for (size_t q = (size_t)starts[text]; q < (size_t)starts[text + 1]; q++)
            for (size_t head = 0; head < HEADS; head++) {
                const float *own = query + q * WIDTH + head * SIZE;
                double shares = 0, mixed[SIZE] = {0};
                for (size_t k = (size_t)starts[text]; k < (size_t)starts[text + 1]; k++) {
                    int score = ASKED; /* of at least -ASKED: a shift of at least 0 */
                    for (size_t c = 0; c < ASKED; c++)
                        score += (int)own[c] * (int)key[k * SIZE + c];
                    double share = (double)(1 << score);
                    shares += share;
                    for (size_t c = 0; c < SIZE; c++)
                        mixed[c] += share * value[k * SIZE + c];
                }
                for (size_t c = 0; c < SIZE; c++) {
                    float off = y[q * WIDTH + head * SIZE + c] - (float)(mixed[c] / shares);
                    if (!(off <= tolerance && off >= -tolerance)) /* NaN is off */
                        return 0;
                }
            }
    return 1;
}

const char *selfcheck(const Kernels *kernels) {
    if (!product_is_right(kernels))
        return "a product";
    if (!bf16_product_is_right(kernels))
        return "a bfloat16 product";
    return attention_is_right(kernels) ? "" : "an attention";
}
