/* A process that forks while a thread of it registers operators, behind a stand-in for onnxruntime; the child registers too.
 *
 *     forked LIBRARY [CUBLASLT DRIVER]     of a library of operators, the one for CUDA with what stands in for these two
 */
#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "onnxruntime_abi.h"

typedef OrtStatus *Register(OrtSessionOptions *options, const OrtApiBase *base);
typedef const char *Open(const char *cublaslt, const char *driver, int stand_ins);

static Register *registers;
static void (*trim)(void);    /* takes the lock of memory, */
static int (*unshared)(void); /* and this one that of packed weights; NULL in the library for CUDA */
static int inside; /* a thread is where it holds a lock */
static OrtApi api;

static OrtStatus *nothing(void) { return NULL; }

static OrtStatus *create_domain(const char *name, OrtCustomOpDomain **out) {
    (void)name;
    __atomic_store_n(&inside, 1, __ATOMIC_RELEASE);
    usleep(50000); /* in which the process forks, which has to take this lock before those */
    if (trim && unshared) {
        unshared();
        trim();
    }
    *out = (OrtCustomOpDomain *)&api;
    return NULL;
}

static const OrtApi *get_api(uint32_t version) {
    (void)version;
    return &api;
}

static const OrtApiBase base = {get_api, NULL};

static void *register_here(void *none) {
    (void)none;
    return registers(NULL, &base);
}

int main(int count, char **given) {
    void *library = dlopen(given[1], RTLD_NOW);
    for (size_t k = 0; k < sizeof api.slot / sizeof api.slot[0]; k++)
        api.slot[k] = (void (*)(void))nothing;
    api.slot[CREATE_CUSTOM_OP_DOMAIN] = (void (*)(void))create_domain;
    *(void **)&registers = library ? dlsym(library, "RegisterCustomOps") : NULL;
    if (library) {
        *(void **)&trim = dlsym(library, "fastembed_rt_trim");
        *(void **)&unshared = dlsym(library, "fastembed_rt_unshared");
    }
    if (!registers)
        return fprintf(stderr, "%s\n", dlerror()), 2;
    if (count > 3) {
        Open *open_libraries;
        *(void **)&open_libraries = dlsym(library, "fastembed_rt_cuda_open");
        const char *why = open_libraries(given[2], given[3], 1);
        if (*why)
            return fprintf(stderr, "%s\n", why), 2;
    }
    pthread_t thread;
    if (pthread_create(&thread, NULL, register_here, NULL))
        return 2;
    while (!__atomic_load_n(&inside, __ATOMIC_ACQUIRE))
        usleep(100);
    pid_t child = fork();
    if (child == 0) {
        alarm(3); /* a lock that the thread held at the fork would be waited for */
        if (trim && unshared) {
            unshared();
            trim();
        }
        _exit(register_here(NULL) != NULL);
    }
    int status = 0;
    waitpid(child, &status, 0);
    pthread_join(thread, NULL);
    printf("%d", status);
    return 0;
}
