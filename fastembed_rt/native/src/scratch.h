/* Memory that a call needs while it runs, kept for the next one.
 *
 * The C library's heap is not made for it: each thread has a heap of its own, which keeps room for the most that it ever
 * had, and batches of ever other sizes leave holes. Sessions get their tensors from here, too (operators.c).
 */
#ifndef FASTEMBED_RT_SCRATCH_H
#define FASTEMBED_RT_SCRATCH_H

#include <stddef.h>

/* At a multiple of 64, for free_scratch. NULL where there is none: every caller passes that on. */
void *allocate_scratch(size_t bytes);
void free_scratch(void *memory);

/* Around a fork: no thread is in either function. */
void lock_blocks(void);
void unlock_blocks(void);

#endif
