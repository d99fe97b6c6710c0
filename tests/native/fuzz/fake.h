/* A stand-in for onnxruntime: the functions that the operators call, over plain structs, and an allocator that fails
 * when told to. All state is a thread's own. */
#ifndef FAKE_H
#define FAKE_H

#include <stddef.h>
#include <stdint.h>

#include "onnxruntime_abi.h"

enum { MOST_ATTRIBUTES = 48, MOST_VALUES = 40, MOST_NUMBERS = 40 };
typedef enum { WHOLE, REAL, TEXT, WHOLES, REALS, OTHER, KINDS } Kind;

typedef struct {
    char name[32];
    Kind kind;
    int64_t whole;
    float real;
    char text[64];
    size_t count; /* of numbers, or of letters */
    int64_t wholes[MOST_NUMBERS];
} Attribute;

struct OrtValue {
    int type;
    size_t rank;
    int64_t dims[4];
    int constant;
    int fed;        /* a feed, even where it is constant */
    void *memory;   /* what to free */
    void *data;     /* as long as the dims say, and not a byte longer */
    size_t bytes;
};

struct OrtKernelInfo {
    const char *op;
    Attribute attributes[MOST_ATTRIBUTES];
    size_t attribute_count;
    OrtValue *inputs[MOST_VALUES];  /* NULL: an input without a name */
    size_t input_count;
};

struct OrtKernelContext {
    const OrtKernelInfo *info;
    OrtValue output;
    uint32_t canary;        /* what an output holds before it is written */
    int backwards;          /* order of tasks */
    int broken_pool;        /* the ParallelFor of that number fails, from 1; 0: none */
    int pool_calls;         /* of ParallelFor so far */
};

extern const OrtApi fake_api;
const OrtCustomOp *operator_called(const char *name);

void *checked_malloc(size_t bytes);  /* the harness's own, which never fails */
void fill_tensor(OrtValue *value, int type, size_t rank, const int64_t *dims, size_t offset);
size_t bytes_of_type(int type);
void free_tensor(OrtValue *value);

/* The library's allocations between enter and leave: each is filled with `fill`; number `fails` of them (from 1) and
 * all after it fail, 0: none. leave says how many failed. `mute`: then statuses cannot be made either. */
void enter(int fill, size_t fails, int mute);
size_t leave(void);
void release_status(OrtStatus *status);
const char *status_text(const OrtStatus *status);

#endif
