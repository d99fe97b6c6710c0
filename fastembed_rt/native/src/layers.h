/* Quantized layers read from a kernel's constant inputs, packed once a process however many sessions hold them. */
#ifndef FASTEMBED_RT_LAYERS_H
#define FASTEMBED_RT_LAYERS_H

#include "kernels.h"
#include "reader.h"

/* Whether a group may have its attribute `tails`. */
typedef enum { NO_TAILS, MAY_HAVE_TAILS } Tailing;

/* The layers of the group `prefix`, from the inputs that are next; NULL after an error. */
const Linear *read_linear(Reader *reader, const Kernels *kernels, const char *prefix, Tailing tailing);
void release_linear(const Linear *layer);

#endif
