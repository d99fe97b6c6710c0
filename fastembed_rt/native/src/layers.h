/* Quantized layers read from a kernel's constant inputs, packed once a process however many sessions hold them. */
#ifndef FASTEMBED_RT_LAYERS_H
#define FASTEMBED_RT_LAYERS_H

#include "kernels.h"
#include "onnxruntime_abi.h"

/* What is read while a kernel is made; the first error stays. */
typedef struct {
    const OrtApi *api;
    const OrtKernelInfo *info;
    size_t next;            /* input */
    OrtStatus *error;
} Reader;

#define CALL(api, type, slot_) ((type)(void (*)(void))(api)->slot[slot_])

OrtStatus *failure(const OrtApi *api, const char *message);
int64_t read_int(Reader *reader, const char *name, int64_t otherwise);
float read_float(Reader *reader, const char *name);
/* A constant input of that type with one or two dimensions; NULL after an error. */
const void *read_constant(Reader *reader, int type, int64_t *rows, int64_t *columns);

/* The layers of the group `prefix`, from the inputs that are next; NULL after an error. */
const Linear *read_linear(Reader *reader, const Kernels *kernels, const char *prefix);
void release_linear(const Linear *layer);

#endif
