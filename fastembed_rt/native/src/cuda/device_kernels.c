#include "device_kernels.h"

#include <pthread.h>

/* Made by build.py of the .ptx files: each has the text of one. */
#include "fp8_ptx.h"
#include "kernels_ptx.h"
#include "nvidia.h"

enum { WARP = 32, MOST_WARPS = 4, SHARED = 48 << 10, SIDE = 8, DEEP = 32, MOST_BLOCKS = 0x7fffffff };

enum { OF_KERNELS, OF_FP8, FILES };

static const char *const texts_of[FILES] = {kernels_ptx, fp8_ptx};
#define BOTH(name) {"fastembed_rt_" name "_float16", "fastembed_rt_" name "_bfloat16"}
static const struct {
    int file;
    const char *names[NUMBERS]; /* with FP8 beside them, states are float16 */
} kernels[KERNELS] = {
    [ADD_NORM] = {OF_KERNELS, BOTH("add_norm")},
    [EMBED_NORM] = {OF_KERNELS, BOTH("embed_norm")},
    [MEAN] = {OF_KERNELS, BOTH("mean")},
    [ADD_NORM_FP8] = {OF_FP8, {"fastembed_rt_add_norm_fp8"}},
    [EMBED_NORM_FP8] = {OF_FP8, {"fastembed_rt_embed_norm_fp8"}},
    [QUANTIZE_FP8] = {OF_FP8, {"fastembed_rt_quantize_fp8"}},
};

OrtStatus *load_kernel(const Node *node, DeviceKernel kernel, Number number, void **out) {
    static void *modules[FILES][MOST_DEVICES];
    const char *name = kernels[kernel].names[number];
    const int file = kernels[kernel].file;
    static pthread_mutex_t loading = PTHREAD_MUTEX_INITIALIZER;
    const int device = current_device();
    if (device < 0)
        return refusal(node, "there is no CUDA device");
    int mode = CU_CAPTURE_RELAXED; /* loading is forbidden while another session captures, unless one says this */
    const int exchanged = !driver()->capture_mode(&mode);
    pthread_mutex_lock(&loading);
    void **module = &modules[file][device];
    int status = *module ? 0 : driver()->module_load(module, texts_of[file]);
    if (!status)
        status = driver()->module_function(out, *module, name);
    pthread_mutex_unlock(&loading);
    if (exchanged)
        driver()->capture_mode(&mode);
    return status ? refusal(node, "the driver does not load %s: error %d", name, status) : NULL;
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
