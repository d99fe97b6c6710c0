/* The CUDA driver on the host: memory is the host's, streams run at once, time is what products say they take, and the
 * kernels are those of the .cu files, compiled for this processor. */
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <ucontext.h>

#include <algorithm>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "on_host.h"

thread_local Index threadIdx, blockIdx, blockDim;
thread_local float *dynamic_shared;
#include "device.cuh"
/* Each in a space of its own, as each is compiled by itself for a card. */
namespace of_kernels {
#include "kernels.cu"
}
#undef KERNELS
namespace of_gated {
#include "gated.cu"
}
#undef KERNELS
namespace of_heads {
#include "heads.cu"
}
#undef KERNELS
namespace of_attention {
#include "attention.cu"
}
#undef KERNEL
namespace of_fp8 {
#include "fp8.cu"
}
using namespace of_kernels;
using namespace of_gated;
using namespace of_heads;
using namespace of_attention;
using namespace of_fp8;

/* ---- threads of a block ------------------------------------------------------------------------------------------- */

namespace {

constexpr size_t STACK = 64 << 10;

struct Thread {
    ucontext_t begin;
    jmp_buf left; /* where it goes on: swapcontext would ask the system for signals each time */
    bool begun = false;
    std::vector<char> stack;
    Index place;
    uint64_t given[2][6] = {}; /* to the warp, by turns: a thread may be one ahead of another */
    unsigned turns = 0;
    bool done = false, waiting = false; /* waiting: at a barrier */
    struct Copy {
        Vector *to;
        Vector bytes;
        unsigned group;
    };
    std::vector<Copy> copies; /* that have not arrived */
    unsigned groups = 0;
};

thread_local std::vector<Thread> threads;
thread_local size_t running;
thread_local jmp_buf outside;
thread_local void (*body)(void **);
thread_local void **body_arguments;

void enter() {
    body(body_arguments);
    threads[running].done = true;
    _longjmp(outside, 1);
}

void leave() {
    if (!_setjmp(threads[running].left))
        _longjmp(outside, 1);
}

/* Until the running thread leaves. */
void go_on() {
    Thread &own = threads[running];
    if (_setjmp(outside))
        return;
    if (own.begun)
        _longjmp(own.left, 1);
    own.begun = true;
    setcontext(&own.begin);
}

bool goes_on(const Thread &thread) { return !thread.done && !thread.waiting; }

/* A warp until all of its threads wait at a barrier or have ended: its threads change at shuffles. */
void run_warp(size_t first) {
    const size_t last = std::min(first + 32, threads.size());
    for (bool any = true; any;) {
        any = false;
        for (running = first; running < last; running++)
            if (goes_on(threads[running])) {
                threadIdx = threads[running].place;
                go_on();
                any = any || goes_on(threads[running]);
            }
    }
}

/* One warp runs as far ahead of the others as barriers let it, the first and the last by turns: what is not there yet is
 * read, and what others still read is written over, unless barriers keep it from that. */
void run_block() {
    for (Thread &thread : threads) {
        thread.done = thread.waiting = thread.begun = false;
        thread.turns = thread.groups = 0;
        thread.copies.clear();
        getcontext(&thread.begin);
        thread.begin.uc_stack.ss_sp = thread.stack.data();
        thread.begin.uc_stack.ss_size = thread.stack.size();
        thread.begin.uc_link = nullptr;
        makecontext(&thread.begin, enter, 0);
    }
    const size_t warps = (threads.size() + 31) / 32;
    for (size_t phase = 0; std::any_of(threads.begin(), threads.end(), goes_on); phase++) {
        for (size_t warp = 0; warp < warps; warp++)
            run_warp(32 * (phase % 2 ? warps - 1 - warp : warp));
        for (Thread &thread : threads)
            thread.waiting = false;
    }
}

} // namespace

/* Gives the warp some words; then a lane can be asked for its own. */
static void give(const uint64_t *words, int count) {
    Thread &own = threads[running];
    memcpy(own.given[own.turns++ & 1], words, sizeof *words * (size_t)count);
    leave();
}
static const uint64_t *given_by(size_t lane) {
    Thread &own = threads[running], &other = threads[running / 32 * 32 + lane];
    if (other.turns < own.turns) /* it does not take part: on a card, undefined */
        abort();
    return other.given[(own.turns - 1) & 1];
}

float shuffled(float value, unsigned lanes, int mask) {
    if (lanes != 0xffffffffu)
        abort();
    uint64_t word = 0;
    memcpy(&word, &value, sizeof value);
    give(&word, 1);
    memcpy(&value, given_by((running % 32) ^ (size_t)mask), sizeof value);
    return value;
}

void copy_later(Vector *to, const Vector *from, int there) {
    if (((uintptr_t)to | (uintptr_t)from) % 16)
        abort();
    Thread &own = threads[running];
    const uint32_t some = (own.groups * 40503u + (uint32_t)(running / 32) * 30011u + blockIdx.x * 7919u) * 2654435761u;
    if (some >> 31) /* of a warp's groups about half are there at once, over what others may still read */
        *to = there ? *from : Vector{};
    else
        own.copies.push_back({to, there ? *from : Vector{}, own.groups});
}
void end_of_group() { threads[running].groups++; }
void wait_for(int but) {
    Thread &own = threads[running];
    size_t left = 0;
    for (const Thread::Copy &copy : own.copies)
        if (copy.group + (unsigned)but < own.groups)
            *copy.to = copy.bytes;
        else
            own.copies[left++] = copy;
    own.copies.resize(left);
}

static unsigned number_at(const uint64_t *row, unsigned index) {
    return ((const uint16_t *)(uintptr_t)row[0])[index];
}
void load_matrices(unsigned *out, const Vector *row) {
    const uint64_t place = (uintptr_t)row;
    give(&place, 1);
    const unsigned g = (unsigned)(running % 32) / 4, t = (unsigned)running % 4;
    for (unsigned k = 0; k < 4; k++)
        out[k] = number_at(given_by(8 * k + g), 2 * t) | number_at(given_by(8 * k + g), 2 * t + 1) << 16;
}
void load_transposed(unsigned *out, const Vector *row) {
    const uint64_t place = (uintptr_t)row;
    give(&place, 1);
    const unsigned g = (unsigned)(running % 32) / 4, t = (unsigned)running % 4;
    for (unsigned k = 0; k < 4; k++)
        out[k] = number_at(given_by(8 * k + 2 * t), g) | number_at(given_by(8 * k + 2 * t + 1), g) << 16;
}
void add_product_of(float *sum, const unsigned *a, const unsigned *b, float (*wide)(unsigned bits)) {
    uint64_t words[6]; /* of two numbers each, made wide once */
    for (unsigned k = 0; k < 6; k++) {
        const unsigned pair = k < 4 ? a[k] : b[k - 4];
        const float both[2] = {wide(pair & 0xffff), wide(pair >> 16)};
        memcpy(&words[k], both, sizeof both);
    }
    give(words, 6);
    const unsigned g = (unsigned)(running % 32) / 4, t = (unsigned)running % 4;
    for (unsigned k = 0; k < 16; k += 2) {
        const unsigned lane = k % 8 / 2, high = k / 8;
        const uint64_t *row = given_by(4 * g + lane);
        for (unsigned n = 0; n < 4; n++) {
            const unsigned column = 2 * t + n % 2;
            float left[2], right[2];
            memcpy(left, &row[n / 2 + 2 * high], sizeof left);
            memcpy(right, &given_by(4 * column + lane)[4 + high], sizeof right);
            sum[n] += left[0] * right[0];
            sum[n] += left[1] * right[1];
        }
    }
}

void barrier() {
    threads[running].waiting = true;
    leave();
}

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
    KERNEL(fastembed_rt_mean_float16),       KERNEL(fastembed_rt_mean_bfloat16),
    KERNEL(fastembed_rt_sum_norm_float16),   KERNEL(fastembed_rt_sum_norm_bfloat16),
    KERNEL(fastembed_rt_gated_float16),      KERNEL(fastembed_rt_gated_bfloat16),
    KERNEL(fastembed_rt_turn_float16),       KERNEL(fastembed_rt_turn_bfloat16),
    KERNEL(fastembed_rt_word_weights_float16), KERNEL(fastembed_rt_word_weights_bfloat16),
    KERNEL(fastembed_rt_unit_float16),       KERNEL(fastembed_rt_unit_bfloat16),
    KERNEL(fastembed_rt_dense),
    KERNEL(fastembed_rt_add_norm_fp8),       KERNEL(fastembed_rt_embed_norm_fp8),
    KERNEL(fastembed_rt_quantize_fp8),
    KERNEL(fastembed_rt_attention_32_float16), KERNEL(fastembed_rt_attention_32_bfloat16),
    KERNEL(fastembed_rt_attention_64_float16), KERNEL(fastembed_rt_attention_64_bfloat16),
    KERNEL(fastembed_rt_attention_128_float16), KERNEL(fastembed_rt_attention_128_bfloat16),
};

/* ---- the driver --------------------------------------------------------------------------------------------------- */

enum { DEVICES = 2, CAPTURING = 900 };
static thread_local int device, mode; /* of this thread: the current one; how it stands to captures of others */
static int allocated, launched, capability[DEVICES] = {90, 90}, out_of_memory, captured_elsewhere;
extern "C" double stand_in_milliseconds; /* cublaslt.c */
struct Image {
    std::string text;
    int device;
};
struct Function {
    const Kernel *kernel;
    int device;
};
static std::vector<Image *> images;

#define API extern "C" __attribute__((visibility("default"))) int

/* What tests set and ask. */
API stand_in_set_device(int number) { return device = number; }
API stand_in_set_capability(int number, int found) { return capability[number] = found; }
/* Another thread captures in the global mode: what may disturb it fails, but in threads that say they do not. */
API stand_in_set_captured_elsewhere(int whether) { return captured_elsewhere = whether; }
/* For cublaslt.c too. */
API stand_in_device() { return device; }
API stand_in_forbidden() { return captured_elsewhere && mode == 0 ? CAPTURING : 0; }
API stand_in_set_out_of_memory(int whether) { return out_of_memory = whether; }
API stand_in_allocated() { return allocated; }
API stand_in_launched() { return launched; }

API cuInit(unsigned flags) { return flags != 0; }
API cuDeviceGet(int *out, int number) { return *out = number, number < 0 || number >= DEVICES ? 101 : 0; }
API cuDeviceGetAttribute(int *value, int attribute, int number) {
    *value = attribute == 75 ? capability[number] / 10 : capability[number] % 10;
    return attribute == 75 || attribute == 76 ? 0 : 1;
}
API cuCtxGetDevice(int *out) { return *out = device, device < 0 ? 201 : 0; }
API cuMemAlloc_v2(uint64_t *address, size_t size) {
    if (out_of_memory || stand_in_forbidden())
        return out_of_memory ? 2 : CAPTURING;
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
API cuStreamSynchronize(void *stream) { return stream == nullptr ? 1 : stand_in_forbidden(); }
API cuEventCreate(void **event, unsigned flags) { return *event = calloc(1, sizeof(double)), flags != 0; }
API cuEventDestroy_v2(void *event) { return free(event), 0; }
API cuEventRecord(void *event, void *stream) { return *(double *)event = stand_in_milliseconds, stream == nullptr; }
API cuEventSynchronize(void *event) { return event == nullptr ? 1 : stand_in_forbidden(); }
API cuEventElapsedTime(float *milliseconds, void *from, void *to) {
    *milliseconds = (float)(*(double *)to - *(double *)from);
    return 0;
}
API cuThreadExchangeStreamCaptureMode(int *given) {
    std::swap(mode, *given);
    return 0;
}
API cuModuleLoadData(void **module, const void *text) {
    if (stand_in_forbidden())
        return CAPTURING;
    Image *image = new Image{(const char *)text, device}; /* as long as the process, as modules are */
    images.push_back(image);
    *module = image;
    return image->text.compare(0, 3, "// ") != 0;
}
API cuModuleGetFunction(void **function, void *module, const char *name) {
    const auto found = std::find(images.begin(), images.end(), module);
    if (found == images.end() || (*found)->text.find(".visible .entry " + std::string(name) + "(") == std::string::npos)
        return 500;
    for (const Kernel &kernel : kernels)
        if (!strcmp(kernel.name, name)) {
            *function = new Function{&kernel, (*found)->device};
            return 0;
        }
    return 500;
}
API cuLaunchKernel(void *function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x, unsigned block_y,
                   unsigned block_z, unsigned shared, void *, void **arguments, void **extra) {
    if (!grid_x || grid_y > 65535 || grid_z != 1 || block_x * block_y * block_z > 1024 || !block_x || !block_y ||
        block_z != 1 || shared > 48 << 10 || extra)
        return 1;
    const Function *asked = (const Function *)function;
    if (asked->device != device) /* of another device's module */
        return 400;
    std::vector<Vector> memory(shared / sizeof(Vector) + 1); /* what is in it before is nobody's: not a number here */
    memset(memory.data(), 0xff, memory.size() * sizeof(Vector));
    dynamic_shared = (float *)memory.data();
    body = asked->kernel->invoke;
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
