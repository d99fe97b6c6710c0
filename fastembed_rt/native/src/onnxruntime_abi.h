/* What is used of onnxruntime's C interface, by position.
 *
 * The interface is a table of functions that only ever grows at its end (its header promises so, and asserts the
 * positions), so a position is a fact that holds for every later version. Positions and signatures are those of API
 * version 17, onnxruntime 1.17; tests/native checks what they do in the installed one.
 */
#ifndef FASTEMBED_RT_ONNXRUNTIME_ABI_H
#define FASTEMBED_RT_ONNXRUNTIME_ABI_H

#include <stddef.h>
#include <stdint.h>

enum { API_VERSION = 17 };

typedef struct OrtEnv OrtEnv;
typedef struct OrtMemoryInfo OrtMemoryInfo;
typedef struct OrtStatus OrtStatus; /* NULL: no error */
typedef struct OrtValue OrtValue;
typedef struct OrtKernelInfo OrtKernelInfo;
typedef struct OrtKernelContext OrtKernelContext;
typedef struct OrtSessionOptions OrtSessionOptions;
typedef struct OrtCustomOpDomain OrtCustomOpDomain;
typedef struct OrtTensorTypeAndShapeInfo OrtTensorTypeAndShapeInfo;

typedef struct { void (*slot[512])(void); } OrtApi;
typedef struct {
    const OrtApi *(*get_api)(uint32_t version);
    const char *(*version)(void);
} OrtApiBase;

enum { ANY_TYPE = 0, FLOAT_TYPE = 1, INT8_TYPE = 3, INT32_TYPE = 6, INT64_TYPE = 7, FLOAT16_TYPE = 10, BF16_TYPE = 16,
       E4M3_TYPE = 17 }; /* ONNXTensorElementDataType */
enum { REQUIRED = 0, OPTIONAL = 1, VARIADIC = 2 };
enum { FAILED = 1, INVALID_ARGUMENT = 2 }; /* OrtErrorCode */
enum { WARNING = 2 }; /* OrtLoggingLevel */
enum { DEVICE_ALLOCATOR = 0, DEFAULT_MEMORY = 0 }; /* OrtAllocatorType, OrtMemType */

typedef OrtStatus *(*CreateStatus)(int code, const char *message);
typedef const char *(*GetErrorMessage)(const OrtStatus *status);
typedef OrtStatus *(*CreateCustomOpDomain)(const char *name, OrtCustomOpDomain **out);
typedef OrtStatus *(*CustomOpDomainAdd)(OrtCustomOpDomain *domain, const void *op);
typedef OrtStatus *(*AddCustomOpDomain)(OrtSessionOptions *options, OrtCustomOpDomain *domain);
typedef OrtStatus *(*GetTensorMutableData)(OrtValue *value, void **out);
typedef OrtStatus *(*GetTensorElementType)(const OrtTensorTypeAndShapeInfo *info, int *out);
typedef OrtStatus *(*GetDimensionsCount)(const OrtTensorTypeAndShapeInfo *info, size_t *out);
typedef OrtStatus *(*GetDimensions)(const OrtTensorTypeAndShapeInfo *info, int64_t *out, size_t count);
typedef OrtStatus *(*GetTensorTypeAndShape)(const OrtValue *value, OrtTensorTypeAndShapeInfo **out);
typedef OrtStatus *(*AttributeFloat)(const OrtKernelInfo *info, const char *name, float *out);
typedef OrtStatus *(*AttributeInt)(const OrtKernelInfo *info, const char *name, int64_t *out);
typedef OrtStatus *(*AttributeString)(const OrtKernelInfo *info, const char *name, char *out, size_t *size);
typedef OrtStatus *(*AttributeFloats)(const OrtKernelInfo *info, const char *name, float *out, size_t *size);
typedef OrtStatus *(*AttributeInts)(const OrtKernelInfo *info, const char *name, int64_t *out, size_t *size);
typedef OrtStatus *(*GetInput)(const OrtKernelContext *context, size_t index, const OrtValue **out);
typedef OrtStatus *(*GetOutput)(OrtKernelContext *context, size_t index, const int64_t *dims, size_t count,
                                OrtValue **out);
typedef void (*ReleaseStatus)(OrtStatus *status);
typedef void (*ReleaseShape)(OrtTensorTypeAndShapeInfo *info);
typedef OrtStatus *(*InputCount)(const OrtKernelInfo *info, size_t *out);
typedef OrtStatus *(*ConstantInput)(const OrtKernelInfo *info, size_t index, int *constant, const OrtValue **out);
typedef OrtStatus *(*ParallelFor)(const OrtKernelContext *context, void (*fn)(void *argument, size_t index),
                                  size_t total, size_t batches, void *argument);

typedef OrtStatus *(*CreateEnv)(int severity, const char *name, OrtEnv **out);
typedef OrtStatus *(*CreateCpuMemoryInfo)(int allocator_type, int memory_type, OrtMemoryInfo **out);
typedef void (*ReleaseEnv)(OrtEnv *env);
typedef OrtStatus *(*AddSessionConfigEntry)(OrtSessionOptions *options, const char *key, const char *value);

#define CREATE_STATUS 0
#define CREATE_ENV 3
#define GET_ERROR_MESSAGE 2
#define CREATE_CUSTOM_OP_DOMAIN 26
#define CUSTOM_OP_DOMAIN_ADD 27
#define ADD_CUSTOM_OP_DOMAIN 28
#define GET_TENSOR_MUTABLE_DATA 51
#define GET_TENSOR_ELEMENT_TYPE 60
#define GET_DIMENSIONS_COUNT 61
#define GET_DIMENSIONS 62
#define GET_TENSOR_TYPE_AND_SHAPE 65
#define CREATE_CPU_MEMORY_INFO 69
#define DEFAULT_ALLOCATOR 78
#define ATTRIBUTE_FLOAT 85
#define ATTRIBUTE_INT 86
#define ATTRIBUTE_STRING 87
#define GET_INPUT 90
#define GET_OUTPUT 91
#define RELEASE_ENV 92
#define RELEASE_STATUS 93
#define RELEASE_SHAPE 99
#define ADD_SESSION_CONFIG_ENTRY 130
#define ATTRIBUTE_FLOATS 162
#define ATTRIBUTE_INTS 163
#define REGISTER_ALLOCATOR 176
#define INPUT_COUNT 230
#define CONSTANT_INPUT 249
#define PARALLEL_FOR 274

/* OrtAllocator of version 17. */
typedef struct OrtAllocator OrtAllocator;
struct OrtAllocator {
    uint32_t version;
    void *(*allocate)(OrtAllocator *allocator, size_t bytes);
    void (*free)(OrtAllocator *allocator, void *memory);
    const OrtMemoryInfo *(*info)(const OrtAllocator *allocator);
};
typedef OrtStatus *(*DefaultAllocator)(OrtAllocator **out);
typedef OrtStatus *(*RegisterAllocator)(OrtEnv *env, OrtAllocator *allocator);

/* OrtCustomOp up to version 17; functions that are NULL are not called for this version. */
typedef struct OrtCustomOp OrtCustomOp;
struct OrtCustomOp {
    uint32_t version;
    void *(*create_kernel)(const OrtCustomOp *op, const OrtApi *api, const OrtKernelInfo *info);
    const char *(*name)(const OrtCustomOp *op);
    const char *(*provider)(const OrtCustomOp *op);
    int (*input_type)(const OrtCustomOp *op, size_t index);
    size_t (*input_count)(const OrtCustomOp *op);
    int (*output_type)(const OrtCustomOp *op, size_t index);
    size_t (*output_count)(const OrtCustomOp *op);
    void (*compute)(void *kernel, OrtKernelContext *context);
    void (*destroy)(void *kernel);
    int (*input_characteristic)(const OrtCustomOp *op, size_t index);
    int (*output_characteristic)(const OrtCustomOp *op, size_t index);
    int (*input_memory)(const OrtCustomOp *op, size_t index);
    int (*variadic_input_least)(const OrtCustomOp *op);
    int (*variadic_input_homogeneous)(const OrtCustomOp *op);
    int (*variadic_output_least)(const OrtCustomOp *op);
    int (*variadic_output_homogeneous)(const OrtCustomOp *op);
    OrtStatus *(*create)(const OrtCustomOp *op, const OrtApi *api, const OrtKernelInfo *info, void **kernel);
    OrtStatus *(*run)(void *kernel, OrtKernelContext *context);
    void *infer_shape;
    int (*start_version)(const OrtCustomOp *op);
    int (*end_version)(const OrtCustomOp *op);
};

#endif
