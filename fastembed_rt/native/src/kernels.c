/* Kernels of one instruction set; see kernels.h. Compiled with -DKERNELS=kernels_<name> and that set's flags.
 *
 * Integer products: a tile of ROWS rows by WIDE panels of 16 columns is accumulated in registers over the whole depth.
 * Weights lie panel by panel, and inside a panel step by step: for each step STEP consecutive inputs of 16 columns.
 * Without VNNI the bytes are widened to 16 bits: the instruction for bytes saturates and would give wrong sums.
 */
#include "kernels.h"

#include <stdlib.h>

#if defined(AVXVNNI_AS_AVX512VL)
/* For tests: the AVX-VNNI kernels on a processor that has the same instructions under AVX-512's names only. */
#include <immintrin.h>
#undef __AVX512F__
#undef __AVX512VNNI__
#define __AVXVNNI__ 1
#define _mm256_dpbusd_avx_epi32 _mm256_dpbusd_epi32
#define _mm256_dpwssd_avx_epi32 _mm256_dpwssd_epi32
#endif

#include "vectors.h"

#if defined(__AVX512VNNI__)
typedef uint8_t Element;
typedef int8_t Packed;
enum { STEP = 4, ROWS = 8, WIDE = 3 };
#define SET_NAME "avx512vnni"
#elif defined(__AVXVNNI__)
typedef uint8_t Element;
typedef int8_t Packed;
enum { STEP = 4, ROWS = 6, WIDE = 1 };
#define SET_NAME "avxvnni"
#else
typedef int16_t Element;
typedef int16_t Packed;
enum { STEP = 2, ROWS = 4, WIDE = 1 };
#define SET_NAME "avx2"
#endif

enum {
    BLOCK = 64,        /* rows whose intermediate results stay in the second-level cache */
    QUERIES = ROWS,     /* of an attention tile */
    FINISH_ROWS = 16,   /* of one task */
    KEYS = 16 * WIDE,
    ON_STACK = 32768    /* bytes, at most, where other threads' stacks may be small */
};

/* Of a channel, which fit into an integer; what is beyond counts as that many. */
#define MOST_STEP 1e6f

static size_t up_to(size_t n, size_t multiple) { return (n + multiple - 1) / multiple * multiple; }
static size_t least(size_t a, size_t b) { return a < b ? a : b; }

/* NULL where there is no memory: every caller passes that on. */
static void *room(size_t bytes) { return aligned_alloc(64, up_to(bytes ? bytes : 1, 64)); }

/* ---- products -------------------------------------------------------------------------------------------------- */

/* A step of a row in every lane, and acc + four (VNNI) or two products a lane with a step of a panel. */
#if defined(__AVX512VNNI__)
typedef __m512i Row;
INLINE Row in_every_lane(int32_t x) { return _mm512_set1_epi32(x); }
INLINE Ints dot_bytes(Ints acc, Row row, Ints b) { return _mm512_dpbusd_epi32(acc, row, b); }
INLINE Ints dot_shorts(Ints acc, Row row, Ints b) { return _mm512_dpwssd_epi32(acc, row, b); }
#else
typedef __m256i Row;
INLINE Row in_every_lane(int32_t x) { return _mm256_set1_epi32(x); }
#if defined(__AVXVNNI__)
INLINE Ints dot_bytes(Ints acc, Row row, Ints b) {
    return pair_ints(_mm256_dpbusd_avx_epi32(acc.a, row, b.a), _mm256_dpbusd_avx_epi32(acc.b, row, b.b));
}
INLINE Ints dot_shorts(Ints acc, Row row, Ints b) {
    return pair_ints(_mm256_dpwssd_avx_epi32(acc.a, row, b.a), _mm256_dpwssd_avx_epi32(acc.b, row, b.b));
}
#else
INLINE Ints dot_shorts(Ints acc, Row row, Ints b) {
    return pair_ints(_mm256_add_epi32(acc.a, _mm256_madd_epi16(row, b.a)),
                     _mm256_add_epi32(acc.b, _mm256_madd_epi16(row, b.b)));
}
INLINE Ints dot_bytes(Ints acc, Row row, Ints b) { return dot_shorts(acc, row, b); }
#endif
#endif

INLINE Row each(const void *p) {
    int32_t few;
    memcpy(&few, p, 4);
    return in_every_lane(few);
}

/* Accumulators are variables of their own, named by macros: as an array, compilers keep them in memory. */
#define FOR_1(do, ...) do(0, __VA_ARGS__)
#define FOR_2(do, ...) FOR_1(do, __VA_ARGS__) do(1, __VA_ARGS__)
#define FOR_3(do, ...) FOR_2(do, __VA_ARGS__) do(2, __VA_ARGS__)
#define FOR_4(do, ...) FOR_3(do, __VA_ARGS__) do(3, __VA_ARGS__)
#define FOR_5(do, ...) FOR_4(do, __VA_ARGS__) do(4, __VA_ARGS__)
#define FOR_6(do, ...) FOR_5(do, __VA_ARGS__) do(5, __VA_ARGS__)
#define FOR_7(do, ...) FOR_6(do, __VA_ARGS__) do(6, __VA_ARGS__)
#define FOR_8(do, ...) FOR_7(do, __VA_ARGS__) do(7, __VA_ARGS__)

#define BEGIN_1(r, ...) Ints c##r##0 = all_ints(0);
#define BEGIN_2(r, ...) BEGIN_1(r) Ints c##r##1 = all_ints(0);
#define BEGIN_3(r, ...) BEGIN_2(r) Ints c##r##2 = all_ints(0);
#define MORE_1(r, dot) \
    row = each(a + (r) * lda); \
    c##r##0 = dot(c##r##0, row, b0);
#define MORE_2(r, dot) MORE_1(r, dot) c##r##1 = dot(c##r##1, row, b1);
#define MORE_3(r, dot) MORE_2(r, dot) c##r##2 = dot(c##r##2, row, b2);
#define END_1(r, ...) out[(r) * WIDE] = c##r##0;
#define END_2(r, ...) END_1(r) out[(r) * WIDE + 1] = c##r##1;
#define END_3(r, ...) END_2(r) out[(r) * WIDE + 2] = c##r##2;
/* The next panels are asked for meanwhile: few rows use a panel only once, and it comes from a far cache. */
#define LOAD_1                                 \
    Ints b0 = load_ints((const int32_t *)b); \
    _mm_prefetch((const char *)(b + ahead), _MM_HINT_T0);
#define LOAD_2                                            \
    LOAD_1 Ints b1 = load_ints((const int32_t *)(b + panel)); \
    _mm_prefetch((const char *)(b + panel + ahead), _MM_HINT_T0);
#define LOAD_3                                                \
    LOAD_2 Ints b2 = load_ints((const int32_t *)(b + 2 * panel)); \
    _mm_prefetch((const char *)(b + 2 * panel + ahead), _MM_HINT_T0);

/* out[row][panel] = a @ b for some rows (stride `lda`) and neighbouring panels. */
#define TILE_OF(name, Left, Right, step, dot, rows, wide)                                                     \
    static void name##_##rows##x##wide(const Left *a, size_t lda, const Right *b, size_t steps, Ints *out) { \
        size_t panel = steps * 16 * (step), ahead = (wide) * panel;                                           \
        (void)panel;                                                                                          \
        Row row;                                                                                              \
        FOR_##rows(BEGIN_##wide, )                                                                            \
        for (size_t s = 0; s < steps; s++, a += (step), b += 16 * (step)) {                                   \
            LOAD_##wide                                                                                       \
            FOR_##rows(MORE_##wide, dot)                                                                      \
        }                                                                                                     \
        FOR_##rows(END_##wide, )                                                                              \
    }
#define TILES_1(name, Left, Right, step, dot, rows) TILE_OF(name, Left, Right, step, dot, rows, 1)
#define TILES_3(name, Left, Right, step, dot, rows)   \
    TILE_OF(name, Left, Right, step, dot, rows, 1) \
    TILE_OF(name, Left, Right, step, dot, rows, 2) \
    TILE_OF(name, Left, Right, step, dot, rows, 3)
#define PICK_1(name, rows) {name##_##rows##x1}
#define PICK_3(name, rows) {name##_##rows##x1, name##_##rows##x2, name##_##rows##x3}
#define UP_TO_4(make, ...) make(__VA_ARGS__, 1) make(__VA_ARGS__, 2) make(__VA_ARGS__, 3) make(__VA_ARGS__, 4)
#define UP_TO_6(make, ...) UP_TO_4(make, __VA_ARGS__) make(__VA_ARGS__, 5) make(__VA_ARGS__, 6)
#define UP_TO_8(make, ...) UP_TO_6(make, __VA_ARGS__) make(__VA_ARGS__, 7) make(__VA_ARGS__, 8)
#define PICKS_4(pick, name) pick(name, 1), pick(name, 2), pick(name, 3), pick(name, 4)
#define PICKS_6(pick, name) PICKS_4(pick, name), pick(name, 5), pick(name, 6)
#define PICKS_8(pick, name) PICKS_6(pick, name), pick(name, 7), pick(name, 8)

#if defined(__AVX512VNNI__)
#define TILES(...) UP_TO_8(TILES_3, __VA_ARGS__)
#define PICKS(name) PICKS_8(PICK_3, name)
#elif defined(__AVXVNNI__)
#define TILES(...) UP_TO_6(TILES_1, __VA_ARGS__)
#define PICKS(name) PICKS_6(PICK_1, name)
#else
#define TILES(...) UP_TO_4(TILES_1, __VA_ARGS__)
#define PICKS(name) PICKS_4(PICK_1, name)
#endif

TILES(bytes, Element, Packed, STEP, dot_bytes)
TILES(shorts, int16_t, int16_t, 2, dot_shorts)

static void (*const bytes_tiles[ROWS][WIDE])(const Element *, size_t, const Packed *, size_t, Ints *) = {PICKS(bytes)};
static void (*const shorts_tiles[ROWS][WIDE])(const int16_t *, size_t, const int16_t *, size_t, Ints *) = {
    PICKS(shorts)};

INLINE void tile_bytes(int rows, int wide, const Element *a, size_t lda, const Packed *b, size_t steps, Ints *out) {
    bytes_tiles[rows - 1][wide - 1](a, lda, b, steps, out);
}

INLINE void tile_shorts(int rows, int wide, const int16_t *a, size_t lda, const int16_t *b, size_t steps, Ints *out) {
    shorts_tiles[rows - 1][wide - 1](a, lda, b, steps, out);
}

/* ---- linear layers --------------------------------------------------------------------------------------------- */

static size_t values_size(const Linear *layer) { return layer->panels * 16 * layer->depth * sizeof(Packed); }

static void pack(Linear *layer, const int8_t *weight, size_t columns, size_t from) {
    Packed *values = layer->values;
    size_t steps = layer->depth / STEP;
    for (size_t k = 0; k < layer->inputs; k++) {
        for (size_t n = 0; n < columns; n++) {
            size_t column = from + n;
            int8_t value = weight[k * columns + n];
            values[((column / 16 * steps + k / STEP) * 16 + column % 16) * STEP + k % STEP] = value;
            layer->start[column] -= layer->zero * value;
        }
    }
}

static int holds(const Linear *layer, const int8_t *weight, size_t columns, size_t from) {
    const Packed *values = layer->values;
    size_t steps = layer->depth / STEP;
    for (size_t k = 0; k < layer->inputs; k++) {
        int other = 0;
        for (size_t n = 0; n < columns; n++) {
            size_t column = from + n;
            other |= values[((column / 16 * steps + k / STEP) * 16 + column % 16) * STEP + k % STEP] ^
                     weight[k * columns + n];
        }
        if (other)
            return 0;
    }
    return 1;
}

/* Steps, rounded and clipped to 0..255 around the zero point. */
INLINE void store_elements(Element *p, Floats steps, Ints zero) {
    Ints v = add_ints(rounded(steps), zero);
#if defined(__AVX512VNNI__)
    store_bytes(p, smaller_ints(larger_ints(v, all_ints(0)), all_ints(255)));
#elif defined(__AVXVNNI__)
    store_bytes(p, v); /* clips, too */
#else
    __m256i clipped = _mm256_max_epi16(narrow(v), _mm256_setzero_si256());
    _mm256_storeu_si256((__m256i *)p, _mm256_min_epi16(clipped, _mm256_set1_epi16(255)));
#endif
}

/* x in steps: times its factor, and no more than integers hold, as is NaN. What is less than they hold is rounded to
 * their least. */
INLINE Floats in_steps(Floats x, Floats factor) { return smaller(mul(x, factor), all(MOST_STEP)); }

/* What the clip takes from a channel, already smoothed. */
static float excess_of(const Linear *layer, float x) {
    float low = (float)(0 - layer->zero) * layer->scale, high = (float)(255 - layer->zero) * layer->scale;
    return x < low ? x - low : x > high ? x - high : 0.0f;
}

/* An element with a part that the clip takes: that part, and where the weights of its channel are in a panel. */
typedef struct {
    float beyond;
    uint32_t step;          /* where the channel's step begins */
    Element ones[STEP];     /* of that step's weights, 1 for the channel's, else 0 */
} Tail;

/* Those of some quantized rows. Found 16 at a time, in any order; gathered row by row, in the order of channels. */
typedef struct {
    uint16_t *masks;        /* (rows, depth / 16) which of 16 there are, */
    float *beyond;          /* (rows, depth) and these, where they are */
    Tail *gathered;
    uint32_t *starts;       /* (rows + 1) where those of a row begin */
} Tails;

/* 0 where there is no memory. A layer without tails needs none. */
static int make_tails(const Linear *layer, size_t rows, Tails *tails) {
    size_t cells = rows * layer->depth;
    *tails = (Tails){0};
    if (!layer->tails)
        return 1;
    tails->gathered = room(cells * (sizeof(Tail) + sizeof(float)) + (rows + 1) * sizeof(uint32_t) + cells / 16 * 2);
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
        memset(tails->masks, 0, rows * layer->depth / 16 * sizeof(uint16_t));
}

INLINE void find_tails(const Linear *layer, const Tails *tails, Floats steps, size_t row, size_t column) {
    if (__builtin_expect(!any_outside(steps, layer->low, layer->high), 1))
        return;
    Floats low = all(layer->low), high = all(layer->high);
    size_t place = row * layer->depth + column;
    steps = larger(steps, all(-MOST_STEP));
    store(tails->beyond + place, sub(steps, larger(smaller(steps, high), low)));
    tails->masks[place / 16] = (uint16_t)(lanes_outside(steps, low, high) & layer->tailed[column / 16]);
}

static void gather_tails(const Linear *layer, const Tails *tails, size_t rows) {
    if (!layer->tails)
        return;
    size_t groups = layer->depth / 16;
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
                size_t channel = g * 16 + (size_t)__builtin_ctz(mask);
                Tail *tail = tails->gathered + count++;
                *tail = (Tail){tails->beyond[r * layer->depth + channel], (uint32_t)(channel / STEP * 16 * STEP), {0}};
                tail->ones[channel % STEP] = 1;
            }
        }
    }
    tails->starts[rows] = count;
}

/* A row's tails @ weights of the panel at `column`. */
INLINE Floats tail_products(const Linear *layer, const Tails *tails, size_t row, size_t column) {
    const Packed *panel = (const Packed *)layer->values + column * layer->depth;
    const Tail *last = tails->gathered + tails->starts[row + 1];
    Floats sum = all(0.0f);
    for (const Tail *tail = tails->gathered + tails->starts[row]; tail < last; tail++) {
        Ints step = load_ints((const int32_t *)(panel + tail->step));
        sum = fma16(all(tail->beyond), floats(dot_bytes(all_ints(0), each(tail->ones), step)), sum);
    }
    return sum;
}

/* x (rows, inputs) -> q (rows, depth), excess (rows, outliers), tails. */
static void quantize_rows(const Linear *layer, const float *x, size_t rows, Element *q, float *excess,
                          const Tails *tails) {
    Ints zero = all_ints(layer->zero);
    clear_tails(layer, tails, rows);
    for (size_t r = 0; r < rows; r++) {
        const float *row = x + r * layer->inputs;
        Element *to = q + r * layer->depth;
        size_t k = 0;
        for (; k + 16 <= layer->inputs; k += 16) {
            Floats steps = in_steps(load(row + k), load(layer->factor + k));
            store_elements(to + k, steps, zero);
            if (layer->tails)
                find_tails(layer, tails, steps, r, k);
        }
        if (k < layer->inputs) {
            Element held[16];
            Floats steps = in_steps(load_some(row + k, layer->inputs - k),
                                    load_some(layer->factor + k, layer->inputs - k));
            store_elements(held, steps, zero);
            if (layer->tails)
                find_tails(layer, tails, steps, r, k);
            memcpy(to + k, held, (layer->inputs - k) * sizeof(Element));
            memset(to + layer->inputs, 0, (layer->depth - layer->inputs) * sizeof(Element));
        }
        for (size_t j = 0; j < layer->outliers; j++)
            excess[r * layer->outliers + j] = excess_of(layer, row[layer->channels[j]] * layer->outlier_factor[j]);
    }
}

INLINE Floats activated(Floats x, Activation activation) {
    switch (activation) {
    case GELU: return gelu(x);
    case GELU_TANH: return gelu_tanh(x);
    case SILU: return mul(x, sigmoid(x));
    case RELU: return larger(x, all(0.0f));
    case TANH: return hyperbolic_tangent(x);
    default: return x;
    }
}

/* One task of a product: WIDE panels of some quantized rows. */
typedef struct {
    const Linear *layer;
    const Element *q;
    const float *excess;
    const Tails *tails;     /* of a layer that has them */
    size_t rows;
    Activation activation;
    int gated;              /* the second half of the outputs is multiplied with the activated first half */
    float *out;             /* (rows, outputs), or NULL where the result is quantized for */
    const Linear *next;
    Element *next_q;
    float *next_excess;
    const Tails *next_tails;
} Product;

/* Tile of accumulated products -> floats. */
INLINE Floats scaled(const Product *work, Ints acc, size_t row, size_t column) {
    const Linear *layer = work->layer;
    Floats y = floats(add_ints(acc, load_ints(layer->start + column)));
    y = fma16(y, load(layer->scales + column), load(layer->bias + column));
    for (size_t j = 0; j < layer->outliers; j++) {
        float excess = work->excess[row * layer->outliers + j];
        if (excess != 0.0f) /* nearly all are */
            y = fma16(all(excess), load(layer->outlier_rows + j * layer->panels * 16 + column), y);
    }
    if (layer->tails && work->tails->starts[row] < work->tails->starts[row + 1])
        y = fma16(tail_products(layer, work->tails, row, column), load(layer->scales + column), y);
    return y;
}

/* The result for the next layer: rounded, and what is clipped of its outlier channels. */
INLINE void hand_on(const Product *work, Floats y, size_t row, size_t column) {
    const Linear *next = work->next;
    Floats steps = in_steps(y, load(next->factor + column));
    store_elements(work->next_q + row * next->depth + column, steps, all_ints(next->zero));
    if (next->tails)
        find_tails(next, work->next_tails, steps, row, column);
    for (size_t j = 0; j < next->outliers; j++) {
        size_t channel = (size_t)next->channels[j];
        if (channel - column < 16) {
            float held[16];
            store(held, y);
            work->next_excess[row * next->outliers + j] =
                excess_of(next, held[channel - column] * next->outlier_factor[j]);
        }
    }
}

INLINE void product_as(const Product *work, size_t index, Activation activation) {
    const Linear *layer = work->layer;
    size_t steps = layer->depth / STEP, panel_size = steps * 16 * STEP;
    size_t outputs = work->gated ? layer->outputs / 2 : layer->outputs;
    size_t panels = work->gated ? layer->panels / 2 : layer->panels;
    size_t first = index * WIDE;
    int wide = (int)least(WIDE, panels - first);
    Ints acc[ROWS * WIDE], other[ROWS * WIDE];
    for (size_t r0 = 0; r0 < work->rows; r0 += ROWS) {
        int rows = (int)least(ROWS, work->rows - r0);
        const Element *a = work->q + r0 * layer->depth;
        tile_bytes(rows, wide, a, layer->depth, (const Packed *)layer->values + first * panel_size, steps, acc);
        if (work->gated)
            tile_bytes(rows, wide, a, layer->depth,
                       (const Packed *)layer->values + (panels + first) * panel_size, steps, other);
        for (int r = 0; r < rows; r++) {
            size_t row = r0 + (size_t)r;
            for (int w = 0; w < wide; w++) {
                size_t column = (first + (size_t)w) * 16;
                Floats y = activated(scaled(work, acc[r * WIDE + w], row, column), activation);
                if (work->gated)
                    y = mul(y, scaled(work, other[r * WIDE + w], row, panels * 16 + column));
                if (work->next) {
                    hand_on(work, y, row, column);
                    continue;
                }
                store_some(work->out + row * outputs + column, y, outputs - column);
            }
        }
    }
}

static void product(void *argument, size_t index) {
    const Product *work = argument;
    switch (work->activation) { /* so that each loop has its activation inlined */
    case GELU: product_as(work, index, GELU); break;
    case GELU_TANH: product_as(work, index, GELU_TANH); break;
    case SILU: product_as(work, index, SILU); break;
    case RELU: product_as(work, index, RELU); break;
    case TANH: product_as(work, index, TANH); break;
    default: product_as(work, index, NO_ACTIVATION); break;
    }
}

static void run_product(const Product *work, const Pool *pool) {
    size_t panels = work->gated ? work->layer->panels / 2 : work->layer->panels;
    pool->run(pool, product, (void *)work, (panels + WIDE - 1) / WIDE);
}

typedef struct {
    const Finish *finish;
    const float *residual;  /* row 0 of it here, or NULL */
    float *out;
    size_t rows, width;
} Finishing;

/* Row by row, where memory is read in order: in the tiles of the product, the residual came too late from far caches. */
static void finish_rows(void *argument, size_t index) {
    const Finishing *work = argument;
    const Finish *finish = work->finish;
    size_t width = work->width, last = least(work->rows, (index + 1) * FINISH_ROWS);
    for (size_t r = index * FINISH_ROWS; r < last; r++) {
        float *row = work->out + r * width;
        Floats sum = all(0.0f), squares = all(0.0f);
        if (work->residual) {
            for (size_t k = 0; k < width; k += 16) {
                Floats y = add(load_some(row + k, width - k), load_some(work->residual + r * width + k, width - k));
                store_some(row + k, y, width - k);
                sum = add(sum, y);
            }
        } else {
            for (size_t k = 0; k < width; k += 16)
                sum = add(sum, load_some(row + k, width - k));
        }
        if (!finish->weight)
            continue;
        float mean = finish->rms ? 0.0f : total(sum) / (float)width;
        for (size_t k = 0; k < width; k += 16) {
            Floats centered = keep_first(sub(load_some(row + k, width - k), all(mean)), width - k);
            squares = fma16(centered, centered, squares);
        }
        float scale = 1.0f / __builtin_sqrtf(total(squares) / (float)width + finish->epsilon);
        for (size_t k = 0; k < width; k += 16) {
            size_t n = width - k;
            Floats y = mul(sub(load_some(row + k, n), all(mean)), all(scale));
            Floats weight = load_some(finish->weight + k, n);
            y = finish->bias ? fma16(y, weight, load_some(finish->bias + k, n)) : mul(y, weight);
            store_some(row + k, y, n);
        }
    }
}

static void run_finish(const Finish *finish, size_t first, float *out, size_t rows, size_t width, const Pool *pool) {
    if (!finish->weight && !finish->residual)
        return;
    Finishing work = {finish, finish->residual ? finish->residual + first * width : NULL, out, rows, width};
    size_t count = (rows + FINISH_ROWS - 1) / FINISH_ROWS;
    if (count < 2)
        finish_rows(&work, 0);
    else
        pool->run(pool, finish_rows, &work, count);
}

/* Blocks of rows, as equal as can be: a last block of a few rows would read all weights for little. */
static size_t block_rows(size_t rows) {
    size_t blocks = (rows + BLOCK - 1) / BLOCK;
    return blocks ? up_to((rows + blocks - 1) / blocks, ROWS) : 1;
}

static int linear(const Linear *layer, const float *x, size_t rows, Activation activation, const Finish *finish,
                   float *out, const Pool *pool) {
    size_t most = block_rows(rows);
    Element *q = room(most * layer->depth * sizeof(Element));
    float *excess = room(most * layer->outliers * sizeof(float));
    Tails tails;
    int fits = make_tails(layer, most, &tails) && q && excess;
    for (size_t r = 0; fits && r < rows; r += most) {
        size_t here = least(most, rows - r);
        float *to = out + r * layer->outputs;
        quantize_rows(layer, x + r * layer->inputs, here, q, excess, &tails);
        gather_tails(layer, &tails, here);
        Product work = {
            .layer = layer, .q = q, .excess = excess, .tails = &tails, .rows = here, .activation = activation,
            .out = to,
        };
        run_product(&work, pool);
        run_finish(finish, r, to, here, layer->outputs, pool);
    }
    free(tails.gathered);
    free(excess);
    free(q);
    return fits;
}

static int feed_forward(const Linear *up, const Linear *down, const float *x, size_t rows, Activation activation,
                         int gated, const Finish *finish, float *out, const Pool *pool) {
    size_t most = block_rows(rows);
    Element *q = room(most * up->depth * sizeof(Element));
    Element *hidden = room(most * down->depth * sizeof(Element));
    float *excess = room(most * up->outliers * sizeof(float));
    float *hidden_excess = room(most * down->outliers * sizeof(float));
    Tails tails, hidden_tails;
    int fits = make_tails(up, most, &tails) && q && hidden && excess && hidden_excess;
    fits = make_tails(down, most, &hidden_tails) && fits;
    for (size_t r = 0; fits && r < rows; r += most) {
        size_t here = least(most, rows - r);
        float *to = out + r * down->outputs;
        quantize_rows(up, x + r * up->inputs, here, q, excess, &tails);
        gather_tails(up, &tails, here);
        Product first = {
            .layer = up, .q = q, .excess = excess, .tails = &tails, .rows = here, .activation = activation,
            .gated = gated, .next = down, .next_q = hidden, .next_excess = hidden_excess, .next_tails = &hidden_tails,
        };
        clear_tails(down, &hidden_tails, here);
        run_product(&first, pool);
        gather_tails(down, &hidden_tails, here);
        Product second = {
            .layer = down, .q = hidden, .excess = hidden_excess, .tails = &hidden_tails, .rows = here,
            .activation = NO_ACTIVATION, .out = to,
        };
        run_product(&second, pool);
        run_finish(finish, r, to, here, down->outputs, pool);
    }
    free(hidden_tails.gathered);
    free(tails.gathered);
    free(hidden_excess);
    free(excess);
    free(hidden);
    free(q);
    return fits;
}

/* ---- attention -------------------------------------------------------------------------------------------------
 * Of each head of each text: query and key as int16 with the head's own scale, so that sums of D products fit into
 * int32; values as int16 likewise. Keys are taken in blocks of SHARED, whose shares are int16 steps that add up to 2^15
 * or 2^16: their sum of products fits too. Blocks are added in float, each with its part of the row. Nothing depends on
 * other texts.
 *
 * What rounding the shares costs depends on no length: half a step a key is at most SHARED / 2 steps of 2^-15 of each
 * block's part of the row, together at most 2^-9 of the largest value of the head; 2^-13 is usual, and the less the more
 * blocks there are. A key that holds nearly all of its block would leave few steps to the others: its value is added in
 * float. Rounding the values adds at most 2^-16 of the largest. Rounding queries and keys moves a score by at most
 * D * largest query * largest key / score_limit(D), a fiftieth of it as a rule, and shares by as much of themselves.
 */

enum {
    SHARED = 128,   /* keys of a block; texts up to that length have one */
    FEW_STEPS = 32  /* that a key has on average where another one is said to hold nearly all */
};
static const float MOST_STEPS = 65400.0f; /* and half a step more for each key, times 32767: below 2^31 */
static const float LITTLE = 1.0f / 1024;  /* of a row's sum: a block below that needs no care */
static const float NOTHING = 1e-20f;      /* of a row's sum, which is 1 at least: hidden keys are e^-87 */

/* The part of a block's sum beyond which one of its keys leaves few steps to the others. */
INLINE float nearly_all_of(size_t keys) { return 1.0f - (float)(int)(keys * FEW_STEPS) / 32768.0f; }

static float largest_of(const float *x, size_t stride, size_t rows, size_t size) {
    Floats most = all(0.0f);
    for (size_t r = 0; r < rows; r++) {
        const float *row = x + r * stride;
        size_t k = 0;
        for (; k + 16 <= size; k += 16)
            most = larger(most, magnitude(load(row + k)));
        if (k < size)
            most = larger(most, magnitude(load_some(row + k, size - k)));
    }
    return largest(most);
}

/* x (size) times `factor`, rounded; zeros up to whole vectors. */
INLINE void quantize_head(const float *x, size_t size, float factor, int16_t *to) {
    size_t k = 0;
    for (; k + 16 <= size; k += 16)
        store_shorts(to + k, rounded(mul(load(x + k), all(factor))));
    if (k < size)
        store_shorts(to + k, rounded(mul(load_some(x + k, size - k), all(factor))));
}

/* Largest int16 whose products of two, summed `size` times, stay within int32. */
static float score_limit(size_t size) {
    float limit = __builtin_floorf(__builtin_sqrtf(2147483000.0f / (float)size)) - 1.0f;
    return limit < 32767.0f ? limit : 32767.0f;
}

static const float FAR_BELOW = -1e30f;

/* Scores of a row outside `first` to `last` are far below all others. */
static void outside(float *row, int64_t from, int64_t to, int64_t first, int64_t last) {
    for (int64_t k = from; k < first && k < to; k++)
        row[k - from] = FAR_BELOW;
    for (int64_t k = last + 1 > from ? last + 1 : from; k < to; k++)
        row[k - from] = FAR_BELOW;
}

/* Never inlined: all of attention in one function has more variables than there are registers for. */
#define APART static __attribute__((noinline))

/* A head of a text under work. */
typedef struct {
    size_t length, size;    /* keys, channels; */
    size_t keys, depth;     /* and both rounded up to whole vectors */
    size_t blocks;          /* of keys */
    const float *value;     /* (length, value_stride) */
    size_t value_stride;
    int16_t *k_panels;      /* [keys / 16][depth / 2][16][2] */
    int16_t *v_panels;      /* of each block: [depth / 16][keys of it / 2][16][2] */
    int16_t *q;             /* [QUERIES][depth] */
    int16_t *shares;        /* [QUERIES][keys that are seen] */
    int16_t *line;          /* [2][depth] */
    float *scores;          /* [QUERIES][keys that are seen] */
    float *parts;           /* [QUERIES][blocks] what a step of each block is of a row */
    int begun[QUERIES];     /* whether a row of the output holds something already */
} Head;

APART void pack_keys(const Head *head, const float *key, size_t stride, float factor) {
    size_t depth = head->depth, size = head->size, length = head->length;
    int16_t *line = head->line;
    if (length < head->keys)
        memset(head->k_panels + (head->keys - 16) * depth, 0, 16 * depth * sizeof(int16_t));
    for (size_t k = 0; k < length; k++) {
        int16_t *panel = head->k_panels + k / 16 * depth * 16 + k % 16 * 2;
        quantize_head(key + k * stride, size, factor, line);
        for (size_t d = 0; d < depth; d += 16, panel += 8 * 32)
            for (size_t j = 0; j < 8; j++)
                memcpy(panel + j * 32, line + d + 2 * j, 4);
    }
}

APART void pack_values(const Head *head, float factor) {
    size_t depth = head->depth, size = head->size, length = head->length, stride = head->value_stride;
    const float *value = head->value;
    int16_t *line = head->line;
    for (size_t k = 0; k < head->keys; k += 2) {
        size_t first = k / SHARED * SHARED, width = least(SHARED, head->keys - first);
        int32_t *panel = (int32_t *)(head->v_panels + first * depth) + (k - first) * 8;
        if (k >= length) {
            for (size_t d = 0; d < depth; d += 16)
                store_ints(panel + d * width / 2, all_ints(0));
            continue;
        }
        quantize_head(value + k * stride, size, factor, line);
        if (k + 1 < length)
            quantize_head(value + (k + 1) * stride, size, factor, line + depth);
        else
            memset(line + depth, 0, depth * sizeof(int16_t));
        for (size_t d = 0; d < depth; d += 16) {
            Ints low = and_ints(load_shorts(line + d), all_ints(0xFFFF));
            store_ints(panel + d * width / 2, or_ints(low, shift_left(load_shorts(line + depth + d), 16)));
        }
    }
}

static float largest_share(const float *row, size_t keys) {
    Floats most = load(row);
    for (size_t k = 16; k < keys; k += 16)
        most = larger(most, load(row + k));
    return largest(most);
}

/* Keys of block `first` to `last` that hold nearly all of its sum, in a row that begins with key `from` and has the
 * sum `whole`: their values are added to the output in float, and they are taken out. Returns the sum of the others. */
APART float take_out(const Head *head, float *row, size_t from, size_t first, size_t last, float sum, float whole,
                     float *output, int *begun) {
    float nearly_all = nearly_all_of(least(SHARED, head->keys - first / SHARED * SHARED));
    while (sum > whole * LITTLE) {
        float most = largest_share(row + (first - from), last - first);
        if (most <= sum * nearly_all)
            break;
        size_t key = first;
        while (row[key - from] != most)
            key++;
        row[key - from] = 0.0f;
        Floats factor = all(most / whole);
        for (size_t d = 0; d < head->size; d += 16) {
            size_t n = head->size - d;
            Floats y = mul(load_some(head->value + key * head->value_stride + d, n), factor);
            store_some(output + d, *begun ? add(load_some(output + d, n), y) : y, n);
        }
        *begun = 1;
        Floats others = all(0.0f);
        for (size_t k = first; k < last; k += 16)
            others = add(others, load(row + (k - from)));
        sum = total(others);
    }
    return sum;
}

/* Scores of the keys `from` to `to`, multiples of 16 -> int16 shares of 2^15 of each block of keys, and what a step of
 * each block is of its row. Blocks begin where the text's do, not where those begin that a query sees. */
APART void softmax(Head *head, int rows, size_t from, size_t to, float *output, size_t stride) {
    size_t seen = to - from;
    for (int r = 0; r < rows; r++) {
        float *row = head->scores + (size_t)r * seen, *parts = head->parts + (size_t)r * head->blocks;
        int16_t *shares = head->shares + (size_t)r * seen;
        Floats top = all(largest_share(row, seen));
        float whole = 0.0f;
        for (size_t first = from, block = 0, last; first < to; first = last, block++) {
            size_t start = first / SHARED * SHARED;
            Floats sums = all(0.0f), most = all(0.0f);
            last = least(to, start + SHARED);
            for (size_t k = first - from; k < last - from; k += 16) {
                Floats e = exponential(sub(load(row + k), top));
                store(row + k, e);
                sums = add(sums, e);
                most = larger(most, e);
            }
            float sum = total(sums);
            whole += sum;
            /* The sign says that a key holds nearly all. */
            float nearly_all = sum * nearly_all_of(least(SHARED, head->keys - start));
            parts[block] = any_above(most, all(nearly_all)) ? -sum : sum;
        }
        head->begun[r] = 0;
        for (size_t first = from, block = 0, last; first < to; first = last, block++) {
            float sum = parts[block];
            last = least(to, first / SHARED * SHARED + SHARED);
            if (sum < 0.0f)
                sum = take_out(head, row, from, first, last, -sum, whole, output + (size_t)r * stride, head->begun + r);
            /* Beside a sum of 2 no share is more than half: as int16, it may be of twice as many steps. */
            float steps = sum >= 2.0f ? MOST_STEPS : 32767.0f;
            int nothing = sum <= NOTHING; /* and no NaN */
            parts[block] = nothing ? 0.0f : sum / (whole * steps);
            Floats share = all(nothing ? 0.0f : steps / sum);
            for (size_t k = first - from; k < last - from; k += 16)
                store_shorts(shares + k, rounded(mul(load(row + k), share)));
        }
    }
}

/* Shares of the keys `from` to `to` times their values -> rows of the output. */
APART void mix(Head *head, int rows, size_t from, size_t to, float unit, float *output, size_t stride) {
    size_t depth = head->depth, size = head->size, seen = to - from;
    Ints acc[ROWS * WIDE];
    for (size_t first = from, block = 0, last; first < to; first = last, block++) {
        size_t start = first / SHARED * SHARED, width = least(SHARED, head->keys - start);
        const int16_t *shares = head->shares + (first - from);
        last = least(to, start + SHARED);
        for (size_t d = 0; d < depth; d += 16 * WIDE) {
            int wide = (int)least(WIDE, (depth - d) / 16);
            const int16_t *panels = head->v_panels + start * depth + d * width;
            if (last - first == width)
                tile_shorts(rows, wide, shares, seen, panels, width / 2, acc);
            else /* the panels of values keep their whole stride */
                for (int w = 0; w < wide; w++)
                    tile_shorts(rows, 1, shares, seen, panels + (size_t)w * 16 * width + (first - start) * 16,
                                (last - first) / 2, acc + w);
            for (int w = 0; w < wide && d + (size_t)w * 16 < size; w++) {
                size_t column = d + (size_t)w * 16, n = size - column;
                for (int r = 0; r < rows; r++) {
                    float *to_row = output + (size_t)r * stride + column;
                    Floats y = mul(floats(acc[r * WIDE + w]), all(head->parts[(size_t)r * head->blocks + block] * unit));
                    if (n >= 16)
                        store(to_row, head->begun[r] ? add(load(to_row), y) : y);
                    else
                        store_some(to_row, head->begun[r] ? add(load_some(to_row, n), y) : y, n);
                }
            }
        }
        for (int r = 0; r < rows; r++)
            head->begun[r] = 1;
    }
}

static void attend(void *argument, size_t index) {
    const Attention *work = argument;
    size_t text = index / work->heads, number = index % work->heads, size = work->size;
    size_t kv_number = number / (work->heads / work->kv_heads);
    size_t start = (size_t)work->starts[text], length = (size_t)(work->starts[text + 1] - work->starts[text]);
    if (!length)
        return;
    size_t queries = work->first_only ? 1 : length;
    size_t query_row = work->first_only ? text : start;
    const float *query = work->query + query_row * work->query_stride + number * size;
    const float *key = work->key + start * work->key_stride + kv_number * size;
    const float *value = work->value + start * work->value_stride + kv_number * size;
    float *output = work->output + query_row * work->output_stride + number * size;

    size_t keys = up_to(length, 16), depth = up_to(size, 16), blocks = (keys + SHARED - 1) / SHARED;
    size_t bytes = (keys * depth * 2 + QUERIES * (depth + keys)) * sizeof(int16_t) + 64 * 4 +
                   QUERIES * (keys + blocks) * sizeof(float) + depth * 2 * sizeof(int16_t);
    _Alignas(64) int16_t near[ON_STACK / sizeof(int16_t)]; /* of short texts, for which an allocation takes long */
    int16_t *memory = bytes <= sizeof near ? near : room(bytes);
    if (!memory) {
        __atomic_store_n(work->short_of_memory, 1, __ATOMIC_RELAXED);
        return;
    }
    Head head = {
        .length = length, .size = size, .keys = keys, .depth = depth, .blocks = blocks,
        .value = value, .value_stride = work->value_stride, .k_panels = memory,
    };
    head.v_panels = head.k_panels + keys * depth;
    head.q = head.v_panels + keys * depth;
    head.shares = head.q + QUERIES * depth;
    head.line = head.shares + QUERIES * keys;
    head.scores = (float *)(((uintptr_t)(head.line + 2 * depth) + 63) / 64 * 64);
    head.parts = head.scores + QUERIES * keys;
    int16_t *q = head.q;

    float limit = score_limit(size);
    float q_most = largest_of(query, work->query_stride, queries, size);
    float k_most = largest_of(key, work->key_stride, length, size);
    float v_most = largest_of(value, work->value_stride, length, size);
    float q_factor = q_most > 0 ? limit / q_most : 0.0f, k_factor = k_most > 0 ? limit / k_most : 0.0f;
    float v_factor = v_most > 0 ? 32767.0f / v_most : 0.0f;
    float q_unit = q_most / limit, k_unit = k_most / limit;
    pack_keys(&head, key, work->key_stride, k_factor);
    pack_values(&head, v_factor);

    Floats unit = all(q_unit * k_unit * work->scale);
    float out_unit = v_most / 32767.0f;
    Ints acc[ROWS * WIDE];
    for (size_t r0 = 0; r0 < queries; r0 += QUERIES) {
        int rows = (int)least(QUERIES, queries - r0);
        for (int r = 0; r < rows; r++)
            quantize_head(query + (r0 + (size_t)r) * work->query_stride, size, q_factor, q + (size_t)r * depth);
        /* Only panels of keys that one of these queries sees. */
        size_t from = 0, to = keys;
        if (work->before >= 0 && r0 > (size_t)work->before)
            from = (r0 - (size_t)work->before) / 16 * 16;
        if (work->after >= 0)
            to = least(keys, up_to(r0 + (size_t)rows + (size_t)work->after, 16));
        size_t seen = to - from;
        for (size_t k0 = from; k0 < to; k0 += KEYS) {
            int wide = (int)least(WIDE, (to - k0) / 16);
            tile_shorts(rows, wide, q, depth, head.k_panels + k0 * depth, depth / 2, acc);
            for (int r = 0; r < rows; r++)
                for (int w = 0; w < wide; w++)
                    store(head.scores + (size_t)r * seen + (k0 - from) + (size_t)w * 16,
                          mul(floats(acc[r * WIDE + w]), unit));
        }
        for (int r = 0; r < rows; r++) {
            float *row = head.scores + (size_t)r * seen;
            int64_t here = (int64_t)r0 + r;
            if (work->by_distance) {
                const float *bias = work->by_distance + number * (size_t)(2 * work->reach - 1) + work->reach - 1 - here;
                for (size_t k = from; k < least(to, length); k += 16) {
                    size_t n = least(to, length) - k;
                    store(row + k - from, add(load(row + k - from), load_some(bias + k, n)));
                }
            }
            int64_t first = work->before >= 0 ? here - work->before : 0;
            int64_t last = work->after >= 0 && here + work->after < (int64_t)length - 1 ? here + work->after
                                                                                       : (int64_t)length - 1;
            outside(row, (int64_t)from, (int64_t)to, first, last);
        }
        softmax(&head, rows, from, to, output + r0 * work->output_stride, work->output_stride);
        mix(&head, rows, from, to, out_unit, output + r0 * work->output_stride, work->output_stride);
    }
    if (memory != near)
        free(memory);
}

static int attention(const Attention *work, const Pool *pool) {
    int short_of_memory = 0;
    Attention here = *work;
    here.short_of_memory = &short_of_memory;
    pool->run(pool, attend, &here, work->texts * work->heads);
    return !short_of_memory;
}

/* A group of whole texts at a time, so that queries, keys and values are read again while they are in the cache. */
static int attention_block(const Linear *input, const Attention *shape, const Linear *output, const float *x,
                            const Finish *finish, float *out, const Pool *pool) {
    const int64_t *starts = shape->starts;
    size_t first = 0, most = 0;
    for (size_t text = 0; text < shape->texts; text++)
        most = most > (size_t)(starts[text + 1] - starts[text]) ? most : (size_t)(starts[text + 1] - starts[text]);
    most = most > BLOCK ? most : least(BLOCK, (size_t)starts[shape->texts]);
    size_t mixed_width = shape->heads * shape->size;
    float *projected = room(most * input->outputs * sizeof(float));
    float *mixed = room(most * mixed_width * sizeof(float));
    int64_t *local = room((shape->texts + 1) * sizeof(int64_t));
    int fits = projected && mixed && local;
    while (fits && first < shape->texts) {
        size_t last = first + 1, start = (size_t)starts[first];
        while (last < shape->texts && (size_t)starts[last + 1] - start <= BLOCK)
            last++;
        size_t rows = (size_t)starts[last] - start;
        for (size_t text = first; text <= last; text++)
            local[text - first] = starts[text] - (int64_t)start;
        static const Finish nothing;
        fits = linear(input, x + start * input->inputs, rows, NO_ACTIVATION, &nothing, projected, pool);
        Attention work = *shape;
        work.query = projected;
        work.key = projected + shape->heads * shape->size;
        work.value = work.key + shape->kv_heads * shape->size;
        work.query_stride = work.key_stride = work.value_stride = input->outputs;
        work.output = mixed;
        work.output_stride = mixed_width;
        work.starts = local;
        work.texts = last - first;
        fits = fits && attention(&work, pool);
        Finish here = *finish;
        if (here.residual)
            here.residual += start * output->outputs;
        fits = fits && linear(output, mixed, rows, NO_ACTIVATION, &here, out + start * output->outputs, pool);
        first = last;
    }
    free(local);
    free(mixed);
    free(projected);
    return fits;
}

const Kernels KERNELS = {
    .name = SET_NAME,
    .values_size = values_size,
    .pack = pack,
    .holds = holds,
    .linear = linear,
    .feed_forward = feed_forward,
    .attention = attention,
    .attention_block = attention_block,
};
