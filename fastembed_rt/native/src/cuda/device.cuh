/* What the kernels share: numbers of 16 bits, eight at a time, sums over a warp, a row and its normalization.
 *
 * Included by the .cu files beside it, whose PTX is checked in; the tests compile the same source for the host.
 */
#ifndef FASTEMBED_RT_DEVICE_CUH
#define FASTEMBED_RT_DEVICE_CUH

#ifdef __CUDACC__
#include <cuda_fp16.h>
#define DYNAMIC_SHARED(type, name) extern __shared__ type name[]
/* At most so many threads in a block, of which a processor is to hold so many. */
#define LAUNCHED_BY(threads, blocks) __launch_bounds__(threads, blocks)
#else
#include "on_host.h"
#endif

#define WARP 32
#define LANES 0xffffffffu
#define DEVICE static __device__ inline

/* Eight numbers of 16 bits: what a thread loads and stores at once. */
struct alignas(16) Vector {
    unsigned pair[4];
};

struct Float16 {
    static __device__ inline float wide(unsigned bits) { return __half2float(__ushort_as_half((unsigned short)bits)); }
    static __device__ inline unsigned narrow(float value) { return __half_as_ushort(__float2half_rn(value)); }
};

struct BFloat16 {
    static __device__ inline float wide(unsigned bits) { return __uint_as_float(bits << 16); }
    /* To the nearest, ties to even; by integers, since cards before sm_80 have no instruction for it. */
    static __device__ inline unsigned narrow(float value) {
        unsigned bits = __float_as_uint(value);
        return value != value ? 0x7fffu : (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
    }
};

template <class Number>
DEVICE void add(float *sum, Vector vector) {
#pragma unroll
    for (int k = 0; k < 4; k++) {
        sum[2 * k] += Number::wide(vector.pair[k] & 0xffffu);
        sum[2 * k + 1] += Number::wide(vector.pair[k] >> 16);
    }
}

template <class Number>
DEVICE Vector narrowed(const float *from) {
    Vector made;
#pragma unroll
    for (int k = 0; k < 4; k++)
        made.pair[k] = Number::narrow(from[2 * k]) | Number::narrow(from[2 * k + 1]) << 16;
    return made;
}

DEVICE float sum_of_warp(float value) {
#pragma unroll
    for (int distance = WARP / 2; distance; distance /= 2)
        value += __shfl_xor_sync(LANES, value, distance);
    return value;
}

/* ---- activations --------------------------------------------------------------------------------------------------- */

/* Numbered as `activations` of row_operators.h names them. */
enum { NONE, GELU, GELU_TANH, SILU, RELU, SIGMOID, TANH };

DEVICE float activated(float x, int activation) {
    switch (activation) {
    case GELU:
        return 0.5f * x * (1.0f + erff(x * 0.70710678f));
    case GELU_TANH:
        return 0.5f * x * (1.0f + tanhf(0.79788456f * (x + 0.044715f * x * x * x)));
    case SILU:
        return x / (1.0f + expf(-x));
    case RELU:
        return x > 0.0f ? x : 0.0f;
    case SIGMOID:
        return 1.0f / (1.0f + expf(-x));
    case TANH:
        return tanhf(x);
    default:
        return x;
    }
}

/* ---- normalization ------------------------------------------------------------------------------------------------ */

/* A warp has a row: lane l has vectors l, l + 32, ... of it, as floats in shared memory, which no other lane reads. Number
 * j of a lane's vector k lies at (8 k + j) 32 + l: no two lanes meet in a bank. */
struct Row {
    float *own;
    int lane, vectors; /* of 8 numbers, in the row */

    __device__ inline float &at(int vector, int number) { return own[(vector / WARP * 8 + number) * WARP]; }
};

DEVICE Row row_of_warp(int vectors) {
    DYNAMIC_SHARED(float, scratch);
    Row row;
    row.lane = (int)threadIdx.x;
    row.vectors = vectors;
    row.own = scratch + threadIdx.y * ((vectors + WARP - 1) / WARP * 8 * WARP) + row.lane;
    return row;
}

/* What a row is normalized by: (x - mean) scale, with scale 1 / sqrt(variance + epsilon); rms: x scale, with the mean of
 * squares for the variance. */
struct Moments {
    float mean, scale;
};

DEVICE Moments moments_of(Row row, float sum, float epsilon, int rms) {
    float count = 8.0f * (float)row.vectors, mean = rms ? 0.0f : sum_of_warp(sum) / count, squares = 0.0f;
#pragma unroll 1
    for (int v = row.lane; v < row.vectors; v += WARP)
#pragma unroll
        for (int j = 0; j < 8; j++) {
            float away = row.at(v, j) - mean;
            squares += away * away;
        }
    return {mean, 1.0f / sqrtf(sum_of_warp(squares) / count + epsilon)};
}

/* Eight numbers of the row, normalized, times gamma, plus beta, which may be NULL. */
template <class Number>
DEVICE void scaled(float *made, Row row, int vector, Moments moments, const Vector *gamma, const Vector *beta) {
    float weight[8] = {};
#pragma unroll
    for (int j = 0; j < 8; j++)
        made[j] = 0.0f;
    add<Number>(weight, gamma[vector]);
    if (beta)
        add<Number>(made, beta[vector]);
#pragma unroll
    for (int j = 0; j < 8; j++)
        made[j] += (row.at(vector, j) - moments.mean) * moments.scale * weight[j];
}

/* y = (x - mean) / sqrt(variance + epsilon) * gamma + beta of the row; rms: x / sqrt(mean of squares + epsilon) * gamma.
 * beta may be NULL. */
template <class Number>
DEVICE void normalize(Row row, float sum, const Vector *gamma, const Vector *beta, Vector *y, float epsilon, int rms) {
    Moments moments = moments_of(row, sum, epsilon, rms);
#pragma unroll 1
    for (int v = row.lane; v < row.vectors; v += WARP) {
        float made[8];
        scaled<Number>(made, row, v, moments, gamma, beta);
        y[v] = narrowed<Number>(made);
    }
}

/* Keeps eight sums in the row; adds them up. */
DEVICE float keep(Row row, int vector, const float *sum) {
    float total = 0.0f;
#pragma unroll
    for (int j = 0; j < 8; j++) {
        row.at(vector, j) = sum[j];
        total += sum[j];
    }
    return total;
}

/* The row x + skip + bias, and its sum; bias may be NULL. */
template <class Number>
DEVICE float added(Row row, const Vector *x, const Vector *skip, const Vector *bias) {
    float sum = 0.0f;
#pragma unroll 1
    for (int v = row.lane; v < row.vectors; v += WARP) {
        float total[8] = {};
        add<Number>(total, x[v]);
        add<Number>(total, skip[v]);
        if (bias)
            add<Number>(total, bias[v]);
        sum += keep(row, v, total);
    }
    return sum;
}

/* The row of a token, words[id] + positions[place] + types[type], and its sum; a row that a table has not adds nothing,
 * places with positions and kinds with types may be NULL. */
template <class Number>
DEVICE float embedded(Row row, long long token, const long long *ids, const Vector *words, long long words_rows,
                      const long long *places, const Vector *positions, long long positions_rows, const long long *kinds,
                      const Vector *types, long long types_rows) {
    const Vector *from[3] = {};
    const long long *index[3] = {ids, places, kinds};
    const Vector *table[3] = {words, positions, types};
    const long long in_table[3] = {words_rows, positions_rows, types_rows};
#pragma unroll
    for (int k = 0; k < 3; k++)
        if (index[k] && index[k][token] >= 0 && index[k][token] < in_table[k])
            from[k] = table[k] + index[k][token] * row.vectors;
    float sum = 0.0f;
#pragma unroll 1
    for (int v = row.lane; v < row.vectors; v += WARP) {
        float total[8] = {};
#pragma unroll
        for (int k = 0; k < 3; k++)
            if (from[k])
                add<Number>(total, from[k][v]);
        sum += keep(row, v, total);
    }
    return sum;
}

#endif
