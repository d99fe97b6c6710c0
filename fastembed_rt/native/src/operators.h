/* A node of a session: what create.c makes of its attributes and constants, and run.c runs. */
#ifndef FASTEMBED_RT_OPERATORS_H
#define FASTEMBED_RT_OPERATORS_H

#include "layers.h"

enum { MOST_COPIES = 9 };         /* weight and bias of four norms, and a table */

typedef struct {
    Node node;
    const Kernels *kernels;
    const Linear *first, *second; /* linear; up and down; input and output */
    Activation activation;
    int gated, has_residual, has_rotary, has_seen, has_c2p, has_p2c;
    int largest; /* of a linear layer: y is the largest of each text */
    int several; /* tasks of it run on several threads: seen, not known */
    size_t residual_input, seen_input, rotary_input; /* cosines; the sines are next to them */
    size_t c2p_input, p2c_input;  /* constants that are read where they lie, which is known in a call */
    Form c2p_form, p2c_form;
    int32_t *rows;                /* of distances, or NULL */
    AddNorm norm;
    Norm before;
    Attention shape;
    float *copies[MOST_COPIES];   /* a constant may be freed when the session is ready */
    size_t copied;
} Kernel;

/* The kernels of this processor, or those that FASTEMBED_RT_KERNELS names; NULL where there are none. */
const Kernels *choose_kernels(void);

/* For OrtCustomOp.create: a Kernel, or why there is none. */
typedef OrtStatus *Create(const OrtCustomOp *op, const OrtApi *api, const OrtKernelInfo *info, void **out);
Create create_linear, create_feed_forward, create_packed_attention, create_attention_block;
Create create_embedding, create_mean;
Create create_bf16_linear, create_bf16_feed_forward, create_bf16_attention_block, create_bf16_embedding;
Create create_fp32_linear, create_fp32_feed_forward, create_fp32_attention_block;

/* For OrtCustomOp.run: one call of a Kernel. */
typedef OrtStatus *Run(void *self, OrtKernelContext *context);
Run run_linear, run_feed_forward, run_packed_attention, run_attention_block;
Run run_embedding, run_bf16_embedding, run_mean;

/* For OrtCustomOp.destroy. */
void destroy_kernel(void *self);

#endif
