/* In the place of kernels whose instructions the compiler does not know: compiled once for each with
 * -DKERNELS=kernels_<name>. They have no functions, and choose_kernels (operators.c) passes them over.
 */
#include "kernels.h"

#define TEXT(name) #name
#define NAME_OF(kernels) (&TEXT(kernels)[sizeof "kernels_" - 1])

const Kernels KERNELS = {.name = NAME_OF(KERNELS)};
