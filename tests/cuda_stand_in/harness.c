/* Runs the operators' library, as it is in a wheel, without onnxruntime: harness OPERATORS.so STAND_IN.so
 *
 * A line a case: the operator, and its last output's bytes in hexadecimal, or why there is none. Inputs are the same numbers
 * on every processor, so that lines of one can be compared with those of another. */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "onnxruntime_abi.h"

enum { MOST = 16 };
struct OrtStatus { char text[320]; };
struct OrtValue { int type; size_t rank; int64_t dims[2]; void *data; size_t bytes; };
struct OrtTensorTypeAndShapeInfo { const OrtValue *value; };
typedef struct { const char *name; int64_t whole; const char *text; float real; int kind; } Attribute; /* 'i', 's', 'f' */
struct OrtKernelInfo { Attribute attributes[MOST]; OrtValue inputs[MOST]; size_t count; };
struct OrtKernelContext { const OrtKernelInfo *info; OrtValue outputs[2]; };

static size_t bytes_of(int type) {
    return type == INT64_TYPE ? 8 : type == FLOAT_TYPE || type == INT32_TYPE ? 4 : type == E4M3_TYPE ? 1 : 2;
}
static OrtStatus *status_of(int code, const char *message) {
    OrtStatus *made = calloc(1, sizeof *made);
    (void)code;
    snprintf(made->text, sizeof made->text, "%s", message);
    return made;
}
static const char *message_of(const OrtStatus *status) { return status->text; }
static void release(OrtStatus *status) { free(status); }
static void release_shape(OrtTensorTypeAndShapeInfo *shape) { free(shape); }
static OrtStatus *shape_of(const OrtValue *value, OrtTensorTypeAndShapeInfo **out) {
    *out = malloc(sizeof **out);
    (*out)->value = value;
    return NULL;
}
static OrtStatus *type_of(const OrtTensorTypeAndShapeInfo *shape, int *out) { return *out = shape->value->type, NULL; }
static OrtStatus *rank_of(const OrtTensorTypeAndShapeInfo *shape, size_t *out) { return *out = shape->value->rank, NULL; }
static OrtStatus *dims_of(const OrtTensorTypeAndShapeInfo *shape, int64_t *out, size_t count) {
    memcpy(out, shape->value->dims, count * sizeof *out);
    return NULL;
}
static OrtStatus *data_of(OrtValue *value, void **out) { return *out = value->data, NULL; }
static OrtStatus *find(const OrtKernelInfo *info, const char *name, int kind, const Attribute **out) {
    for (*out = info->attributes; (*out)->name; (*out)++)
        if (!strcmp((*out)->name, name) && (*out)->kind == kind)
            return NULL;
    return status_of(1, "No attribute of that name");
}
static OrtStatus *attribute_int(const OrtKernelInfo *info, const char *name, int64_t *out) {
    const Attribute *found;
    OrtStatus *error = find(info, name, 'i', &found);
    return error ? error : (*out = found->whole, NULL);
}
static OrtStatus *attribute_float(const OrtKernelInfo *info, const char *name, float *out) {
    const Attribute *found;
    OrtStatus *error = find(info, name, 'f', &found);
    return error ? error : (*out = found->real, NULL);
}
static OrtStatus *attribute_string(const OrtKernelInfo *info, const char *name, char *out, size_t *size) {
    const Attribute *found;
    OrtStatus *error = find(info, name, 's', &found);
    if (error)
        return error;
    *size = strlen(found->text) + 1;
    if (out)
        memcpy(out, found->text, *size);
    return NULL;
}
static OrtStatus *no_numbers(const OrtKernelInfo *info, const char *name, void *out, size_t *size) {
    (void)info, (void)name, (void)out, (void)size;
    return status_of(1, "No attribute of that name");
}
static OrtStatus *count_of(const OrtKernelInfo *info, size_t *out) { return *out = info->count, NULL; }
static OrtStatus *input_of(const OrtKernelContext *context, size_t index, const OrtValue **out) {
    *out = index < context->info->count ? context->info->inputs + index : NULL;
    return NULL;
}
static int of_next_output[2];
static OrtStatus *output_of(OrtKernelContext *context, size_t index, const int64_t *dims, size_t count, OrtValue **out) {
    OrtValue *made = context->outputs + index;
    made->type = of_next_output[index];
    made->rank = count;
    memcpy(made->dims, dims, sizeof made->dims);
    made->bytes = (size_t)(dims[0] * dims[1]) * bytes_of(made->type);
    made->data = aligned_alloc(256, (made->bytes + 256) / 256 * 256);
    memset(made->data, 0xcd, made->bytes);
    *out = made;
    return NULL;
}
static const OrtCustomOp *operators[64];
static size_t operator_count;
static OrtStatus *create_domain(const char *name, OrtCustomOpDomain **out) {
    (void)name;
    return *out = (OrtCustomOpDomain *)operators, NULL;
}
static OrtStatus *domain_add(OrtCustomOpDomain *domain, const void *op) {
    (void)domain;
    return operators[operator_count++] = op, NULL;
}
static OrtStatus *add_domain(OrtSessionOptions *options, OrtCustomOpDomain *domain) {
    (void)options, (void)domain;
    return NULL;
}
#define SLOT(function) (void (*)(void))(function)
static const OrtApi api = {.slot = {
    [CREATE_STATUS] = SLOT(status_of), [GET_ERROR_MESSAGE] = SLOT(message_of), [RELEASE_STATUS] = SLOT(release),
    [CREATE_CUSTOM_OP_DOMAIN] = SLOT(create_domain), [CUSTOM_OP_DOMAIN_ADD] = SLOT(domain_add),
    [ADD_CUSTOM_OP_DOMAIN] = SLOT(add_domain), [GET_TENSOR_MUTABLE_DATA] = SLOT(data_of),
    [GET_TENSOR_TYPE_AND_SHAPE] = SLOT(shape_of), [GET_TENSOR_ELEMENT_TYPE] = SLOT(type_of),
    [GET_DIMENSIONS_COUNT] = SLOT(rank_of), [GET_DIMENSIONS] = SLOT(dims_of), [RELEASE_SHAPE] = SLOT(release_shape),
    [ATTRIBUTE_INT] = SLOT(attribute_int), [ATTRIBUTE_FLOAT] = SLOT(attribute_float),
    [ATTRIBUTE_STRING] = SLOT(attribute_string), [ATTRIBUTE_INTS] = SLOT(no_numbers),
    [ATTRIBUTE_FLOATS] = SLOT(no_numbers), [INPUT_COUNT] = SLOT(count_of), [GET_INPUT] = SLOT(input_of),
    [GET_OUTPUT] = SLOT(output_of),
}};
static const OrtApi *get_api(uint32_t version) { return version <= API_VERSION ? &api : NULL; }

/* Numbers between -1 and 1, the sixteenths of which every type has. */
static OrtValue tensor(int type, size_t rank, int64_t rows, int64_t columns) {
    static uint32_t state = 1;
    OrtValue made = {type, rank, {rank == 1 ? columns : rows, columns}, NULL, (size_t)(rows * columns) * bytes_of(type)};
    made.data = aligned_alloc(256, (made.bytes + 256) / 256 * 256);
    for (int64_t k = 0; k < rows * columns; k++) {
        state = state * 1664525u + 1013904223u;
        const int step = (int)(state >> 27) - 16; /* of sixteenths */
        const float value = (float)step / 16;
        uint32_t bits;
        memcpy(&bits, &value, 4);
        if (type == FLOAT_TYPE)
            ((float *)made.data)[k] = value;
        else if (type == BF16_TYPE)
            ((uint16_t *)made.data)[k] = (uint16_t)(bits >> 16);
        else if (type == FLOAT16_TYPE) /* exponents of 8 bits -> of 5 */
            ((uint16_t *)made.data)[k] =
                step ? (uint16_t)(bits >> 16 & 0x8000) | (uint16_t)((bits >> 13 & 0x3ffff) - (112 << 10) & 0x7fff) : 0;
        else if (type == E4M3_TYPE)
            ((uint8_t *)made.data)[k] = (uint8_t)(0x30 + (state >> 28)) | (uint8_t)(state >> 20 & 0x80);
        else if (type == INT64_TYPE)
            ((int64_t *)made.data)[k] = state >> 29;
    }
    return made;
}
static OrtValue boundaries(const int32_t *from, int64_t count) {
    OrtValue made = tensor(INT32_TYPE, 1, 1, count);
    memcpy(made.data, from, made.bytes);
    return made;
}

static void run(const char *name, OrtKernelInfo *info, int first, int second) {
    const OrtCustomOp *op = NULL;
    for (size_t k = 0; k < operator_count; k++)
        if (!strcmp(operators[k]->name(operators[k]), name))
            op = operators[k];
    void *kernel = NULL;
    OrtKernelContext context = {info, {{0}}};
    of_next_output[0] = first, of_next_output[1] = second;
    OrtStatus *error = op ? op->create(op, &api, info, &kernel) : status_of(1, "no such operator");
    if (!error)
        error = op->run(kernel, &context);
    const OrtValue *last = context.outputs + (second != 0);
    printf("%s ", name);
    for (size_t k = 0; !error && k < last->bytes; k++)
        printf("%02x", ((const uint8_t *)last->data)[k]);
    printf("%s\n", error ? error->text : "");
    if (kernel)
        op->destroy(kernel);
}

#define INFO(...) &(OrtKernelInfo) { __VA_ARGS__ }
#define I(name_, value) {name_, value, NULL, 0, 'i'}
#define F(name_, value) {name_, 0, NULL, value, 'f'}
#define S(name_, value) {name_, 0, value, 0, 's'}

static void cases(const char *suffix, int T) {
    static const int32_t starts[] = {0, 3, 3, 11};
    char name[64];
#define CASE(op, first, second, ...) (snprintf(name, sizeof name, op "%s", suffix), run(name, INFO(__VA_ARGS__), first, second))
    CASE("Linear", T, 0, {I("in_features", 48), I("out_features", 24), I("bias", 1), S("activation", "gelu_tanh")},
         {tensor(T, 2, 11, 48), tensor(T, 2, 48, 24), tensor(T, 1, 1, 24)}, 3);
    CASE("AddNorm", T, 0, {I("width", 264), F("epsilon", 1e-5f), I("beta", 1), I("bias", 1)},
         {tensor(T, 2, 11, 264), tensor(T, 2, 11, 264), tensor(T, 1, 1, 264), tensor(T, 1, 1, 264), tensor(T, 1, 1, 264)}, 5);
    CASE("EmbedNorm", T, 0, {I("width", 24), F("epsilon", 1e-5f), I("positions", 1)},
         {tensor(INT64_TYPE, 1, 1, 11), tensor(T, 2, 6, 24), tensor(INT64_TYPE, 1, 1, 11), tensor(T, 2, 8, 24),
          tensor(T, 1, 1, 24)}, 5);
    CASE("Mean", FLOAT_TYPE, 0, {I("width", 24)}, {tensor(T, 2, 11, 24), boundaries(starts, 4)}, 2);
    CASE("SumNorm", T, T, {I("width", 24), F("epsilon", 1e-5f), I("rms", 1)},
         {tensor(T, 2, 11, 24), tensor(T, 2, 11, 24), tensor(T, 1, 1, 24)}, 3);
    CASE("Gated", T, 0, {I("width", 24), S("activation", "silu")}, {tensor(T, 2, 11, 24), tensor(T, 2, 11, 24)}, 2);
    CASE("Turn", T, 0, {I("heads", 2), I("size", 8)},
         {tensor(T, 2, 11, 16), tensor(INT64_TYPE, 1, 1, 11), tensor(FLOAT_TYPE, 2, 6, 4), tensor(FLOAT_TYPE, 2, 6, 4)}, 4);
    CASE("Attention", T, 0, {I("heads", 2), I("size", 32)},
         {tensor(T, 2, 11, 64), tensor(T, 2, 11, 64), tensor(T, 2, 11, 64), boundaries(starts, 4),
          tensor(INT64_TYPE, 1, 1, 8)}, 5);
    CASE("WordWeights", FLOAT_TYPE, 0, {I("width", 24), I("times", 1)}, {tensor(T, 2, 11, 24), boundaries(starts, 4)}, 2);
    CASE("Unit", FLOAT_TYPE, 0, {I("width", 24)}, {tensor(T, 2, 11, 24)}, 1);
}

int main(int count, char **names) {
    enum { H = FLOAT16_TYPE, E = E4M3_TYPE };
    void *library = count == 3 ? dlopen(names[1], RTLD_NOW) : NULL;
    if (!library)
        return fprintf(stderr, "%s\n", count == 3 ? dlerror() : "harness OPERATORS.so STAND_IN.so"), 2;
    const char *(*open)(const char *, const char *, int) =
        (const char *(*)(const char *, const char *, int))dlsym(library, "fastembed_rt_cuda_open");
    OrtStatus *(*enlist)(OrtSessionOptions *, const OrtApiBase *) =
        (OrtStatus * (*)(OrtSessionOptions *, const OrtApiBase *)) dlsym(library, "RegisterCustomOps");
    const char *why = open(names[2], names[2], 1);
    if (*why)
        return fprintf(stderr, "%s\n", why), 2;
    enlist(NULL, &(OrtApiBase){get_api, NULL});
    cases("Float16", H);
    cases("BFloat16", BF16_TYPE);
    run("Dense", INFO({I("in_features", 20), I("out_features", 7), S("activation", "tanh")},
                      {tensor(FLOAT_TYPE, 2, 5, 20), tensor(FLOAT_TYPE, 2, 20, 7)}, 2), FLOAT_TYPE, 0);
    run("Fp8Linear", INFO({I("in_features", 48), I("out_features", 32), F("scale", 0.5f)},
                          {tensor(E, 2, 11, 48), tensor(E, 2, 32, 48)}, 2), H, 0);
    run("Fp8LinearFp8", INFO({I("in_features", 48), I("out_features", 32), F("scale", 0.125f), I("bias", 1)},
                             {tensor(E, 2, 11, 48), tensor(E, 2, 32, 48), tensor(H, 1, 1, 32), tensor(FLOAT_TYPE, 1, 1, 1)}, 4), E, 0);
    run("Fp8AddNorm", INFO({I("width", 64), F("epsilon", 1e-5f)},
                           {tensor(H, 2, 11, 64), tensor(H, 2, 11, 64), tensor(H, 1, 1, 64), tensor(H, 1, 1, 64), tensor(H, 1, 1, 64)}, 5), H, E);
    run("Fp8Quantize", INFO({I("width", 64)}, {tensor(H, 2, 11, 64), tensor(H, 1, 1, 64), tensor(H, 1, 1, 64)}, 3), E, 0);
    /* And a refusal, whose sentence is written with numbers of 64 bits. */
    run("LinearFloat16", INFO({I("in_features", 48), I("out_features", 12)}, {tensor(H, 2, 1, 48), tensor(H, 2, 48, 12)}, 2), H, 0);
    return 0;
}
