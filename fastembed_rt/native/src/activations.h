/* e^x and the activations, of sixteen floats. Each is written out, so that all instruction sets give the same bits. */
#ifndef FASTEMBED_RT_ACTIVATIONS_H
#define FASTEMBED_RT_ACTIVATIONS_H

#include "kernels.h"
#include "vectors.h"

/* Vectors that are activated together, at most: as many as there are registers for. */
#if defined(__AVX512F__)
enum { SIDE_BY_SIDE = 6 };
#else
enum { SIDE_BY_SIDE = 3 };
#endif

/* e^x for x <= 88, relative error below 3e-7; 0 below -87. 2^n times a polynomial of the rest (Taylor, degree 6). */
INLINE Floats exponential(Floats x) {
    x = maximum(x, broadcast(-87.0f));
    Ints n = round_to_ints(mul(x, broadcast(1.44269504f)));
    Floats whole = to_floats(n);
    Floats rest = fma16(whole, broadcast(-0.693359375f), x); /* ln 2 in two parts, the first exact */
    rest = fma16(whole, broadcast(2.12194440e-4f), rest);
    Floats p = fma16(broadcast(1.0f / 720), rest, broadcast(1.0f / 120));
    p = fma16(p, rest, broadcast(1.0f / 24));
    p = fma16(p, rest, broadcast(1.0f / 6));
    p = fma16(p, rest, broadcast(0.5f));
    p = fma16(p, rest, broadcast(1.0f));
    p = fma16(p, rest, broadcast(1.0f));
    return mul(p, as_floats(shift_left(add_ints(n, broadcast_int(127)), 23)));
}

enum { TERMS = 6, SEGMENTS = 8 };

/* x / 2 + h(|x|), h a polynomial of each segment: in place, of `count` vectors side by side, a constant.
 *
 * Segment k is what is nearest to k * 10 / 13, the last all beyond; h there is sum_i terms[i][k] * (|x| - k * 10 / 13)^i.
 * A polynomial is a chain whose steps wait for one another, so that several go side by side. */
INLINE void add_even_part(Floats *x, size_t count, const float terms[TERMS][SEGMENTS]) {
    const float width = 10.0f / 13, shift = 0x1.8p23f; /* added, a float has no bits below 1 */
    Lookup tables[TERMS];
    Floats rest[SIDE_BY_SIDE], h[SIDE_BY_SIDE];
    Places segment[SIDE_BY_SIDE];
#pragma GCC unroll 6
    for (size_t i = 0; i < TERMS; i++)
        tables[i] = load_table(terms[i]);
#pragma GCC unroll 6
    for (size_t v = 0; v < count; v++) {
        Floats size = absolute(x[v]), shifted = fma16(size, broadcast(1.3f), broadcast(shift));
        shifted = minimum(shifted, broadcast(shift + (SEGMENTS - 1)));
        segment[v] = places_of(as_ints(shifted));
        rest[v] = fma16(sub(shifted, broadcast(shift)), broadcast(-width), size);
        h[v] = look_up(tables[TERMS - 1], segment[v]);
    }
#pragma GCC unroll 6
    for (size_t i = TERMS - 1; i-- > 0;)
#pragma GCC unroll 6
        for (size_t v = 0; v < count; v++)
            h[v] = fma16(h[v], rest[v], look_up(tables[i], segment[v]));
#pragma GCC unroll 6
    for (size_t v = 0; v < count; v++)
        x[v] = fma16(x[v], broadcast(0.5f), h[v]);
}

/* x * (1 + erf(x / sqrt 2)) / 2, absolute error below 1.5e-6: h is fitted to the least largest error in each segment,
 * without lower powers in the first, which has a relative error below 1e-5 therefore; beyond 5 it is |x| / 2. */
INLINE void gelu(Floats *x, size_t count) {
    static const float terms[TERMS][SEGMENTS] = {
        {0.0f, 0.21470885f, 0.6738951f, 1.1295968f,
         1.535244f, 1.9228462f, 2.3076832f, 2.6923077f},
        {0.0f, 0.5074052f, 0.62598145f, 0.55371386f,
         0.50974834f, 0.50088125f, 0.50004166f, 0.5f},
        {0.39891332f, 0.20900065f, -0.022355018f, -0.046295077f,
         -0.013105856f, -0.0015634403f, -9.059843e-5f, 0.0f},
        {5.5009767e-4f, -0.12960938f, -0.0511969f, 0.01418025f,
         0.009844713f, 0.001693162f, 1.2527547e-4f, 0.0f},
        {-0.07009537f, -0.0031670427f, 0.03447682f, 0.006111636f,
         -0.0038668092f, -0.0012510276f, -1.3176186e-4f, 0.0f},
        {0.009929608f, 0.021748956f, -0.0033588994f, -0.0064628627f,
         2.1708329e-4f, 5.809121e-4f, 9.143434e-5f, 0.0f},
    };
    add_even_part(x, count, terms);
}

/* x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3))) / 2, absolute error below 6e-7, likewise. */
INLINE void gelu_tanh(Floats *x, size_t count) {
    static const float terms[TERMS][SEGMENTS] = {
        {0.0f, 0.21463427f, 0.6736882f, 1.1299403f,
         1.5356265f, 1.9229336f, 2.3076897f, 2.6923077f},
        {0.0f, 0.50710696f, 0.62629473f, 0.5543645f,
         0.50933903f, 0.50064534f, 0.5000156f, 0.5f},
        {0.39891273f, 0.20873162f, -0.021428177f, -0.046985306f,
         -0.013358081f, -0.0013277194f, -4.2975105e-5f, 0.0f},
        {5.61436e-4f, -0.12930569f, -0.051254403f, 0.013635104f,
         0.010357707f, 0.0016365232f, 7.542878e-5f, 0.0f},
        {-0.07050032f, -0.0027037398f, 0.03377938f, 0.006626795f,
         -0.0039501362f, -0.0013403948f, -1.03064216e-4f, 0.0f},
        {0.010145006f, 0.021708513f, -0.0033825634f, -0.006300747f,
         3.6064575e-5f, 6.576083e-4f, 8.649345e-5f, 0.0f},
    };
    add_even_part(x, count, terms);
}

/* 1 / (1 + e^-x) */
INLINE Floats sigmoid(Floats x) {
    Floats within = maximum(minimum(x, broadcast(80.0f)), broadcast(-80.0f));
    return divide(broadcast(1.0f), add(broadcast(1.0f), exponential(sub(broadcast(0.0f), within))));
}

/* tanh x = 2 sigmoid(2x) - 1 */
INLINE Floats hyperbolic_tangent(Floats x) {
    return sub(mul(broadcast(2.0f), sigmoid(add(x, x))), broadcast(1.0f));
}

/* In place, of `count` vectors. Constants: an `activation` leaves its own case only. */
INLINE void activate(Floats *x, size_t count, Activation activation) {
    if (activation == GELU)
        gelu(x, count);
    else if (activation == GELU_TANH)
        gelu_tanh(x, count);
    else
#pragma GCC unroll 6
        for (size_t v = 0; v < count; v++)
            switch (activation) {
            case SILU: x[v] = mul(x[v], sigmoid(x[v])); break;
            case RELU: x[v] = maximum(x[v], broadcast(0.0f)); break;
            case TANH: x[v] = hyperbolic_tangent(x[v]); break;
            default: break;
            }
}

#endif
