/* Whether kernels compute on this machine what they stand for; see selfcheck.c. */
#ifndef FASTEMBED_RT_SELFCHECK_H
#define FASTEMBED_RT_SELFCHECK_H

#include "kernels.h"

/* "" where they do, else which of them does not. Some dozen microseconds. */
const char *selfcheck(const Kernels *kernels);

#endif
