/* What follows an encoder: weights of words, unit vectors of tokens, layers behind a pooling.
 *
 * As kernels.cu: sums in float32, the same bits in any batch.
 */
#include "device.cuh"

/* ---- weights of words --------------------------------------------------------------------------------------------- */

enum { ACROSS = 8, DOWN = 32 }; /* vectors of a row, and tokens, that a block of ACROSS x DOWN takes at a time */

DEVICE float on_log_scale(float value, int times) {
    for (int k = 0; k < times; k++)
        value = log1pf(value);
    return value;
}

/* y[text, n] = the largest over the text's tokens (added: the sum) of log(1 + max(x[token, n], 0)), the logarithm `times`
 * times over; 0 where a text has no tokens. x (rows, 8 vectors), starts (texts + 1), y (texts, 8 vectors) float. A block has
 * ACROSS vectors of one text. Both logarithms rise with their argument: of the largest they are taken once. */
template <class Number>
DEVICE void word_weights(const Vector *x, const int *starts, float *y, int rows, int vectors, int times, int added) {
    __shared__ float part[DOWN][ACROSS][9]; /* one more than 8: lanes side by side meet in no bank */
    int vector = (int)(blockIdx.y * ACROSS + threadIdx.x), start = starts[blockIdx.x], stop = starts[blockIdx.x + 1];
    start = start < 0 ? 0 : start;
    stop = stop > rows ? rows : stop;
    float found[8] = {};
    if (vector < vectors)
        for (int token = start + (int)threadIdx.y; token < stop; token += DOWN) {
            float value[8] = {};
            add<Number>(value, x[(long long)token * vectors + vector]);
#pragma unroll
            for (int j = 0; j < 8; j++) {
                value[j] = fmaxf(value[j], 0.0f);
                found[j] = added ? found[j] + on_log_scale(value[j], times) : fmaxf(found[j], value[j]);
            }
        }
#pragma unroll
    for (int j = 0; j < 8; j++)
        part[threadIdx.y][threadIdx.x][j] = found[j];
    __syncthreads();
    if (threadIdx.y >= 8 || vector >= vectors)
        return;
    /* Thread (vector, number) has the last word on what the DOWN threads found. */
    float all = 0.0f;
#pragma unroll 1
    for (int k = 0; k < DOWN; k++)
        all = added ? all + part[k][threadIdx.x][threadIdx.y] : fmaxf(all, part[k][threadIdx.x][threadIdx.y]);
    y[((long long)blockIdx.x * vectors + vector) * 8 + threadIdx.y] = added ? all : on_log_scale(all, times);
}

/* ---- unit vectors ------------------------------------------------------------------------------------------------- */

/* y = x / max(|x|, 1e-12): x (rows, 8 vectors), y likewise in float. A row a warp. */
template <class Number>
DEVICE void unit(const Vector *x, float *y, long long rows, int vectors) {
    long long place = (long long)blockIdx.x * blockDim.y + threadIdx.y;
    if (place >= rows)
        return;
    Row row = row_of_warp(vectors);
    float squares = 0.0f;
#pragma unroll 1
    for (int v = row.lane; v < vectors; v += WARP) {
        float value[8] = {};
        add<Number>(value, x[place * vectors + v]);
        keep(row, v, value);
#pragma unroll
        for (int j = 0; j < 8; j++)
            squares += value[j] * value[j];
    }
    float scale = 1.0f / fmaxf(sqrtf(sum_of_warp(squares)), 1e-12f);
#pragma unroll 1
    for (int v = row.lane; v < vectors; v += WARP)
#pragma unroll
        for (int j = 0; j < 8; j++)
            y[(place * vectors + v) * 8 + j] = row.at(v, j) * scale;
}

/* ---- layers behind a pooling -------------------------------------------------------------------------------------- */

enum { SLICES = 8, TOGETHER = 4 }; /* of the sum, one a warp; rows that read a weight together */

/* y = activation(x w + bias), all float: x (rows, inputs), w (inputs, outputs), bias (outputs) or NULL, y (rows, outputs).
 * A block of 32 x SLICES has 32 outputs of TOGETHER rows; slice s of the sum has the inputs s, s + SLICES, ... */
DEVICE void dense(const float *x, const float *w, const float *bias, float *y, int rows, int inputs, int outputs,
                  int activation) {
    __shared__ float part[SLICES][TOGETHER][WARP];
    int output = (int)(blockIdx.y * WARP + threadIdx.x), first = (int)blockIdx.x * TOGETHER;
    float sum[TOGETHER] = {};
    if (output < outputs)
        for (int k = (int)threadIdx.y; k < inputs; k += SLICES) {
            float weight = w[(long long)k * outputs + output];
#pragma unroll
            for (int r = 0; r < TOGETHER; r++)
                if (first + r < rows)
                    sum[r] += x[(long long)(first + r) * inputs + k] * weight;
        }
#pragma unroll
    for (int r = 0; r < TOGETHER; r++)
        part[threadIdx.y][r][threadIdx.x] = sum[r];
    __syncthreads();
    int row = first + (int)threadIdx.y;
    if (threadIdx.y >= TOGETHER || row >= rows || output >= outputs)
        return;
    float total = 0.0f;
#pragma unroll
    for (int s = 0; s < SLICES; s++)
        total += part[s][threadIdx.y][threadIdx.x];
    y[(long long)row * outputs + output] = activated(bias ? total + bias[output] : total, activation);
}

/* ---- by their names ----------------------------------------------------------------------------------------------- */

#define KERNELS(Number, suffix)                                                                                        \
    extern "C" __global__ void fastembed_rt_word_weights_##suffix(const Vector *x, const int *starts, float *y,        \
                                                                  int rows, int vectors, int times, int added) {       \
        word_weights<Number>(x, starts, y, rows, vectors, times, added);                                               \
    }                                                                                                                  \
    extern "C" __global__ void fastembed_rt_unit_##suffix(const Vector *x, float *y, long long rows, int vectors) {    \
        unit<Number>(x, y, rows, vectors);                                                                             \
    }

KERNELS(Float16, float16)
KERNELS(BFloat16, bfloat16)

extern "C" __global__ void fastembed_rt_dense(const float *x, const float *w, const float *bias, float *y, int rows,
                                              int inputs, int outputs, int activation) {
    dense(x, w, bias, y, rows, inputs, outputs, activation);
}
