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

/* x * (1 + erf(x / sqrt 2)) / 2, absolute error below 2.2e-6: the odd part of the distribution function as a
 * polynomial in the square, fitted to the least largest error of the product on [-5, 5]; beyond, it is 0 or x.
 * In place, of `count` vectors side by side, a constant: each polynomial is a chain, whose steps wait for one another. */
INLINE void gelu(Floats *x, size_t count) {
    static const float terms[] = {
        0.0004929573042318225f, -0.0015141430776566267f, 0.0020018890500068665f, -0.0029156976379454136f,
        0.006165405735373497f,  -0.010973211377859116f,  0.016497666016221046f,  -0.023336738348007202f,
        0.03142622858285904f,   -0.040432948619127274f,  0.0515214204788208f,    -0.07029665261507034f,
        0.14136378467082977f,
    };
    Floats u[SIDE_BY_SIDE], s[SIDE_BY_SIDE], p[SIDE_BY_SIDE];
#pragma GCC unroll 6
    for (size_t v = 0; v < count; v++) {
        u[v] = minimum(maximum(x[v], broadcast(-5.0f)), broadcast(5.0f));
        s[v] = fma16(mul(u[v], u[v]), broadcast(0.08f), broadcast(-1.0f));
        p[v] = broadcast(terms[0]);
    }
#pragma GCC unroll 16
    for (size_t k = 1; k < sizeof terms / sizeof *terms; k++)
#pragma GCC unroll 6
        for (size_t v = 0; v < count; v++)
            p[v] = fma16(p[v], s[v], broadcast(terms[k]));
#pragma GCC unroll 6
    for (size_t v = 0; v < count; v++)
        x[v] = mul(x[v], fma16(u[v], p[v], broadcast(0.5f)));
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

/* x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3))) / 2 = x * sigmoid(2 * the argument) */
INLINE Floats gelu_tanh(Floats x) {
    Floats cube = mul(x, mul(x, x));
    return mul(x, sigmoid(mul(broadcast(1.5957691216f), fma16(broadcast(0.044715f), cube, x))));
}

/* In place, of `count` vectors. Constants: an `activation` leaves its own case only. */
INLINE void activate(Floats *x, size_t count, Activation activation) {
    if (activation == GELU)
        gelu(x, count);
    else
#pragma GCC unroll 6
        for (size_t v = 0; v < count; v++)
            switch (activation) {
            case GELU_TANH: x[v] = gelu_tanh(x[v]); break;
            case SILU: x[v] = mul(x[v], sigmoid(x[v])); break;
            case RELU: x[v] = maximum(x[v], broadcast(0.0f)); break;
            case TANH: x[v] = hyperbolic_tangent(x[v]); break;
            default: break;
            }
}

#endif
