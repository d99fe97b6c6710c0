/* Which of our instruction sets this processor has and this system keeps the registers of.
 *
 * Asked of the processor itself: not every compiler's runtime answers __builtin_cpu_supports (that of zig says no to
 * everything). On Arm of the system (neon_processor.c).
 */
#ifndef FASTEMBED_RT_PROCESSOR_H
#define FASTEMBED_RT_PROCESSOR_H

enum { HAS_AVX2 = 1, HAS_AVXVNNI = 2, HAS_AVX512VNNI = 4, HAS_AVX512BF16 = 8, HAS_AMX = 16 };
enum { HAS_NEON = 1, HAS_NEONDOTPROD = 2, HAS_NEONI8MM = 4 };

/* A bit for each, where all that its kernels use is there. */
unsigned processor_sets(void);

#endif
