/* What newer encoders have between their products: a normalization whose sum goes on, a gate, rotary positions.
 *
 * As kernels.cu: states of 16 bits, sums in float32, the same bits in any batch.
 */
#include "device.cuh"

/* ---- normalization ------------------------------------------------------------------------------------------------ */

/* sum = x + skip, y = norm(x + skip): x, skip, sum, y (rows, 8 vectors); skip and sum may be NULL. A row a warp. */
template <class Number>
DEVICE void sum_norm(const Vector *x, const Vector *skip, const Vector *gamma, const Vector *beta, Vector *sum, Vector *y,
                     long long rows, int vectors, float epsilon, int rms) {
    long long place = (long long)blockIdx.x * blockDim.y + threadIdx.y;
    if (place >= rows)
        return;
    Row row = row_of_warp(vectors);
    float all = 0.0f;
    x += place * vectors;
#pragma unroll 1
    for (int v = row.lane; v < vectors; v += WARP) {
        float total[8] = {};
        add<Number>(total, x[v]);
        if (skip)
            add<Number>(total, skip[place * vectors + v]);
        if (sum)
            sum[place * vectors + v] = narrowed<Number>(total);
        all += keep(row, v, total);
    }
    normalize<Number>(row, all, gamma, beta, y + place * vectors, epsilon, rms);
}

/* ---- gate --------------------------------------------------------------------------------------------------------- */

/* y = activation(gate) * up: `vectors` of 8 numbers each, a vector a thread. */
template <class Number>
DEVICE void gated(const Vector *gate, const Vector *up, Vector *y, long long vectors, int activation) {
    long long at = ((long long)blockIdx.x * blockDim.y + threadIdx.y) * WARP + threadIdx.x;
    if (at >= vectors)
        return;
    float open[8] = {}, made[8] = {};
    add<Number>(open, gate[at]);
    add<Number>(made, up[at]);
#pragma unroll
    for (int k = 0; k < 8; k++)
        made[k] *= activated(open[k], activation);
    y[at] = narrowed<Number>(made);
}

/* ---- rotary positions --------------------------------------------------------------------------------------------- */

/* A head of a token a warp, its numbers i and half + i (half = 2 words) turned by the angle whose cosine and sine are in
 * row places[token], column i, of tables (positions, half): y_i = x_i c - x_(half + i) s, y_(half + i) = x_(half + i) c +
 * x_i s. gamma, where it is not NULL: before that x / sqrt(mean of squares + epsilon) * gamma. x (rows, stride words), of
 * which this is the first heads * 4 words; y (rows, heads * 4 words). A word is two numbers. */
template <class Number>
DEVICE void turn(const unsigned *x, long long stride, const long long *places, const float *cosine, const float *sine,
                 long long positions, const unsigned *gamma, unsigned *y, long long rows, int heads, int words,
                 float epsilon) {
    long long part = (long long)blockIdx.x * blockDim.y + threadIdx.y, token = part / heads;
    int head = (int)(part % heads), lane = (int)threadIdx.x;
    if (token >= rows)
        return;
    long long place = places[token];
    place = place < 0 ? 0 : place < positions ? place : positions - 1;
    x += token * stride + (long long)head * 2 * words;
    y += (token * heads + head) * 2 * words;
    cosine += place * 2 * words;
    sine += place * 2 * words;
    float scale = 1.0f;
    if (gamma) {
        float squares = 0.0f;
        for (int i = lane; i < 2 * words; i += WARP) {
            float low = Number::wide(x[i] & 0xffffu), high = Number::wide(x[i] >> 16);
            squares += low * low;
            squares += high * high;
        }
        scale = 1.0f / sqrtf(sum_of_warp(squares) / (float)(4 * words) + epsilon);
    }
    for (int i = lane; i < words; i += WARP) {
        unsigned made[2] = {0, 0};
#pragma unroll
        for (int k = 0; k < 2; k++) { /* the lower number of a word, the higher */
            float first = Number::wide(x[i] >> 16 * k & 0xffffu), second = Number::wide(x[words + i] >> 16 * k & 0xffffu);
            if (gamma) {
                first *= scale * Number::wide(gamma[i] >> 16 * k & 0xffffu);
                second *= scale * Number::wide(gamma[words + i] >> 16 * k & 0xffffu);
            }
            float c = cosine[2 * i + k], s = sine[2 * i + k];
            made[0] |= Number::narrow(first * c - second * s) << 16 * k;
            made[1] |= Number::narrow(second * c + first * s) << 16 * k;
        }
        y[i] = made[0];
        y[words + i] = made[1];
    }
}

/* ---- by their names ----------------------------------------------------------------------------------------------- */

#define KERNELS(Number, suffix)                                                                                        \
    extern "C" __global__ void fastembed_rt_sum_norm_##suffix(                                                         \
        const Vector *x, const Vector *skip, const Vector *gamma, const Vector *beta, Vector *sum, Vector *y,          \
        long long rows, int vectors, float epsilon, int rms) {                                                         \
        sum_norm<Number>(x, skip, gamma, beta, sum, y, rows, vectors, epsilon, rms);                                   \
    }                                                                                                                  \
    extern "C" __global__ void fastembed_rt_gated_##suffix(const Vector *gate, const Vector *up, Vector *y,            \
                                                           long long vectors, int activation) {                        \
        gated<Number>(gate, up, y, vectors, activation);                                                               \
    }                                                                                                                  \
    extern "C" __global__ void fastembed_rt_turn_##suffix(                                                             \
        const unsigned *x, long long stride, const long long *places, const float *cosine, const float *sine,          \
        long long positions, const unsigned *gamma, unsigned *y, long long rows, int heads, int words,                 \
        float epsilon) {                                                                                               \
        turn<Number>(x, stride, places, cosine, sine, positions, gamma, y, rows, heads, words, epsilon);               \
    }

KERNELS(Float16, float16)
KERNELS(BFloat16, bfloat16)
