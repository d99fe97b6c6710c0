/* cuBLASLt and the CUDA driver: opened once a process, by the names that the runtime has for them. */
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "nvidia.h"

#define EXPORTED __attribute__((visibility("default")))

static pthread_mutex_t locks[LOCKS] = {
    [0 ... LOCKS - 1] = PTHREAD_MUTEX_INITIALIZER,
};

void lock(Lock which) { pthread_mutex_lock(&locks[which]); }
void unlock(Lock which) { pthread_mutex_unlock(&locks[which]); }

/* A thread that holds one may be in a function of CUDA's, whose libraries have locks and handlers of their own: so forks
 * wait for none. In the child CUDA refuses what comes; what the locks are for is complete before it is found. */
static void free_locks(void) {
    for (int which = 0; which < LOCKS; which++)
        pthread_mutex_init(&locks[which], NULL);
}
__attribute__((constructor)) static void survive_forks(void) { pthread_atfork(NULL, NULL, free_locks); }

static Lt lt;
static Driver cuda;
static int opened, host;
static void *handles[MOST_DEVICES];

static const char *const lt_names[] = {
    "cublasLtCreate", "cublasLtGetVersion", "cublasLtMatmulDescCreate", "cublasLtMatmulDescDestroy",
    "cublasLtMatmulDescSetAttribute", "cublasLtMatrixLayoutCreate", "cublasLtMatrixLayoutDestroy",
    "cublasLtMatmulPreferenceCreate", "cublasLtMatmulPreferenceDestroy", "cublasLtMatmulPreferenceSetAttribute",
    "cublasLtMatmulAlgoGetHeuristic", "cublasLtMatmulAlgoCheck", "cublasLtMatmulAlgoConfigGetAttribute",
    "cublasLtMatmul",
};
static const char *const cuda_names[] = {
    "cuInit", "cuDeviceGet", "cuDeviceGetAttribute", "cuCtxGetDevice", "cuMemAlloc_v2", "cuMemFree_v2",
    "cuMemcpyHtoDAsync_v2", "cuStreamCreate", "cuStreamDestroy_v2", "cuStreamSynchronize", "cuEventCreate",
    "cuEventDestroy_v2", "cuEventRecord", "cuEventSynchronize", "cuEventElapsedTime",
    "cuThreadExchangeStreamCaptureMode", "cuModuleLoadData", "cuModuleGetFunction", "cuLaunchKernel",
};
_Static_assert(sizeof lt_names / sizeof lt_names[0] == sizeof(Lt) / sizeof(void *), "one name a function");
_Static_assert(sizeof cuda_names / sizeof cuda_names[0] == sizeof(Driver) / sizeof(void *), "one name a function");

/* Whether all functions of a table are in a library; else `why` says which library or function is missing. */
static int find(const char *file, const char *const *names, size_t count, void *table, char *why, size_t room) {
    void *library = dlopen(file, RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        snprintf(why, room, "%s", dlerror());
        return 0;
    }
    for (size_t k = 0; k < count; k++) {
        void *found = dlsym(library, names[k]);
        if (!found) {
            snprintf(why, room, "%s has no %s", file, names[k]);
            dlclose(library);
            return 0;
        }
        memcpy((char *)table + k * sizeof found, &found, sizeof found);
    }
    return 1;
}

/* Opens both libraries by their names or paths; `stand_ins`: they compute on the host. "" where they are open, else why
 * not. What is open stays, and a later call for the other kind is refused. The sentence is good until the next call. */
EXPORTED const char *fastembed_rt_cuda_open(const char *cublaslt_file, const char *driver_file, int stand_ins) {
    static char why[300];
    Lt lt_found;
    Driver cuda_found;
    lock(OPENING);
    why[0] = 0;
    if (opened && host != stand_ins) {
        snprintf(why, sizeof why, "this process has %s open already", host ? "stand-ins" : "the CUDA libraries");
    } else if (!opened &&
               find(cublaslt_file, lt_names, sizeof lt_names / sizeof lt_names[0], &lt_found, why, sizeof why) &&
               find(driver_file, cuda_names, sizeof cuda_names / sizeof cuda_names[0], &cuda_found, why, sizeof why)) {
        int status = cuda_found.init(0);
        if (status) {
            snprintf(why, sizeof why, "cuInit fails with error %d", status);
        } else {
            lt = lt_found;
            cuda = cuda_found;
            host = stand_ins;
            __atomic_store_n(&opened, 1, __ATOMIC_RELEASE);
        }
    }
    unlock(OPENING);
    return why;
}

/* Compute capability of a device, 90 for 9.0; -1 where it does not tell. */
EXPORTED int fastembed_rt_cuda_capability(int number) {
    int device = 0, major = 0, minor = 0;
    const Driver *found = driver();
    if (!found || found->device_get(&device, number) ||
        found->device_attribute(&major, CU_CAPABILITY_MAJOR, device) ||
        found->device_attribute(&minor, CU_CAPABILITY_MINOR, device))
        return -1;
    return 10 * major + minor;
}

/* cuBLASLt's version, 131000 for 13.1.0; 0 before it is open. */
EXPORTED size_t fastembed_rt_cuda_version(void) { return cublaslt() ? lt.version() : 0; }

const Lt *cublaslt(void) { return __atomic_load_n(&opened, __ATOMIC_ACQUIRE) ? &lt : NULL; }
const Driver *driver(void) { return __atomic_load_n(&opened, __ATOMIC_ACQUIRE) ? &cuda : NULL; }
int on_host(void) { return __atomic_load_n(&opened, __ATOMIC_ACQUIRE) && host; }

int current_device(void) {
    int device = -1;
    return driver()->context_device(&device) || device < 0 || device >= MOST_DEVICES ? -1 : device;
}

void *handle_of(int device) {
    lock(OPENING);
    if (!handles[device] && lt.create(&handles[device]))
        handles[device] = NULL;
    void *found = handles[device];
    unlock(OPENING);
    return found;
}
