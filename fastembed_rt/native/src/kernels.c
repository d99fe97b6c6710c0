/* The kernels of one instruction set, compiled once for each with -DKERNELS=kernels_<name> and that set's flags.
 *
 *     vectors.h      16 lanes of float or int32, the same bits on every set
 *     activations.h  e^x, GELU and the others
 *     tiles.h        the register tile of integer products, MR x NR, KR values of K at a time
 *     pairing.h      which steps of weights AVX2's product of bytes, which saturates, takes together
 *     pairs.h        weights packed so, and their tile
 *     rounding.h     floats -> bfloat16
 *     quantize.h     activations -> u8, and what is clipped from them
 *     epilogue.h     accumulators -> activated floats, or u8 for the next layer
 *     gemm.h         packed weights, and products of them
 *     float_tiles.h  the register tile of products in float
 *     bf16.h         packed weights and products of bfloat16, with inputs rounded to it
 *     fp32.h         those of float, which AMX does not multiply
 *     amx_tiles.h    AMX tiles, where the set has them
 *     amx.h          products of bytes and of bfloat16 in those
 *     product.h      which of those it is
 *     norms.h        normalization of rows, with residuals
 *     turn.h         rotary positions and norms of the heads of queries and keys
 *     head.h         query, key and value of a head -> int16 panels
 *     softmax.h      scores of a block of keys -> int16 shares
 *     attention.h    scores, softmax, values, a block of queries and of keys at a time
 *     amx_attention.h  its products in AMX tiles
 *     float_head.h   a head of a text in float, and the tile of its scores
 *     cap.h          scores within a cap
 *     relative.h     what distances between tokens add to scores in float
 *     fp32_attention.h  attention in float
 *     fused.h        linear, feed-forward and attention blocks out of those
 *
 * Headers, not sources: one translation unit, so that everything inlines and no name has the set in it.
 */
#include "fused.h"
#include "kernels.h"

const Kernels KERNELS = {
    .name = SET_NAME,
    .depth_unit = DEPTH_UNIT,
    .packed_size = packed_size,
    .pack = pack_weights,
    .is_packed = is_packed,
    .linear = linear,
    .feed_forward = feed_forward,
    .attention = attention,
    .attention_block = attention_block,
};
