#include "fake.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>


/* ---- memory ------------------------------------------------------------------------------------------------------ */

void *__real_malloc(size_t bytes);
void *__real_calloc(size_t count, size_t bytes);
void *__real_aligned_alloc(size_t alignment, size_t bytes);

static __thread struct { int inside, fill, mute; size_t fails, asked, failed; } memory;

void enter(int fill, size_t fails, int mute) {
    memory.inside = 1;
    memory.fill = fill;
    memory.mute = mute;
    memory.fails = fails;
    memory.asked = memory.failed = 0;
}

size_t leave(void) {
    memory.inside = 0;
    return memory.failed;
}

static int fails(void) {
    if (!memory.inside || ++memory.asked < memory.fails || !memory.fails)
        return 0;
    memory.failed++;
    return 1;
}

static void *filled(void *found, size_t bytes) {
    return found && memory.inside ? memset(found, memory.fill, bytes) : found;
}

void *__wrap_malloc(size_t bytes) { return fails() ? NULL : filled(__real_malloc(bytes), bytes); }
void *__wrap_calloc(size_t count, size_t bytes) { return fails() ? NULL : __real_calloc(count, bytes); }
void *__wrap_aligned_alloc(size_t alignment, size_t bytes) {
    return fails() ? NULL : filled(__real_aligned_alloc(alignment, bytes), bytes);
}

void *checked_malloc(size_t bytes) {
    void *found = __real_malloc(bytes ? bytes : 1);
    if (!found) {
        fprintf(stderr, "the harness itself has no memory for %zu bytes\n", bytes);
        exit(2);
    }
    return found;
}

/* ---- statuses and tensors ---------------------------------------------------------------------------------------- */

struct OrtStatus { int code; char text[320]; };
struct OrtTensorTypeAndShapeInfo { const OrtValue *value; };

static OrtStatus *own_status(int code, const char *message) {
    OrtStatus *made = checked_malloc(sizeof *made);
    made->code = code;
    snprintf(made->text, sizeof made->text, "%s", message);
    return made;
}

static OrtStatus *create_status(int code, const char *message) {
    return memory.inside && memory.failed && memory.mute ? NULL : own_status(code, message);
}

static const char *error_message(const OrtStatus *status) { return status->text; }
const char *status_text(const OrtStatus *status) { return status->text; }
void release_status(OrtStatus *status) { free(status); }

size_t bytes_of_type(int type) {
    static const uint8_t sizes[] = {0, 4, 1, 1, 2, 2, 4, 8, 8, 1, 2, 8, 4, 8, 8, 16, 2};
    return type >= 0 && (size_t)type < sizeof sizes ? sizes[type] : 1;
}

void fill_tensor(OrtValue *value, int type, size_t rank, const int64_t *dims, size_t offset) {
    size_t count = 1;
    for (size_t k = 0; k < rank; k++)
        count = dims[k] <= 0 ? 0 : count * (size_t)dims[k];
    value->type = type;
    value->rank = rank;
    for (size_t k = 0; k < rank; k++)
        value->dims[k] = dims[k];
    value->bytes = count * bytes_of_type(type);
    value->memory = value->bytes || offset ? checked_malloc(value->bytes + offset) : NULL;
    value->data = value->memory ? (char *)value->memory + offset : NULL;
}

void free_tensor(OrtValue *value) {
    free(value->memory);
    value->memory = value->data = NULL;
}

static OrtStatus *tensor_data(OrtValue *value, void **out) {
    *out = value->data;
    return NULL;
}
static OrtStatus *element_type(const OrtTensorTypeAndShapeInfo *info, int *out) {
    *out = info->value->type;
    return NULL;
}
static OrtStatus *rank_of(const OrtTensorTypeAndShapeInfo *info, size_t *out) {
    *out = info->value->rank;
    return NULL;
}
static OrtStatus *dims_of(const OrtTensorTypeAndShapeInfo *info, int64_t *out, size_t count) {
    for (size_t k = 0; k < count && k < info->value->rank; k++)
        out[k] = info->value->dims[k];
    return NULL;
}
static OrtStatus *type_and_shape(const OrtValue *value, OrtTensorTypeAndShapeInfo **out) {
    *out = checked_malloc(sizeof **out);
    (*out)->value = value;
    return NULL;
}
static void release_shape(OrtTensorTypeAndShapeInfo *info) { free(info); }

/* ---- attributes -------------------------------------------------------------------------------------------------- */

/* As onnxruntime says it where there is none, or one of another type. */
static OrtStatus *find(const OrtKernelInfo *info, const char *name, Kind kind, const Attribute **out) {
    char text[128];
    for (size_t k = 0; k < info->attribute_count; k++)
        if (!strcmp(info->attributes[k].name, name)) {
            *out = info->attributes + k;
            if ((*out)->kind == kind)
                return NULL;
            snprintf(text, sizeof text, "Requested attribute: %s is expected to have type: X but is of type: Y", name);
            return own_status(1, text);
        }
    snprintf(text, sizeof text, "No attribute with name:'%s'is defined.", name);
    return own_status(1, text);
}

static OrtStatus *attribute_int(const OrtKernelInfo *info, const char *name, int64_t *out) {
    const Attribute *found = NULL;
    OrtStatus *error = find(info, name, WHOLE, &found);
    if (!error)
        *out = found->whole;
    return error;
}
static OrtStatus *attribute_float(const OrtKernelInfo *info, const char *name, float *out) {
    const Attribute *found = NULL;
    OrtStatus *error = find(info, name, REAL, &found);
    if (!error)
        *out = found->real;
    return error;
}
static OrtStatus *copied(const void *from, size_t count, size_t element, void *out, size_t *size) {
    size_t have = *size;
    *size = count;
    if (!out)
        return NULL;
    if (have < count)
        return own_status(2, "Result buffer is not large enough");
    memcpy(out, from, count * element);
    return NULL;
}
static OrtStatus *attribute_string(const OrtKernelInfo *info, const char *name, char *out, size_t *size) {
    const Attribute *found = NULL;
    OrtStatus *error = find(info, name, TEXT, &found);
    return error ? error : copied(found->text, found->count + 1, 1, out, size);
}
static OrtStatus *attribute_ints(const OrtKernelInfo *info, const char *name, int64_t *out, size_t *size) {
    const Attribute *found = NULL;
    OrtStatus *error = find(info, name, WHOLES, &found);
    return error ? error : copied(found->wholes, found->count, sizeof *out, out, size);
}
static OrtStatus *attribute_floats(const OrtKernelInfo *info, const char *name, float *out, size_t *size) {
    static const float numbers[MOST_NUMBERS];
    const Attribute *found = NULL;
    OrtStatus *error = find(info, name, REALS, &found);
    return error ? error : copied(numbers, found->count, sizeof *out, out, size);
}
static OrtStatus *input_count(const OrtKernelInfo *info, size_t *out) {
    *out = info->input_count;
    return NULL;
}
static OrtStatus *constant_input(const OrtKernelInfo *info, size_t index, int *constant, const OrtValue **out) {
    if (index >= info->input_count)
        return own_status(1, "input index is out of range");
    *out = info->inputs[index];
    *constant = *out && (*out)->constant;
    return NULL;
}

/* ---- a call ------------------------------------------------------------------------------------------------------ */

static OrtStatus *get_input_(const OrtKernelContext *context, size_t index, const OrtValue **out) {
    if (index >= context->info->input_count)
        return own_status(1, "input index is out of range");
    *out = context->info->inputs[index];
    return NULL;
}

static OrtStatus *get_output_(OrtKernelContext *context, size_t index, const int64_t *dims, size_t count,
                              OrtValue **out) {
    if (index || count != 2 || dims[0] < 0 || dims[1] < 0) {
        fprintf(stderr, "an impossible output was asked for\n");
        abort();
    }
    if (dims[0] && dims[1] > (1 << 24) / dims[0])
        return own_status(1, "Failed to allocate memory for the output");
    fill_tensor(&context->output, FLOAT_TYPE, 2, dims, 0);
    for (size_t k = 0; k < context->output.bytes / 4; k++)
        ((uint32_t *)context->output.data)[k] = context->canary;
    *out = &context->output;
    return NULL;
}

static OrtStatus *parallel_for(const OrtKernelContext *context, void (*fn)(void *, size_t), size_t total,
                               size_t batches, void *argument) {
    (void)batches;
    if (++((OrtKernelContext *)context)->pool_calls == context->broken_pool)
        return own_status(1, "the pool is broken");
    for (size_t k = 0; k < total; k++)
        fn(argument, context->backwards ? total - 1 - k : k);
    return NULL;
}

/* ---- registering ------------------------------------------------------------------------------------------------- */

static const OrtCustomOp *operators[16];
static size_t operator_count;

static OrtStatus *create_domain(const char *name, OrtCustomOpDomain **out) {
    (void)name;
    *out = (OrtCustomOpDomain *)operators;
    return NULL;
}
static OrtStatus *domain_add(OrtCustomOpDomain *domain, const void *op) {
    (void)domain;
    operators[operator_count++] = op;
    return NULL;
}
static OrtStatus *add_domain(OrtSessionOptions *options, OrtCustomOpDomain *domain) {
    (void)options, (void)domain;
    return NULL;
}

/* Sessions keep the tensors that they have. */
static OrtStatus *no_allocator(OrtAllocator **out) {
    (void)out;
    return own_status(FAILED, "no allocator");
}

#define SLOT(function) (void (*)(void))(function)
const OrtApi fake_api = {.slot = {
    [CREATE_STATUS] = SLOT(create_status),
    [GET_ERROR_MESSAGE] = SLOT(error_message),
    [CREATE_CUSTOM_OP_DOMAIN] = SLOT(create_domain),
    [CUSTOM_OP_DOMAIN_ADD] = SLOT(domain_add),
    [ADD_CUSTOM_OP_DOMAIN] = SLOT(add_domain),
    [GET_TENSOR_MUTABLE_DATA] = SLOT(tensor_data),
    [GET_TENSOR_ELEMENT_TYPE] = SLOT(element_type),
    [GET_DIMENSIONS_COUNT] = SLOT(rank_of),
    [GET_DIMENSIONS] = SLOT(dims_of),
    [GET_TENSOR_TYPE_AND_SHAPE] = SLOT(type_and_shape),
    [DEFAULT_ALLOCATOR] = SLOT(no_allocator),
    [ATTRIBUTE_FLOAT] = SLOT(attribute_float),
    [ATTRIBUTE_INT] = SLOT(attribute_int),
    [ATTRIBUTE_STRING] = SLOT(attribute_string),
    [ATTRIBUTE_FLOATS] = SLOT(attribute_floats),
    [ATTRIBUTE_INTS] = SLOT(attribute_ints),
    [GET_INPUT] = SLOT(get_input_),
    [GET_OUTPUT] = SLOT(get_output_),
    [RELEASE_STATUS] = SLOT(release_status),
    [RELEASE_SHAPE] = SLOT(release_shape),
    [INPUT_COUNT] = SLOT(input_count),
    [CONSTANT_INPUT] = SLOT(constant_input),
    [PARALLEL_FOR] = SLOT(parallel_for),
}};

static const OrtApi *get_api(uint32_t version) { return version <= API_VERSION ? &fake_api : NULL; }

OrtStatus *RegisterCustomOps(OrtSessionOptions *options, const OrtApiBase *base);

__attribute__((constructor)) static void register_operators(void) {
    static const OrtApiBase base = {get_api, NULL};
    RegisterCustomOps(NULL, &base);
}

const OrtCustomOp *operator_called(const char *name) {
    for (size_t k = 0; k < operator_count; k++)
        if (!strcmp(operators[k]->name(operators[k]), name))
            return operators[k];
    fprintf(stderr, "no operator %s\n", name);
    exit(2);
}
