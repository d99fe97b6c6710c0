#include "device_kernels.h"

#include <pthread.h>

#include "kernels_ptx.h" /* made of kernels.ptx by build.py: kernels_ptx, the text */
#include "nvidia.h"

enum { WARP = 32, MOST_WARPS = 4, SHARED = 48 << 10, SIDE = 8, DEEP = 32, MOST_BLOCKS = 0x7fffffff };

static const char *const names[KERNELS][NUMBERS] = {
    {"fastembed_rt_add_norm_float16", "fastembed_rt_add_norm_bfloat16"},
    {"fastembed_rt_embed_norm_float16", "fastembed_rt_embed_norm_bfloat16"},
    {"fastembed_rt_mean_float16", "fastembed_rt_mean_bfloat16"},
};

OrtStatus *load_kernel(const Node *node, DeviceKernel kernel, Number number, void **out) {
    static void *modules[MOST_DEVICES];
    static pthread_mutex_t loading = PTHREAD_MUTEX_INITIALIZER;
    const int device = current_device();
    if (device < 0)
        return refusal(node, "there is no CUDA device");
    int mode = CU_CAPTURE_RELAXED; /* loading is forbidden while another session captures, unless one says this */
    const int exchanged = !driver()->capture_mode(&mode);
    pthread_mutex_lock(&loading);
    int status = modules[device] ? 0 : driver()->module_load(&modules[device], kernels_ptx);
    if (!status)
        status = driver()->module_function(out, modules[device], names[kernel][number]);
    pthread_mutex_unlock(&loading);
    if (exchanged)
        driver()->capture_mode(&mode);
    return status ? refusal(node, "the driver does not load %s: error %d", names[kernel][number], status) : NULL;
}

OrtStatus *launch_rows(const Node *node, void *function, size_t rows, size_t width, void *stream, void **arguments) {
    const size_t row = (width / VECTOR + WARP - 1) / WARP * WARP * VECTOR * sizeof(float);
    const size_t warps = row * MOST_WARPS <= SHARED ? MOST_WARPS : SHARED / row, blocks = (rows + warps - 1) / warps;
    int status = driver()->launch(function, (unsigned)blocks, 1, 1, WARP, (unsigned)warps, 1, (unsigned)(warps * row),
                                  stream, arguments, NULL);
    return status ? refusal(node, "the driver does not launch it: error %d", status) : NULL;
}

OrtStatus *launch_texts(const Node *node, void *function, size_t texts, size_t width, void *stream, void **arguments) {
    const size_t columns = (width / VECTOR + SIDE - 1) / SIDE;
    if (texts > MOST_BLOCKS || columns > 65535)
        return refusal(node, "%zu texts of %zu numbers are too many", texts, width);
    int status = driver()->launch(function, (unsigned)texts, (unsigned)columns, 1, SIDE, DEEP, 1, 0, stream, arguments,
                                  NULL);
    return status ? refusal(node, "the driver does not launch it: error %d", status) : NULL;
}
