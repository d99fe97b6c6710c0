/* Part of cuda_operators.c: attention of packed tokens (attention.cu). */

static OrtStatus *create_attention(const OrtCustomOp *op, const OrtApi *api, const OrtKernelInfo *info, void **out) {
    static const char *const at[3] = {"query_at", "key_at", "value_at"};
    Reader reader = {.info = info, .next = 5};
    Kernel *kernel = begin(op, api, &reader);
    if (!reader.error) {
        kernel->heads = read_whole(&reader, "heads", 1, MOST_HEADS, NEEDED);
        kernel->key_heads = read_whole(&reader, "key_heads", 1, MOST_HEADS, kernel->heads);
        kernel->size = read_whole(&reader, "size", 32, 128, NEEDED);
        kernel->before = read_whole(&reader, "before", -1, MOST_TOKENS, -1);
        kernel->after = read_whole(&reader, "after", -1, MOST_TOKENS, -1);
        for (int k = 0; k < 3; k++)
            kernel->at[k] = read_whole(&reader, at[k], 0, MOST_OUTPUTS, 0);
        kernel->has_seen = read_flag(&reader, "seen");
        kernel->has_bias = read_flag(&reader, "bias");
        reader.next += (size_t)(kernel->has_seen + kernel->has_bias);
    }
    if (!reader.error && kernel->size != 32 && kernel->size != 64 && kernel->size != 128)
        refuse(&reader, "attribute size is %lld and has to be 32, 64 or 128", (long long)kernel->size);
    if (!reader.error && kernel->heads % kernel->key_heads)
        refuse(&reader, "%lld heads of queries do not share %lld of keys", (long long)kernel->heads,
               (long long)kernel->key_heads);
    for (int k = 0; k < 3 && !reader.error; k++)
        if (kernel->at[k] % VECTOR)
            refuse(&reader, "attribute %s is %lld and has to be a multiple of %d", at[k], (long long)kernel->at[k], VECTOR);
    if (!reader.error)
        kernel->which = kernel->size == 32 ? ATTENTION_32 : kernel->size == 64 ? ATTENTION_64 : ATTENTION_128;
    return end(kernel, &reader, out);
}

/* (rows, columns) with the heads of queries, of keys or of values from a column on. */
static Tensor parts(Call *call, const char *name, int64_t rows, int64_t at, int64_t heads) {
    const Kernel *kernel = call->kernel;
    Tensor found = input(call, name, element[kernel->number], 2, rows, ANY);
    const int64_t least = at + heads * kernel->size;
    if (!call->error && ((int64_t)found.columns < least || found.columns % VECTOR))
        call->error = refusal(&kernel->node, "%s has %zu columns and has to have a multiple of %d, at least %lld", name,
                              found.columns, VECTOR, (long long)least);
    found.data = call->error ? NULL : (const uint16_t *)found.data + at;
    return found;
}

static OrtStatus *run_attention(void *self, OrtKernelContext *context) {
    enum { QUERIES = 64, WARPS = 4 }; /* as attention.cu has them */
    Call call = begin_call(self, context);
    Kernel *kernel = self;
    Tensor query = parts(&call, "query", ANY, kernel->at[0], kernel->heads);
    Tensor key = parts(&call, "key", (int64_t)query.rows, kernel->at[1], kernel->key_heads);
    Tensor value = parts(&call, "value", (int64_t)query.rows, kernel->at[2], kernel->key_heads);
    Tensor starts = input(&call, "starts", INT32_TYPE, 1, 1, ANY);
    Tensor places = input(&call, "places", INT64_TYPE, 1, 1, ANY); /* as many as the longest text has; nobody reads them */
    if (!call.error && !starts.columns)
        call.error = refusal(&kernel->node, "starts is empty and has to have one number more than there are texts");
    const size_t texts = starts.columns ? starts.columns - 1 : 0;
    Tensor seen = {0}, bias = {0};
    if (kernel->has_seen)
        seen = input(&call, "seen", INT32_TYPE, 1, 1, (int64_t)texts);
    if (kernel->has_bias)
        bias = input(&call, "bias", element[kernel->number], 2, ANY, kernel->heads);
    if (!call.error && kernel->has_bias && bias.rows % 2 == 0)
        call.error = refusal(&kernel->node, "bias has %zu rows and has to have an odd number", bias.rows);
    if (!call.error && bias.rows > MOST_TOKENS / (size_t)kernel->heads) /* the kernel counts its numbers in 32 bits */
        call.error = refusal(&kernel->node, "bias has %zu rows, which are too many for %lld heads", bias.rows,
                             (long long)kernel->heads);
    void *y = output(&call, query.rows, kernel->heads * kernel->size);
    if (call.error || !query.rows || !texts || !places.columns)
        return call.error;
    int rows = (int)query.rows, blocks = (int)((places.columns + QUERIES - 1) / QUERIES), heads = (int)kernel->heads;
    int served = (int)(kernel->heads / kernel->key_heads), reach = (int)(bias.rows + 1) / 2;
    int before = (int)kernel->before, after = (int)kernel->after;
    long long strides[3] = {(long long)query.columns / VECTOR, (long long)key.columns / VECTOR,
                            (long long)value.columns / VECTOR};
    void *arguments[] = {&query.data, &key.data,  &value.data, &strides[0], &strides[1], &strides[2],
                         &starts.data, &seen.data, &bias.data,  &y,          &rows,       &blocks,
                         &heads,       &served,    &before,     &after,      &reach};
    const size_t keys = kernel->size > 64 ? 32 : 64, shared = 2 * keys * (size_t)kernel->size * sizeof(uint16_t);
    return launch(&kernel->node, kernel->function, (Grid){texts * (size_t)blocks, (size_t)heads, 32, WARPS, shared},
                  call.stream, arguments);
}
