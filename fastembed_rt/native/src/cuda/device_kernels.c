#include "device_kernels.h"

/* Made by build.py of the .ptx files: each has the text of one. */
#include "attention_ptx.h"
#include "fp8_ptx.h"
#include "gated_ptx.h"
#include "heads_ptx.h"
#include "kernels_ptx.h"
#include "nvidia.h"

enum { WARP = 32, MOST_WARPS = 4, SHARED = 48 << 10, SIDE = 8, DEEP = 32, MOST_BLOCKS = 0x7fffffff, MOST_DOWN = 65535 };
enum { OF_KERNELS, OF_GATED, OF_HEADS, OF_ATTENTION, OF_FP8, FILES };

static const char *const texts_of[FILES] = {kernels_ptx, gated_ptx, heads_ptx, attention_ptx, fp8_ptx};
#define BOTH(name) {"fastembed_rt_" name "_float16", "fastembed_rt_" name "_bfloat16"}
static const struct {
    int file;
    const char *names[NUMBERS];
} kernels[KERNELS] = {
    [ADD_NORM] = {OF_KERNELS, BOTH("add_norm")},
    [EMBED_NORM] = {OF_KERNELS, BOTH("embed_norm")},
    [MEAN] = {OF_KERNELS, BOTH("mean")},
    [SUM_NORM] = {OF_GATED, BOTH("sum_norm")},
    [GATED] = {OF_GATED, BOTH("gated")},
    [TURN] = {OF_GATED, BOTH("turn")},
    [WORD_WEIGHTS] = {OF_HEADS, BOTH("word_weights")},
    [UNIT] = {OF_HEADS, BOTH("unit")},
    [DENSE] = {OF_HEADS, {"fastembed_rt_dense", "fastembed_rt_dense"}},
    [ATTENTION_32] = {OF_ATTENTION, BOTH("attention_32")},
    [ATTENTION_64] = {OF_ATTENTION, BOTH("attention_64")},
    [ATTENTION_128] = {OF_ATTENTION, BOTH("attention_128")},
    [ADD_NORM_FP8] = {OF_FP8, {"fastembed_rt_add_norm_fp8"}}, /* with FP8 beside them, states are float16 */
    [EMBED_NORM_FP8] = {OF_FP8, {"fastembed_rt_embed_norm_fp8"}},
    [QUANTIZE_FP8] = {OF_FP8, {"fastembed_rt_quantize_fp8"}},
};

OrtStatus *load_kernel(const Node *node, DeviceKernel kernel, Number number, void **out) {
    static void *modules[FILES][MOST_DEVICES];
    const int device = current_device();
    if (device < 0)
        return refusal(node, "there is no CUDA device");
    int mode = CU_CAPTURE_RELAXED; /* loading is forbidden while another session captures, unless one says this */
    const int exchanged = !driver()->capture_mode(&mode);
    lock(LOADING);
    const int file = kernels[kernel].file;
    void **module = &modules[file][device];
    int status = *module ? 0 : driver()->module_load(module, texts_of[file]);
    if (!status)
        status = driver()->module_function(out, *module, kernels[kernel].names[number]);
    unlock(LOADING);
    if (exchanged)
        driver()->capture_mode(&mode);
    return status ? refusal(node, "the driver does not load %s: error %d", kernels[kernel].names[number], status) : NULL;
}

OrtStatus *launch(const Node *node, void *function, Grid grid, void *stream, void **arguments) {
    if (grid.x > MOST_BLOCKS || grid.y > MOST_DOWN)
        return refusal(node, "%zu by %zu blocks are too many", grid.x, grid.y);
    int status = driver()->launch(function, (unsigned)grid.x, (unsigned)grid.y, 1, grid.across, grid.down, 1,
                                  (unsigned)grid.shared, stream, arguments, NULL);
    return status ? refusal(node, "the driver does not launch it: error %d", status) : NULL;
}

OrtStatus *launch_rows(const Node *node, void *function, size_t rows, size_t width, void *stream, void **arguments) {
    const size_t row = (width / VECTOR + WARP - 1) / WARP * WARP * VECTOR * sizeof(float);
    const size_t warps = row * MOST_WARPS <= SHARED ? MOST_WARPS : SHARED / row, blocks = (rows + warps - 1) / warps;
    return launch(node, function, (Grid){blocks, 1, WARP, (unsigned)warps, warps * row}, stream, arguments);
}

OrtStatus *launch_texts(const Node *node, void *function, size_t texts, size_t width, void *stream, void **arguments) {
    return launch(node, function, (Grid){texts, (width / VECTOR + SIDE - 1) / SIDE, SIDE, DEEP, 0}, stream, arguments);
}
