/* What a model says and what a call is given: every attribute, constant and feed comes through here.
 *
 * Nothing of a model or a feed is believed. What is not as it has to be is an OrtStatus that says what came, what has
 * to come, and in which node. What passes is within the bounds below, so that no sum or product of sizes overflows.
 */
#ifndef FASTEMBED_RT_READER_H
#define FASTEMBED_RT_READER_H

#include "onnxruntime_abi.h"
#include "support.h"

#define CALL(api, type, slot_) ((type)(void (*)(void))(api)->slot[slot_])

enum {
    MOST_INPUTS = 65536,        /* of a layer: 65,536 products of 255 and -128 stay within int32 */
    MOST_OUTPUTS = 1 << 24,
    MOST_HEADS = 65536,
    MOST_SIZE = 65536,          /* of a head */
    MOST_TOKENS = 0x7FFFFFFF    /* of a call; and rows of anything */
};

/* Who reads: the operator, for its sentences. */
typedef struct {
    const OrtApi *api;
    const char *name;
} Node;

/* What is read while a kernel is made; the first error stays, and everything after it reads as 0. */
typedef struct {
    Node node;
    const OrtKernelInfo *info;
    size_t next;            /* input */
    OrtStatus *error;
} Reader;

/* What a tensor has to be. */
enum { ANY = -1 };
typedef struct {
    const char *name;
    int type;
    size_t rank;            /* 1 or 2 */
    int64_t rows, columns;  /* or ANY; a tensor of rank 1 is one row */
} Form;

typedef struct {
    const void *data;
    size_t rows, columns;
} Tensor;

/* A status with this sentence, of at most 300 bytes. Never NULL. */
OrtStatus *refusal(const Node *node, const char *format, ...) __attribute__((format(printf, 2, 3)));
OrtStatus *no_memory(const Node *node);
/* Keeps a status for the day when there is no memory for one. */
void prepare_refusals(const OrtApi *api);

void refuse(Reader *reader, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Attributes. `otherwise` is what a missing one means; NEEDED: an error. One of another type is an error. */
#define NEEDED INT64_MIN
int64_t read_whole(Reader *reader, const char *name, int64_t least, int64_t most, int64_t otherwise);
int read_flag(Reader *reader, const char *name);
/* Needed, finite, and within the bounds. */
float read_real(Reader *reader, const char *name, float least, float most);
/* At most `most` numbers, each within the bounds; how many there are, 0 where the attribute is missing. */
size_t read_wholes(Reader *reader, const char *name, int64_t *out, size_t most, int64_t lowest, int64_t highest);
/* Which of the names it is; 0 where the attribute is missing. */
size_t read_choice(Reader *reader, const char *name, const char *const *names, size_t count);

/* The next input, which has to be constant; .data is NULL after an error. Floats are finite. Its address is that of a
 * file's bytes: not aligned, to be read through memcpy. */
Tensor read_constant(Reader *reader, const Form *form);
/* All inputs of the node have been read. */
void read_end(Reader *reader);

/* An input of a call. Its address is aligned to its type, unless it is `loose`. */
OrtStatus *get_input(const Node *node, OrtKernelContext *context, size_t index, const Form *form, int loose,
                     Tensor *out);
/* The only output, (rows, columns) float. */
OrtStatus *get_output(const Node *node, OrtKernelContext *context, size_t rows, size_t columns, float **out);

#endif
