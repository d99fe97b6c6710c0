/* Instructions that few processors have, in plain C, under the names by which the kernels call them:
 *
 *     BF16_DOT_IN_C    VDPBF16PS, one lane of it
 *     TILES_IN_C       VPDPBUSD, VPDPWSSD, VDPBF16PS, and AMX: tiles, TDPBSSD, TDPBSUD, TDPBUSD, TDPBUUD, TDPBF16PS
 *
 * Included before everything else (-include), with the flags of AVX2. Written from Intel's description of each
 * instruction (Software Developer's Manual, volume 2), and slow. TDPBUSD and its like wrap, and saturate nothing. In
 * products of bfloat16, subnormals count as 0, results that are subnormal become 0, and each sum is rounded half to
 * even; NaN has its sign and payload from here.
 */
#include <immintrin.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define BF16_DOT_IN_C 1

/* ---- bfloat16 ---------------------------------------------------------------------------------------------------- */

static inline float flushed_in_c(float x) { return fpclassify(x) == FP_SUBNORMAL ? copysignf(0.0f, x) : x; }

static inline float bf16_in_c(uint32_t bits) { /* the lower 16 */
    uint32_t wide = bits << 16;
    float value;
    memcpy(&value, &wide, sizeof value);
    return flushed_in_c(value);
}

static inline float add_product_in_c(float sum, float a, float b) {
    return flushed_in_c(fmaf(a, b, flushed_in_c(sum)));
}

/* sum + the products of two numbers each in a and b: the upper ones first. */
static inline float vdpbf16ps_in_c(float sum, uint32_t a, uint32_t b) {
    sum = add_product_in_c(sum, bf16_in_c(a >> 16), bf16_in_c(b >> 16));
    return add_product_in_c(sum, bf16_in_c(a), bf16_in_c(b));
}

/* ---- bytes and words --------------------------------------------------------------------------------------------- */

#if defined(TILES_IN_C)

static inline int32_t vpdpbusd_in_c(int32_t sum, uint32_t a, uint32_t b) {
    for (int k = 0; k < 32; k += 8)
        sum = (int32_t)((uint32_t)sum + (uint32_t)((int32_t)(uint8_t)(a >> k) * (int8_t)(b >> k)));
    return sum;
}

static inline int32_t vpdpwssd_in_c(int32_t sum, uint32_t a, uint32_t b) {
    for (int k = 0; k < 32; k += 16)
        sum = (int32_t)((uint32_t)sum + (uint32_t)((int32_t)(int16_t)(a >> k) * (int16_t)(b >> k)));
    return sum;
}

static inline __m256i each_lane_in_c(int32_t (*of)(int32_t, uint32_t, uint32_t), __m256i sums, __m256i a, __m256i b) {
    int32_t sum[8];
    uint32_t left[8], right[8];
    memcpy(sum, &sums, sizeof sum);
    memcpy(left, &a, sizeof left);
    memcpy(right, &b, sizeof right);
    for (int n = 0; n < 8; n++)
        sum[n] = of(sum[n], left[n], right[n]);
    memcpy(&sums, sum, sizeof sums);
    return sums;
}

#define __AVXVNNI__ 1
#undef _mm256_dpbusd_avx_epi32
#undef _mm256_dpwssd_avx_epi32
#define _mm256_dpbusd_avx_epi32(sums, a, b) each_lane_in_c(vpdpbusd_in_c, sums, a, b)
#define _mm256_dpwssd_avx_epi32(sums, a, b) each_lane_in_c(vpdpwssd_in_c, sums, a, b)

/* ---- tiles ------------------------------------------------------------------------------------------------------- */

#define __AMX_TILE__ 1
#define __AMX_INT8__ 1
#define __AMX_BF16__ 1

/* A thread's tiles. Without configuration there are none, and every instruction but that is a fault. */
typedef struct {
    int configured;
    unsigned rows[8], bytes[8];
    uint8_t data[8][16][64];
} TilesInC;
static _Thread_local TilesInC tiles_in_c;

static inline void need_in_c(int condition) {
    if (!condition)
        abort();
}

static inline void loadconfig_in_c(const void *from) {
    uint8_t config[64];
    memcpy(config, from, sizeof config);
    need_in_c(config[0] == 1 && config[1] == 0);
    tiles_in_c = (TilesInC){.configured = 1};
    for (int t = 0; t < 8; t++) {
        tiles_in_c.bytes[t] = config[16 + 2 * t] | (unsigned)config[17 + 2 * t] << 8;
        tiles_in_c.rows[t] = config[48 + t];
        need_in_c(tiles_in_c.rows[t] <= 16 && tiles_in_c.bytes[t] <= 64);
    }
}

static inline void release_in_c(void) { tiles_in_c.configured = 0; }

static inline void zero_in_c(int t) {
    need_in_c(tiles_in_c.configured);
    memset(tiles_in_c.data[t], 0, sizeof tiles_in_c.data[t]);
}

static inline void loadd_in_c(int t, const void *from, size_t stride) {
    zero_in_c(t);
    for (unsigned r = 0; r < tiles_in_c.rows[t]; r++)
        memcpy(tiles_in_c.data[t][r], (const char *)from + r * stride, tiles_in_c.bytes[t]);
}

static inline void stored_in_c(int t, void *to, size_t stride) {
    need_in_c(tiles_in_c.configured);
    for (unsigned r = 0; r < tiles_in_c.rows[t]; r++)
        memcpy((char *)to + r * stride, tiles_in_c.data[t][r], tiles_in_c.bytes[t]);
}

static inline uint32_t cell_in_c(int t, unsigned row, unsigned column) {
    uint32_t found;
    memcpy(&found, tiles_in_c.data[t][row] + 4 * column, sizeof found);
    return found;
}

static inline void check_shapes_in_c(int to, int a, int b) {
    const TilesInC *tiles = &tiles_in_c;
    need_in_c(tiles->configured && to != a && to != b && a != b);
    need_in_c(tiles->rows[to] == tiles->rows[a] && tiles->bytes[to] == tiles->bytes[b]);
    need_in_c(tiles->bytes[a] / 4 == tiles->rows[b]);
}

/* With bytes of type A and B. What lies behind a tile's columns is 0, and stays so; most of the tests' time is spent here. */
#define DP_BYTES_IN_C(name, A, B)                                                                                     \
    __attribute__((unused, optimize("O3"))) static void name(int to, int a, int b) {                                  \
        check_shapes_in_c(to, a, b);                                                                                  \
        for (unsigned m = 0; m < tiles_in_c.rows[to]; m++) {                                                          \
            uint32_t sums[16];                                                                                        \
            memcpy(sums, tiles_in_c.data[to][m], sizeof sums);                                                        \
            for (unsigned k = 0; k < tiles_in_c.bytes[a] / 4; k++) {                                                  \
                const A *left = (const A *)tiles_in_c.data[a][m] + 4 * k;                                             \
                const B *right = (const B *)tiles_in_c.data[b][k];                                                    \
                for (int n = 0; n < 16; n++)                                                                          \
                    for (int j = 0; j < 4; j++)                                                                       \
                        sums[n] += (uint32_t)(left[j] * right[4 * n + j]);                                            \
            }                                                                                                         \
            memcpy(tiles_in_c.data[to][m], sums, sizeof sums);                                                        \
        }                                                                                                             \
    }
DP_BYTES_IN_C(dpbssd_in_c, int8_t, int8_t)
DP_BYTES_IN_C(dpbsud_in_c, int8_t, uint8_t)
DP_BYTES_IN_C(dpbusd_in_c, uint8_t, int8_t)
DP_BYTES_IN_C(dpbuud_in_c, uint8_t, uint8_t)

/* Even and odd elements each in a sum of their own from 0, which are added to each other, then to the tile's. */
static inline void dpbf16ps_in_c(int to, int a, int b) {
    check_shapes_in_c(to, a, b);
    for (unsigned m = 0; m < tiles_in_c.rows[to]; m++)
        for (unsigned n = 0; n < tiles_in_c.bytes[to] / 4; n++) {
            float even = 0.0f, odd = 0.0f, sum;
            for (unsigned k = 0; k < tiles_in_c.bytes[a] / 4; k++) {
                uint32_t left = cell_in_c(a, m, k), right = cell_in_c(b, k, n);
                even = add_product_in_c(even, bf16_in_c(left), bf16_in_c(right));
                odd = add_product_in_c(odd, bf16_in_c(left >> 16), bf16_in_c(right >> 16));
            }
            memcpy(&sum, tiles_in_c.data[to][m] + 4 * n, sizeof sum);
            sum = flushed_in_c(flushed_in_c(sum) + flushed_in_c(even + odd));
            memcpy(tiles_in_c.data[to][m] + 4 * n, &sum, sizeof sum);
        }
}

#undef _tile_loadd
#undef _tile_stored
#undef _tile_zero
#undef _tile_dpbssd
#undef _tile_dpbsud
#undef _tile_dpbusd
#undef _tile_dpbuud
#undef _tile_dpbf16ps
#define _tile_loadconfig loadconfig_in_c
#define _tile_release release_in_c
#define _tile_zero zero_in_c
#define _tile_loadd loadd_in_c
#define _tile_stored stored_in_c
#define _tile_dpbssd dpbssd_in_c
#define _tile_dpbsud dpbsud_in_c
#define _tile_dpbusd dpbusd_in_c
#define _tile_dpbuud dpbuud_in_c
#define _tile_dpbf16ps dpbf16ps_in_c

#endif
