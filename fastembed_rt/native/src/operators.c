/* The operators of the domain "fastembed_rt", as onnxruntime loads them: RegisterCustomOps.
 *
 * QuantLinear       x, group "linear", add-norm                    -> y
 * QuantFeedForward  x, groups "up" and "down", add-norm            -> y
 * PackedAttention   query, key, value, starts, [by_distance]       -> mixed
 * QuantAttention    x, starts, [by_distance], groups "input" and "output", add-norm -> y
 * QuantEmbedding    ids, values int8 (rows, width), scales (rows, 1)  -> (tokens, width): values[id] * scales[id]
 * PackedMean        x, starts                                      -> (texts, width), 0 for a text without tokens
 *
 * x and y are (tokens, width) float32, the texts one after the other; starts is (texts + 1) int64. A group is
 * [smooth], then for each of <group>_layers: values int8, scale, bias, [outlier rows]. Add-norm is [residual],
 * [norm weight, [norm bias]], as the attributes residual, norm and norm_bias say. <group>_tails is for "linear" without
 * activation, "down" and "output": what is beyond the input's range counts in float, but for the outlier channels,
 * which have their own rows (see Linear).
 */
#include <float.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "layers.h"
#include "processor.h"
#include "selfcheck.h"

#define EXPORTED __attribute__((visibility("default")))

typedef struct {
    Node node;
    const Kernels *kernels;
    const Linear *first, *second; /* linear; up and down; input and output */
    Activation activation;
    int gated, has_residual;
    size_t residual_input;
    AddNorm norm;
    Attention shape;
    float *norm_weight, *norm_bias, *by_distance; /* copies: a constant may be freed when the session is ready */
    int64_t distances;
} Kernel;

/* ---- choosing --------------------------------------------------------------------------------------------------- */

static const Kernels *choose(void) {
    const char *wanted = getenv("FASTEMBED_RT_KERNELS");
    const unsigned sets = processor_sets();
    const struct { const Kernels *kernels; unsigned runs; } rows[] = {
        {&kernels_avx512vnni, sets & HAS_AVX512VNNI},
        {&kernels_avxvnni, sets & HAS_AVXVNNI},
        {&kernels_avx2, sets & HAS_AVX2},
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

/* What those kernels compute otherwise than a plain loop does, "" where nothing; see selfcheck.c. */
EXPORTED const char *fastembed_rt_selfcheck(void) {
    const Kernels *found = choose();
    return found ? selfcheck(found) : "";
}

/* ---- inputs and outputs ----------------------------------------------------------------------------------------- */

/* x, and what is added to a call's outputs and how they are normalized. */
static OrtStatus *get_rows(const Kernel *kernel, OrtKernelContext *context, size_t inputs, size_t outputs, Tensor *x,
                           AddNorm *norm) {
    const Form x_form = {"x", FLOAT_TYPE, 2, ANY, (int64_t)inputs};
    OrtStatus *error = get_input(&kernel->node, context, 0, &x_form, 0, x);
    *norm = kernel->norm;
    if (!error && kernel->has_residual) {
        const Form form = {"residual", FLOAT_TYPE, 2, (int64_t)x->rows, (int64_t)outputs};
        Tensor residual;
        error = get_input(&kernel->node, context, kernel->residual_input, &form, 0, &residual);
        if (!error)
            norm->residual = residual.data;
    }
    return error;
}

/* Starts that rise from 0 to the number of tokens; that they only rise keeps their differences within bounds. */
static OrtStatus *get_starts(const Kernel *kernel, OrtKernelContext *context, size_t index, size_t tokens,
                             Attention *work) {
    static const Form form = {"starts", INT64_TYPE, 1, 1, ANY};
    Tensor found;
    OrtStatus *error = get_input(&kernel->node, context, index, &form, 0, &found);
    if (error)
        return error;
    if (!found.columns)
        return refusal(&kernel->node, "starts is empty; without texts it is [0]");
    const int64_t *starts = found.data;
    size_t texts = found.columns - 1;
    if (starts[0] != 0 || starts[texts] != (int64_t)tokens)
        return refusal(&kernel->node, "starts go from %lld to %lld and have to go from 0 to the number of tokens, %zu",
                       (long long)starts[0], (long long)starts[texts], tokens);
    for (size_t text = 0; text < texts; text++) {
        int64_t from = starts[text], to = starts[text + 1];
        if (to < from)
            return refusal(&kernel->node, "starts fall from %lld to %lld at text %zu", (long long)from, (long long)to,
                           text);
        if (work->by_distance && to - from > work->reach)
            return refusal(&kernel->node, "text %zu has %lld tokens, the bias by distance reaches over %lld", text,
                           (long long)(to - from), (long long)work->reach);
    }
    work->starts = starts;
    work->texts = texts;
    return NULL;
}

typedef struct {
    const OrtApi *api;
    OrtKernelContext *context;
    OrtStatus *error;
} Running;

/* Pieces of a call, which the session's threads take one after another, as many threads as it has up to this number.
 * One costs some hundred instructions, so thousands of tasks are not as many pieces. Where one ends changes no bits. */
enum { MOST_PIECES = 32 };

static void run_parallel(const Pool *pool, void (*fn)(void *, size_t), void *argument, size_t count) {
    Running *running = pool->context;
    size_t pieces = count < MOST_PIECES ? count : MOST_PIECES;
    OrtStatus *error =
        CALL(running->api, ParallelFor, PARALLEL_FOR)(running->context, fn, count, pieces, argument);
    if (error && !running->error)
        running->error = error;
    else if (error)
        CALL(running->api, ReleaseStatus, RELEASE_STATUS)(error);
}

/* ---- what runs --------------------------------------------------------------------------------------------------- */

static Running running_in(const Kernel *kernel, OrtKernelContext *context) {
    return (Running){kernel->node.api, context, NULL};
}

static Pool pool_of(Running *running) { return (Pool){run_parallel, running}; }

/* The status of a call whose kernels say whether they had the memory they need. */
static OrtStatus *done(const Kernel *kernel, const Running *running, int had_memory) {
    return running->error || had_memory ? running->error : no_memory(&kernel->node);
}

static OrtStatus *run_linear(void *self, OrtKernelContext *context) {
    const Kernel *kernel = self;
    Running running = running_in(kernel, context);
    Pool pool = pool_of(&running);
    Tensor x;
    AddNorm norm;
    float *out;
    OrtStatus *error = get_rows(kernel, context, kernel->first->inputs, kernel->first->outputs, &x, &norm);
    if (!error)
        error = get_output(&kernel->node, context, x.rows, kernel->first->outputs, &out);
    if (error || !x.rows)
        return error;
    return done(kernel, &running, kernel->kernels->linear(kernel->first, x.data, x.rows, kernel->activation, &norm,
                                                          out, &pool));
}

static OrtStatus *run_feed_forward(void *self, OrtKernelContext *context) {
    const Kernel *kernel = self;
    Running running = running_in(kernel, context);
    Pool pool = pool_of(&running);
    Tensor x;
    AddNorm norm;
    float *out;
    OrtStatus *error = get_rows(kernel, context, kernel->first->inputs, kernel->second->outputs, &x, &norm);
    if (!error)
        error = get_output(&kernel->node, context, x.rows, kernel->second->outputs, &out);
    if (error || !x.rows)
        return error;
    int had_memory = kernel->kernels->feed_forward(kernel->first, kernel->second, x.data, x.rows, kernel->activation,
                                                   kernel->gated, &norm, out, &pool);
    return done(kernel, &running, had_memory);
}

static OrtStatus *run_packed_attention(void *self, OrtKernelContext *context) {
    static const Form query_form = {"query", FLOAT_TYPE, 2, ANY, ANY};
    const Kernel *kernel = self;
    Running running = running_in(kernel, context);
    Pool pool = pool_of(&running);
    Attention work = kernel->shape;
    Tensor query, key, value;
    OrtStatus *error = get_input(&kernel->node, context, 0, &query_form, 0, &query);
    if (error)
        return error;
    size_t size = query.columns / work.heads, width = work.heads * size, kv_width = work.kv_heads * size;
    if (!size || size > MOST_SIZE || query.columns != width || (work.size && work.size != size))
        return refusal(&kernel->node, "query is %zu wide, which is not that of %zu heads", query.columns, work.heads);
    const Form key_form = {"key", FLOAT_TYPE, 2, ANY, (int64_t)kv_width};
    error = get_input(&kernel->node, context, 1, &key_form, 0, &key);
    if (error)
        return error;
    const Form value_form = {"value", FLOAT_TYPE, 2, (int64_t)key.rows, (int64_t)kv_width};
    error = get_input(&kernel->node, context, 2, &value_form, 0, &value);
    if (!error)
        error = get_starts(kernel, context, 3, key.rows, &work);
    if (error)
        return error;
    size_t queries = work.first_only ? work.texts : key.rows;
    if (query.rows != queries)
        return refusal(&kernel->node, "query has %zu rows and has to have %zu", query.rows, queries);
    error = get_output(&kernel->node, context, query.rows, width, &work.output);
    if (error || !query.rows)
        return error;
    work.size = size;
    work.query = query.data;
    work.key = key.data;
    work.value = value.data;
    work.query_stride = work.output_stride = width;
    work.key_stride = work.value_stride = kv_width;
    if (work.first_only) /* a text without tokens has no attention to write */
        memset(work.output, 0, query.rows * width * sizeof(float));
    return done(kernel, &running, kernel->kernels->attention(&work, &pool));
}

static OrtStatus *run_attention_block(void *self, OrtKernelContext *context) {
    const Kernel *kernel = self;
    Running running = running_in(kernel, context);
    Pool pool = pool_of(&running);
    Attention work = kernel->shape;
    Tensor x;
    AddNorm norm;
    float *out;
    OrtStatus *error = get_rows(kernel, context, kernel->first->inputs, kernel->second->outputs, &x, &norm);
    if (!error)
        error = get_starts(kernel, context, 1, x.rows, &work);
    if (!error)
        error = get_output(&kernel->node, context, x.rows, kernel->second->outputs, &out);
    if (error || !x.rows)
        return error;
    return done(kernel, &running, kernel->kernels->attention_block(kernel->first, &work, kernel->second, x.data,
                                                                   &norm, out, &pool));
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
        size_t id = (size_t)work->ids[r];
        const int8_t *row = work->table + id * width;
        float scale = float_at(work->scales, id), *to = work->out + r * width;
        for (size_t k = 0; k < width; k++)
            to[k] = (float)row[k] * scale;
    }
}

static OrtStatus *run_embedding(void *self, OrtKernelContext *context) {
    static const Form ids_form = {"ids", INT64_TYPE, 1, 1, ANY}, table_form = {"values", INT8_TYPE, 2, ANY, ANY};
    const Kernel *kernel = self;
    Running running = running_in(kernel, context);
    Pool pool = pool_of(&running);
    Tensor ids, table, scales;
    float *out;
    OrtStatus *error = get_input(&kernel->node, context, 0, &ids_form, 0, &ids);
    if (!error)
        error = get_input(&kernel->node, context, 1, &table_form, 0, &table);
    if (error)
        return error;
    const Form scales_form = {"scales", FLOAT_TYPE, 2, (int64_t)table.rows, 1};
    error = get_input(&kernel->node, context, 2, &scales_form, 1, &scales); /* mapped from a file, at any address */
    for (size_t k = 0; !error && k < ids.columns; k++) {
        int64_t id = ((const int64_t *)ids.data)[k];
        if (id < 0 || id >= (int64_t)table.rows)
            error = refusal(&kernel->node, "token id %lld is not in the vocabulary of %zu", (long long)id, table.rows);
    }
    if (!error)
        error = get_output(&kernel->node, context, ids.columns, table.columns, &out);
    if (error || !ids.columns)
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
    static const Form form = {"x", FLOAT_TYPE, 2, ANY, ANY};
    const Kernel *kernel = self;
    Running running = running_in(kernel, context);
    Pool pool = pool_of(&running);
    Attention cut = {0};
    Tensor x;
    float *out;
    OrtStatus *error = get_input(&kernel->node, context, 0, &form, 0, &x);
    if (!error)
        error = get_starts(kernel, context, 1, x.rows, &cut);
    if (!error)
        error = get_output(&kernel->node, context, cut.texts, x.columns, &out);
    if (error || !cut.texts || !x.columns)
        return error;
    Mean work = {x.data, cut.starts, x.columns, out};
    run_parallel(&pool, mean_rows, &work, cut.texts);
    return running.error;
}

/* ---- what is made ------------------------------------------------------------------------------------------------ */

static void destroy(void *self) {
    Kernel *kernel = self;
    release_linear(kernel->first);
    release_linear(kernel->second);
    free(kernel->norm_weight);
    free(kernel->norm_bias);
    free(kernel->by_distance);
    free(kernel);
}

/* A kernel without memory to be in is a NULL with an error. */
static Kernel *begin(const OrtCustomOp *op, const OrtApi *api, Reader *reader) {
    reader->node = (Node){api, op->name(op)};
    prepare_refusals(api);
    Kernel *kernel = calloc(1, sizeof *kernel);
    if (!kernel) {
        reader->error = no_memory(&reader->node);
        return NULL;
    }
    kernel->node = reader->node;
    kernel->kernels = choose();
    if (!kernel->kernels)
        refuse(reader, "this processor has none of AVX512-VNNI, AVX-VNNI, AVX2 with FMA");
    return kernel;
}

static OrtStatus *end(Kernel *kernel, Reader *reader, void **out) {
    read_end(reader);
    if (reader->error) {
        if (kernel)
            destroy(kernel);
        return reader->error;
    }
    *out = kernel;
    return NULL;
}

/* A constant may be freed when the session is ready, and lies at any address. */
static float *copy(Reader *reader, Tensor from) {
    size_t bytes = from.rows * from.columns * sizeof(float);
    float *to = reader->error ? NULL : malloc(bytes);
    if (to)
        memcpy(to, from.data, bytes);
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

static void read_add_norm(Kernel *kernel, Reader *reader, size_t width) {
    kernel->has_residual = read_flag(reader, "residual");
    if (kernel->has_residual)
        kernel->residual_input = reader->next++;
    if (!read_flag(reader, "norm"))
        return;
    kernel->norm.epsilon = read_real(reader, "epsilon", 0.0f, FLT_MAX);
    kernel->norm.rms = read_flag(reader, "rms");
    int has_bias = read_flag(reader, "norm_bias");
    Tensor weight = read_constant(reader, &(Form){"the norm's weight", FLOAT_TYPE, 1, 1, (int64_t)width});
    kernel->norm.weight = kernel->norm_weight = copy(reader, weight);
    if (has_bias) {
        Tensor bias = read_constant(reader, &(Form){"the norm's bias", FLOAT_TYPE, 1, 1, (int64_t)width});
        kernel->norm.bias = kernel->norm_bias = copy(reader, bias);
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
    if (!reader->error && heads % kv_heads)
        refuse(reader, "%lld heads do not share %lld heads of keys and values evenly", (long long)heads,
               (long long)kv_heads);
    shape->heads = (size_t)heads;
    shape->kv_heads = (size_t)kv_heads;
    shape->size = (size_t)size;
    if (!read_flag(reader, "by_distance"))
        return;
    /* (heads, 2 * reach - 1) */
    Tensor table = read_constant(reader, &(Form){"the bias by distance", FLOAT_TYPE, 2, heads, ANY});
    if (!reader->error && table.columns % 2 == 0)
        refuse(reader, "the bias by distance has %zu columns, of which none is in the middle", table.columns);
    shape->reach = ((int64_t)table.columns + 1) / 2;
    shape->by_distance = kernel->by_distance = copy(reader, table);
}

static OrtStatus *create_linear(const OrtCustomOp *op, const OrtApi *api, const OrtKernelInfo *info, void **out) {
    Reader reader = {.info = info, .next = 1};
    Kernel *kernel = begin(op, api, &reader);
    if (!reader.error)
        kernel->first = read_linear(&reader, kernel->kernels, "linear", MAY_HAVE_TAILS);
    if (!reader.error)
        read_activation(kernel, &reader);
    if (!reader.error && kernel->first->tails && kernel->activation != NO_ACTIVATION)
        refuse(&reader, "attribute linear_tails is for layers without activation");
    if (!reader.error)
        read_add_norm(kernel, &reader, kernel->first->outputs);
    return end(kernel, &reader, out);
}

static OrtStatus *create_feed_forward(const OrtCustomOp *op, const OrtApi *api, const OrtKernelInfo *info,
                                      void **out) {
    Reader reader = {.info = info, .next = 1};
    Kernel *kernel = begin(op, api, &reader);
    if (!reader.error)
        kernel->first = read_linear(&reader, kernel->kernels, "up", NO_TAILS);
    if (!reader.error)
        kernel->second = read_linear(&reader, kernel->kernels, "down", MAY_HAVE_TAILS);
    if (!reader.error) {
        kernel->gated = read_flag(&reader, "gated");
        size_t hidden = kernel->second->inputs;
        if (kernel->first->outputs != (kernel->gated ? 2 * hidden : hidden) || (kernel->gated && hidden % 16))
            refuse(&reader, "up has %zu outputs for %zu inputs of down%s", kernel->first->outputs, hidden,
                   kernel->gated ? ", gated: twice as many and a multiple of 16" : "");
    }
    if (!reader.error)
        read_activation(kernel, &reader);
    if (!reader.error)
        read_add_norm(kernel, &reader, kernel->second->outputs);
    return end(kernel, &reader, out);
}

static OrtStatus *create_packed_attention(const OrtCustomOp *op, const OrtApi *api, const OrtKernelInfo *info,
                                          void **out) {
    Reader reader = {.info = info, .next = 4};
    Kernel *kernel = begin(op, api, &reader);
    if (!reader.error)
        read_shape(kernel, &reader);
    return end(kernel, &reader, out);
}

static OrtStatus *create_attention_block(const OrtCustomOp *op, const OrtApi *api, const OrtKernelInfo *info,
                                         void **out) {
    Reader reader = {.info = info, .next = 2};
    Kernel *kernel = begin(op, api, &reader);
    if (!reader.error)
        read_shape(kernel, &reader);
    if (!reader.error && kernel->shape.first_only)
        refuse(&reader, "attention of first tokens only is PackedAttention's");
    if (!reader.error)
        kernel->first = read_linear(&reader, kernel->kernels, "input", NO_TAILS);
    if (!reader.error)
        kernel->second = read_linear(&reader, kernel->kernels, "output", MAY_HAVE_TAILS);
    if (!reader.error) {
        size_t width = kernel->shape.heads * kernel->shape.size, kv_width = kernel->shape.kv_heads * kernel->shape.size;
        if (!width || kernel->first->outputs != width + 2 * kv_width || kernel->second->inputs != width)
            refuse(&reader, "%zu heads of size %zu do not fit %zu outputs of input and %zu inputs of output",
                   kernel->shape.heads, kernel->shape.size, kernel->first->outputs, kernel->second->inputs);
    }
    if (!reader.error)
        read_add_norm(kernel, &reader, kernel->second->outputs);
    return end(kernel, &reader, out);
}

static OrtStatus *create_embedding(const OrtCustomOp *op, const OrtApi *api, const OrtKernelInfo *info, void **out) {
    Reader reader = {.info = info, .next = 3};
    return end(begin(op, api, &reader), &reader, out);
}

static OrtStatus *create_mean(const OrtCustomOp *op, const OrtApi *api, const OrtKernelInfo *info, void **out) {
    Reader reader = {.info = info, .next = 2};
    return end(begin(op, api, &reader), &reader, out);
}

/* ---- how onnxruntime sees them ----------------------------------------------------------------------------------- */

/* onnxruntime hands `op` to each of the functions in it. */
typedef struct {
    OrtCustomOp op;
    const char *name;
} Operator;

static const char *name_of(const OrtCustomOp *op) { return ((const Operator *)op)->name; }
static const char *on_cpu(const OrtCustomOp *op) { (void)op; return "CPUExecutionProvider"; }
static int any_type(const OrtCustomOp *op, size_t index) { (void)op; (void)index; return ANY_TYPE; }
static int float_type(const OrtCustomOp *op, size_t index) { (void)op; (void)index; return FLOAT_TYPE; }
static size_t one(const OrtCustomOp *op) { (void)op; return 1; }
static int variadic(const OrtCustomOp *op, size_t index) { (void)op; (void)index; return VARIADIC; }
static int required(const OrtCustomOp *op, size_t index) { (void)op; (void)index; return REQUIRED; }
static int default_memory(const OrtCustomOp *op, size_t index) { (void)op; (void)index; return 0; }
static int at_least_one(const OrtCustomOp *op) { (void)op; return 1; }
static int no(const OrtCustomOp *op) { (void)op; return 0; }

/* Every operator takes any inputs and gives one output of float; create and run look at what came. */
#define OPERATOR(name_, create_, run_)                                                                                 \
    {                                                                                                                  \
        .name = name_,                                                                                                 \
        .op = {                                                                                                        \
            .version = API_VERSION, .name = name_of, .provider = on_cpu, .input_type = any_type, .input_count = one,   \
            .output_type = float_type, .output_count = one, .destroy = destroy, .input_characteristic = variadic,      \
            .output_characteristic = required, .input_memory = default_memory, .variadic_input_least = at_least_one,   \
            .variadic_input_homogeneous = no, .variadic_output_least = at_least_one,                                   \
            .variadic_output_homogeneous = no, .create = create_, .run = run_,                                         \
        },                                                                                                             \
    }

static const Operator operators[] = {
    OPERATOR("QuantLinear", create_linear, run_linear),
    OPERATOR("QuantFeedForward", create_feed_forward, run_feed_forward),
    OPERATOR("PackedAttention", create_packed_attention, run_packed_attention),
    OPERATOR("QuantAttention", create_attention_block, run_attention_block),
    OPERATOR("QuantEmbedding", create_embedding, run_embedding),
    OPERATOR("PackedMean", create_mean, run_mean),
};

EXPORTED OrtStatus *RegisterCustomOps(OrtSessionOptions *options, const OrtApiBase *base) {
    static OrtCustomOpDomain *domain; /* lives as long as the library: sessions refer to it */
    const OrtApi *api = base->get_api(API_VERSION);
    if (!api) /* before 1.17; version 1 has the status that says so */
        return CALL(base->get_api(1), CreateStatus, CREATE_STATUS)(
            FAILED, "fastembed_rt: onnxruntime is older than 1.17; upgrade it");
    static pthread_mutex_t registering = PTHREAD_MUTEX_INITIALIZER;
    OrtStatus *error = NULL;
    prepare_refusals(api);
    pthread_mutex_lock(&registering);
    if (!domain) {
        OrtCustomOpDomain *made = NULL;
        error = CALL(api, CreateCustomOpDomain, CREATE_CUSTOM_OP_DOMAIN)("fastembed_rt", &made);
        for (size_t k = 0; !error && k < sizeof operators / sizeof operators[0]; k++)
            error = CALL(api, CustomOpDomainAdd, CUSTOM_OP_DOMAIN_ADD)(made, &operators[k].op);
        domain = error ? NULL : made;
    }
    pthread_mutex_unlock(&registering);
    return error ? error : CALL(api, AddCustomOpDomain, ADD_CUSTOM_OP_DOMAIN)(options, domain);
}
