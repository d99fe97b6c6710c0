/* Products and attentions against plain loops, once a process, before anything is believed that kernels compute.
 *
 * Numbers are chosen so that the loops are exact. What a wrong compiler, emulator or processor does to the kernels is
 * seen here; how near they are to float64 is the tests' matter.
 */
#include "selfcheck.h"

#include <assert.h>
#include <string.h>

#include "support.h"

/* What a check works on, as the stack of whoever loads the first model may be small. */
typedef struct {
    char *memory;
    size_t used;
} Room;
enum { ROOM = 96 << 10 };

/* Zeros at a multiple of 64. */
static void *take(Room *room, size_t bytes) {
    char *found = room->memory + room->used;
    room->used += round_up(bytes, 64);
    assert(room->used <= ROOM);
    return memset(found, 0, bytes);
}

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
static int product_is_right(const Kernels *kernels, Room *room) {
    enum { ROWS = 41, INPUTS = 37, DEPTH = 64, OUTPUTS = 70, PANELS = 5, ZERO = 113, MOST_PACKED = 2 * PANELS * 16 * DEPTH };
    int16_t *packed = take(room, MOST_PACKED * sizeof *packed);
    float *x = take(room, ROWS * INPUTS * sizeof *x), *y = take(room, ROWS * OUTPUTS * sizeof *y);
    float factor[DEPTH + 16] = {0}, scales[PANELS * 16], bias[PANELS * 16];
    int32_t compensation[PANELS * 16] = {0};
    int *steps = take(room, ROWS * INPUTS * sizeof *steps);
    int8_t *weight = take(room, INPUTS * OUTPUTS * sizeof *weight);
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
    const Columns block = {weight, OUTPUTS};
    if (kernels->packed_size(&layer, &block, 1) > MOST_PACKED * sizeof *packed)
        return 0;
    kernels->pack(&layer, &block, 1);
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
static int bf16_product_is_right(const Kernels *kernels, Room *room) {
    enum { ROWS = 41, INPUTS = 37, DEPTH = 64, OUTPUTS = 70, PANELS = 5, MOST_PACKED = PANELS * 16 * DEPTH };
    uint16_t *packed = take(room, MOST_PACKED * sizeof *packed);
    uint16_t *weight = take(room, INPUTS * OUTPUTS * sizeof *weight);
    float *x = take(room, ROWS * INPUTS * sizeof *x), *y = take(room, ROWS * OUTPUTS * sizeof *y), bias[PANELS * 16];
    int *whole_x = take(room, ROWS * INPUTS * sizeof *whole_x);
    int *whole_weight = take(room, INPUTS * OUTPUTS * sizeof *whole_weight);
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
    const Columns block = {weight, OUTPUTS};
    if (kernels->packed_size(&layer, &block, 1) > MOST_PACKED * sizeof *packed)
        return 0;
    kernels->pack(&layer, &block, 1);
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

/* y[r, n] = sum_k x[r, k] * w[k, n] + bias[n] with float weights, of whole numbers of more bits than bfloat16 has: without
 * rounding of a sum, in whatever order it is made. */
static int float_product_is_right(const Kernels *kernels, Room *room) {
    enum { ROWS = 41, INPUTS = 37, DEPTH = 64, OUTPUTS = 70, PANELS = 5, MOST_PACKED = PANELS * 16 * DEPTH };
    enum { MOST = 600 }; /* 37 * 600^2 < 2^24 */
    float *packed = take(room, MOST_PACKED * sizeof *packed), *weight = take(room, INPUTS * OUTPUTS * sizeof *weight);
    float *x = take(room, ROWS * INPUTS * sizeof *x), *y = take(room, ROWS * OUTPUTS * sizeof *y), bias[PANELS * 16];
    uint32_t state = 4;
    for (size_t n = 0; n < PANELS * 16; n++)
        bias[n] = (float)next_whole(&state, -1000, 1000);
    for (size_t i = 0; i < INPUTS * OUTPUTS; i++)
        weight[i] = (float)next_whole(&state, -MOST, MOST);
    for (size_t i = 0; i < ROWS * INPUTS; i++)
        x[i] = (float)next_whole(&state, -MOST, MOST);
    Linear layer = {
        .weights = FP32_WEIGHTS, .inputs = INPUTS, .outputs = OUTPUTS, .depth = DEPTH, .panels = PANELS,
        .packed = packed, .bias = bias,
    };
    const AddNorm nothing = {0};
    const Columns block = {weight, OUTPUTS};
    if (kernels->packed_size(&layer, &block, 1) > MOST_PACKED * sizeof *packed)
        return 0;
    kernels->pack(&layer, &block, 1);
    if (!kernels->linear(&layer, x, ROWS, NO_ACTIVATION, &nothing, y, &serial))
        return 0;
    for (size_t r = 0; r < ROWS; r++) {
        int sums[OUTPUTS] = {0};
        for (size_t k = 0; k < INPUTS; k++)
            for (size_t n = 0; n < OUTPUTS; n++)
                sums[n] += (int)x[r * INPUTS + k] * (int)weight[k * OUTPUTS + n];
        for (size_t n = 0; n < OUTPUTS; n++)
            if (!(y[r * OUTPUTS + n] == (float)sums[n] + bias[n]))
                return 0;
    }
    return 1;
}

typedef struct {
    const int64_t *starts;
    size_t texts, size; /* size: channels of a head */
    int first_only, in_float, by_distance;
    float tolerance; /* of values up to 8 */
} Asked;

/* Rows of the distances query - key: one each up to NEAR, and the last ones for all that are beyond. */
enum { NEAR = 18, REACH = 60, MET = 2 * NEAR + 1, COLUMNS = (MET + 15) / 16 * 16 };
static int32_t row_of(int64_t distance) {
    return (int32_t)(distance < -NEAR ? 0 : distance > NEAR ? MET - 1 : distance + NEAR);
}

/* y[q] = sum_k 2^s * value[k] / sum_k 2^s, s = query[q] . key[k], for texts, two heads on one of keys; by distance,
 * s has query[q] . c2p[row] + key[k] . p2c[row] beside it.
 *
 * The scale is log 2 and the scores are whole, so that the shares are powers of two. The last key of a text has the
 * largest score for its first query, head 0: what came before it has to be taken back. */
static int one_attention_is_right(const Kernels *kernels, Room *room, const Asked *asked) {
    enum { HEADS = 2, MOST_SIZE = 40, ASKED = 8 }; /* channels of a query that are not 0 */
    const int64_t *starts = asked->starts;
    const size_t texts = asked->texts, size = asked->size, width = HEADS * size, tokens = (size_t)starts[texts];
    const size_t rows = asked->first_only ? texts : tokens;
    const size_t met = asked->by_distance ? width : 1;
    room->used = 0;
    float *query = take(room, rows * width * sizeof *query), *y = take(room, rows * width * sizeof *y);
    float *key = take(room, tokens * size * sizeof *key), *value = take(room, tokens * size * sizeof *value);
    float *c2p = take(room, MET * met * sizeof *c2p), *p2c = take(room, met * COLUMNS * sizeof *p2c);
    int32_t of_distance[2 * REACH - 1];
    uint32_t state = 2;
    for (size_t i = 0; i < rows * width; i++)
        query[i] = i % size < ASKED ? (float)next_whole(&state, -1, 1) : 0.0f;
    for (size_t i = 0; i < tokens * size; i++) {
        key[i] = (float)next_whole(&state, -1, 1);
        value[i] = (float)next_whole(&state, -8, 8);
    }
    for (int64_t k = 0; k < 2 * REACH - 1; k++)
        of_distance[k] = row_of(k - REACH + 1);
    for (size_t k = 0; asked->by_distance && k < MET * HEADS; k++) { /* one channel of each row */
        size_t head = k % HEADS * size;
        c2p[k / HEADS * width + head + (size_t)next_whole(&state, 0, ASKED - 1)] = (float)next_whole(&state, -1, 1);
        p2c[(head + (size_t)next_whole(&state, 0, ASKED - 1)) * COLUMNS + k / HEADS] =
            (float)next_whole(&state, -1, 1) * 0.69314718f;
    }
    for (size_t text = 0; text < texts; text++) {
        float *first = query + (asked->first_only ? text : (size_t)starts[text]) * width;
        for (size_t c = 0; c < ASKED; c++) {
            first[c] = first[c] == 0.0f ? 1.0f : first[c];
            key[((size_t)starts[text + 1] - 1) * size + c] = first[c];
        }
    }
    Attention work = {
        .query = query, .key = key, .value = value, .output = y, .query_stride = width, .key_stride = size,
        .value_stride = size, .output_stride = width, .starts = starts, .texts = texts, .heads = HEADS, .kv_heads = 1,
        .size = size, .first_only = asked->first_only, .scale = 0.69314718f, .before = -1, .after = -1,
        .in_float = asked->in_float, .reach = REACH,
    };
    if (asked->by_distance)
        work.relative = (Relative){c2p, p2c, width, COLUMNS, of_distance, -NEAR, NEAR};
    if (!kernels->attention(&work, &serial))
        return 0;
    for (size_t row = 0, text = 0; row < rows; row++) {
        text += asked->first_only ? row > 0 : row == (size_t)starts[text + 1];
        for (size_t head = 0; head < HEADS; head++) {
            const float *own = query + row * width + head * size;
            double shares = 0, mixed[MOST_SIZE] = {0};
            for (size_t k = (size_t)starts[text]; k < (size_t)starts[text + 1]; k++) {
                int score = ASKED + 2; /* of at least that below 0: a shift of at least 0 */
                for (size_t c = 0; c < ASKED; c++)
                    score += (int)own[c] * (int)key[k * size + c];
                for (size_t c = 0; asked->by_distance && c < ASKED; c++) {
                    size_t at = (size_t)row_of((int64_t)(asked->first_only ? (size_t)starts[text] : row) - (int64_t)k);
                    score += (int)own[c] * (int)c2p[at * width + head * size + c];
                    score += (int)key[k * size + c] * (p2c[(head * size + c) * COLUMNS + at] > 0.0f) -
                             (int)key[k * size + c] * (p2c[(head * size + c) * COLUMNS + at] < 0.0f);
                }
                double share = (double)(1 << score);
                shares += share;
                for (size_t c = 0; c < size; c++)
                    mixed[c] += share * value[k * size + c];
            }
            for (size_t c = 0; c < size; c++) {
                float off = y[row * width + head * size + c] - (float)(mixed[c] / shares);
                if (!(off <= asked->tolerance && off >= -asked->tolerance)) /* NaN is off */
                    return 0;
            }
        }
    }
    return 1;
}

/* Texts of no multiple of any tile. */
static int attention_is_right(const Kernels *kernels, Room *room) {
    static const int64_t starts[] = {0, 71, 92}; /* the first is long enough for AMX tiles */
    const Asked asked = {starts, 2, 40, 0, 0, 0, 2e-3f}; /* shares and values are 16 bits in the kernels */
    return one_attention_is_right(kernels, room, &asked);
}

static int float_attention_is_right(const Kernels *kernels, Room *room) {
    static const int64_t starts[] = {0, 53, 57}, long_text[] = {0, 140}; /* more queries and keys than a block */
    const Asked all = {starts, 2, 40, 0, 1, 0, 1e-5f}, first = {long_text, 1, 24, 1, 1, 0, 1e-5f}; /* roundings of 8 */
    const Asked distances = {starts, 2, 24, 0, 1, 1, 1e-5f};
    return one_attention_is_right(kernels, room, &all) && one_attention_is_right(kernels, room, &first) &&
           one_attention_is_right(kernels, room, &distances);
}

const char *selfcheck(const Kernels *kernels) {
    static const struct {
        int (*is_right)(const Kernels *, Room *);
        const char *what;
    } checks[] = {
        {product_is_right, "a product"},
        {bf16_product_is_right, "a bfloat16 product"},
        {float_product_is_right, "a float product"},
        {attention_is_right, "an attention"},
        {float_attention_is_right, "a float attention"},
    };
    char *memory = allocate(ROOM);
    const char *wrong = memory ? "" : "the check, without memory,";
    for (size_t k = 0; memory && !*wrong && k < sizeof checks / sizeof checks[0]; k++) {
        Room room = {memory, 0};
        if (!checks[k].is_right(kernels, &room))
            wrong = checks[k].what;
    }
    free(memory);
    return wrong;
}
