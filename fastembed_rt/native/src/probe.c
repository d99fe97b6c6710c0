/* An instruction of each set that the flags name. build.py compiles this with the flags of each set of kernels: where it
 * does not compile, the compiler, its headers or its assembler are older than the instructions.
 */
#if defined(__aarch64__)
#include <arm_neon.h>

#if defined(__ARM_FEATURE_DOTPROD)
int32x4_t dotprod(int32x4_t sum, int8x16_t a, int8x16_t b) { return vdotq_laneq_s32(sum, a, b, 3); }
#endif
#if defined(__ARM_FEATURE_MATMUL_INT8)
int32x4_t i8mm(int32x4_t sum, uint8x16_t a, int8x16_t b) { return vusmmlaq_s32(sum, a, b); }
#endif

#else
#include <immintrin.h>

#if defined(__AVXVNNI__)
__m256i avxvnni(__m256i sum, __m256i a, __m256i b) { return _mm256_dpbusd_avx_epi32(sum, a, b); }
#endif
#if defined(__AVX512VNNI__)
__m512i avx512vnni(__m512i sum, __m512i a, __m512i b) { return _mm512_dpbusd_epi32(sum, a, b); }
#endif
#if defined(__AVX512BF16__)
__m512 avx512bf16(__m512 sum, __m512bh a, __m512bh b) { return _mm512_dpbf16_ps(sum, a, b); }
#endif
#if defined(__AMX_INT8__)
void amx_int8(void) { _tile_dpbusd(0, 1, 2); }
#endif
#if defined(__AMX_BF16__)
void amx_bf16(void) { _tile_dpbf16ps(0, 1, 2); }
#endif

#endif
