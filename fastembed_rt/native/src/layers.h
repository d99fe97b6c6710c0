/* Quantized layers read from a kernel's constant inputs, packed once a process however many sessions hold them. */
#ifndef FASTEMBED_RT_LAYERS_H
#define FASTEMBED_RT_LAYERS_H

#include "kernels.h"
#include "reader.h"

/* Attributes that not every group may have. */
enum { TAILS = 1, DITHER = 2 };

/* The layers of the group `prefix`, which may have what `allowed` says, from the inputs that are next; NULL after an
 * error. */
const Linear *read_linear(Reader *reader, const Kernels *kernels, const char *prefix, unsigned allowed);
void release_linear(const Linear *layer);

#endif
