/* The kernels of the .cu files on a device: their PTX is loaded once a device, its driver turns it into code. */
#ifndef FASTEMBED_RT_DEVICE_KERNELS_H
#define FASTEMBED_RT_DEVICE_KERNELS_H

#include "../reader.h"

typedef enum {
    ADD_NORM, EMBED_NORM, MEAN, SUM_NORM, GATED, TURN, WORD_WEIGHTS, UNIT, DENSE, ATTENTION_32, ATTENTION_64,
    ATTENTION_128, ADD_NORM_FP8, EMBED_NORM_FP8, QUANTIZE_FP8, KERNELS
} DeviceKernel;
typedef enum { FLOAT16, BFLOAT16, NUMBERS } Number;

enum { VECTOR = 8, MOST_WIDTH = 8192 }; /* numbers that go at once; and in a row: a warp's part of 48 KB */

/* A kernel on this thread's device. NULL, or why there is none. */
OrtStatus *load_kernel(const Node *node, DeviceKernel kernel, Number number, void **out);
/* A grid of blocks, threads of a block, bytes of shared memory. */
typedef struct {
    size_t x, y;
    unsigned across, down;
    size_t shared;
} Grid;
OrtStatus *launch(const Node *node, void *function, Grid grid, void *stream, void **arguments);
/* A row of `width` numbers a warp. */
OrtStatus *launch_rows(const Node *node, void *function, size_t rows, size_t width, void *stream, void **arguments);
/* A block for every 64 numbers of a text. */
OrtStatus *launch_texts(const Node *node, void *function, size_t texts, size_t width, void *stream, void **arguments);

#endif
