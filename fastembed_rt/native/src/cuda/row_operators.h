/* Part of cuda_operators.c: what newer encoders have between their products (gated.cu), and heads (heads.cu). */

static const char *const activations[] = {"", "gelu", "gelu_tanh", "silu", "relu", "sigmoid", "tanh"}; /* as device.cuh */

static int read_activation(Reader *reader) {
    return (int)read_choice(reader, "activation", activations, sizeof activations / sizeof activations[0]);
}

/* ---- making ------------------------------------------------------------------------------------------------------- */

static OrtStatus *create_norm(const OrtCustomOp *op, const OrtApi *api, const OrtKernelInfo *info, void **out) {
    Reader reader = {.info = info, .next = 1};
    Kernel *kernel = begin(op, api, &reader);
    if (!reader.error)
        read_norm(kernel, &reader);
    if (!reader.error)
        kernel->which = SUM_NORM;
    return end(kernel, &reader, out);
}

static OrtStatus *create_sum_norm(const OrtCustomOp *op, const OrtApi *api, const OrtKernelInfo *info, void **out) {
    Reader reader = {.info = info, .next = 2};
    Kernel *kernel = begin(op, api, &reader);
    if (!reader.error)
        read_norm(kernel, &reader);
    if (!reader.error) {
        kernel->which = SUM_NORM;
        kernel->has_skip = 1;
    }
    return end(kernel, &reader, out);
}

static OrtStatus *create_gated(const OrtCustomOp *op, const OrtApi *api, const OrtKernelInfo *info, void **out) {
    Reader reader = {.info = info, .next = 2};
    Kernel *kernel = begin(op, api, &reader);
    if (!reader.error) {
        kernel->which = GATED;
        kernel->width = read_width(&reader, "width", MOST_OUTPUTS);
        kernel->activation = read_activation(&reader);
    }
    return end(kernel, &reader, out);
}

static OrtStatus *create_turn(const OrtCustomOp *op, const OrtApi *api, const OrtKernelInfo *info, void **out) {
    Reader reader = {.info = info, .next = 4};
    Kernel *kernel = begin(op, api, &reader);
    if (!reader.error) {
        kernel->which = TURN;
        kernel->heads = read_whole(&reader, "heads", 1, MOST_HEADS, NEEDED);
        kernel->size = read_width(&reader, "size", MOST_SIZE);
        kernel->at[0] = read_whole(&reader, "at", 0, MOST_OUTPUTS, 0);
        kernel->has_norm = read_flag(&reader, "norm");
    }
    if (!reader.error && kernel->at[0] % VECTOR)
        refuse(&reader, "attribute at is %lld and has to be a multiple of %d", (long long)kernel->at[0], VECTOR);
    if (!reader.error && kernel->has_norm) {
        kernel->epsilon = read_real(&reader, "epsilon", 0.0f, FLT_MAX);
        reader.next++;
    }
    return end(kernel, &reader, out);
}

static OrtStatus *create_word_weights(const OrtCustomOp *op, const OrtApi *api, const OrtKernelInfo *info, void **out) {
    Reader reader = {.info = info, .next = 2};
    Kernel *kernel = begin(op, api, &reader);
    if (!reader.error) {
        kernel->which = WORD_WEIGHTS;
        kernel->width = read_width(&reader, "width", MOST_OUTPUTS);
        kernel->times = (int)read_whole(&reader, "times", 1, 2, NEEDED);
        kernel->added = read_flag(&reader, "added");
    }
    return end(kernel, &reader, out);
}

static OrtStatus *create_unit(const OrtCustomOp *op, const OrtApi *api, const OrtKernelInfo *info, void **out) {
    Reader reader = {.info = info, .next = 1};
    Kernel *kernel = begin(op, api, &reader);
    if (!reader.error) {
        kernel->which = UNIT;
        kernel->width = read_width(&reader, "width", MOST_WIDTH);
    }
    return end(kernel, &reader, out);
}

static OrtStatus *create_dense(const OrtCustomOp *op, const OrtApi *api, const OrtKernelInfo *info, void **out) {
    Reader reader = {.info = info, .next = 2};
    Kernel *kernel = begin(op, api, &reader);
    if (!reader.error) {
        kernel->which = DENSE;
        kernel->width = read_whole(&reader, "in_features", 1, MOST_INPUTS, NEEDED);
        kernel->outputs = read_whole(&reader, "out_features", 1, MOST_INPUTS, NEEDED);
        kernel->activation = read_activation(&reader);
        kernel->has_bias = read_flag(&reader, "bias");
        reader.next += (size_t)kernel->has_bias;
    }
    return end(kernel, &reader, out);
}

/* ---- running ------------------------------------------------------------------------------------------------------ */

static OrtStatus *run_sum_norm(void *self, OrtKernelContext *context) {
    Call call = begin_call(self, context);
    Kernel *kernel = self;
    const int type = element[kernel->number];
    const int64_t width = kernel->width;
    Tensor x = input(&call, "x", type, 2, ANY, width), skip = {0};
    if (kernel->has_skip)
        skip = input(&call, "skip", type, 2, (int64_t)x.rows, width);
    const void *gamma = row(&call, "gamma", 1, width), *beta = row(&call, "beta", kernel->has_beta, width);
    void *sum = kernel->has_skip ? output_at(&call, 0, x.rows, width) : NULL;
    void *y = output_at(&call, (size_t)kernel->has_skip, x.rows, width);
    if (call.error || !x.rows)
        return call.error;
    long long rows = (long long)x.rows;
    int vectors = (int)(width / VECTOR);
    void *arguments[] = {&x.data, &skip.data, &gamma,           &beta,       &sum, &y, &rows,
                         &vectors, &kernel->epsilon, &kernel->rms};
    return launch_rows(&kernel->node, kernel->function, x.rows, (size_t)width, call.stream, arguments);
}

static OrtStatus *run_gated(void *self, OrtKernelContext *context) {
    Call call = begin_call(self, context);
    Kernel *kernel = self;
    const int type = element[kernel->number];
    Tensor gate = input(&call, "gate", type, 2, ANY, kernel->width);
    Tensor up = input(&call, "up", type, 2, (int64_t)gate.rows, kernel->width);
    void *y = output(&call, gate.rows, kernel->width);
    if (call.error || !gate.rows)
        return call.error;
    enum { DOWN = 8, BLOCK = 32 * DOWN };
    long long vectors = (long long)(gate.rows * (size_t)kernel->width / VECTOR);
    void *arguments[] = {&gate.data, &up.data, &y, &vectors, &kernel->activation};
    return launch(&kernel->node, kernel->function, (Grid){((size_t)vectors + BLOCK - 1) / BLOCK, 1, 32, DOWN, 0},
                  call.stream, arguments);
}

static OrtStatus *run_turn(void *self, OrtKernelContext *context) {
    Call call = begin_call(self, context);
    Kernel *kernel = self;
    const int type = element[kernel->number];
    const int64_t width = kernel->heads * kernel->size;
    Tensor x = input(&call, "x", type, 2, ANY, ANY);
    if (!call.error && ((int64_t)x.columns < kernel->at[0] + width || x.columns % VECTOR))
        call.error = refusal(&kernel->node, "x has %zu columns and has to have a multiple of %d, at least %lld", x.columns,
                             VECTOR, (long long)(kernel->at[0] + width));
    Tensor places = input(&call, "places", INT64_TYPE, 1, 1, (int64_t)x.rows);
    Tensor cosine = input(&call, "cosine", FLOAT_TYPE, 2, ANY, kernel->size / 2);
    Tensor sine = input(&call, "sine", FLOAT_TYPE, 2, (int64_t)cosine.rows, kernel->size / 2);
    const void *gamma = row(&call, "gamma", kernel->has_norm, kernel->size);
    void *y = output(&call, x.rows, width);
    if (!call.error && !cosine.rows)
        call.error = refusal(&kernel->node, "cosine has no rows");
    if (call.error || !x.rows)
        return call.error;
    enum { DOWN = 8 };
    const void *from = (const uint16_t *)x.data + kernel->at[0];
    long long stride = (long long)x.columns / 2, positions = (long long)cosine.rows, rows = (long long)x.rows;
    int heads = (int)kernel->heads, words = (int)(kernel->size / 4);
    void *arguments[] = {&from,  &stride, &places.data, &cosine.data, &sine.data, &positions,
                         &gamma, &y,      &rows,        &heads,       &words,     &kernel->epsilon};
    const size_t parts = x.rows * (size_t)heads;
    return launch(&kernel->node, kernel->function, (Grid){(parts + DOWN - 1) / DOWN, 1, 32, DOWN, 0}, call.stream,
                  arguments);
}

static OrtStatus *run_word_weights(void *self, OrtKernelContext *context) {
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
    void *arguments[] = {&x.data, &starts.data, &y, &rows, &vectors, &kernel->times, &kernel->added};
    return launch_texts(&kernel->node, kernel->function, texts, (size_t)kernel->width, call.stream, arguments);
}

static OrtStatus *run_unit(void *self, OrtKernelContext *context) {
    Call call = begin_call(self, context);
    Kernel *kernel = self;
    Tensor x = input(&call, "x", element[kernel->number], 2, ANY, kernel->width);
    void *y = output(&call, x.rows, kernel->width);
    if (call.error || !x.rows)
        return call.error;
    long long rows = (long long)x.rows;
    int vectors = (int)(kernel->width / VECTOR);
    void *arguments[] = {&x.data, &y, &rows, &vectors};
    return launch_rows(&kernel->node, kernel->function, x.rows, (size_t)kernel->width, call.stream, arguments);
}

static OrtStatus *run_dense(void *self, OrtKernelContext *context) {
    enum { TOGETHER = 4, SLICES = 8 }; /* as heads.cu has them */
    Call call = begin_call(self, context);
    Kernel *kernel = self;
    Tensor x = input(&call, "x", FLOAT_TYPE, 2, ANY, kernel->width);
    Tensor w = input(&call, "w", FLOAT_TYPE, 2, kernel->width, kernel->outputs), bias = {0};
    if (kernel->has_bias)
        bias = input(&call, "bias", FLOAT_TYPE, 1, 1, kernel->outputs);
    void *y = output(&call, x.rows, kernel->outputs);
    if (call.error || !x.rows)
        return call.error;
    int rows = (int)x.rows, inputs = (int)kernel->width, outputs = (int)kernel->outputs;
    void *arguments[] = {&x.data, &w.data, &bias.data, &y, &rows, &inputs, &outputs, &kernel->activation};
    const Grid grid = {(x.rows + TOGETHER - 1) / TOGETHER, ((size_t)outputs + 31) / 32, 32, SLICES, 0};
    return launch(&kernel->node, kernel->function, grid, call.stream, arguments);
}
