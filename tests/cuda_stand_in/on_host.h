/* As much of CUDA C++ as the kernels use, for g++: a block's threads are contexts that take turns. Those of a warp change at
 * shuffles, warps at barriers. */
#ifndef ON_HOST_H
#define ON_HOST_H
#include <math.h>
#include <stdint.h>
#include <string.h>

#define __device__
#define __global__
/* Memory of a block: all blocks run one after the other on one system thread. */
#define __shared__ static thread_local
#define DYNAMIC_SHARED(type, name) type *name = (type *)dynamic_shared
#define LAUNCHED_BY(threads, blocks)

struct Index {
    unsigned x, y, z;
};
extern thread_local Index threadIdx, blockIdx, blockDim;
extern thread_local float *dynamic_shared;

extern "C" float stand_in_from_half(uint16_t bits);
extern "C" uint16_t stand_in_to_half(float value);
float shuffled(float value, unsigned lanes, int mask);
void barrier();

typedef uint16_t __half_bits;
static inline uint16_t __ushort_as_half(unsigned short bits) { return bits; }
static inline unsigned __half_as_ushort(uint16_t half) { return half; }
static inline float __half2float(uint16_t half) { return stand_in_from_half(half); }
static inline uint16_t __float2half_rn(float value) { return stand_in_to_half(value); }
static inline float __uint_as_float(unsigned bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}
static inline unsigned __float_as_uint(float value) {
    unsigned bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}
/* Of cuda_fp8.h: two numbers as e4m3, the first in the low byte. */
extern "C" unsigned stand_in_to_e4m3(float value);
struct float2 {
    float x, y;
};
enum { __NV_SATFINITE, __NV_E4M3 };
static inline float2 make_float2(float x, float y) { return {x, y}; }
static inline unsigned __nv_cvt_float2_to_fp8x2(float2 from, int, int) {
    return stand_in_to_e4m3(from.x) | stand_in_to_e4m3(from.y) << 8;
}
static inline float __shfl_xor_sync(unsigned lanes, float value, int mask) { return shuffled(value, lanes, mask); }
static inline void __syncthreads() { barrier(); }

/* ---- instructions of sm_80, as attention.cu uses them --------------------------------------------------------------- */

struct Vector; /* device.cuh: 16 bytes */
struct Float16;
struct BFloat16;

/* Copies arrive at once or not before they are waited for: what is read too early is not there, or what is read too late
 * is written over. */
void copy_later(Vector *to, const Vector *from, int there);
void end_of_group();
void wait_for(int but);
template <int but> void wait_for_groups() { wait_for(but); }

void load_matrices(unsigned *out, const Vector *row);
void load_transposed(unsigned *out, const Vector *row);
/* sum += a b, fragments as attention.cu describes them; products in the order of the inner index, each added by itself. */
void add_product_of(float *sum, const unsigned *a, const unsigned *b, float (*wide)(unsigned bits));

template <class Number> struct Matrix {
    static void add_product(float *sum, const unsigned *a, const unsigned *b) { add_product_of(sum, a, b, Number::wide); }
    static unsigned word(float low, float high) { return Number::narrow(low) | Number::narrow(high) << 16; }
};
static inline float power_of_two(float exponent) { return exp2f(exponent); }
#endif
