/* What FP8 needs beside products: normalizations that write their rows a second time in e4m3, for the products that read
 * them, and the same for rows that something else made. Cards from sm_89 on have an instruction that rounds to it.
 *
 * The 16-bit result is what the kernels of kernels.cu write, bit for bit. PTX of this file is in fp8.ptx.
 */
#include "device.cuh"
#ifdef __CUDACC__
#include <cuda_fp8.h>
#endif

/* Eight numbers of e4m3. */
struct alignas(8) Bytes {
    unsigned four[2];
};

/* To the nearest, ties to even; what is beyond 448 becomes 448. */
DEVICE Bytes rounded(const float *from) {
    Bytes made;
#pragma unroll
    for (int k = 0; k < 2; k++) {
        unsigned low = __nv_cvt_float2_to_fp8x2(make_float2(from[4 * k], from[4 * k + 1]), __NV_SATFINITE, __NV_E4M3);
        unsigned high = __nv_cvt_float2_to_fp8x2(make_float2(from[4 * k + 2], from[4 * k + 3]), __NV_SATFINITE, __NV_E4M3);
        made.four[k] = low | high << 16;
    }
    return made;
}

/* The row normalized twice: with gamma and beta into y, with weights and shifts into bytes. */
DEVICE void normalize_both(Row row, float sum, const Vector *gamma, const Vector *beta, const Vector *weights,
                           const Vector *shifts, Vector *y, Bytes *bytes, float epsilon, int rms) {
    Moments moments = moments_of(row, sum, epsilon, rms);
#pragma unroll 1
    for (int v = row.lane; v < row.vectors; v += WARP) {
        float made[8];
        scaled<Float16>(made, row, v, moments, gamma, beta);
        y[v] = narrowed<Float16>(made);
        scaled<Float16>(made, row, v, moments, weights, shifts);
        bytes[v] = rounded(made);
    }
}

extern "C" __global__ void fastembed_rt_add_norm_fp8(const Vector *x, const Vector *skip, const Vector *bias,
                                                     const Vector *gamma, const Vector *beta, const Vector *weights,
                                                     const Vector *shifts, Vector *y, Bytes *bytes, long long rows,
                                                     int vectors, float epsilon, int rms) {
    long long place = (long long)blockIdx.x * blockDim.y + threadIdx.y;
    if (place >= rows)
        return;
    Row row = row_of_warp(vectors);
    float sum = added<Float16>(row, x + place * vectors, skip + place * vectors, bias);
    normalize_both(row, sum, gamma, beta, weights, shifts, y + place * vectors, bytes + place * vectors, epsilon, rms);
}

extern "C" __global__ void fastembed_rt_embed_norm_fp8(
    const long long *ids, const Vector *words, long long words_rows, const long long *places, const Vector *positions,
    long long positions_rows, const long long *kinds, const Vector *types, long long types_rows, const Vector *gamma,
    const Vector *beta, const Vector *weights, const Vector *shifts, Vector *y, Bytes *bytes, long long rows, int vectors,
    float epsilon, int rms) {
    long long token = (long long)blockIdx.x * blockDim.y + threadIdx.y;
    if (token >= rows)
        return;
    Row row = row_of_warp(vectors);
    float sum = embedded<Float16>(row, token, ids, words, words_rows, places, positions, positions_rows, kinds, types, types_rows);
    normalize_both(row, sum, gamma, beta, weights, shifts, y + token * vectors, bytes + token * vectors, epsilon, rms);
}

/* y = x weights + shifts: x, y (rows, 8 vectors). Blocks of 32 x threadIdx.y, a row a warp. */
extern "C" __global__ void fastembed_rt_quantize_fp8(const Vector *x, const Vector *weights, const Vector *shifts,
                                                     Bytes *y, long long rows, int vectors) {
    long long place = (long long)blockIdx.x * blockDim.y + threadIdx.y;
    if (place >= rows)
        return;
#pragma unroll 1
    for (int v = (int)threadIdx.x; v < vectors; v += WARP) {
        float made[8] = {}, given[8] = {}, factor[8] = {};
        add<Float16>(made, shifts[v]);
        add<Float16>(given, x[place * vectors + v]);
        add<Float16>(factor, weights[v]);
#pragma unroll
        for (int j = 0; j < 8; j++)
            made[j] += given[j] * factor[j];
        y[place * vectors + v] = rounded(made);
    }
}
