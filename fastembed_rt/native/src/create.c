/* What a session has of an operator: its attributes and constants, read once. */
#include <float.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "operators.h"

void destroy_kernel(void *self) {
    Kernel *kernel = self;
    release_linear(kernel->first);
    release_linear(kernel->second);
    for (size_t k = 0; k < kernel->copied; k++)
        free(kernel->copies[k]);
    free(kernel->rows);
    free(kernel);
}

/* A kernel without memory to be in is a NULL with an error. */
static Kernel *begin_kernel(const OrtCustomOp *op, const OrtApi *api, Reader *reader) {
    reader->node = (Node){api, op->name(op)};
    prepare_refusals(api);
    Kernel *kernel = calloc(1, sizeof *kernel);
    if (!kernel) {
        reader->error = no_memory(&reader->node);
        return NULL;
    }
    kernel->node = reader->node;
    kernel->kernels = choose_kernels();
    if (!kernel->kernels)
        refuse(reader, "this processor has none of AVX512-VNNI, AVX-VNNI, AVX2 with FMA");
    return kernel;
}

static OrtStatus *end_kernel(Kernel *kernel, Reader *reader, void **out) {
    read_end(reader);
    if (reader->error) {
        if (kernel)
            destroy_kernel(kernel);
        return reader->error;
    }
    *out = kernel;
    return NULL;
}

/* A constant may be freed when the session is ready, and lies at any address. */
static const float *copy(Kernel *kernel, Reader *reader, Tensor from) {
    size_t bytes = from.rows * from.columns * sizeof(float);
    float *to = reader->error ? NULL : malloc(bytes);
    if (to)
        kernel->copies[kernel->copied++] = memcpy(to, from.data, bytes);
    else if (!reader->error)
        reader->error = no_memory(&reader->node);
    return to;
}

static void read_activation(Kernel *kernel, Reader *reader) {
    static const char *const names[] = {
        [NO_ACTIVATION] = "", [GELU] = "gelu", [GELU_TANH] = "gelu_tanh", [SILU] = "silu", [RELU] = "relu",
        [TANH] = "tanh",
    };
    kernel->activation = (Activation)read_choice(reader, "activation", names, sizeof names / sizeof names[0]);
}

/* Its attributes' names begin with `prefix`. */
static void read_norm(Kernel *kernel, Reader *reader, const char *prefix, size_t width, Norm *norm) {
    static const char *const names[] = {"norm", "epsilon", "rms", "norm_bias"};
    char found[4][24];
    for (size_t k = 0; k < 4; k++)
        snprintf(found[k], sizeof found[k], "%s%s", prefix, names[k]);
    if (!read_flag(reader, found[0]))
        return;
    norm->epsilon = read_real(reader, found[1], 0.0f, FLT_MAX);
    norm->rms = read_flag(reader, found[2]);
    int has_bias = read_flag(reader, found[3]);
    Tensor weight = read_constant(reader, &(Form){"the norm's weight", FLOAT_TYPE, 1, 1, (int64_t)width});
    norm->weight = copy(kernel, reader, weight);
    if (has_bias) {
        Tensor bias = read_constant(reader, &(Form){"the norm's bias", FLOAT_TYPE, 1, 1, (int64_t)width});
        norm->bias = copy(kernel, reader, bias);
    }
}

static void read_add_norm(Kernel *kernel, Reader *reader, size_t width) {
    kernel->has_residual = read_flag(reader, "residual");
    if (kernel->has_residual)
        kernel->residual_input = reader->next++;
    read_norm(kernel, reader, "", width, &kernel->norm.norm);
    kernel->norm.norm_first = read_flag(reader, "norm_first");
    if (!reader->error && kernel->norm.norm_first && !(kernel->has_residual && kernel->norm.norm.weight))
        refuse(reader, "attribute norm_first is for a norm and a residual");
}

/* What heads go through, but for their norms. */
static void read_rotary(Kernel *kernel, Reader *reader) {
    kernel->has_rotary = read_flag(reader, "rotary");
    if (!kernel->has_rotary)
        return;
    kernel->rotary_input = reader->next;
    reader->next += 2;
}

static void read_turn(Kernel *kernel, Reader *reader) {
    Turn *turn = &kernel->shape.turn;
    size_t size = kernel->shape.size;
    read_norm(kernel, reader, "query_", size, &turn->norms[QUERY]);
    read_norm(kernel, reader, "key_", size, &turn->norms[KEY]);
    read_norm(kernel, reader, "value_", size, &turn->norms[VALUE]);
    int normed = turn->norms[QUERY].weight || turn->norms[KEY].weight || turn->norms[VALUE].weight;
    if (!reader->error && size % 32 && (kernel->has_rotary || normed))
        refuse(reader, "heads of size %zu are neither normalized nor turned here: that is for multiples of 32", size);
}

static void read_by_distance(Kernel *kernel, Reader *reader) {
    Attention *shape = &kernel->shape;
    if (!read_flag(reader, "by_distance"))
        return;
    if (kernel->has_seen)
        refuse(reader, "attributes seen and by_distance exclude each other");
    /* (heads, 2 * reach - 1) */
    Tensor table = read_constant(reader, &(Form){"the bias by distance", FLOAT_TYPE, 2, (int64_t)shape->heads, ANY});
    if (!reader->error && table.columns % 2 == 0)
        refuse(reader, "the bias by distance has %zu columns, of which none is in the middle", table.columns);
    shape->reach = ((int64_t)table.columns + 1) / 2;
    shape->by_distance = copy(kernel, reader, table);
}

/* The row of each distance: the one before it or the next. */
static void read_distances(Kernel *kernel, Reader *reader) {
    Attention *shape = &kernel->shape;
    Tensor given = read_constant(reader, &(Form){"the rows of distances", INT64_TYPE, 1, 1, ANY});
    if (reader->error)
        return;
    if (given.columns % 2 == 0) {
        refuse(reader, "there are %zu rows of distances, of which none is in the middle", given.columns);
        return;
    }
    int32_t *rows = kernel->rows = malloc(given.columns * sizeof *rows);
    if (!rows) {
        reader->error = no_memory(&reader->node);
        return;
    }
    for (size_t k = 0; k < given.columns; k++) {
        int64_t row;
        memcpy(&row, (const char *)given.data + k * sizeof row, sizeof row);
        if (k ? row != rows[k - 1] && row != (int64_t)rows[k - 1] + 1 : row < 0 || row > MOST_TOKENS) {
            refuse(reader, "the rows of distances have a %lld at %zu, and %s", (long long)row, k,
                   k ? "each has to be the one before it or the next" : "the first row is 0");
            return;
        }
        rows[k] = (int32_t)row;
    }
    size_t middle = given.columns / 2, first = middle, last = middle;
    while (first > 0 && rows[first - 1] + 1 == rows[first])
        first--;
    while (last + 1 < given.columns && rows[last] + 1 == rows[last + 1])
        last++;
    shape->reach = (int64_t)middle + 1;
    shape->relative.row = rows;
    shape->relative.first = (int64_t)first - (int64_t)middle;
    shape->relative.last = (int64_t)last - (int64_t)middle;
}

/* What scores get from queries and keys that meet a row of distances. The tables are as large as a layer, so they are no
 * copies. */
static void read_relative(Kernel *kernel, Reader *reader) {
    Attention *shape = &kernel->shape;
    Relative *relative = &shape->relative;
    kernel->has_c2p = read_flag(reader, "c2p");
    kernel->has_p2c = read_flag(reader, "p2c");
    if (reader->error || !(kernel->has_c2p || kernel->has_p2c))
        return;
    if (kernel->has_seen || shape->by_distance)
        refuse(reader, "attributes c2p and p2c exclude seen and by_distance");
    if (!reader->error && !shape->size)
        refuse(reader, "attributes c2p and p2c need the size of heads");
    read_distances(kernel, reader);
    if (reader->error)
        return;
    const int64_t width = (int64_t)(shape->heads * shape->size), most = kernel->rows[2 * shape->reach - 2];
    relative->width = (size_t)width;
    shape->in_float = 1;
    if (kernel->has_c2p) {
        kernel->c2p_input = reader->next;
        kernel->c2p_form = (Form){"the table of c2p", FLOAT_TYPE, 2, ANY, width};
        Tensor table = read_constant(reader, &kernel->c2p_form);
        if (!reader->error && (int64_t)table.rows <= most)
            refuse(reader, "the table of c2p has %zu rows, and distances one of number %lld", table.rows, (long long)most);
        kernel->c2p_form.rows = (int64_t)table.rows;
    }
    if (kernel->has_p2c) {
        kernel->p2c_input = reader->next;
        kernel->p2c_form = (Form){"the table of p2c", FLOAT_TYPE, 2, width, ANY};
        Tensor table = read_constant(reader, &kernel->p2c_form);
        if (!reader->error && ((int64_t)table.columns <= most || table.columns % 16))
            refuse(reader, "the table of p2c has %zu columns: a multiple of 16 above %lld is needed", table.columns,
                   (long long)most);
        relative->columns = table.columns;
        kernel->p2c_form.columns = (int64_t)table.columns;
    }
}

static void read_shape(Kernel *kernel, Reader *reader) {
    Attention *shape = &kernel->shape;
    int64_t heads = read_whole(reader, "heads", 1, MOST_HEADS, NEEDED);
    int64_t kv_heads = read_whole(reader, "kv_heads", 1, MOST_HEADS, heads);
    int64_t size = read_whole(reader, "size", 0, MOST_SIZE, 0);
    shape->first_only = read_flag(reader, "first_only");
    shape->before = read_whole(reader, "before", -1, MOST_TOKENS, -1);
    shape->after = read_whole(reader, "after", -1, MOST_TOKENS, -1);
    shape->scale = 1.0f;
    if (read_flag(reader, "capped"))
        shape->cap = read_real(reader, "cap", 0x1p-10f, 0x1p20f);
    if (!reader->error && heads % kv_heads)
        refuse(reader, "%lld heads do not share %lld heads of keys and values evenly", (long long)heads,
               (long long)kv_heads);
    shape->heads = (size_t)heads;
    shape->kv_heads = (size_t)kv_heads;
    shape->size = (size_t)size;
    kernel->has_seen = read_flag(reader, "seen");
    if (kernel->has_seen)
        kernel->seen_input = reader->next++;
    read_by_distance(kernel, reader);
    read_relative(kernel, reader);
}

static OrtStatus *new_linear(const OrtCustomOp *op, const OrtApi *api, const OrtKernelInfo *info, unsigned group,
                             void **out) {
    Reader reader = {.info = info, .next = 1};
    Kernel *kernel = begin_kernel(op, api, &reader);
    if (!reader.error) {
        kernel->largest = read_flag(&reader, "largest");
        reader.next += kernel->largest != 0; /* starts */
    }
    if (!reader.error)
        kernel->first = read_linear(&reader, kernel->kernels, "linear", group);
    if (!reader.error)
        read_activation(kernel, &reader);
    if (!reader.error)
        read_add_norm(kernel, &reader, kernel->first->outputs);
    if (!reader.error && kernel->largest && (kernel->has_residual || kernel->norm.norm.weight))
        refuse(&reader, "attribute largest excludes residual and norm");
    return end_kernel(kernel, &reader, out);
}

OrtStatus *create_linear(const OrtCustomOp *op, const OrtApi *api, const OrtKernelInfo *info, void **out) {
    return new_linear(op, api, info, DITHER, out);
}

OrtStatus *create_bf16_linear(const OrtCustomOp *op, const OrtApi *api, const OrtKernelInfo *info, void **out) {
    return new_linear(op, api, info, BF16_GROUP, out);
}

OrtStatus *create_fp32_linear(const OrtCustomOp *op, const OrtApi *api, const OrtKernelInfo *info, void **out) {
    return new_linear(op, api, info, FP32_GROUP, out);
}

static OrtStatus *new_feed_forward(const OrtCustomOp *op, const OrtApi *api, const OrtKernelInfo *info, unsigned first,
                                   unsigned second, void **out) {
    Reader reader = {.info = info, .next = 1};
    Kernel *kernel = begin_kernel(op, api, &reader);
    if (!reader.error)
        kernel->first = read_linear(&reader, kernel->kernels, "up", first);
    if (!reader.error)
        kernel->second = read_linear(&reader, kernel->kernels, "down", second);
    if (!reader.error) {
        kernel->gated = read_flag(&reader, "gated");
        size_t hidden = kernel->second->inputs;
        if (kernel->first->outputs != (kernel->gated ? 2 * hidden : hidden) || (kernel->gated && hidden % 16))
            refuse(&reader, "up has %zu outputs for %zu inputs of down%s", kernel->first->outputs, hidden,
                   kernel->gated ? ", gated: twice as many and a multiple of 16" : "");
    }
    if (!reader.error)
        read_activation(kernel, &reader);
    if (!reader.error) {
        read_norm(kernel, &reader, "before_", kernel->first->inputs, &kernel->before);
        read_add_norm(kernel, &reader, kernel->second->outputs);
    }
    return end_kernel(kernel, &reader, out);
}

OrtStatus *create_feed_forward(const OrtCustomOp *op, const OrtApi *api, const OrtKernelInfo *info, void **out) {
    return new_feed_forward(op, api, info, DITHER, 0, out);
}

OrtStatus *create_bf16_feed_forward(const OrtCustomOp *op, const OrtApi *api, const OrtKernelInfo *info, void **out) {
    return new_feed_forward(op, api, info, BF16_GROUP, BF16_GROUP, out);
}

OrtStatus *create_fp32_feed_forward(const OrtCustomOp *op, const OrtApi *api, const OrtKernelInfo *info, void **out) {
    return new_feed_forward(op, api, info, FP32_GROUP, FP32_GROUP, out);
}

OrtStatus *create_packed_attention(const OrtCustomOp *op, const OrtApi *api, const OrtKernelInfo *info, void **out) {
    Reader reader = {.info = info, .next = 4};
    Kernel *kernel = begin_kernel(op, api, &reader);
    if (!reader.error)
        read_shape(kernel, &reader);
    if (!reader.error)
        kernel->shape.in_float |= read_flag(&reader, "in_float");
    return end_kernel(kernel, &reader, out);
}

static OrtStatus *new_attention_block(const OrtCustomOp *op, const OrtApi *api, const OrtKernelInfo *info,
                                      unsigned first, unsigned second, void **out) {
    Reader reader = {.info = info, .next = 2};
    Kernel *kernel = begin_kernel(op, api, &reader);
    if (!reader.error)
        read_shape(kernel, &reader);
    if (!reader.error && kernel->shape.first_only)
        refuse(&reader, "attention of first tokens only is PackedAttention's");
    if (!reader.error) {
        kernel->shape.in_float |= (first & FP32_GROUP) != 0;
        read_rotary(kernel, &reader);
    }
    if (!reader.error)
        kernel->first = read_linear(&reader, kernel->kernels, "input", first);
    if (!reader.error)
        kernel->second = read_linear(&reader, kernel->kernels, "output", second);
    if (!reader.error) {
        size_t width = kernel->shape.heads * kernel->shape.size, kv_width = kernel->shape.kv_heads * kernel->shape.size;
        if (!width || kernel->first->outputs != width + 2 * kv_width || kernel->second->inputs != width)
            refuse(&reader, "%zu heads of size %zu do not fit %zu outputs of input and %zu inputs of output",
                   kernel->shape.heads, kernel->shape.size, kernel->first->outputs, kernel->second->inputs);
    }
    if (!reader.error) {
        read_turn(kernel, &reader);
        read_norm(kernel, &reader, "before_", kernel->first->inputs, &kernel->before);
        read_add_norm(kernel, &reader, kernel->second->outputs);
    }
    return end_kernel(kernel, &reader, out);
}

OrtStatus *create_attention_block(const OrtCustomOp *op, const OrtApi *api, const OrtKernelInfo *info, void **out) {
    return new_attention_block(op, api, info, DITHER, DITHER, out);
}

OrtStatus *create_bf16_attention_block(const OrtCustomOp *op, const OrtApi *api, const OrtKernelInfo *info,
                                       void **out) {
    return new_attention_block(op, api, info, BF16_GROUP, BF16_GROUP, out);
}

OrtStatus *create_fp32_attention_block(const OrtCustomOp *op, const OrtApi *api, const OrtKernelInfo *info,
                                       void **out) {
    return new_attention_block(op, api, info, FP32_GROUP, FP32_GROUP, out);
}

OrtStatus *create_embedding(const OrtCustomOp *op, const OrtApi *api, const OrtKernelInfo *info, void **out) {
    Reader reader = {.info = info, .next = 3};
    return end_kernel(begin_kernel(op, api, &reader), &reader, out);
}

OrtStatus *create_bf16_embedding(const OrtCustomOp *op, const OrtApi *api, const OrtKernelInfo *info, void **out) {
    Reader reader = {.info = info, .next = 2};
    return end_kernel(begin_kernel(op, api, &reader), &reader, out);
}

OrtStatus *create_mean(const OrtCustomOp *op, const OrtApi *api, const OrtKernelInfo *info, void **out) {
    Reader reader = {.info = info, .next = 2};
    return end_kernel(begin_kernel(op, api, &reader), &reader, out);
}
