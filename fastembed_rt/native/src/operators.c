/* The operators of the domain "fastembed_rt", as onnxruntime loads them: RegisterCustomOps.
 *
 * QuantLinear       x, group "linear", finish                      -> y
 * QuantFeedForward  x, groups "up" and "down", finish              -> y
 * PackedAttention   query, key, value, starts, [by_distance]       -> mixed
 * QuantAttention    x, starts, [by_distance], groups "input" and "output", finish -> y
 * QuantEmbedding    ids, values int8 (rows, width), scales (rows, 1)  -> (tokens, width): values[id] * scales[id]
 * PackedMean        x, starts                                      -> (texts, width), 0 for a text without tokens
 *
 * x and y are (tokens, width) float32, the texts one after the other; starts is (texts + 1) int64. A group is
 * [smooth], then for each of <group>_layers: values int8, scale, bias, [outlier rows]. Finish is [residual],
 * [norm weight, [norm bias]], as the attributes residual, norm and norm_bias say.
 */
#include <stdlib.h>
#include <string.h>

#include "layers.h"

#define EXPORTED __attribute__((visibility("default")))

typedef struct {
    const OrtApi *api;
    const Kernels *kernels;
    const Linear *first, *second; /* linear; up and down; input and output */
    Activation activation;
    int gated, has_residual;
    size_t residual_input;
    Finish finish;
    Attention shape;
    float *norm_weight, *norm_bias, *by_distance; /* copies: a constant may be freed when the session is ready */
    int64_t distances;
} Kernel;

/* ---- choosing --------------------------------------------------------------------------------------------------- */

static const Kernels *choose(void) {
    const char *wanted = getenv("FASTEMBED_RT_KERNELS");
    const struct { const Kernels *kernels; int runs; } rows[] = {
        {&kernels_avx512vnni, __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bw") &&
                              __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
                              __builtin_cpu_supports("fma")},
        {&kernels_avxvnni, __builtin_cpu_supports("avxvnni") && __builtin_cpu_supports("fma")},
        {&kernels_avx2, __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")},
    };
    for (size_t k = 0; k < sizeof rows / sizeof rows[0]; k++)
        if (rows[k].runs && (!wanted || !*wanted || !strcmp(wanted, rows[k].kernels->name)))
            return rows[k].kernels;
    return NULL;
}

/* Name of the kernels that run on this processor, "" where none do. */
EXPORTED const char *fastembed_rt_kernels(void) {
    const Kernels *found = choose();
    return found ? found->name : "";
}

/* ---- inputs and outputs ----------------------------------------------------------------------------------------- */

typedef struct {
    const void *data;
    size_t rows, columns;
} Input;

static OrtStatus *get_input(const Kernel *kernel, OrtKernelContext *context, size_t index, Input *out) {
    const OrtApi *api = kernel->api;
    const OrtValue *value = NULL;
    OrtTensorTypeAndShapeInfo *shape = NULL;
    size_t count = 0;
    int64_t dims[2] = {1, 1};
    void *data = NULL;
    OrtStatus *error = CALL(api, GetInput, GET_INPUT)(context, index, &value);
    if (!error && !value)
        error = failure(api, "fastembed_rt: an input is missing");
    if (!error)
        error = CALL(api, GetTensorTypeAndShape, GET_TENSOR_TYPE_AND_SHAPE)(value, &shape);
    if (!error)
        error = CALL(api, GetDimensionsCount, GET_DIMENSIONS_COUNT)(shape, &count);
    if (!error && (count < 1 || count > 2))
        error = failure(api, "fastembed_rt: an input has neither one nor two dimensions");
    if (!error)
        error = CALL(api, GetDimensions, GET_DIMENSIONS)(shape, dims + (count == 1), count);
    if (!error)
        error = CALL(api, GetTensorMutableData, GET_TENSOR_MUTABLE_DATA)((OrtValue *)value, &data);
    if (shape)
        CALL(api, ReleaseShape, RELEASE_SHAPE)(shape);
    out->data = data;
    out->rows = (size_t)dims[0];
    out->columns = (size_t)dims[1];
    return error;
}

static OrtStatus *get_output(const Kernel *kernel, OrtKernelContext *context, size_t rows, size_t columns,
                             float **out) {
    const int64_t dims[2] = {(int64_t)rows, (int64_t)columns};
    OrtValue *value = NULL;
    void *data = NULL;
    OrtStatus *error = CALL(kernel->api, GetOutput, GET_OUTPUT)(context, 0, dims, 2, &value);
    if (!error)
        error = CALL(kernel->api, GetTensorMutableData, GET_TENSOR_MUTABLE_DATA)(value, &data);
    *out = data;
    return error;
}

/* x and the finish of a call. */
static OrtStatus *get_rows(const Kernel *kernel, OrtKernelContext *context, size_t inputs, size_t outputs, Input *x,
                           Finish *finish) {
    Input residual = {0};
    OrtStatus *error = get_input(kernel, context, 0, x);
    if (!error && x->columns != inputs)
        error = failure(kernel->api, "fastembed_rt: the input is not as wide as the weights");
    *finish = kernel->finish;
    if (!error && kernel->has_residual) {
        error = get_input(kernel, context, kernel->residual_input, &residual);
        if (!error && (residual.rows != x->rows || residual.columns != outputs))
            error = failure(kernel->api, "fastembed_rt: the residual has another shape than the output");
        finish->residual = residual.data;
    }
    return error;
}

static OrtStatus *get_starts(const Kernel *kernel, OrtKernelContext *context, size_t index, size_t tokens,
                             Attention *work) {
    Input starts = {0};
    OrtStatus *error = get_input(kernel, context, index, &starts);
    if (error)
        return error;
    work->starts = starts.data;
    work->texts = starts.columns ? starts.columns - 1 : 0;
    int ordered = starts.columns > 0 && work->starts[0] == 0 && (size_t)work->starts[work->texts] == tokens;
    for (size_t text = 0; ordered && text < work->texts; text++) {
        int64_t length = work->starts[text + 1] - work->starts[text];
        ordered = length >= 0 && (!work->by_distance || length <= work->reach);
    }
    return ordered ? NULL : failure(kernel->api, "fastembed_rt: starts do not cut the tokens into texts that fit");
}

typedef struct {
    const OrtApi *api;
    OrtKernelContext *context;
    OrtStatus *error;
} Running;

static void run_parallel(const Pool *pool, void (*fn)(void *, size_t), void *argument, size_t count) {
    Running *running = pool->context;
    OrtStatus *error =
        CALL(running->api, ParallelFor, PARALLEL_FOR)(running->context, fn, count, 4, argument);
    if (error && !running->error)
        running->error = error;
    else if (error)
        CALL(running->api, ReleaseStatus, RELEASE_STATUS)(error);
}

/* ---- what runs --------------------------------------------------------------------------------------------------- */

#define BEGIN(kernel_, context_)                                \
    Running running = {(kernel_)->api, context_, NULL};         \
    Pool pool = {run_parallel, &running};                       \
    (void)pool

static OrtStatus *run_linear(void *self, OrtKernelContext *context) {
    const Kernel *kernel = self;
    BEGIN(kernel, context);
    Input x;
    Finish finish;
    float *out;
    OrtStatus *error = get_rows(kernel, context, kernel->first->inputs, kernel->first->outputs, &x, &finish);
    if (!error)
        error = get_output(kernel, context, x.rows, kernel->first->outputs, &out);
    if (error)
        return error;
    kernel->kernels->linear(kernel->first, x.data, x.rows, kernel->activation, &finish, out, &pool);
    return running.error;
}

static OrtStatus *run_feed_forward(void *self, OrtKernelContext *context) {
    const Kernel *kernel = self;
    BEGIN(kernel, context);
    Input x;
    Finish finish;
    float *out;
    OrtStatus *error = get_rows(kernel, context, kernel->first->inputs, kernel->second->outputs, &x, &finish);
    if (!error)
        error = get_output(kernel, context, x.rows, kernel->second->outputs, &out);
    if (error)
        return error;
    kernel->kernels->feed_forward(kernel->first, kernel->second, x.data, x.rows, kernel->activation, kernel->gated,
                                  &finish, out, &pool);
    return running.error;
}

static OrtStatus *run_packed_attention(void *self, OrtKernelContext *context) {
    const Kernel *kernel = self;
    BEGIN(kernel, context);
    Attention work = kernel->shape;
    Input query, key, value;
    OrtStatus *error = get_input(kernel, context, 0, &query);
    if (!error)
        error = get_input(kernel, context, 1, &key);
    if (!error)
        error = get_input(kernel, context, 2, &value);
    if (!error)
        error = get_starts(kernel, context, 3, key.rows, &work);
    if (error)
        return error;
    work.size = query.columns / work.heads;
    size_t width = work.heads * work.size, kv_width = work.kv_heads * work.size;
    int fits = work.size > 0 && query.columns == width && key.columns == kv_width && value.columns == kv_width &&
               value.rows == key.rows && query.rows == (work.first_only ? work.texts : key.rows);
    if (!fits)
        return failure(kernel->api, "fastembed_rt: query, key and value do not fit together");
    error = get_output(kernel, context, query.rows, width, &work.output);
    if (error)
        return error;
    work.query = query.data;
    work.key = key.data;
    work.value = value.data;
    work.query_stride = work.output_stride = width;
    work.key_stride = work.value_stride = kv_width;
    if (work.first_only) /* a text without tokens has no attention to write */
        memset(work.output, 0, query.rows * width * sizeof(float));
    kernel->kernels->attention(&work, &pool);
    return running.error;
}

static OrtStatus *run_attention_block(void *self, OrtKernelContext *context) {
    const Kernel *kernel = self;
    BEGIN(kernel, context);
    Attention work = kernel->shape;
    Input x;
    Finish finish;
    float *out;
    OrtStatus *error = get_rows(kernel, context, kernel->first->inputs, kernel->second->outputs, &x, &finish);
    if (!error)
        error = get_starts(kernel, context, 1, x.rows, &work);
    if (!error)
        error = get_output(kernel, context, x.rows, kernel->second->outputs, &out);
    if (error)
        return error;
    kernel->kernels->attention_block(kernel->first, &work, kernel->second, x.data, &finish, out, &pool);
    return running.error;
}

typedef struct {
    const int8_t *table;
    const float *scales;
    size_t width;
    const int64_t *ids;
    size_t rows;
    float *out;
} Embedding;

enum { EMBEDDED_ROWS = 32 }; /* of one task */

static void embed_rows(void *argument, size_t index) {
    const Embedding *work = argument;
    size_t width = work->width, last = (index + 1) * EMBEDDED_ROWS;
    for (size_t r = index * EMBEDDED_ROWS; r < last && r < work->rows; r++) {
        const int8_t *row = work->table + (size_t)work->ids[r] * width;
        float scale = work->scales[work->ids[r]], *to = work->out + r * width;
        for (size_t k = 0; k < width; k++)
            to[k] = (float)row[k] * scale;
    }
}

static OrtStatus *run_embedding(void *self, OrtKernelContext *context) {
    const Kernel *kernel = self;
    BEGIN(kernel, context);
    Input ids, table, scales;
    float *out;
    OrtStatus *error = get_input(kernel, context, 0, &ids);
    if (!error)
        error = get_input(kernel, context, 1, &table);
    if (!error)
        error = get_input(kernel, context, 2, &scales);
    if (!error && (scales.rows != table.rows || scales.columns != 1))
        error = failure(kernel->api, "fastembed_rt: a table without a scale for each row");
    for (size_t k = 0; !error && k < ids.columns; k++) {
        int64_t id = ((const int64_t *)ids.data)[k];
        if (id < 0 || (size_t)id >= table.rows)
            error = failure(kernel->api, "fastembed_rt: a token id is not in the vocabulary");
    }
    if (!error)
        error = get_output(kernel, context, ids.columns, table.columns, &out);
    if (error)
        return error;
    Embedding work = {table.data, scales.data, table.columns, ids.data, ids.columns, out};
    run_parallel(&pool, embed_rows, &work, (ids.columns + EMBEDDED_ROWS - 1) / EMBEDDED_ROWS);
    return running.error;
}

typedef struct {
    const float *x;
    const int64_t *starts;
    size_t width;
    float *out;
} Mean;

static void mean_rows(void *argument, size_t text) {
    const Mean *work = argument;
    int64_t start = work->starts[text], stop = work->starts[text + 1];
    float *out = work->out + text * work->width;
    memset(out, 0, work->width * sizeof(float));
    for (int64_t r = start; r < stop; r++) {
        const float *row = work->x + (size_t)r * work->width;
        for (size_t k = 0; k < work->width; k++)
            out[k] += row[k];
    }
    if (stop > start)
        for (size_t k = 0; k < work->width; k++)
            out[k] /= (float)(stop - start);
}

static OrtStatus *run_mean(void *self, OrtKernelContext *context) {
    const Kernel *kernel = self;
    BEGIN(kernel, context);
    Attention cut = {0};
    Input x;
    float *out;
    OrtStatus *error = get_input(kernel, context, 0, &x);
    if (!error)
        error = get_starts(kernel, context, 1, x.rows, &cut);
    if (!error)
        error = get_output(kernel, context, cut.texts, x.columns, &out);
    if (error)
        return error;
    Mean work = {x.data, cut.starts, x.columns, out};
    run_parallel(&pool, mean_rows, &work, cut.texts);
    return running.error;
}

/* ---- what is made ------------------------------------------------------------------------------------------------ */

static float *copy(const float *from, size_t count) {
    float *to = malloc((count ? count : 1) * sizeof(float));
    if (to)
        memcpy(to, from, count * sizeof(float));
    return to;
}

static void destroy(void *self) {
    Kernel *kernel = self;
    release_linear(kernel->first);
    release_linear(kernel->second);
    free(kernel->norm_weight);
    free(kernel->norm_bias);
    free(kernel->by_distance);
    free(kernel);
}

static Kernel *begin(const OrtApi *api, Reader *reader) {
    Kernel *kernel = calloc(1, sizeof *kernel);
    if (!kernel) {
        reader->error = failure(api, "fastembed_rt: no memory");
        return NULL;
    }
    kernel->api = api;
    kernel->kernels = choose();
    if (!kernel->kernels)
        reader->error = failure(api, "fastembed_rt: this processor has none of AVX512-VNNI, AVX-VNNI, AVX2 with FMA");
    return kernel;
}

static OrtStatus *end(Kernel *kernel, Reader *reader, void **out) {
    if (reader->error) {
        if (kernel)
            destroy(kernel);
        return reader->error;
    }
    *out = kernel;
    return NULL;
}

static void read_activation(Kernel *kernel, Reader *reader) {
    static const struct { const char *name; Activation activation; } rows[] = {
        {"", NO_ACTIVATION}, {"gelu", GELU}, {"gelu_tanh", GELU_TANH}, {"silu", SILU}, {"relu", RELU}, {"tanh", TANH},
    };
    char name[16] = "";
    size_t size = sizeof name;
    OrtStatus *status =
        CALL(reader->api, AttributeString, ATTRIBUTE_STRING)(reader->info, "activation", name, &size);
    if (status)
        CALL(reader->api, ReleaseStatus, RELEASE_STATUS)(status);
    for (size_t k = 0; k < sizeof rows / sizeof rows[0]; k++)
        if (!strcmp(rows[k].name, name)) {
            kernel->activation = rows[k].activation;
            return;
        }
    if (!reader->error)
        reader->error = failure(reader->api, "fastembed_rt: activation is not known");
}

static void read_finish(Kernel *kernel, Reader *reader, size_t width) {
    int64_t one = 0, found = (int64_t)width;
    kernel->has_residual = (int)read_int(reader, "residual", 0);
    if (kernel->has_residual)
        kernel->residual_input = reader->next++;
    if (!read_int(reader, "norm", 0))
        return;
    kernel->finish.epsilon = read_float(reader, "epsilon");
    kernel->finish.rms = (int)read_int(reader, "rms", 0);
    const float *weight = read_constant(reader, FLOAT_TYPE, &one, &found), *bias = NULL;
    int fits = !weight || (size_t)found == width;
    if (read_int(reader, "norm_bias", 0)) {
        bias = read_constant(reader, FLOAT_TYPE, &one, &found);
        fits = fits && (!bias || (size_t)found == width);
    }
    if (!reader->error && !fits)
        reader->error = failure(reader->api, "fastembed_rt: the normalization is not as wide as the output");
    if (reader->error)
        return;
    kernel->finish.weight = kernel->norm_weight = copy(weight, width);
    if (bias)
        kernel->finish.bias = kernel->norm_bias = copy(bias, width);
    if (!kernel->norm_weight || (bias && !kernel->norm_bias))
        reader->error = failure(reader->api, "fastembed_rt: no memory");
}

static void read_shape(Kernel *kernel, Reader *reader) {
    Attention *shape = &kernel->shape;
    shape->heads = (size_t)read_int(reader, "heads", 0);
    shape->kv_heads = (size_t)read_int(reader, "kv_heads", (int64_t)shape->heads);
    shape->size = (size_t)read_int(reader, "size", 0);
    shape->first_only = (int)read_int(reader, "first_only", 0);
    shape->before = read_int(reader, "before", -1);
    shape->after = read_int(reader, "after", -1);
    shape->scale = 1.0f;
    if (shape->heads < 1 || shape->kv_heads < 1 || shape->heads % shape->kv_heads) {
        if (!reader->error)
            reader->error = failure(reader->api, "fastembed_rt: impossible heads");
        return;
    }
    if (read_int(reader, "by_distance", 0)) { /* (heads, 2 * reach - 1) */
        int64_t heads = 0, columns = 0;
        const float *table = read_constant(reader, FLOAT_TYPE, &heads, &columns);
        if (!reader->error && ((size_t)heads != shape->heads || columns % 2 == 0))
            reader->error = failure(reader->api, "fastembed_rt: the bias by distance does not fit the heads");
        if (reader->error)
            return;
        shape->reach = (columns + 1) / 2;
        shape->by_distance = kernel->by_distance = copy(table, (size_t)(heads * columns));
        if (!kernel->by_distance)
            reader->error = failure(reader->api, "fastembed_rt: no memory");
    }
}

static OrtStatus *create_linear(const OrtCustomOp *op, const OrtApi *api, const OrtKernelInfo *info, void **out) {
    Reader reader = {api, info, 1, NULL};
    Kernel *kernel = begin(api, &reader);
    (void)op;
    if (!reader.error)
        kernel->first = read_linear(&reader, kernel->kernels, "linear");
    if (!reader.error)
        read_activation(kernel, &reader);
    if (!reader.error)
        read_finish(kernel, &reader, kernel->first->outputs);
    return end(kernel, &reader, out);
}

static OrtStatus *create_feed_forward(const OrtCustomOp *op, const OrtApi *api, const OrtKernelInfo *info,
                                      void **out) {
    Reader reader = {api, info, 1, NULL};
    Kernel *kernel = begin(api, &reader);
    (void)op;
    if (!reader.error)
        kernel->first = read_linear(&reader, kernel->kernels, "up");
    if (!reader.error)
        kernel->second = read_linear(&reader, kernel->kernels, "down");
    if (!reader.error) {
        kernel->gated = (int)read_int(&reader, "gated", 0);
        size_t hidden = kernel->second->inputs;
        if (kernel->first->outputs != (kernel->gated ? 2 * hidden : hidden) || (kernel->gated && hidden % 16))
            reader.error = failure(api, "fastembed_rt: up and down do not fit together");
    }
    if (!reader.error)
        read_activation(kernel, &reader);
    if (!reader.error)
        read_finish(kernel, &reader, kernel->second->outputs);
    return end(kernel, &reader, out);
}

static OrtStatus *create_packed_attention(const OrtCustomOp *op, const OrtApi *api, const OrtKernelInfo *info,
                                          void **out) {
    Reader reader = {api, info, 4, NULL};
    Kernel *kernel = begin(api, &reader);
    (void)op;
    if (!reader.error)
        read_shape(kernel, &reader);
    return end(kernel, &reader, out);
}

static OrtStatus *create_attention_block(const OrtCustomOp *op, const OrtApi *api, const OrtKernelInfo *info,
                                         void **out) {
    Reader reader = {api, info, 2, NULL};
    Kernel *kernel = begin(api, &reader);
    (void)op;
    if (!reader.error)
        read_shape(kernel, &reader);
    if (!reader.error)
        kernel->first = read_linear(&reader, kernel->kernels, "input");
    if (!reader.error)
        kernel->second = read_linear(&reader, kernel->kernels, "output");
    if (!reader.error) {
        size_t width = kernel->shape.heads * kernel->shape.size, kv_width = kernel->shape.kv_heads * kernel->shape.size;
        if (!width || kernel->first->outputs != width + 2 * kv_width || kernel->second->inputs != width)
            reader.error = failure(api, "fastembed_rt: projections and heads do not fit together");
    }
    if (!reader.error)
        read_finish(kernel, &reader, kernel->second->outputs);
    return end(kernel, &reader, out);
}

static OrtStatus *create_plain(const OrtCustomOp *op, const OrtApi *api, const OrtKernelInfo *info, void **out) {
    Reader reader = {api, info, 0, NULL};
    Kernel *kernel = begin(api, &reader);
    (void)op;
    return end(kernel, &reader, out);
}

/* ---- how onnxruntime sees them ------------------------------------------------------------------------------------ */

static const char *on_cpu(const OrtCustomOp *op) { (void)op; return "CPUExecutionProvider"; }
static int any_type(const OrtCustomOp *op, size_t index) { (void)op; (void)index; return ANY_TYPE; }
static int float_type(const OrtCustomOp *op, size_t index) { (void)op; (void)index; return FLOAT_TYPE; }
static size_t one(const OrtCustomOp *op) { (void)op; return 1; }
static int variadic(const OrtCustomOp *op, size_t index) { (void)op; (void)index; return VARIADIC; }
static int required(const OrtCustomOp *op, size_t index) { (void)op; (void)index; return REQUIRED; }
static int default_memory(const OrtCustomOp *op, size_t index) { (void)op; (void)index; return 0; }
static int at_least_one(const OrtCustomOp *op) { (void)op; return 1; }
static int no(const OrtCustomOp *op) { (void)op; return 0; }

#define OPERATOR(label, made, ran)                                                                                     \
    static const char *label##_name(const OrtCustomOp *op) { (void)op; return #label; }                               \
    static const OrtCustomOp label = {                                                                                 \
        .version = API_VERSION, .name = label##_name, .provider = on_cpu, .input_type = any_type, .input_count = one, \
        .output_type = float_type, .output_count = one, .destroy = destroy, .input_characteristic = variadic,         \
        .output_characteristic = required, .input_memory = default_memory, .variadic_input_least = at_least_one,      \
        .variadic_input_homogeneous = no, .variadic_output_least = at_least_one, .variadic_output_homogeneous = no,   \
        .create = made, .run = ran,                                                                                    \
    };

OPERATOR(QuantLinear, create_linear, run_linear)
OPERATOR(QuantFeedForward, create_feed_forward, run_feed_forward)
OPERATOR(PackedAttention, create_packed_attention, run_packed_attention)
OPERATOR(QuantAttention, create_attention_block, run_attention_block)
OPERATOR(QuantEmbedding, create_plain, run_embedding)
OPERATOR(PackedMean, create_plain, run_mean)

EXPORTED OrtStatus *RegisterCustomOps(OrtSessionOptions *options, const OrtApiBase *base) {
    static OrtCustomOpDomain *domain; /* lives as long as the library: sessions refer to it */
    const OrtCustomOp *operators[] = {&QuantLinear, &QuantFeedForward, &PackedAttention,
                                      &QuantAttention, &QuantEmbedding, &PackedMean};
    const OrtApi *api = base->get_api(API_VERSION);
    if (!api) /* before 1.17; version 1 has the status that says so */
        return CALL(base->get_api(1), CreateStatus, CREATE_STATUS)(
            FAILED, "fastembed_rt: onnxruntime is older than 1.17; upgrade it");
    if (!domain) { /* sessions are made under the interpreter's lock */
        OrtCustomOpDomain *made = NULL;
        OrtStatus *error = CALL(api, CreateCustomOpDomain, CREATE_CUSTOM_OP_DOMAIN)("fastembed_rt", &made);
        for (size_t k = 0; !error && k < sizeof operators / sizeof operators[0]; k++)
            error = CALL(api, CustomOpDomainAdd, CUSTOM_OP_DOMAIN_ADD)(made, operators[k]);
        if (error)
            return error;
        domain = made;
    }
    return CALL(api, AddCustomOpDomain, ADD_CUSTOM_OP_DOMAIN)(options, domain);
}
