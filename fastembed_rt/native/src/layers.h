/* Layers read from a kernel's constant inputs, packed once a process however many sessions hold them. */
#ifndef FASTEMBED_RT_LAYERS_H
#define FASTEMBED_RT_LAYERS_H

#include "kernels.h"
#include "reader.h"

/* Attributes that not every group may have; of one with bfloat16 or float weights there are none but the number of
 * layers. */
enum { DITHER = 1, BF16_GROUP = 2, FP32_GROUP = 4 };

/* The layers of the group `prefix`, which may have what `allowed` says, from the inputs that are next; NULL after an
 * error. */
const Linear *read_linear(Reader *reader, const Kernels *kernels, const char *prefix, unsigned allowed);
void release_linear(const Linear *layer);

/* Around a fork: no thread is in either function, nor in those for Python. */
void lock_packed(void);
void unlock_packed(void);

#endif
