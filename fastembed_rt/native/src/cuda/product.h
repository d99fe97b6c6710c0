/* y = act(x w + bias) by cuBLASLt: one algorithm for each weight, whatever the number of rows.
 *
 * An algorithm decides in which order products are added up. With one for all row counts, and none that splits K or works
 * in a workspace, a row has the same bits wherever it lies and whatever lies beside it. Which one is asked of cuBLASLt for
 * ROWS rows, timed once a process, device and shape, and may be remembered between processes: the next one computes the
 * same bits. Of those that are as fast with ROWS rows, the one that is fastest with FEW is taken, as one text has them.
 */
#ifndef FASTEMBED_RT_PRODUCT_H
#define FASTEMBED_RT_PRODUCT_H

#include "../reader.h"
#include "nvidia.h"

enum { ROWS = 16384, FEW = 64, CANDIDATES = 8, ALIGNED = 16 }; /* more candidates were no faster */
enum { FP8_MULTIPLE = 16 };                          /* what cuBLASLt asks of the sizes of an FP8 product's matrices */

/* What an algorithm is for. Of type LT_R_8F_E4M3 are x and w, and w is (outputs, inputs): cuBLASLt has no other FP8
 * products on Ada and Hopper. The bias is float16 then. */
typedef struct {
    int64_t inputs, outputs;
    int32_t type, out, epilogue; /* types of x and w, of y */
    int32_t unused;              /* 0: shapes are compared byte by byte */
} Shape;

typedef struct {
    Shape shape;
    LtAlgorithm algorithm;
    void *handle, *desc, *weight; /* desc and the layout of the weight */
    const void *bias, *scale;     /* that desc has: constants, which calls side by side share */
    float alpha;                  /* set before a Product is made: y = act(alpha x w + bias) * scale */
} Product;

/* Chooses the algorithm on this thread's device, for a Product of zeros but alpha. NULL, or why there is no such product. */
OrtStatus *create_product(const Node *node, Shape shape, Product *out);
void destroy_product(Product *product);
/* x (rows, inputs) w (inputs, outputs) -> y (rows, outputs) on a stream; all at multiples of ALIGNED bytes. `scale`, one
 * float on the device, is what y is multiplied by before it is rounded to FP8; NULL: by nothing. */
OrtStatus *run_product(const Node *node, Product *product, const void *x, const void *w, const void *bias,
                       const void *scale, void *y, int64_t rows, void *stream);

#endif
