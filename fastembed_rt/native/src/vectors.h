/* Sixteen lanes of float or int32, as one AVX-512 register, two AVX2 ones or four of NEON (neon_vectors.h), with the same
 * bits on all of them. */
#ifndef FASTEMBED_RT_VECTORS_H
#define FASTEMBED_RT_VECTORS_H

#if defined(__aarch64__)
#include "neon_vectors.h"
#else

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#include "support.h"

#if defined(AVXVNNI_AS_AVX512VL)
/* For tests: the AVX-VNNI kernels on a processor that has the same instructions under AVX-512's names only. */
#undef __AVX512F__
#undef __AVX512VNNI__
#define __AVXVNNI__ 1
#define _mm256_dpbusd_avx_epi32 _mm256_dpbusd_epi32
#define _mm256_dpwssd_avx_epi32 _mm256_dpwssd_epi32
#endif

enum { LANES = 16 };

#if defined(__AVX512F__)

typedef __m512 Floats;
typedef __m512i Ints;

INLINE Floats load(const float *p) { return _mm512_loadu_ps(p); }
INLINE void store(float *p, Floats v) { _mm512_storeu_ps(p, v); }
INLINE Floats broadcast(float x) { return _mm512_set1_ps(x); }
INLINE Floats add(Floats a, Floats b) { return _mm512_add_ps(a, b); }
INLINE Floats sub(Floats a, Floats b) { return _mm512_sub_ps(a, b); }
INLINE Floats mul(Floats a, Floats b) { return _mm512_mul_ps(a, b); }
INLINE Floats divide(Floats a, Floats b) { return _mm512_div_ps(a, b); }
INLINE Floats fma16(Floats a, Floats b, Floats c) { return _mm512_fmadd_ps(a, b, c); }
INLINE Floats fma_in_place(Floats c, Floats a, Floats b) { return fma16(a, b, c); }
INLINE Floats maximum(Floats a, Floats b) { return _mm512_max_ps(a, b); }
INLINE Floats minimum(Floats a, Floats b) { return _mm512_min_ps(a, b); }
INLINE Floats to_floats(Ints v) { return _mm512_cvtepi32_ps(v); }
INLINE Ints round_to_ints(Floats v) { return _mm512_cvtps_epi32(v); } /* half to even */
INLINE Floats as_floats(Ints v) { return _mm512_castsi512_ps(v); }
INLINE Ints as_ints(Floats v) { return _mm512_castps_si512(v); }
INLINE Ints load_ints(const int32_t *p) { return _mm512_loadu_si512(p); }
INLINE void store_ints(int32_t *p, Ints v) { _mm512_storeu_si512(p, v); }
INLINE Ints broadcast_int(int32_t x) { return _mm512_set1_epi32(x); }
INLINE Ints add_ints(Ints a, Ints b) { return _mm512_add_epi32(a, b); }
INLINE Ints maximum_ints(Ints a, Ints b) { return _mm512_max_epi32(a, b); }
INLINE Ints minimum_ints(Ints a, Ints b) { return _mm512_min_epi32(a, b); }
INLINE Ints and_ints(Ints a, Ints b) { return _mm512_and_si512(a, b); }
INLINE Ints or_ints(Ints a, Ints b) { return _mm512_or_si512(a, b); }
INLINE Ints held(Ints v) { /* see below */
    __asm__("" : "+v"(v));
    return v;
}
#define shift_left(v, bits) _mm512_slli_epi32(v, bits) /* a macro: bits are part of the instruction */
#define shift_right(v, bits) _mm512_srli_epi32(v, bits) /* zeros come in */
INLINE void store_bytes(uint8_t *p, Ints v) { _mm_storeu_si128((__m128i *)p, _mm512_cvtepi32_epi8(v)); }
INLINE void store_shorts(int16_t *p, Ints v) { _mm256_storeu_si256((__m256i *)p, _mm512_cvtepi32_epi16(v)); }
INLINE Ints load_shorts(const int16_t *p) { return _mm512_cvtepi16_epi32(_mm256_loadu_si256((const __m256i *)p)); }
INLINE int any_above(Floats a, Floats b) { return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ) != 0; }
INLINE int any_beyond(Floats least, Floats most, float low, float high) { /* least < low or most > high */
    return (_mm512_cmp_ps_mask(least, broadcast(low), _CMP_LT_OQ) |
            _mm512_cmp_ps_mask(most, broadcast(high), _CMP_GT_OQ)) != 0;
}
INLINE unsigned lanes_outside(Floats v, Floats low, Floats high) { /* a bit each */
    return (unsigned)_mm512_cmp_ps_mask(v, low, _CMP_LT_OQ) | (unsigned)_mm512_cmp_ps_mask(v, high, _CMP_GT_OQ);
}
INLINE Floats choose_above(Floats a, Floats b, Floats x, Floats y) { /* a > b ? x : y */
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_GT_OQ), y, x);
}
/* Eight floats, and which of them each lane takes: the lowest three bits. */
typedef __m512 Lookup;
typedef Ints Places;
INLINE Lookup load_table(const float *p) { return _mm512_broadcast_f32x8(_mm256_loadu_ps(p)); }
INLINE Places places_of(Ints v) { return v; } /* the fourth bit is one of two equal halves */
INLINE Floats look_up(Lookup table, Places at) { return _mm512_permutexvar_ps(at, table); }
/* Of two vectors that follow one another. */
INLINE void store_shorts_of_two(int16_t *p, Ints v, Ints w) {
    const __m512i order = _mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7);
    _mm512_storeu_si512(p, _mm512_permutexvar_epi64(order, _mm512_packs_epi32(v, w)));
}
INLINE __m256 low_half(Floats v) { return _mm512_castps512_ps256(v); }
INLINE __m256 high_half(Floats v) { return _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(v), 1)); }

#else

typedef struct { __m256 a, b; } Floats;
typedef struct { __m256i a, b; } Ints;

INLINE Floats pair(__m256 a, __m256 b) { Floats v = {a, b}; return v; }
INLINE Ints pair_ints(__m256i a, __m256i b) { Ints v = {a, b}; return v; }
INLINE Floats load(const float *p) { return pair(_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)); }
INLINE void store(float *p, Floats v) { _mm256_storeu_ps(p, v.a); _mm256_storeu_ps(p + 8, v.b); }
INLINE Floats broadcast(float x) { return pair(_mm256_set1_ps(x), _mm256_set1_ps(x)); }
INLINE Floats add(Floats x, Floats y) { return pair(_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)); }
INLINE Floats sub(Floats x, Floats y) { return pair(_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b)); }
INLINE Floats mul(Floats x, Floats y) { return pair(_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)); }
INLINE Floats divide(Floats x, Floats y) { return pair(_mm256_div_ps(x.a, y.a), _mm256_div_ps(x.b, y.b)); }
INLINE Floats fma16(Floats x, Floats y, Floats z) {
    return pair(_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b));
}
/* The same in z's registers: where a loop has several for a sum, gcc 12 moves sums from one to another, and through memory. */
INLINE Floats fma_in_place(Floats z, Floats x, Floats y) {
    __asm__("vfmadd231ps %1, %2, %0" : "+x"(z.a) : "x"(x.a), "x"(y.a));
    __asm__("vfmadd231ps %1, %2, %0" : "+x"(z.b) : "x"(x.b), "x"(y.b));
    return z;
}
INLINE Floats maximum(Floats x, Floats y) { return pair(_mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b)); }
INLINE Floats minimum(Floats x, Floats y) { return pair(_mm256_min_ps(x.a, y.a), _mm256_min_ps(x.b, y.b)); }
INLINE Floats to_floats(Ints v) { return pair(_mm256_cvtepi32_ps(v.a), _mm256_cvtepi32_ps(v.b)); }
INLINE Ints round_to_ints(Floats v) { return pair_ints(_mm256_cvtps_epi32(v.a), _mm256_cvtps_epi32(v.b)); }
INLINE Floats as_floats(Ints v) { return pair(_mm256_castsi256_ps(v.a), _mm256_castsi256_ps(v.b)); }
INLINE Ints as_ints(Floats v) { return pair_ints(_mm256_castps_si256(v.a), _mm256_castps_si256(v.b)); }
INLINE Ints load_ints(const int32_t *p) {
    return pair_ints(_mm256_loadu_si256((const __m256i *)p), _mm256_loadu_si256((const __m256i *)(p + 8)));
}
INLINE void store_ints(int32_t *p, Ints v) {
    _mm256_storeu_si256((__m256i *)p, v.a);
    _mm256_storeu_si256((__m256i *)(p + 8), v.b);
}
INLINE Ints broadcast_int(int32_t x) { return pair_ints(_mm256_set1_epi32(x), _mm256_set1_epi32(x)); }
INLINE Ints add_ints(Ints x, Ints y) { return pair_ints(_mm256_add_epi32(x.a, y.a), _mm256_add_epi32(x.b, y.b)); }
INLINE Ints maximum_ints(Ints x, Ints y) { return pair_ints(_mm256_max_epi32(x.a, y.a), _mm256_max_epi32(x.b, y.b)); }
INLINE Ints minimum_ints(Ints x, Ints y) { return pair_ints(_mm256_min_epi32(x.a, y.a), _mm256_min_epi32(x.b, y.b)); }
INLINE Ints and_ints(Ints x, Ints y) { return pair_ints(_mm256_and_si256(x.a, y.a), _mm256_and_si256(x.b, y.b)); }
INLINE Ints or_ints(Ints x, Ints y) { return pair_ints(_mm256_or_si256(x.a, y.a), _mm256_or_si256(x.b, y.b)); }
/* v, which the compiler has to have in registers here. gcc 12 copies accumulators of products before and behind each
 * step otherwise, some through memory: half of their time. */
INLINE Ints held(Ints v) {
    __asm__("" : "+x"(v.a), "+x"(v.b));
    return v;
}
#define shift_left(v, bits) pair_ints(_mm256_slli_epi32((v).a, bits), _mm256_slli_epi32((v).b, bits))
#define shift_right(v, bits) pair_ints(_mm256_srli_epi32((v).a, bits), _mm256_srli_epi32((v).b, bits))
INLINE __m256i narrow(Ints v) { /* 16 x int32 within int16 -> 16 x int16 in order */
    return _mm256_permute4x64_epi64(_mm256_packs_epi32(v.a, v.b), 0xD8);
}
INLINE void store_bytes(uint8_t *p, Ints v) {
    __m256i shorts = narrow(v);
    _mm_storeu_si128((__m128i *)p,
                     _mm_packus_epi16(_mm256_castsi256_si128(shorts), _mm256_extracti128_si256(shorts, 1)));
}
INLINE void store_shorts(int16_t *p, Ints v) { _mm256_storeu_si256((__m256i *)p, narrow(v)); }
INLINE Ints load_shorts(const int16_t *p) {
    return pair_ints(_mm256_cvtepi16_epi32(_mm_loadu_si128((const __m128i *)p)),
                     _mm256_cvtepi16_epi32(_mm_loadu_si128((const __m128i *)(p + 8))));
}
INLINE int any_above(Floats x, Floats y) {
    return _mm256_movemask_ps(_mm256_or_ps(_mm256_cmp_ps(x.a, y.a, _CMP_GT_OQ), _mm256_cmp_ps(x.b, y.b, _CMP_GT_OQ)));
}
INLINE int any_beyond(Floats least, Floats most, float low, float high) {
    __m256 below = _mm256_cmp_ps(_mm256_min_ps(least.a, least.b), _mm256_set1_ps(low), _CMP_LT_OQ);
    __m256 above = _mm256_cmp_ps(_mm256_max_ps(most.a, most.b), _mm256_set1_ps(high), _CMP_GT_OQ);
    return _mm256_movemask_ps(_mm256_or_ps(below, above));
}
INLINE unsigned lanes_outside(Floats v, Floats low, Floats high) {
    __m256 a = _mm256_or_ps(_mm256_cmp_ps(v.a, low.a, _CMP_LT_OQ), _mm256_cmp_ps(v.a, high.a, _CMP_GT_OQ));
    __m256 b = _mm256_or_ps(_mm256_cmp_ps(v.b, low.b, _CMP_LT_OQ), _mm256_cmp_ps(v.b, high.b, _CMP_GT_OQ));
    return (unsigned)_mm256_movemask_ps(a) | (unsigned)_mm256_movemask_ps(b) << 8;
}
INLINE Floats choose_above(Floats a, Floats b, Floats x, Floats y) {
    return pair(_mm256_blendv_ps(y.a, x.a, _mm256_cmp_ps(a.a, b.a, _CMP_GT_OQ)),
                _mm256_blendv_ps(y.b, x.b, _mm256_cmp_ps(a.b, b.b, _CMP_GT_OQ)));
}
typedef __m256 Lookup;
typedef Ints Places;
INLINE Lookup load_table(const float *p) { return _mm256_loadu_ps(p); }
INLINE Places places_of(Ints v) { return v; }
INLINE Floats look_up(Lookup table, Places at) {
    return pair(_mm256_permutevar8x32_ps(table, at.a), _mm256_permutevar8x32_ps(table, at.b));
}
INLINE void store_shorts_of_two(int16_t *p, Ints v, Ints w) {
    store_shorts(p, v);
    store_shorts(p + LANES, w);
}
INLINE __m256 low_half(Floats v) { return v.a; }
INLINE __m256 high_half(Floats v) { return v.b; }

#endif

/* The first n of 16 floats, the rest 0; stored likewise, the rest untouched. */
#if defined(__AVX512F__)
INLINE __mmask16 first_of(size_t n) { return n >= 16 ? (__mmask16)0xFFFF : (__mmask16)((1u << n) - 1); }
INLINE Floats load_first(const float *p, size_t n) { return _mm512_maskz_loadu_ps(first_of(n), p); }
INLINE void store_first(float *p, Floats v, size_t n) {
    if (n >= 16)
        store(p, v); /* masked stores are several times slower on some processors */
    else
        _mm512_mask_storeu_ps(p, first_of(n), v);
}
INLINE Floats keep_first(Floats v, size_t n) { return _mm512_maskz_mov_ps(first_of(n), v); }
#else
INLINE Ints first_of(size_t n) {
    static const int32_t edge[32] = {-1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1};
    return load_ints(edge + 16 - (n >= 16 ? 16 : n));
}
INLINE Floats load_first(const float *p, size_t n) {
    if (n >= 16)
        return load(p);
    Ints mask = first_of(n);
    return pair(_mm256_maskload_ps(p, mask.a), _mm256_maskload_ps(p + 8, mask.b));
}
INLINE void store_first(float *p, Floats v, size_t n) {
    if (n >= 16) {
        store(p, v);
        return;
    }
    Ints mask = first_of(n);
    _mm256_maskstore_ps(p, mask.a, v.a);
    _mm256_maskstore_ps(p + 8, mask.b, v.b);
}
INLINE Floats keep_first(Floats v, size_t n) { return as_floats(and_ints(as_ints(v), first_of(n))); }
#endif

/* Lanes summed as a tree: 16 -> 8 -> 4 -> 2 -> 1. */
INLINE float reduce_add(Floats v) {
    __m256 eight = _mm256_add_ps(low_half(v), high_half(v));
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps(two, two, 1)));
}

INLINE float reduce_max(Floats v) {
    __m256 eight = _mm256_max_ps(low_half(v), high_half(v));
    __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps(two, two, 1)));
}

#endif

/* Lane r is reduce_add or reduce_max of rows[r], for r < n, n <= 8 where registers are of 512 bits; 0 in the others. */
#if defined(__AVX512F__)
/* a and b -> of each its lanes folded once, 16 -> 8, side by side; then 8 -> 4 and so on, as the trees above do. */
#define DEFINE_REDUCE_ROWS(name, fold)                                                                                 \
    INLINE Floats name(const Floats *rows, size_t n) {                                                                 \
        Floats eight[4], four[2], zero = broadcast(0.0f);                                                              \
        for (size_t k = 0; k < 4; k++) {                                                                               \
            Floats a = 2 * k < n ? rows[2 * k] : zero, b = 2 * k + 1 < n ? rows[2 * k + 1] : zero;                     \
            eight[k] = fold(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xEE));                       \
        }                                                                                                              \
        for (size_t k = 0; k < 2; k++)                                                                                 \
            four[k] = fold(_mm512_shuffle_f32x4(eight[2 * k], eight[2 * k + 1], 0x88),                                 \
                           _mm512_shuffle_f32x4(eight[2 * k], eight[2 * k + 1], 0xDD));                                \
        __m512d a = _mm512_castps_pd(four[0]), b = _mm512_castps_pd(four[1]);                                          \
        Floats two = fold(_mm512_castpd_ps(_mm512_unpacklo_pd(a, b)), _mm512_castpd_ps(_mm512_unpackhi_pd(a, b)));     \
        Floats one = fold(two, _mm512_movehdup_ps(two));                                                               \
        const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 2, 6, 10, 14, 0, 0, 0, 0, 0, 0, 0, 0);                    \
        return _mm512_maskz_permutexvar_ps(0xFF, order, one);                                                          \
    }
DEFINE_REDUCE_ROWS(reduce_rows_add, add)
DEFINE_REDUCE_ROWS(reduce_rows_max, maximum)
#undef DEFINE_REDUCE_ROWS
#else
INLINE Floats reduce_rows_add(const Floats *rows, size_t n) {
    float held[LANES] = {0};
    for (size_t r = 0; r < n; r++)
        held[r] = reduce_add(rows[r]);
    return load(held);
}
INLINE Floats reduce_rows_max(const Floats *rows, size_t n) {
    float held[LANES] = {0};
    for (size_t r = 0; r < n; r++)
        held[r] = reduce_max(rows[r]);
    return load(held);
}
#endif

INLINE Floats absolute(Floats v) { return as_floats(and_ints(as_ints(v), broadcast_int(0x7FFFFFFF))); }

#endif
