/* Sixteen lanes of float or int32 as four NEON registers, with the bits of vectors.h.
 *
 * What x86 does where IEEE 754 leaves it open is written out: the larger or smaller of two is the second where neither
 * is, so that a NaN and the sign of zero come out alike.
 */
#ifndef FASTEMBED_RT_NEON_VECTORS_H
#define FASTEMBED_RT_NEON_VECTORS_H

#include <arm_neon.h>
#include <stdint.h>
#include <string.h>

#include "support.h"

enum { LANES = 16 };

typedef struct { float32x4_t a, b, c, d; } Floats;
typedef struct { int32x4_t a, b, c, d; } Ints;

INLINE Floats four(float32x4_t a, float32x4_t b, float32x4_t c, float32x4_t d) { return (Floats){a, b, c, d}; }
INLINE Ints four_ints(int32x4_t a, int32x4_t b, int32x4_t c, int32x4_t d) { return (Ints){a, b, c, d}; }
INLINE float32x4_t larger(float32x4_t x, float32x4_t y) { return vbslq_f32(vcgtq_f32(x, y), x, y); }
INLINE float32x4_t smaller(float32x4_t x, float32x4_t y) { return vbslq_f32(vcltq_f32(x, y), x, y); }

INLINE Floats load(const float *p) { return four(vld1q_f32(p), vld1q_f32(p + 4), vld1q_f32(p + 8), vld1q_f32(p + 12)); }
INLINE void store(float *p, Floats v) {
    vst1q_f32(p, v.a);
    vst1q_f32(p + 4, v.b);
    vst1q_f32(p + 8, v.c);
    vst1q_f32(p + 12, v.d);
}
INLINE Floats broadcast(float x) {
    float32x4_t v = vdupq_n_f32(x);
    return four(v, v, v, v);
}
INLINE Floats add(Floats x, Floats y) {
    return four(vaddq_f32(x.a, y.a), vaddq_f32(x.b, y.b), vaddq_f32(x.c, y.c), vaddq_f32(x.d, y.d));
}
INLINE Floats sub(Floats x, Floats y) {
    return four(vsubq_f32(x.a, y.a), vsubq_f32(x.b, y.b), vsubq_f32(x.c, y.c), vsubq_f32(x.d, y.d));
}
INLINE Floats mul(Floats x, Floats y) {
    return four(vmulq_f32(x.a, y.a), vmulq_f32(x.b, y.b), vmulq_f32(x.c, y.c), vmulq_f32(x.d, y.d));
}
INLINE Floats divide(Floats x, Floats y) {
    return four(vdivq_f32(x.a, y.a), vdivq_f32(x.b, y.b), vdivq_f32(x.c, y.c), vdivq_f32(x.d, y.d));
}
INLINE Floats fma16(Floats x, Floats y, Floats z) { /* the instruction has its sum first */
    return four(vfmaq_f32(z.a, x.a, y.a), vfmaq_f32(z.b, x.b, y.b), vfmaq_f32(z.c, x.c, y.c),
                vfmaq_f32(z.d, x.d, y.d));
}
INLINE Floats fma_in_place(Floats z, Floats x, Floats y) { return fma16(x, y, z); }
INLINE Floats maximum(Floats x, Floats y) {
    return four(larger(x.a, y.a), larger(x.b, y.b), larger(x.c, y.c), larger(x.d, y.d));
}
INLINE Floats minimum(Floats x, Floats y) {
    return four(smaller(x.a, y.a), smaller(x.b, y.b), smaller(x.c, y.c), smaller(x.d, y.d));
}
INLINE Floats to_floats(Ints v) {
    return four(vcvtq_f32_s32(v.a), vcvtq_f32_s32(v.b), vcvtq_f32_s32(v.c), vcvtq_f32_s32(v.d));
}
/* Half to even. Of what no int32 holds x86 makes the least of all. Here that is so of what lies below; more and NaN, which
 * activations are not (in_steps of quantize.h), end as the largest and as 0. */
INLINE Ints round_to_ints(Floats v) {
    return four_ints(vcvtnq_s32_f32(v.a), vcvtnq_s32_f32(v.b), vcvtnq_s32_f32(v.c), vcvtnq_s32_f32(v.d));
}
INLINE Floats as_floats(Ints v) {
    return four(vreinterpretq_f32_s32(v.a), vreinterpretq_f32_s32(v.b), vreinterpretq_f32_s32(v.c),
                vreinterpretq_f32_s32(v.d));
}
INLINE Ints as_ints(Floats v) {
    return four_ints(vreinterpretq_s32_f32(v.a), vreinterpretq_s32_f32(v.b), vreinterpretq_s32_f32(v.c),
                     vreinterpretq_s32_f32(v.d));
}
INLINE void store_ints(int32_t *p, Ints v) {
    vst1q_s32(p, v.a);
    vst1q_s32(p + 4, v.b);
    vst1q_s32(p + 8, v.c);
    vst1q_s32(p + 12, v.d);
}
INLINE Ints load_ints(const int32_t *p) {
    return four_ints(vld1q_s32(p), vld1q_s32(p + 4), vld1q_s32(p + 8), vld1q_s32(p + 12));
}
INLINE Ints broadcast_int(int32_t x) {
    int32x4_t v = vdupq_n_s32(x);
    return four_ints(v, v, v, v);
}
INLINE Ints add_ints(Ints x, Ints y) {
    return four_ints(vaddq_s32(x.a, y.a), vaddq_s32(x.b, y.b), vaddq_s32(x.c, y.c), vaddq_s32(x.d, y.d));
}
INLINE Ints and_ints(Ints x, Ints y) {
    return four_ints(vandq_s32(x.a, y.a), vandq_s32(x.b, y.b), vandq_s32(x.c, y.c), vandq_s32(x.d, y.d));
}
#define shift_left(v, bits) \
    four_ints(vshlq_n_s32((v).a, bits), vshlq_n_s32((v).b, bits), vshlq_n_s32((v).c, bits), vshlq_n_s32((v).d, bits))

/* 16 x int32 -> int16, what is beyond its range as its end; lanes 0 to 7 and 8 to 15. */
INLINE int16x8_t narrow_low(Ints v) { return vqmovn_high_s32(vqmovn_s32(v.a), v.b); }
INLINE int16x8_t narrow_high(Ints v) { return vqmovn_high_s32(vqmovn_s32(v.c), v.d); }
INLINE void store_shorts(int16_t *p, Ints v) {
    vst1q_s16(p, narrow_low(v));
    vst1q_s16(p + 8, narrow_high(v));
}
INLINE void store_shorts_of_two(int16_t *p, Ints v, Ints w) {
    store_shorts(p, v);
    store_shorts(p + LANES, w);
}
/* 16 x int32 -> u8, likewise. */
INLINE uint8x16_t narrow_to_bytes(Ints v) { return vqmovun_high_s16(vqmovun_s16(narrow_low(v)), narrow_high(v)); }

/* Eight floats, and which of them each lane takes, the lowest three bits: their bytes. */
typedef uint8x16x2_t Lookup;
typedef struct { uint8x16_t a, b, c, d; } Places;
INLINE Lookup load_table(const float *p) { return vld1q_u8_x2((const uint8_t *)p); }
INLINE uint8x16_t bytes_of(int32x4_t v) {
    uint32x4_t place = vandq_u32(vreinterpretq_u32_s32(v), vdupq_n_u32(7));
    return vreinterpretq_u8_u32(vmlaq_n_u32(vdupq_n_u32(0x03020100), place, 0x04040404));
}
INLINE Places places_of(Ints v) { return (Places){bytes_of(v.a), bytes_of(v.b), bytes_of(v.c), bytes_of(v.d)}; }
INLINE float32x4_t take(Lookup table, uint8x16_t at) { return vreinterpretq_f32_u8(vqtbl2q_u8(table, at)); }
INLINE Floats look_up(Lookup table, Places at) {
    return four(take(table, at.a), take(table, at.b), take(table, at.c), take(table, at.d));
}

INLINE int any_above(Floats x, Floats y) {
    uint32x4_t low = vorrq_u32(vcgtq_f32(x.a, y.a), vcgtq_f32(x.b, y.b));
    uint32x4_t high = vorrq_u32(vcgtq_f32(x.c, y.c), vcgtq_f32(x.d, y.d));
    return vmaxvq_u32(vorrq_u32(low, high)) != 0;
}
INLINE Floats choose_above(Floats a, Floats b, Floats x, Floats y) { /* a > b ? x : y */
    return four(vbslq_f32(vcgtq_f32(a.a, b.a), x.a, y.a), vbslq_f32(vcgtq_f32(a.b, b.b), x.b, y.b),
                vbslq_f32(vcgtq_f32(a.c, b.c), x.c, y.c), vbslq_f32(vcgtq_f32(a.d, b.d), x.d, y.d));
}
INLINE int any_beyond(Floats least, Floats most, float low, float high) {
    return any_above(most, broadcast(high)) | any_above(broadcast(low), least);
}
INLINE unsigned lanes_outside(Floats v, Floats low, Floats high) { /* a bit each */
    static const uint32_t bits[4] = {1, 2, 4, 8};
    uint32x4_t bit = vld1q_u32(bits);
#define OUTSIDE(part) \
    vaddvq_u32(vandq_u32(vorrq_u32(vcltq_f32(v.part, low.part), vcgtq_f32(v.part, high.part)), bit))
    return OUTSIDE(a) | OUTSIDE(b) << 4 | OUTSIDE(c) << 8 | OUTSIDE(d) << 12;
#undef OUTSIDE
}

/* The first n of 16 floats, the rest 0; stored likewise, the rest untouched. Nothing beyond n is read. */
INLINE Floats load_first(const float *p, size_t n) {
    if (n >= LANES)
        return load(p);
    float held[LANES] = {0};
    memcpy(held, p, n * sizeof(float));
    return load(held);
}
INLINE void store_first(float *p, Floats v, size_t n) {
    if (n >= LANES) {
        store(p, v);
        return;
    }
    float held[LANES];
    store(held, v);
    memcpy(p, held, n * sizeof(float));
}
INLINE Floats keep_first(Floats v, size_t n) {
    static const int32_t edge[2 * LANES] = {-1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1};
    return as_floats(and_ints(as_ints(v), load_ints(edge + LANES - (n >= LANES ? LANES : n))));
}

/* Lanes summed as a tree: 16 -> 8 -> 4 -> 2 -> 1. */
INLINE float reduce_add(Floats v) {
    float32x4_t rest = vaddq_f32(vaddq_f32(v.a, v.c), vaddq_f32(v.b, v.d));
    float32x2_t two = vadd_f32(vget_low_f32(rest), vget_high_f32(rest));
    return vget_lane_f32(two, 0) + vget_lane_f32(two, 1);
}

INLINE float reduce_max(Floats v) {
    float held[4];
    vst1q_f32(held, larger(larger(v.a, v.c), larger(v.b, v.d)));
    float even = held[0] > held[2] ? held[0] : held[2], odd = held[1] > held[3] ? held[1] : held[3];
    return even > odd ? even : odd;
}

#endif
