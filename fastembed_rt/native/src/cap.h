/* Scores that are kept within a cap (Gemma Team 2024, arXiv:2408.00118): cap * tanh(score / cap). */
#ifndef FASTEMBED_RT_CAP_H
#define FASTEMBED_RT_CAP_H

#include "activations.h"
#include "texts.h"

/* tanh x, relative error below 2e-7; NaN of NaN. Around 0, where most scores are, a sum of powers fitted to the least
 * largest error up to 5/8: beyond it the difference from 1 loses no bits. */
INLINE Floats fine_tangent(Floats x) {
    Floats square = mul(x, x);
    Floats p = fma16(broadcast(-0.005704985f), square, broadcast(0.020639086f));
    p = fma16(p, square, broadcast(-0.053739715f));
    p = fma16(p, square, broadcast(0.13331442f));
    p = fma16(p, square, broadcast(-0.3333328f));
    Floats near = fma16(mul(x, square), p, x);
    return choose_above(absolute(x), broadcast(0.625f), hyperbolic_tangent(x), near);
}

/* `count` scores in place, whole vectors; they are logarithms to base 2, which the cap is not. */
NOINLINE void keep_within(float cap, float *scores, size_t count) {
    Floats most = broadcast(cap * LOG2_E), shrink = broadcast(1.0f / (cap * LOG2_E));
    for (size_t k = 0; k < count; k += LANES)
        store(scores + k, mul(fine_tangent(mul(load(scores + k), shrink)), most));
}

#endif
