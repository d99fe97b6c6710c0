/* Sizes and memory, as every kernel needs them. */
#ifndef FASTEMBED_RT_SUPPORT_H
#define FASTEMBED_RT_SUPPORT_H

#include <stddef.h>
#include <stdlib.h>

/* Always: what is passed as a constant has to be one inside, for loops to unroll and branches to go. */
#define INLINE static inline __attribute__((always_inline))
/* Never: attention in one function has more variables than there are registers for. */
#define NOINLINE static __attribute__((noinline))

/* Of functions that Python calls. */
#define EXPORTED __attribute__((visibility("default")))

INLINE size_t round_up(size_t n, size_t multiple) { return (n + multiple - 1) / multiple * multiple; }
INLINE size_t min_size(size_t a, size_t b) { return a < b ? a : b; }

/* Memory at a multiple of 64, for free(). NULL where there is none: every caller passes that on. */
INLINE void *allocate(size_t bytes) { return aligned_alloc(64, round_up(bytes ? bytes : 1, 64)); }

/* A float at an address that need not be aligned. */
INLINE float float_at(const float *from, size_t index) {
    float value;
    __builtin_memcpy(&value, (const char *)from + index * sizeof value, sizeof value);
    return value;
}

/* How far ahead packed weights are prefetched, in bytes: few rows use a panel only once, and it comes from a far cache. The
 * whole panels of the next tile at once drive this one's out of the first cache. */
enum { AHEAD = 2048 };

#endif
