/* y = act(x w + bias) by cuBLASLt: one algorithm for each weight, whatever the number of rows.
 *
 * An algorithm decides in which order products are added up. With one for all row counts, and none that splits K or works
 * in a workspace, a row has the same bits wherever it lies and whatever lies beside it. Which one is asked of cuBLASLt for
 * ROWS rows, timed once a process, device and shape, and may be remembered between processes: the next one computes the
 * same bits.
 */
#ifndef FASTEMBED_RT_PRODUCT_H
#define FASTEMBED_RT_PRODUCT_H

#include "../reader.h"
#include "nvidia.h"

enum { ROWS = 16384, CANDIDATES = 8, ALIGNED = 16 }; /* more candidates were no faster */

/* What an algorithm is for. */
typedef struct {
    int64_t inputs, outputs;
    int32_t type, epilogue;
} Shape;

typedef struct {
    Shape shape;
    LtAlgorithm algorithm;
    void *handle, *desc, *weight; /* desc and the layout of the weight */
    const void *bias;             /* that desc has: a constant, which calls side by side share */
} Product;

/* Chooses the algorithm on this thread's device, for a Product of zeros. NULL, or why there is no such product. */
OrtStatus *create_product(const Node *node, Shape shape, Product *out);
void destroy_product(Product *product);
/* x (rows, inputs) w (inputs, outputs) -> y (rows, outputs) on a stream; all at multiples of ALIGNED bytes. */
OrtStatus *run_product(const Node *node, Product *product, const void *x, const void *w, const void *bias, void *y,
                       int64_t rows, void *stream);

#endif
