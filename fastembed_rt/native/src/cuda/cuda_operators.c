/* The operators of the domain "fastembed_rt.cuda", as onnxruntime loads them: RegisterCustomOps.
 *
 * Linear     x (tokens, inputs), w (inputs, outputs), [bias (outputs)]        -> y = act(x w + bias)
 * AddNorm    x, skip (tokens, width), gamma, [beta], [bias]                   -> y = norm(x + skip + bias)
 * EmbedNorm  ids (tokens) int64, words (rows, width), [places, positions], [kinds, types], gamma, [beta]
 *                                                                -> y = norm(words[id] + positions[place] + types[kind])
 * Mean       x (tokens, width), starts (texts + 1) int32                      -> y (texts, width) float32
 *
 * Norm       x (tokens, width), gamma, [beta]                                 -> y = norm(x)
 * SumNorm    x, skip (tokens, width), gamma, [beta]                           -> x + skip, norm(x + skip)
 * Gated      gate, up (tokens, width)                                         -> y = activation(gate) up
 * Turn       x (tokens, ...), places (tokens) int64, cosine, sine (positions, size / 2) float32, [gamma (size)]
 *                -> y (tokens, heads size): the columns of x from `at` on, each head [normalized by RMS and] turned
 * Attention  query, key, value (tokens, ...), starts, places (longest) int64, [seen (texts) int32],
 *            [bias (2 P - 1, heads)]      -> y (tokens, heads size): softmax(query key' + bias) value, of each text
 * WordWeights  x (tokens, width), starts -> y (texts, width) float32: the largest (added: the sum) of log(1 + relu(x))
 * Unit       x (tokens, width)                                                -> y (tokens, width) float32, x / |x|
 * Dense      x, w (in_features, out_features), [bias], all float32            -> y = activation(x w + bias) float32
 *
 * and with e4m3 numbers of 8 bits, each scaled so that products read them as they are; all else float16:
 *
 * Fp8Linear     x (tokens, inputs) e4m3, w (outputs, inputs) e4m3, [bias (outputs)]      -> y = act(scale x w' + bias)
 * Fp8LinearFp8  the same and out_scale (1) float32              -> e4m3 of y out_scale; what is beyond 448 becomes 448
 * Fp8AddNorm, Fp8EmbedNorm  inputs of the others, weights, shifts (width)  -> y; e4m3 of it with those for gamma and beta
 * Fp8Quantize   x, weights, shifts (width)                                               -> e4m3 of x weights + shifts
 *
 * The others, each but Dense, as <name>Float16 and <name>BFloat16, the type of everything that names none. Attributes
 * say what is there: in_features, out_features, activation ("", "gelu_tanh", "relu"; of Gated and Dense also "gelu",
 * "silu", "sigmoid", "tanh"), bias of Linear and Dense; scale of Linear with Fp8; heads, key_heads, size, query_at, key_at,
 * value_at (the first column of each), before, after (how far a token sees; -1: all), seen, bias of Attention; times of
 * WordWeights; width, epsilon, rms, beta, bias, positions, types, norm of the others. Widths are multiples of 8, but
 * Dense's. What a row, or a text, becomes does not depend on what lies beside it.
 */
#include <float.h>
#include <pthread.h>
#include <stdlib.h>

#include "device_kernels.h"
#include "product.h"

#define EXPORTED __attribute__((visibility("default")))
#define GPU_STREAM 193 /* KernelContext_GetGPUComputeStream */
typedef OrtStatus *(*GpuStream)(const OrtKernelContext *context, void **out);

static const int element[NUMBERS] = {FLOAT16_TYPE, BF16_TYPE};

typedef struct {
    OrtCustomOp op; /* onnxruntime hands it to each of the functions in it */
    const char *name;
    Number number;
} Operator;

/* A node of a session. Products and kernels are made for the device of the thread that makes the node; where that thread
 * has none yet, by the first call. */
typedef struct {
    Node node;
    Number number;
    Shape shape;
    DeviceKernel which;
    int64_t width, outputs, heads, key_heads, size, before, after, at[3];
    int activation, times, added, has_skip, has_norm, has_seen;
    int has_beta, has_bias, has_positions, has_types, rms, fp8; /* fp8: weights and shifts, a second result */
    float epsilon;
    pthread_mutex_t lock;
    int ready, device; /* for which it is ready */
    Product product;
    void *function;
} Kernel;

/* ---- making ------------------------------------------------------------------------------------------------------- */

static int is_product(const Kernel *kernel) { return kernel->shape.outputs != 0; }

static OrtStatus *make_ready(Kernel *kernel) {
    if (__atomic_load_n(&kernel->ready, __ATOMIC_ACQUIRE))
        return NULL;
    pthread_mutex_lock(&kernel->lock);
    OrtStatus *error = NULL;
    if (!kernel->ready) {
        kernel->device = current_device();
        error = is_product(kernel) ? create_product(&kernel->node, kernel->shape, &kernel->product)
                                   : load_kernel(&kernel->node, kernel->which, kernel->number, &kernel->function);
        __atomic_store_n(&kernel->ready, !error, __ATOMIC_RELEASE);
    }
    pthread_mutex_unlock(&kernel->lock);
    return error;
}

static void destroy(void *self) {
    Kernel *kernel = self;
    if (is_product(kernel))
        destroy_product(&kernel->product);
    pthread_mutex_destroy(&kernel->lock);
    free(kernel);
}

static Kernel *begin(const OrtCustomOp *op, const OrtApi *api, Reader *reader) {
    reader->node = (Node){api, op->name(op)};
    prepare_refusals(api);
    Kernel *kernel = calloc(1, sizeof *kernel);
    if (!kernel) {
        reader->error = no_memory(&reader->node);
        return NULL;
    }
    kernel->node = reader->node;
    kernel->number = ((const Operator *)op)->number;
    pthread_mutex_init(&kernel->lock, NULL);
    if (!cublaslt())
        refuse(reader, "cuBLASLt is not open");
    return kernel;
}

static OrtStatus *end(Kernel *kernel, Reader *reader, void **out) {
    read_end(reader);
    if (!reader->error && (on_host() || current_device() >= 0))
        reader->error = make_ready(kernel);
    if (reader->error) {
        if (kernel)
            destroy(kernel);
        return reader->error;
    }
    *out = kernel;
    return NULL;
}

/* A width that goes in vectors, 0 after an error. */
static int64_t read_width(Reader *reader, const char *name, int64_t most) {
    int64_t found = read_whole(reader, name, VECTOR, most, NEEDED);
    if (!reader->error && found % VECTOR)
        refuse(reader, "attribute %s is %lld and has to be a multiple of %d", name, (long long)found, VECTOR);
    return reader->error ? 0 : found;
}

static OrtStatus *create_product_of(const OrtCustomOp *op, const OrtApi *api, const OrtKernelInfo *info, int32_t type,
                                    int32_t result, void **out) {
    static const char *const names[] = {"", "gelu_tanh", "relu"};
    static const int epilogues[] = {0, LT_EPILOGUE_GELU, LT_EPILOGUE_RELU};
    Reader reader = {.info = info, .next = 2};
    Kernel *kernel = begin(op, api, &reader);
    Shape shape = {.inputs = read_width(&reader, "in_features", MOST_INPUTS),
                   .outputs = read_width(&reader, "out_features", MOST_OUTPUTS)};
    if (!reader.error && type == LT_R_8F_E4M3 && (shape.inputs % FP8_MULTIPLE || shape.outputs % FP8_MULTIPLE))
        refuse(&reader, "FP8 products have multiples of %d inputs and outputs, not %lld and %lld", FP8_MULTIPLE,
               (long long)shape.inputs, (long long)shape.outputs);
    const size_t activation = read_choice(&reader, "activation", names, sizeof names / sizeof names[0]);
    if (!reader.error) {
        kernel->has_bias = read_flag(&reader, "bias");
        reader.next += (size_t)kernel->has_bias;
        reader.next += result == LT_R_8F_E4M3; /* out_scale */
        kernel->product.alpha = type == LT_R_8F_E4M3 ? read_real(&reader, "scale", FLT_MIN, FLT_MAX) : 1.0f;
        shape.type = type;
        shape.out = result;
        shape.epilogue = epilogues[activation] | (kernel->has_bias ? LT_EPILOGUE_BIAS : 0);
        shape.epilogue = shape.epilogue ? shape.epilogue : LT_EPILOGUE_NONE;
        kernel->shape = shape;
    }
    return end(kernel, &reader, out);
}

static OrtStatus *create_linear(const OrtCustomOp *op, const OrtApi *api, const OrtKernelInfo *info, void **out) {
    const int32_t type = ((const Operator *)op)->number == FLOAT16 ? LT_R_16F : LT_R_16BF;
    return create_product_of(op, api, info, type, type, out);
}

static OrtStatus *create_fp8_linear(const OrtCustomOp *op, const OrtApi *api, const OrtKernelInfo *info, void **out) {
    return create_product_of(op, api, info, LT_R_8F_E4M3, LT_R_16F, out);
}

static OrtStatus *create_fp8_linear_fp8(const OrtCustomOp *op, const OrtApi *api, const OrtKernelInfo *info, void **out) {
    return create_product_of(op, api, info, LT_R_8F_E4M3, LT_R_8F_E4M3, out);
}

static void read_norm(Kernel *kernel, Reader *reader) {
    int64_t width = read_width(reader, "width", MOST_WIDTH);
    float epsilon = read_real(reader, "epsilon", 0.0f, FLT_MAX);
    int rms = read_flag(reader, "rms"), beta = read_flag(reader, "beta");
    if (reader->error)
        return;
    kernel->width = width;
    kernel->epsilon = epsilon;
    kernel->rms = rms;
    kernel->has_beta = beta;
    reader->next += 1 + (size_t)beta;
}

static OrtStatus *create_an_add_norm(const OrtCustomOp *op, const OrtApi *api, const OrtKernelInfo *info, int fp8,
                                     void **out) {
    Reader reader = {.info = info, .next = 2};
    Kernel *kernel = begin(op, api, &reader);
    if (!reader.error)
        read_norm(kernel, &reader);
    if (!reader.error) {
        kernel->which = fp8 ? ADD_NORM_FP8 : ADD_NORM;
        kernel->fp8 = fp8;
        kernel->has_bias = read_flag(&reader, "bias");
        reader.next += (size_t)(kernel->has_bias + 2 * fp8);
    }
    return end(kernel, &reader, out);
}

static OrtStatus *create_an_embed_norm(const OrtCustomOp *op, const OrtApi *api, const OrtKernelInfo *info, int fp8,
                                       void **out) {
    Reader reader = {.info = info, .next = 2};
    Kernel *kernel = begin(op, api, &reader);
    if (!reader.error)
        read_norm(kernel, &reader);
    if (!reader.error) {
        kernel->which = fp8 ? EMBED_NORM_FP8 : EMBED_NORM;
        kernel->fp8 = fp8;
        kernel->has_positions = read_flag(&reader, "positions");
        kernel->has_types = read_flag(&reader, "types");
        reader.next += 2 * (size_t)(kernel->has_positions + kernel->has_types + fp8);
    }
    return end(kernel, &reader, out);
}

static OrtStatus *create_add_norm(const OrtCustomOp *op, const OrtApi *api, const OrtKernelInfo *info, void **out) {
    return create_an_add_norm(op, api, info, 0, out);
}

static OrtStatus *create_embed_norm(const OrtCustomOp *op, const OrtApi *api, const OrtKernelInfo *info, void **out) {
    return create_an_embed_norm(op, api, info, 0, out);
}

static OrtStatus *create_fp8_add_norm(const OrtCustomOp *op, const OrtApi *api, const OrtKernelInfo *info, void **out) {
    return create_an_add_norm(op, api, info, 1, out);
}

static OrtStatus *create_fp8_embed_norm(const OrtCustomOp *op, const OrtApi *api, const OrtKernelInfo *info, void **out) {
    return create_an_embed_norm(op, api, info, 1, out);
}

static OrtStatus *create_fp8_quantize(const OrtCustomOp *op, const OrtApi *api, const OrtKernelInfo *info, void **out) {
    Reader reader = {.info = info, .next = 3};
    Kernel *kernel = begin(op, api, &reader);
    if (!reader.error) {
        kernel->which = QUANTIZE_FP8;
        kernel->width = read_width(&reader, "width", MOST_INPUTS);
    }
    return end(kernel, &reader, out);
}

static OrtStatus *create_mean(const OrtCustomOp *op, const OrtApi *api, const OrtKernelInfo *info, void **out) {
    Reader reader = {.info = info, .next = 2};
    Kernel *kernel = begin(op, api, &reader);
    if (!reader.error) {
        kernel->which = MEAN;
        kernel->width = read_width(&reader, "width", MOST_WIDTH);
    }
    return end(kernel, &reader, out);
}

/* ---- running ------------------------------------------------------------------------------------------------------ */

/* What a call reads, one input after the other; the first error stays. */
typedef struct {
    Kernel *kernel;
    OrtKernelContext *context;
    size_t next;
    OrtStatus *error;
    void *stream;
} Call;

static Call begin_call(void *self, OrtKernelContext *context) {
    Call call = {.kernel = self, .context = context};
    call.error = make_ready(self);
    /* Handles and functions are of one device, as the constants of a session are. */
    if (!call.error && current_device() != call.kernel->device)
        call.error = refusal(&call.kernel->node, "the session is on device %d and the call on %d", call.kernel->device,
                             current_device());
    if (!call.error && !on_host())
        call.error = CALL(call.kernel->node.api, GpuStream, GPU_STREAM)(context, &call.stream);
    return call;
}

static Tensor input(Call *call, const char *name, int type, size_t rank, int64_t rows, int64_t columns) {
    Tensor found = {0};
    if (call->error)
        return found;
    call->error = get_input(&call->kernel->node, call->context, call->next++,
                            &(Form){name, type, rank, rows, columns}, 0, &found);
    if (!call->error && rank == 2 && (uintptr_t)found.data % ALIGNED)
        call->error = refusal(&call->kernel->node, "%s does not lie at a multiple of %d bytes", name, ALIGNED);
    return call->error ? (Tensor){0} : found;
}

/* (width) numbers, such as a bias. */
static const void *row(Call *call, const char *name, int there, int64_t width) {
    if (!there)
        return NULL;
    const void *found = input(call, name, element[call->kernel->number], 1, 1, width).data;
    if (!call->error && (uintptr_t)found % ALIGNED)
        call->error = refusal(&call->kernel->node, "%s does not lie at a multiple of %d bytes", name, ALIGNED);
    return found;
}

/* One float, which products read on the device. */
static const void *scalar(Call *call, const char *name) {
    const void *found = input(call, name, FLOAT_TYPE, 1, 1, 1).data;
    if (!call->error && (uintptr_t)found % ALIGNED)
        call->error = refusal(&call->kernel->node, "%s does not lie at a multiple of %d bytes", name, ALIGNED);
    return found;
}

static void *output_at(Call *call, size_t index, size_t rows, int64_t columns) {
    const int64_t dims[2] = {(int64_t)rows, columns};
    const Node *node = &call->kernel->node;
    OrtValue *value = NULL;
    void *data = NULL;
    if (call->error)
        return NULL;
    call->error = CALL(node->api, GetOutput, GET_OUTPUT)(call->context, index, dims, 2, &value);
    if (!call->error && !value)
        call->error = refusal(node, "nobody takes the output");
    if (!call->error)
        call->error = CALL(node->api, GetTensorMutableData, GET_TENSOR_MUTABLE_DATA)(value, &data);
    if (!call->error && rows && (!data || (uintptr_t)data % ALIGNED))
        call->error = refusal(node, "the output does not lie at a multiple of %d bytes", ALIGNED);
    return data;
}

static void *output(Call *call, size_t rows, int64_t columns) { return output_at(call, 0, rows, columns); }

static OrtStatus *run_linear(void *self, OrtKernelContext *context) {
    Call call = begin_call(self, context);
    Kernel *kernel = self;
    const Shape *shape = &kernel->shape;
    const int fp8 = shape->type == LT_R_8F_E4M3, type = fp8 ? E4M3_TYPE : element[kernel->number];
    Tensor x = input(&call, "x", type, 2, ANY, shape->inputs);
    Tensor w = input(&call, "w", type, 2, fp8 ? shape->outputs : shape->inputs, fp8 ? shape->inputs : shape->outputs);
    const void *bias = row(&call, "bias", kernel->has_bias, shape->outputs);
    const void *scale = shape->out == LT_R_8F_E4M3 ? scalar(&call, "out_scale") : NULL;
    void *y = output(&call, x.rows, shape->outputs);
    if (call.error || !x.rows)
        return call.error;
    return run_product(&kernel->node, &kernel->product, x.data, w.data, bias, scale, y, (int64_t)x.rows, call.stream);
}

static OrtStatus *run_add_norm(void *self, OrtKernelContext *context) {
    Call call = begin_call(self, context);
    Kernel *kernel = self;
    const int type = element[kernel->number];
    const int64_t width = kernel->width;
    Tensor x = input(&call, "x", type, 2, ANY, width);
    Tensor skip = input(&call, "skip", type, 2, (int64_t)x.rows, width);
    const void *gamma = row(&call, "gamma", 1, width), *beta = row(&call, "beta", kernel->has_beta, width);
    const void *bias = row(&call, "bias", kernel->has_bias, width);
    const void *weights = row(&call, "weights", kernel->fp8, width), *shifts = row(&call, "shifts", kernel->fp8, width);
    void *y = output(&call, x.rows, width), *bytes = kernel->fp8 ? output_at(&call, 1, x.rows, width) : NULL;
    if (call.error || !x.rows)
        return call.error;
    long long rows = (long long)x.rows;
    int vectors = (int)(width / VECTOR);
    void *of_both[] = {&x.data, &skip.data, &bias, &gamma,   &beta,            &weights,    &shifts,
                       &y,      &bytes,     &rows, &vectors, &kernel->epsilon, &kernel->rms};
    void *of_one[] = {&x.data, &skip.data, &bias,    &gamma,           &beta,
                      &y,      &rows,      &vectors, &kernel->epsilon, &kernel->rms};
    void **arguments = kernel->fp8 ? of_both : of_one;
    return launch_rows(&kernel->node, kernel->function, x.rows, (size_t)width, call.stream, arguments);
}

static OrtStatus *run_embed_norm(void *self, OrtKernelContext *context) {
    Call call = begin_call(self, context);
    Kernel *kernel = self;
    const int type = element[kernel->number];
    const int64_t width = kernel->width;
    Tensor index[3] = {{0}}, table[3] = {{0}};
    static const char *const names[3][2] = {{"ids", "words"}, {"places", "positions"}, {"kinds", "types"}};
    const int there[3] = {1, kernel->has_positions, kernel->has_types};
    for (int k = 0; k < 3; k++) {
        if (!there[k])
            continue;
        index[k] = input(&call, names[k][0], INT64_TYPE, 1, ANY, k ? (int64_t)index[0].columns : ANY);
        table[k] = input(&call, names[k][1], type, 2, ANY, width);
    }
    const void *gamma = row(&call, "gamma", 1, width), *beta = row(&call, "beta", kernel->has_beta, width);
    const void *weights = row(&call, "weights", kernel->fp8, width), *shifts = row(&call, "shifts", kernel->fp8, width);
    void *y = output(&call, index[0].columns, width);
    void *bytes = kernel->fp8 ? output_at(&call, 1, index[0].columns, width) : NULL;
    if (call.error || !index[0].columns)
        return call.error;
    long long rows = (long long)index[0].columns, in_table[3];
    for (int k = 0; k < 3; k++)
        in_table[k] = (long long)table[k].rows;
    int vectors = (int)(width / VECTOR);
    void *of_one[] = {&index[0].data, &table[0].data, &in_table[0], &index[1].data, &table[1].data,   &in_table[1],
                      &index[2].data, &table[2].data, &in_table[2], &gamma,         &beta,            &y,
                      &rows,          &vectors,       &kernel->epsilon, &kernel->rms};
    void *of_both[] = {&index[0].data, &table[0].data, &in_table[0], &index[1].data, &table[1].data,
                       &in_table[1],   &index[2].data, &table[2].data, &in_table[2], &gamma,
                       &beta,          &weights,       &shifts,        &y,           &bytes,
                       &rows,          &vectors,       &kernel->epsilon, &kernel->rms};
    void **arguments = kernel->fp8 ? of_both : of_one;
    return launch_rows(&kernel->node, kernel->function, (size_t)rows, (size_t)width, call.stream, arguments);
}

static OrtStatus *run_fp8_quantize(void *self, OrtKernelContext *context) {
    Call call = begin_call(self, context);
    Kernel *kernel = self;
    Tensor x = input(&call, "x", FLOAT16_TYPE, 2, ANY, kernel->width);
    const void *weights = row(&call, "weights", 1, kernel->width), *shifts = row(&call, "shifts", 1, kernel->width);
    void *y = output(&call, x.rows, kernel->width);
    if (call.error || !x.rows)
        return call.error;
    long long rows = (long long)x.rows;
    int vectors = (int)(kernel->width / VECTOR);
    void *arguments[] = {&x.data, &weights, &shifts, &y, &rows, &vectors};
    return launch_rows(&kernel->node, kernel->function, x.rows, 0, call.stream, arguments);
}

static OrtStatus *run_mean(void *self, OrtKernelContext *context) {
    Call call = begin_call(self, context);
    Kernel *kernel = self;
    Tensor x = input(&call, "x", element[kernel->number], 2, ANY, kernel->width);
    Tensor starts = input(&call, "starts", INT32_TYPE, 1, 1, ANY);
    if (!call.error && !starts.columns)
        call.error = refusal(&kernel->node, "starts is empty and has to have one number more than there are texts");
    const size_t texts = starts.columns ? starts.columns - 1 : 0;
    void *y = output(&call, texts, kernel->width);
    if (call.error || !texts)
        return call.error;
    int rows = (int)x.rows, vectors = (int)(kernel->width / VECTOR);
    void *arguments[] = {&x.data, &starts.data, &y, &rows, &vectors};
    return launch_texts(&kernel->node, kernel->function, texts, (size_t)kernel->width, call.stream, arguments);
}

#include "row_operators.h"

#include "attention_operator.h"

/* ---- how onnxruntime sees them ------------------------------------------------------------------------------------ */

static const char *name_of(const OrtCustomOp *op) { return ((const Operator *)op)->name; }
static const char *provider(const OrtCustomOp *op) {
    (void)op;
    return on_host() ? "CPUExecutionProvider" : "CUDAExecutionProvider";
}
static int any_type(const OrtCustomOp *op, size_t index) { (void)op; (void)index; return ANY_TYPE; }
static int own_type(const OrtCustomOp *op, size_t index) { (void)index; return element[((const Operator *)op)->number]; }
static int float_type(const OrtCustomOp *op, size_t index) { (void)op; (void)index; return FLOAT_TYPE; }
static int e4m3_type(const OrtCustomOp *op, size_t index) { (void)op; (void)index; return E4M3_TYPE; }
static int e4m3_second(const OrtCustomOp *op, size_t index) { (void)op; return index ? E4M3_TYPE : FLOAT16_TYPE; }
static size_t one(const OrtCustomOp *op) { (void)op; return 1; }
static size_t two(const OrtCustomOp *op) { (void)op; return 2; }
static int variadic(const OrtCustomOp *op, size_t index) { (void)op; (void)index; return VARIADIC; }
static int required(const OrtCustomOp *op, size_t index) { (void)op; (void)index; return REQUIRED; }
static int default_memory(const OrtCustomOp *op, size_t index) { (void)op; (void)index; return 0; }
static int at_least_one(const OrtCustomOp *op) { (void)op; return 1; }
static int no(const OrtCustomOp *op) { (void)op; return 0; }

/* Every operator takes any inputs and gives one output, or two; create and run look at what came. */
#define OPERATOR(name_, number_, type_, count_, create_, run_)                                                               \
    {                                                                                                                  \
        .name = name_, .number = number_,                                                                              \
        .op = {                                                                                                        \
            .version = API_VERSION, .name = name_of, .provider = provider, .input_type = any_type, .input_count = one, \
            .output_type = type_, .output_count = count_, .destroy = destroy, .input_characteristic = variadic,           \
            .output_characteristic = required, .input_memory = default_memory, .variadic_input_least = at_least_one,   \
            .variadic_input_homogeneous = no, .variadic_output_least = at_least_one,                                   \
            .variadic_output_homogeneous = no, .create = create_, .run = run_,                                         \
        },                                                                                                             \
    }
#define BOTH_OF(name, type, count, create, run)                                                                        \
    OPERATOR(name "Float16", FLOAT16, type, count, create, run),                                                       \
        OPERATOR(name "BFloat16", BFLOAT16, type, count, create, run)
#define BOTH(name, type, create, run) BOTH_OF(name, type, one, create, run)

static const Operator operators[] = {
    BOTH("Linear", own_type, create_linear, run_linear),
    BOTH("AddNorm", own_type, create_add_norm, run_add_norm),
    BOTH("EmbedNorm", own_type, create_embed_norm, run_embed_norm),
    BOTH("Mean", float_type, create_mean, run_mean),
    BOTH("Norm", own_type, create_norm, run_sum_norm),
    BOTH_OF("SumNorm", own_type, two, create_sum_norm, run_sum_norm),
    BOTH("Gated", own_type, create_gated, run_gated),
    BOTH("Turn", own_type, create_turn, run_turn),
    BOTH("Attention", own_type, create_attention, run_attention),
    BOTH("WordWeights", float_type, create_word_weights, run_word_weights),
    BOTH("Unit", float_type, create_unit, run_unit),
    OPERATOR("Dense", FLOAT16, float_type, one, create_dense, run_dense),
    OPERATOR("Fp8Linear", FLOAT16, own_type, one, create_fp8_linear, run_linear),
    OPERATOR("Fp8LinearFp8", FLOAT16, e4m3_type, one, create_fp8_linear_fp8, run_linear),
    OPERATOR("Fp8AddNorm", FLOAT16, e4m3_second, two, create_fp8_add_norm, run_add_norm),
    OPERATOR("Fp8EmbedNorm", FLOAT16, e4m3_second, two, create_fp8_embed_norm, run_embed_norm),
    OPERATOR("Fp8Quantize", FLOAT16, e4m3_type, one, create_fp8_quantize, run_fp8_quantize),
};

EXPORTED OrtStatus *RegisterCustomOps(OrtSessionOptions *options, const OrtApiBase *base) {
    static OrtCustomOpDomain *domain; /* lives as long as the library: sessions refer to it */
    const OrtApi *api = base->get_api(API_VERSION);
    if (!api) /* before 1.17; version 1 has the status that says so */
        return CALL(base->get_api(1), CreateStatus, CREATE_STATUS)(
            FAILED, "fastembed_rt.cuda: onnxruntime is older than 1.17; upgrade it");
    if (!cublaslt()) /* which provider the operators belong to is not known before */
        return CALL(api, CreateStatus, CREATE_STATUS)(FAILED, "fastembed_rt.cuda: cuBLASLt is not open");
    OrtStatus *error = NULL;
    prepare_refusals(api);
    lock(REGISTERING);
    if (!domain) {
        OrtCustomOpDomain *made = NULL;
        error = CALL(api, CreateCustomOpDomain, CREATE_CUSTOM_OP_DOMAIN)("fastembed_rt.cuda", &made);
        for (size_t k = 0; !error && k < sizeof operators / sizeof operators[0]; k++)
            error = CALL(api, CustomOpDomainAdd, CUSTOM_OP_DOMAIN_ADD)(made, &operators[k].op);
        domain = error ? NULL : made;
    }
    unlock(REGISTERING);
    return error ? error : CALL(api, AddCustomOpDomain, ADD_CUSTOM_OP_DOMAIN)(options, domain);
}
