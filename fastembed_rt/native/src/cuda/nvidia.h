/* What is used of cuBLASLt and of the CUDA driver, found with dlopen: nothing of CUDA is needed to compile this.
 *
 * Sizes and values are those of cublasLt.h and cuda.h. They are the same in cuBLASLt 12 and 13 (tests/native/test_cuda_abi.py
 * compares them with the headers, where those are installed).
 */
#ifndef FASTEMBED_RT_NVIDIA_H
#define FASTEMBED_RT_NVIDIA_H

#include <stddef.h>
#include <stdint.h>

typedef struct { uint64_t data[8]; } LtAlgorithm; /* cublasLtMatmulAlgo_t: plain bytes, good for one version and device */
typedef struct {                                  /* cublasLtMatmulHeuristicResult_t */
    LtAlgorithm algorithm;
    size_t workspace;
    int state; /* 0: it runs */
    float waves;
    int reserved[4];
} LtResult;
_Static_assert(sizeof(LtResult) == 96, "as in cublasLt.h");

enum { LT_R_32F = 0, LT_R_16F = 2, LT_R_16BF = 14, LT_R_8F_E4M3 = 28 }; /* cudaDataType_t */
enum { LT_COMPUTE_32F = 68 };                        /* cublasComputeType_t */
enum { LT_DESC_TRANSPOSE_A = 3, LT_DESC_EPILOGUE = 7, LT_DESC_BIAS_POINTER = 8, LT_DESC_D_SCALE_POINTER = 20,
       LT_DESC_FAST_ACCUMULATION = 25, LT_DESC_BIAS_DATA_TYPE = 26 };
enum { LT_TRANSPOSED = 1 };                          /* cublasOperation_t */
enum { LT_EPILOGUE_NONE = 1, LT_EPILOGUE_RELU = 2, LT_EPILOGUE_BIAS = 4, LT_EPILOGUE_GELU = 32 }; /* BIAS and one: | */
enum { LT_PREF_WORKSPACE = 1, LT_PREF_REDUCTIONS = 3, LT_PREF_ALIGNMENT = 5 /* of A; B, C, D behind it */ };
enum { LT_ALGORITHM_SPLIT_K = 2 };
enum { CU_CAPABILITY_MAJOR = 75, CU_CAPABILITY_MINOR = 76, CU_NON_BLOCKING = 1, CU_CAPTURE_RELAXED = 2 };

/* Statuses: 0 is success in both. Descriptors and layouts live on the host. Streams, events and modules are pointers. */
typedef struct {
    int (*create)(void **handle);
    size_t (*version)(void);
    int (*desc_create)(void **desc, int compute, int scale);
    int (*desc_destroy)(void *desc);
    int (*desc_set)(void *desc, int attribute, const void *value, size_t size);
    int (*layout_create)(void **layout, int type, uint64_t rows, uint64_t columns, int64_t ld);
    int (*layout_destroy)(void *layout);
    int (*pref_create)(void **pref);
    int (*pref_destroy)(void *pref);
    int (*pref_set)(void *pref, int attribute, const void *value, size_t size);
    int (*heuristic)(void *handle, void *desc, void *a, void *b, void *c, void *d, void *pref, int asked,
                     LtResult *results, int *found);
    int (*check)(void *handle, void *desc, void *a, void *b, void *c, void *d, const LtAlgorithm *algorithm,
                 LtResult *result);
    int (*config_get)(const LtAlgorithm *algorithm, int attribute, void *value, size_t size, size_t *written);
    int (*matmul)(void *handle, void *desc, const void *alpha, const void *A, void *a, const void *B, void *b,
                  const void *beta, const void *C, void *c, void *D, void *d, const LtAlgorithm *algorithm,
                  void *workspace, size_t workspace_size, void *stream);
} Lt;

typedef struct {
    int (*init)(unsigned flags);
    int (*device_get)(int *device, int number);
    int (*device_attribute)(int *value, int attribute, int device);
    int (*context_device)(int *device);
    int (*allocate)(uint64_t *address, size_t size);
    int (*release)(uint64_t address);
    int (*copy_in)(uint64_t to, const void *from, size_t size, void *stream);
    int (*stream_create)(void **stream, unsigned flags);
    int (*stream_destroy)(void *stream);
    int (*stream_wait)(void *stream);
    int (*event_create)(void **event, unsigned flags);
    int (*event_destroy)(void *event);
    int (*event_record)(void *event, void *stream);
    int (*event_wait)(void *event);
    int (*event_elapsed)(float *milliseconds, void *from, void *to);
    int (*capture_mode)(int *mode); /* exchanges that of this thread */
    int (*module_load)(void **module, const void *image);
    int (*module_function)(void **function, void *module, const char *name);
    int (*launch)(void *function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x, unsigned block_y,
                  unsigned block_z, unsigned shared, void *stream, void **arguments, void **extra);
} Driver;

enum { MOST_DEVICES = 64 };

/* The libraries that fastembed_rt_cuda_open found; NULL before. */
const Lt *cublaslt(void);
const Driver *driver(void);
/* Whether those are stand-ins that compute on the host: operators belong to the CPU's provider then, without stream. */
int on_host(void);
/* The device of this thread's context, from 0 to before MOST_DEVICES; -1 where there is none. */
int current_device(void);
/* A handle of cuBLASLt for a device, which is this thread's; NULL where it gives none. */
void *handle_of(int device);

/* The locks that are the process's. A forked child has them free, whoever held them at the fork. */
typedef enum { REGISTERING, OPENING, LOADING, KNOWING, TAKING, LOCKS } Lock;
void lock(Lock which);
void unlock(Lock which);

#endif
