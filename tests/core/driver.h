/* What the files of the C core's test driver share: a request, its buffers and results. driver.c
 * says how they travel. */
#ifndef TATVPR_TEST_DRIVER_H
#define TATVPR_TEST_DRIVER_H

#include <stdint.h>
#include <string.h>

#include "../../runtime/core/common/core.h"

#define MOST_BUFFERS 16

typedef struct buffer {
    int64_t bytes;
    uint8_t *data; /* at a multiple of 64 */
} buffer;

typedef struct request {
    int32_t op;
    char kernels[64];
    int32_t i[24];
    float f[8];
    int32_t count;
    buffer in[MOST_BUFFERS];
    int32_t outputs;
    buffer out[MOST_BUFFERS];
} request;

enum {
    OP_SQUASH = 1,
    OP_PATCH_EMBED,
    OP_LINEAR,
    OP_MLP,
    OP_ATTENTION,
    OP_KEEP_TOKENS,
    OP_LAYER_NORM,
    OP_GELU,
    OP_GEM,
    OP_L2,
    OP_FLOATS,
    OP_MAP,
    OP_GATE,
    OP_KERNELS,
    OP_MODEL,
    OP_SPARSE_BELOW,
    OP_TRACK
};

/* Ends the program where something does not hold. */
void must(int ok, const char *what);

/* Memory at a multiple of 64, to the byte; to be freed. */
uint8_t *aligned(size_t bytes);

/* The next buffer of the response. */
uint8_t *output(request *r, size_t bytes);

const tatvpr_kernels *kernels_named(const char *name);

/* Each runs one operator and answers its status. */
int32_t run_squash(request *r);
int32_t run_patch_embed(request *r);
int32_t run_linear(request *r);
int32_t run_mlp(request *r);
int32_t run_attention(request *r);
int32_t run_float(request *r); /* KeepTokens and all that take floats and give floats */
int32_t run_floats(request *r);
int32_t run_gate(request *r);
int32_t run_sparse_below(request *r);
int32_t run_map(request *r);
int32_t run_track(request *r);

#endif
