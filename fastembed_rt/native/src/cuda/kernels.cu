/* What the operators of target cuda-native do beside products: embeddings, normalizations, means; one pass each.
 *
 * PTX of this file is in kernels_ptx.h; `python -m fastembed_rt.native.ptx` makes it. The tests run the same source on
 * the host (tests/cuda_stand_in). States are float16 or bfloat16, everything is added up in float32. What is computed of
 * a row, or of a text, is the same operations in the same order wherever it lies and whatever lies beside it: the same
 * bits in any batch.
 */
#include "device.cuh"

/* ---- normalization ------------------------------------------------------------------------------------------------ */

/* y = norm(x + skip + bias): x, skip, y (rows, 8 vectors); bias may be NULL. Blocks of 32 x threadIdx.y, a row a warp. */
template <class Number>
DEVICE void add_norm(const Vector *x, const Vector *skip, const Vector *bias, const Vector *gamma, const Vector *beta,
                     Vector *y, long long rows, int vectors, float epsilon, int rms) {
    long long place = (long long)blockIdx.x * blockDim.y + threadIdx.y;
    if (place >= rows)
        return;
    Row row = row_of_warp(vectors);
    float sum = added<Number>(row, x + place * vectors, skip + place * vectors, bias);
    normalize<Number>(row, sum, gamma, beta, y + place * vectors, epsilon, rms);
}

/* y = norm(words[id] + positions[place] + types[type]): ids, places, kinds (rows). */
template <class Number>
DEVICE void embed_norm(const long long *ids, const Vector *words, long long words_rows, const long long *places,
                       const Vector *positions, long long positions_rows, const long long *kinds, const Vector *types,
                       long long types_rows, const Vector *gamma, const Vector *beta, Vector *y, long long rows,
                       int vectors, float epsilon, int rms) {
    long long token = (long long)blockIdx.x * blockDim.y + threadIdx.y;
    if (token >= rows)
        return;
    Row row = row_of_warp(vectors);
    float sum = embedded<Number>(row, token, ids, words, words_rows, places, positions, positions_rows, kinds, types,
                                 types_rows);
    normalize<Number>(row, sum, gamma, beta, y + token * vectors, epsilon, rms);
}

/* ---- mean --------------------------------------------------------------------------------------------------------- */

enum { SIDE = 8, DEEP = 32 }; /* vectors of a row, and tokens, that a block of SIDE x DEEP takes at a time */

/* y[text] = mean of the rows from starts[text] to before starts[text + 1], 0 where there are none; x (rows, 8 vectors), y
 * (texts, 8 vectors) float. A block has SIDE vectors of one text. */
template <class Number>
DEVICE void mean(const Vector *x, const int *starts, float *y, int rows, int vectors) {
    __shared__ float part[DEEP][SIDE][9]; /* one more than 8: lanes side by side meet in no bank */
    int vector = (int)(blockIdx.y * SIDE + threadIdx.x), start = starts[blockIdx.x], stop = starts[blockIdx.x + 1];
    start = start < 0 ? 0 : start;
    stop = stop > rows ? rows : stop;
    float sum[8] = {};
    if (vector < vectors)
        for (int token = start + (int)threadIdx.y; token < stop; token += DEEP)
            add<Number>(sum, x[(long long)token * vectors + vector]);
#pragma unroll
    for (int j = 0; j < 8; j++)
        part[threadIdx.y][threadIdx.x][j] = sum[j];
    __syncthreads();
    if (threadIdx.y >= 8 || vector >= vectors)
        return;
    /* Thread (vector, number) adds up what the DEEP threads have. */
    float total = 0.0f;
#pragma unroll 1
    for (int k = 0; k < DEEP; k++)
        total += part[k][threadIdx.x][threadIdx.y];
    y[((long long)blockIdx.x * vectors + vector) * 8 + threadIdx.y] = stop > start ? total / (float)(stop - start) : 0.0f;
}

/* ---- by their names ----------------------------------------------------------------------------------------------- */

#define KERNELS(Number, suffix)                                                                                        \
    extern "C" __global__ void fastembed_rt_add_norm_##suffix(                                                         \
        const Vector *x, const Vector *skip, const Vector *bias, const Vector *gamma, const Vector *beta, Vector *y,   \
        long long rows, int vectors, float epsilon, int rms) {                                                         \
        add_norm<Number>(x, skip, bias, gamma, beta, y, rows, vectors, epsilon, rms);                                  \
    }                                                                                                                  \
    extern "C" __global__ void fastembed_rt_embed_norm_##suffix(                                                       \
        const long long *ids, const Vector *words, long long words_rows, const long long *places,                      \
        const Vector *positions, long long positions_rows, const long long *kinds, const Vector *types,                \
        long long types_rows, const Vector *gamma, const Vector *beta, Vector *y, long long rows, int vectors,         \
        float epsilon, int rms) {                                                                                      \
        embed_norm<Number>(ids, words, words_rows, places, positions, positions_rows, kinds, types, types_rows, gamma, \
                           beta, y, rows, vectors, epsilon, rms);                                                      \
    }                                                                                                                  \
    extern "C" __global__ void fastembed_rt_mean_##suffix(const Vector *x, const int *starts, float *y, int rows,      \
                                                          int vectors) {                                               \
        mean<Number>(x, starts, y, rows, vectors);                                                                     \
    }

KERNELS(Float16, float16)
KERNELS(BFloat16, bfloat16)
