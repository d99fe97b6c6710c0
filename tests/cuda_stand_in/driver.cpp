/* The CUDA driver on the host: memory is the host's, streams run at once, time is what products say they take, and the
 * kernels are those of kernels.cu and fp8.cu, compiled for this processor. */
#include <stdio.h>
#include <stdlib.h>
#include <ucontext.h>

#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "on_host.h"

thread_local Index threadIdx, blockIdx, blockDim;
thread_local float *dynamic_shared;
#define EXTERN_SHARED
#include "kernels_on_host.inc"
#include "fp8_on_host.inc"

/* ---- threads of a block ------------------------------------------------------------------------------------------- */

namespace {

constexpr size_t STACK = 64 << 10;

struct Thread {
    ucontext_t context;
    std::vector<char> stack;
    Index place;
    float given[2] = {}; /* to shuffles, by turns: a thread may be one ahead of another */
    unsigned shuffles = 0;
    bool done = false;
};

thread_local std::vector<Thread> threads;
thread_local size_t running;
thread_local ucontext_t outside;
thread_local void (*body)(void **);
thread_local void **body_arguments;

void enter() {
    body(body_arguments);
    threads[running].done = true;
    swapcontext(&threads[running].context, &outside);
}

void leave() { swapcontext(&threads[running].context, &outside); }

void run_block() {
    size_t left = threads.size();
    for (Thread &thread : threads) {
        thread.done = false;
        thread.shuffles = 0;
        getcontext(&thread.context);
        thread.context.uc_stack.ss_sp = thread.stack.data();
        thread.context.uc_stack.ss_size = thread.stack.size();
        thread.context.uc_link = nullptr;
        makecontext(&thread.context, enter, 0);
    }
    while (left)
        for (running = 0; running < threads.size(); running++) {
            if (threads[running].done)
                continue;
            threadIdx = threads[running].place;
            swapcontext(&outside, &threads[running].context);
            left -= threads[running].done;
        }
}

} // namespace

float shuffled(float value, unsigned lanes, int mask) {
    if (lanes != 0xffffffffu)
        abort();
    const size_t own = running, warp = own / 32 * 32;
    const unsigned turn = threads[own].shuffles++ & 1;
    threads[own].given[turn] = value;
    leave();
    Thread &other = threads[warp + ((own - warp) ^ (size_t)mask)];
    if (other.shuffles < threads[own].shuffles) /* it does not take part: on a card, undefined */
        abort();
    return other.given[turn];
}

void barrier() { leave(); }

/* ---- kernels by name ---------------------------------------------------------------------------------------------- */

template <auto function, class... Arguments, size_t... Places>
static void called(void **arguments, void (*)(Arguments...), std::index_sequence<Places...>) {
    function(*(std::remove_reference_t<Arguments> *)arguments[Places]...);
}
template <auto function, class... Arguments>
static void called_with(void **arguments, void (*type)(Arguments...)) {
    called<function>(arguments, type, std::index_sequence_for<Arguments...>{});
}
template <auto function> static void invoke(void **arguments) { called_with<function>(arguments, function); }

struct Kernel {
    const char *name;
    void (*invoke)(void **);
};
#define KERNEL(name) {#name, invoke<name>}
static const Kernel kernels[] = {
    KERNEL(fastembed_rt_add_norm_float16),   KERNEL(fastembed_rt_add_norm_bfloat16),
    KERNEL(fastembed_rt_embed_norm_float16), KERNEL(fastembed_rt_embed_norm_bfloat16),
    KERNEL(fastembed_rt_add_norm_fp8),       KERNEL(fastembed_rt_embed_norm_fp8),
    KERNEL(fastembed_rt_quantize_fp8),
    KERNEL(fastembed_rt_mean_float16),       KERNEL(fastembed_rt_mean_bfloat16),
};

/* ---- the driver --------------------------------------------------------------------------------------------------- */

static int device, allocated, launched, capability = 90, out_of_memory;
extern "C" double stand_in_milliseconds; /* cublaslt.c */

#define API extern "C" __attribute__((visibility("default"))) int

/* What tests set and ask. */
API stand_in_set_device(int number) { return device = number; }
API stand_in_set_capability(int number) { return capability = number; }
API stand_in_set_out_of_memory(int whether) { return out_of_memory = whether; }
API stand_in_allocated() { return allocated; }
API stand_in_launched() { return launched; }

API cuInit(unsigned flags) { return flags != 0; }
API cuDeviceGet(int *out, int number) { return *out = number, number < 0 || number > 1 ? 101 : 0; }
API cuDeviceGetAttribute(int *value, int attribute, int) {
    *value = attribute == 75 ? capability / 10 : capability % 10;
    return attribute == 75 || attribute == 76 ? 0 : 1;
}
API cuCtxGetDevice(int *out) { return *out = device, device < 0 ? 201 : 0; }
API cuMemAlloc_v2(uint64_t *address, size_t size) {
    if (out_of_memory)
        return 2;
    void *made = aligned_alloc(256, (size + 255) / 256 * 256);
    *address = (uint64_t)(uintptr_t)made;
    allocated += made != nullptr;
    return made ? 0 : 2;
}
API cuMemFree_v2(uint64_t address) {
    free((void *)(uintptr_t)address);
    allocated--;
    return 0;
}
API cuMemcpyHtoDAsync_v2(uint64_t to, const void *from, size_t size, void *stream) {
    memcpy((void *)(uintptr_t)to, from, size);
    return stream == nullptr;
}
API cuStreamCreate(void **stream, unsigned flags) { return *stream = malloc(1), flags != 1; }
API cuStreamDestroy_v2(void *stream) { return free(stream), 0; }
API cuStreamSynchronize(void *stream) { return stream == nullptr; }
API cuEventCreate(void **event, unsigned flags) { return *event = calloc(1, sizeof(double)), flags != 0; }
API cuEventDestroy_v2(void *event) { return free(event), 0; }
API cuEventRecord(void *event, void *stream) { return *(double *)event = stand_in_milliseconds, stream == nullptr; }
API cuEventSynchronize(void *event) { return event == nullptr; }
API cuEventElapsedTime(float *milliseconds, void *from, void *to) {
    *milliseconds = (float)(*(double *)to - *(double *)from);
    return 0;
}
API cuThreadExchangeStreamCaptureMode(int *mode) {
    static thread_local int own;
    std::swap(own, *mode);
    return 0;
}
API cuModuleLoadData(void **module, const void *text) {
    std::string *image = new std::string((const char *)text);
    *module = image;
    return image->compare(0, 3, "// ") != 0;
}
API cuModuleGetFunction(void **function, void *module, const char *name) {
    if (((std::string *)module)->find(".visible .entry " + std::string(name) + "(") == std::string::npos)
        return 500;
    for (const Kernel &kernel : kernels)
        if (!strcmp(kernel.name, name)) {
            *function = (void *)&kernel;
            return 0;
        }
    return 500;
}
API cuLaunchKernel(void *function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x, unsigned block_y,
                   unsigned block_z, unsigned shared, void *, void **arguments, void **extra) {
    if (!grid_x || grid_y > 65535 || grid_z != 1 || block_x * block_y * block_z > 1024 || !block_x || !block_y ||
        block_z != 1 || shared > 48 << 10 || extra)
        return 1;
    std::vector<float> memory(shared / sizeof(float) + 1);
    dynamic_shared = memory.data();
    body = ((const Kernel *)function)->invoke;
    body_arguments = arguments;
    blockDim = {block_x, block_y, block_z};
    threads.resize(block_x * block_y);
    for (size_t k = 0; k < threads.size(); k++) {
        threads[k].stack.resize(STACK);
        threads[k].place = {(unsigned)k % block_x, (unsigned)k / block_x, 0};
    }
    for (unsigned y = 0; y < grid_y; y++)
        for (unsigned x = 0; x < grid_x; x++) {
            blockIdx = {x, y, 0};
            run_block();
        }
    launched++;
    return 0;
}
