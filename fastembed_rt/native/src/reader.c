#include "reader.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* ---- sentences --------------------------------------------------------------------------------------------------- */

enum { SPARES = 32 }; /* threads that may be without memory at once */
static OrtStatus *spares[SPARES]; /* for refusals without memory for their own */

void prepare_refusals(const OrtApi *api) {
    for (int k = 0; k < SPARES; k++) {
        if (__atomic_load_n(&spares[k], __ATOMIC_RELAXED))
            continue;
        OrtStatus *none = NULL, *made = CALL(api, CreateStatus, CREATE_STATUS)(FAILED, "fastembed_rt: no memory");
        if (!__atomic_compare_exchange_n(&spares[k], &none, made, 0, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
            CALL(api, ReleaseStatus, RELEASE_STATUS)(made);
    }
}

static OrtStatus *take_spare(void) {
    OrtStatus *found = NULL;
    for (int k = 0; k < SPARES && !found; k++)
        found = __atomic_exchange_n(&spares[k], NULL, __ATOMIC_ACQ_REL);
    return found;
}

static OrtStatus *say(const Node *node, const char *format, va_list values) {
    char text[300];
    int length = snprintf(text, sizeof text, "fastembed_rt: %s: ", node->name);
    if (length > 0 && (size_t)length < sizeof text)
        vsnprintf(text + length, sizeof text - (size_t)length, format, values);
    OrtStatus *made = CALL(node->api, CreateStatus, CREATE_STATUS)(INVALID_ARGUMENT, text);
    if (made)
        prepare_refusals(node->api);
    return made ? made : take_spare();
}

OrtStatus *refusal(const Node *node, const char *format, ...) {
    va_list values;
    va_start(values, format);
    OrtStatus *made = say(node, format, values);
    va_end(values);
    return made;
}

OrtStatus *no_memory(const Node *node) { return refusal(node, "no memory for this call or model"); }

void refuse(Reader *reader, const char *format, ...) {
    if (reader->error)
        return;
    va_list values;
    va_start(values, format);
    reader->error = say(&reader->node, format, values);
    va_end(values);
}

static const char *type_name(int type) {
    static const char *const names[] = {
        "of no type", "float32", "uint8", "int8", "uint16", "int16", "int32", "int64", "string", "bool", "float16",
        "float64", "uint32", "uint64", "complex64", "complex128", "bfloat16", "float8e4m3fn",
    };
    return type >= 0 && (size_t)type < sizeof names / sizeof names[0] ? names[type] : "of another type";
}

/* ---- tensors ----------------------------------------------------------------------------------------------------- */

static size_t bytes_of(int type) {
    switch (type) {
    case INT64_TYPE: return 8;
    case FLOAT_TYPE: case INT32_TYPE: return 4;
    case FLOAT16_TYPE: case BF16_TYPE: return 2;
    default: return 1;
    }
}

/* "int8 (16, 3)" of what came, "float32 (any, 3)" of what has to. */
static const char *written(char *text, size_t room, int type, size_t rank, int64_t rows, int64_t columns) {
    char sizes[2][24];
    const int64_t values[2] = {rows, columns};
    for (size_t k = 0; k < 2; k++) {
        if (values[k] == ANY)
            strcpy(sizes[k], "any");
        else
            snprintf(sizes[k], sizeof sizes[k], "%lld", (long long)values[k]);
    }
    if (rank == 2)
        snprintf(text, room, "%s (%s, %s)", type_name(type), sizes[0], sizes[1]);
    else if (rank == 1)
        snprintf(text, room, "%s (%s)", type_name(type), sizes[1]);
    else
        snprintf(text, room, "%s with %zu dimensions", type_name(type), rank);
    return text;
}

static OrtStatus *examine(const Node *node, const OrtValue *value, const Form *form, Tensor *out) {
    const OrtApi *api = node->api;
    OrtTensorTypeAndShapeInfo *shape = NULL;
    int type = ANY_TYPE;
    size_t rank = 0;
    int64_t dims[2] = {1, 1};
    void *data = NULL;
    OrtStatus *error = CALL(api, GetTensorTypeAndShape, GET_TENSOR_TYPE_AND_SHAPE)(value, &shape);
    if (!error)
        error = CALL(api, GetTensorElementType, GET_TENSOR_ELEMENT_TYPE)(shape, &type);
    if (!error)
        error = CALL(api, GetDimensionsCount, GET_DIMENSIONS_COUNT)(shape, &rank);
    if (!error && (rank == 1 || rank == 2))
        error = CALL(api, GetDimensions, GET_DIMENSIONS)(shape, dims + (2 - rank), rank);
    if (shape)
        CALL(api, ReleaseShape, RELEASE_SHAPE)(shape);
    if (error)
        return error;
    int fits = type == form->type && rank == form->rank && dims[0] >= 0 && dims[1] >= 0 && dims[0] <= MOST_TOKENS &&
               dims[1] <= MOST_TOKENS && (form->rows == ANY || dims[0] == form->rows) &&
               (form->columns == ANY || dims[1] == form->columns);
    if (!fits) {
        char came[64], wanted[64];
        return refusal(node, "%s is %s and has to be %s", form->name,
                       written(came, sizeof came, type, rank, dims[0], dims[1]),
                       written(wanted, sizeof wanted, form->type, form->rank, form->rows, form->columns));
    }
    error = CALL(api, GetTensorMutableData, GET_TENSOR_MUTABLE_DATA)((OrtValue *)value, &data);
    if (!error && !data && dims[0] && dims[1])
        error = refusal(node, "%s has no data", form->name);
    out->data = data;
    out->rows = (size_t)dims[0];
    out->columns = (size_t)dims[1];
    return error;
}

static int all_finite(const float *values, size_t count) {
    uint32_t found = 0;
    for (size_t k = 0; k < count; k++) {
        float value = float_at(values, k);
        found |= !(value - value == 0.0f);
    }
    return !found;
}

static int all_finite_bf16(const void *values, size_t count) {
    int found = 0;
    for (size_t k = 0; k < count; k++) {
        uint16_t value;
        memcpy(&value, (const char *)values + k * sizeof value, sizeof value);
        found |= (value & 0x7F80) == 0x7F80;
    }
    return !found;
}

static int has_only_finite(const Tensor *tensor, int type) {
    size_t count = tensor->rows * tensor->columns;
    if (type == BF16_TYPE)
        return all_finite_bf16(tensor->data, count);
    return type != FLOAT_TYPE || all_finite(tensor->data, count);
}

Tensor read_constant(Reader *reader, const Form *form) {
    const OrtValue *value = NULL;
    Tensor found = {0};
    int constant = 0;
    if (reader->error)
        return found;
    ConstantInput get = CALL(reader->node.api, ConstantInput, CONSTANT_INPUT);
    reader->error = get(reader->info, reader->next++, &constant, &value);
    if (!reader->error && (!constant || !value))
        refuse(reader, "%s is not a constant", form->name);
    if (!reader->error)
        reader->error = examine(&reader->node, value, form, &found);
    if (!reader->error && (!found.rows || !found.columns))
        refuse(reader, "%s is empty", form->name);
    if (!reader->error && !has_only_finite(&found, form->type))
        refuse(reader, "%s has elements that are not finite", form->name);
    return reader->error ? (Tensor){0} : found;
}

OrtStatus *get_input(const Node *node, OrtKernelContext *context, size_t index, const Form *form, int loose,
                     Tensor *out) {
    const OrtValue *value = NULL;
    OrtStatus *error = CALL(node->api, GetInput, GET_INPUT)(context, index, &value);
    if (!error && !value)
        error = refusal(node, "%s is missing", form->name);
    if (!error)
        error = examine(node, value, form, out);
    if (!error && !loose && (uintptr_t)out->data % bytes_of(form->type))
        error = refusal(node, "%s does not lie at a multiple of its element's size", form->name);
    return error;
}

OrtStatus *get_output(const Node *node, OrtKernelContext *context, size_t rows, size_t columns, float **out) {
    const int64_t dims[2] = {(int64_t)rows, (int64_t)columns};
    OrtValue *value = NULL;
    void *data = NULL;
    OrtStatus *error = CALL(node->api, GetOutput, GET_OUTPUT)(context, 0, dims, 2, &value);
    if (!error && !value)
        error = refusal(node, "nobody takes the output");
    if (!error)
        error = CALL(node->api, GetTensorMutableData, GET_TENSOR_MUTABLE_DATA)(value, &data);
    if (!error && !data && rows && columns)
        error = no_memory(node);
    *out = data;
    return error;
}

/* ---- attributes -------------------------------------------------------------------------------------------------- */

/* Releases a status; whether there was one. */
static int failed(const Reader *reader, OrtStatus *status) {
    if (status)
        CALL(reader->node.api, ReleaseStatus, RELEASE_STATUS)(status);
    return status != NULL;
}

/* After an attribute could not be read: whether there is none of that name. One of another type is refused; onnxruntime
 * has one error for both, so the other types are tried, and those that have no function here known by the message. */
static int absent(Reader *reader, const char *name, OrtStatus *status) {
    const OrtApi *api = reader->node.api;
    const OrtKernelInfo *info = reader->info;
    int other = strstr(CALL(api, GetErrorMessage, GET_ERROR_MESSAGE)(status), "expected to have type") != NULL;
    failed(reader, status);
    int64_t whole;
    float real;
    size_t size = 0;
    other = other || !failed(reader, CALL(api, AttributeInt, ATTRIBUTE_INT)(info, name, &whole)) ||
            !failed(reader, CALL(api, AttributeFloat, ATTRIBUTE_FLOAT)(info, name, &real)) ||
            !failed(reader, CALL(api, AttributeString, ATTRIBUTE_STRING)(info, name, NULL, &size)) ||
            !failed(reader, CALL(api, AttributeInts, ATTRIBUTE_INTS)(info, name, NULL, &size)) ||
            !failed(reader, CALL(api, AttributeFloats, ATTRIBUTE_FLOATS)(info, name, NULL, &size));
    if (other)
        refuse(reader, "attribute %s is of another type than this operator takes", name);
    return !other;
}

int64_t read_whole(Reader *reader, const char *name, int64_t least, int64_t most, int64_t otherwise) {
    int64_t found = 0;
    if (reader->error)
        return 0;
    OrtStatus *status = CALL(reader->node.api, AttributeInt, ATTRIBUTE_INT)(reader->info, name, &found);
    if (status) {
        if (absent(reader, name, status) && otherwise == NEEDED)
            refuse(reader, "attribute %s is missing", name);
        return reader->error ? 0 : otherwise;
    }
    if (found < least || found > most)
        refuse(reader, "attribute %s is %lld and has to be from %lld to %lld", name, (long long)found, (long long)least,
               (long long)most);
    return reader->error ? 0 : found;
}

int read_flag(Reader *reader, const char *name) { return (int)read_whole(reader, name, 0, 1, 0); }

float read_real(Reader *reader, const char *name, float least, float most) {
    float found = 0.0f;
    if (reader->error)
        return 0.0f;
    OrtStatus *status = CALL(reader->node.api, AttributeFloat, ATTRIBUTE_FLOAT)(reader->info, name, &found);
    if (status) {
        if (absent(reader, name, status))
            refuse(reader, "attribute %s is missing", name);
        return 0.0f;
    }
    if (!(found >= least && found <= most))
        refuse(reader, "attribute %s is %g and has to be from %g to %g", name, (double)found, (double)least,
               (double)most);
    return reader->error ? 0.0f : found;
}

size_t read_wholes(Reader *reader, const char *name, int64_t *out, size_t most, int64_t lowest, int64_t highest) {
    size_t count = 0;
    AttributeInts get = CALL(reader->node.api, AttributeInts, ATTRIBUTE_INTS);
    if (reader->error)
        return 0;
    OrtStatus *status = get(reader->info, name, NULL, &count); /* how many there are */
    if (status) {
        absent(reader, name, status);
        return 0;
    }
    if (count > most)
        refuse(reader, "attribute %s has %zu numbers and may have %zu", name, count, most);
    if (!reader->error && count)
        reader->error = get(reader->info, name, out, &count);
    for (size_t k = 0; !reader->error && k < count; k++)
        if (out[k] < lowest || out[k] > highest)
            refuse(reader, "attribute %s has a %lld and has to be from %lld to %lld", name, (long long)out[k],
                   (long long)lowest, (long long)highest);
    return reader->error ? 0 : count;
}

size_t read_choice(Reader *reader, const char *name, const char *const *names, size_t count) {
    char found[32] = "";
    size_t size = 0; /* with the zero behind it */
    AttributeString get = CALL(reader->node.api, AttributeString, ATTRIBUTE_STRING);
    if (reader->error)
        return 0;
    OrtStatus *status = get(reader->info, name, NULL, &size);
    if (status) {
        absent(reader, name, status);
        return 0;
    }
    if (size <= sizeof found)
        reader->error = get(reader->info, name, found, &size);
    if (reader->error)
        return 0;
    for (size_t k = 0; size && k < count; k++)
        if (strlen(names[k]) == size - 1 && !memcmp(names[k], found, size - 1))
            return k;
    found[sizeof found - 1] = 0;
    refuse(reader, "attribute %s is '%.31s' of %zu letters, which is not known", name, found, size ? size - 1 : 0);
    return 0;
}

void read_end(Reader *reader) {
    size_t count = 0;
    if (!reader->error)
        reader->error = CALL(reader->node.api, InputCount, INPUT_COUNT)(reader->info, &count);
    if (!reader->error && count != reader->next)
        refuse(reader, "the node has %zu inputs and describes %zu", count, reader->next);
}
