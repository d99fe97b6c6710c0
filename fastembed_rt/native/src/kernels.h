/* What the operators need of the processor, behind one table an instruction set.
 *
 * The same source (kernels.c, which says what is in which file) is compiled once for each instruction set. Integer
 * products are exact, and every float operation is written out in the same order for 16 lanes, so all of them give the
 * same bits.
 */
#ifndef FASTEMBED_RT_KERNELS_H
#define FASTEMBED_RT_KERNELS_H

#include <stddef.h>
#include <stdint.h>

enum { MOST_OUTLIERS = 16 };

typedef enum { NO_ACTIVATION, GELU, GELU_TANH, SILU, RELU, TANH } Activation;

typedef enum { INT8_WEIGHTS, BF16_WEIGHTS, FP32_WEIGHTS } Weights;

/* Linear layers that share one quantized input, side by side: y = dequantized(quantized(x)) @ w + bias.
 *
 * Of u = x * factor, integers from -zero_point to 255 - zero_point are multiplied with the int8 weights w. With
 * `tails`, what u has beyond is multiplied with them as well, in float: y[n] += scales[n] * sum_k t[k] * w[k, n],
 * t[k] = u - (255 - zero_point) above, u + zero_point below, 0 between. A few elements of a row should be there: each
 * costs a pass over its weights. With `dither`, a number of its own is added to each row before it is rounded, and its
 * product with the weights subtracted. quantize.h and epilogue.h have the whole arithmetic.
 *
 * K inputs, N outputs, rounded up to whole panels of 16 columns. Everything here is written once, when it is packed.
 * Of layers with bfloat16 or float weights there are sizes, packed weights and bias only: y = rounded(x) @ w + bias, see
 * bf16.h, and y = x @ w + bias, see fp32.h. */
typedef struct {
    Weights weights;
    size_t inputs, outputs; /* K, N */
    size_t depth;           /* K rounded up to the kernels' depth_unit: whole vectors of 16, which may be written blindly */
    size_t panels;          /* of 16 outputs */
    float scale;            /* of the input, and its */
    int32_t zero_point;     /* in 0..255 */
    float *factor;          /* (depth) what an input is multiplied by before it is rounded */
    size_t outliers;        /* channels whose clipped part is added back in float */
    int64_t channels[MOST_OUTLIERS];
    float outlier_factor[MOST_OUTLIERS]; /* 1 / smoothing of the channel */
    float *outlier_rows;    /* (outliers, panels * 16) their weights */
    int tails;              /* what the clip takes from the other channels is added back, too */
    float low, high;        /* -zero_point and 255 - zero_point, between which it takes nothing */
    uint16_t *tail_channels; /* (depth / 16) a bit for each channel that may have one */
    int dither;
    float *dither_weights;  /* (panels * 16) what a dither of 1 has added to an output: scales[n] * sum_k w[k, n] */
    void *packed;           /* weights in the kernels' own order, see gemm.h */
    int32_t *compensation;  /* (panels * 16) -zero_point * sum_k w[k, n] */
    float *scales;          /* (panels * 16) of the accumulated products */
    float *bias;            /* (panels * 16) */
} Linear;

/* Weights of some of a layer's columns, of its type and at any address: (inputs, count), beside the next ones. */
typedef struct {
    const void *weights;
    size_t count;
} Columns;

/* A normalization of rows. */
typedef struct {
    const float *weight;    /* (width); NULL for none */
    const float *bias;      /* (width) or NULL */
    float epsilon;
    int rms;                /* by root mean square, without mean */
} Norm;

/* What follows a linear layer: a residual and a normalization; either may be missing. */
typedef struct {
    const float *residual;  /* (rows, outputs) */
    Norm norm;
    int norm_first;         /* the residual is added to what is normalized; else it is normalized with it */
} AddNorm;

enum { QUERY, KEY, VALUE, PARTS };

/* What heads go through on their way from the projection to attention. Their size is a multiple of 32, where there is
 * something. */
typedef struct {
    Norm norms[PARTS];          /* (size), of each head by itself */
    const float *cosine, *sine; /* (tokens, size / 2), by which channel d and d + size / 2 of queries and keys are turned
                                 * then; or NULL */
} Turn;

/* What distances between tokens add to scores, where queries and keys meet a row of a table (He et al. 2020,
 * arXiv:2006.03654): relative.h. */
typedef struct {
    const float *c2p;       /* (rows, width) at any address: a row meets the query; or NULL */
    const float *p2c;       /* (width, columns) transposed: a column meets the key; or NULL */
    size_t width, columns;  /* heads * size; whole vectors */
    const int32_t *row;     /* (2 * reach - 1) of the distance query - key, behind + reach - 1: each is the one before it
                             * or the next; NULL where there are no tables */
    int64_t first, last;    /* distances around 0 between which each is the next */
} Relative;

/* Attention of packed texts. Query, key and value are (tokens, stride) with the heads side by side. */
typedef struct {
    const float *query, *key, *value;
    size_t query_stride, key_stride, value_stride, output_stride;
    /* Of query, key and value: how far a head's channels lie from the last one's, and 16 of its channels from the 16
     * before. 0: heads and channels side by side. */
    size_t head_stride, panel_stride;
    float *output;
    const int64_t *starts;  /* (texts + 1) first token of each text */
    const int64_t *seen;    /* (texts) how many tokens of each, the first of them, are keys; NULL: all are */
    size_t texts, heads, kv_heads, size; /* size: channels of a head */
    int first_only;         /* one query a text, that of its first token */
    float scale;            /* of the scores */
    float cap;              /* products become cap * tanh(product / cap); 0: they do not */
    const float *by_distance; /* (heads, 2 * reach - 1) added to the scores by key - query + reach - 1; or NULL */
    Relative relative;
    int64_t reach;          /* tokens of the longest text that either of them knows */
    int64_t before, after;  /* tokens that a query sees on each side; negative: all */
    Turn turn;              /* for attention_block, which has the projections */
    int in_float;           /* products and softmax in float: fp32_attention.h */
    int *short_of_memory;   /* the kernels' own: set by tasks that are */
} Attention;

/* Runs fn(argument, 0) ... fn(argument, count - 1), perhaps on several threads. */
typedef struct Pool {
    void (*run)(const struct Pool *pool, void (*fn)(void *argument, size_t index), void *argument, size_t count);
    void *context;
    int *several; /* becomes 1 when a task of fused.h's head after head has run on another thread; or NULL */
} Pool;

typedef struct {
    const char *name;
    size_t depth_unit;      /* a layer's depth is a multiple of it */
    /* Bytes that `packed` needs for these weights, which are all of the layer's; writing them there, with their
     * compensation, which is 0 before; and whether that is what lies there. */
    size_t (*packed_size)(const Linear *layer, const Columns *blocks, size_t count);
    void (*pack)(Linear *layer, const Columns *blocks, size_t count);
    int (*is_packed)(const Linear *layer, const Columns *blocks, size_t count);
    /* What follows returns 0 where there was not enough memory. */
    /* out (rows, outputs) = add_norm(activation(linear(x))), x (rows, inputs). */
    int (*linear)(const Linear *layer, const float *x, size_t rows, Activation activation, const AddNorm *norm,
                  float *out, const Pool *pool);
    /* out = add_norm(down(activation(up(x)))); gated: gate and up are one layer, down(activation(gate(x)) * up(x)). What
     * is read is x normalized by `before`. */
    int (*feed_forward)(const Linear *up, const Linear *down, const Norm *before, const float *x, size_t rows,
                        Activation activation, int gated, const AddNorm *norm, float *out, const Pool *pool);
    int (*attention)(const Attention *work, const Pool *pool);
    /* out = add_norm(output(attention(input(x)))): input gives query, key, value side by side; `shape` lacks them. What
     * is read is x normalized by `before`. */
    int (*attention_block)(const Linear *input, const Attention *shape, const Linear *output, const Norm *before,
                           const float *x, const AddNorm *norm, float *out, const Pool *pool);
} Kernels;

extern const Kernels kernels_avx2, kernels_avxvnni, kernels_avx512vnni, kernels_avx512bf16, kernels_amx;
extern const Kernels kernels_neon, kernels_neondotprod, kernels_neoni8mm;

#endif
