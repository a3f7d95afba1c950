/* The operators that generated model code calls, in the order in which it calls them.
 *
 * Called by the model.c that compilers/tvm generates; implemented in common/ops_*.c on top of the
 * kernels of the chosen CPU. Nothing here allocates. Exact numerics: docs/numerics.md.
 *
 * Weights are named by their byte offset in the blob, so that the same generated code works on a
 * memory-mapped file and on flash.
 */
#ifndef TATVPR_OPS_H
#define TATVPR_OPS_H

#include "tatvpr.h"

#ifdef __cplusplus
extern "C" {
#endif

/* How ternary weights lie in the blob. One library carries kernels for one or more of them. */
typedef enum tatvpr_layout {
    TATVPR_LAYOUT_ROWS2 = 1,   /* as in the ONNX file: [N][ceil(K/4)], two bits a weight */
    TATVPR_LAYOUT_COLS2 = 2,   /* by input channel, blocked over outputs (x86 and aarch64) */
    TATVPR_LAYOUT_TRIT5 = 3,   /* [N][ceil(K/5)], five trits a byte: prepared on load */
    TATVPR_LAYOUT_LUT4 = 4,    /* Cortex-M7/M4 dense: four outputs' bytes a word */
    TATVPR_LAYOUT_MCU_COLS = 5 /* Cortex-M sparse */
} tatvpr_layout;

/* TernaryMatMul: y[t, n] = (acc * s[t]) * scale[n or 0] + bias[n] */
typedef struct tatvpr_ternary {
    int32_t k_in;
    int32_t n_out;
    uint32_t weight;       /* offset of packed weights */
    uint32_t scale;        /* offset of float32 [1] or [N] */
    uint32_t bias;         /* offset of float32 [N] */
    uint8_t scale_per_row; /* 1: scale is [N] */
    uint8_t layout;        /* tatvpr_layout */
} tatvpr_ternary;

/* LayerNorm over the last axis: ((x - mean) * (1 / sqrt(var + eps))) * gamma + beta */
typedef struct tatvpr_norm {
    uint32_t gamma; /* offset of float32 [D] */
    uint32_t beta;  /* offset of float32 [D] */
    float eps;
} tatvpr_norm;

/* TopKGate; fixed_k > 0 replaces the run-time k (the projection of a head is quantised, not gated). */
typedef struct tatvpr_gate {
    int32_t group;
    int32_t scope;  /* 0 token, 1 image */
    float fixed_k;
} tatvpr_gate;

/* y = TernaryMatMul(TopKGate(pre(x))) [+ residual]; pre is GELU (if gelu), then LayerNorm (if norm). */
typedef struct tatvpr_gated_linear {
    const char *name; /* "blocks.0.qkv", for traces */
    int32_t gelu;
    const tatvpr_norm *norm; /* null: none */
    tatvpr_gate gate;
    tatvpr_ternary linear;
} tatvpr_gated_linear;

/* A block's second half: y = x + fc2(fc1(x)), run in tiles of tokens where scope is 0. */
typedef struct tatvpr_mlp {
    const char *name;
    tatvpr_gated_linear fc1;
    tatvpr_gated_linear fc2; /* its `gelu` is set */
} tatvpr_mlp;

typedef struct tatvpr_patch_embed {
    const char *name;
    int32_t image_size;  /* pixels a side */
    int32_t patch;       /* pixels a side of a patch */
    int32_t dim;         /* D */
    uint32_t weight;     /* int8 [D, P*P*3] */
    uint32_t scale;      /* float32 [D] */
    uint32_t bias;       /* float32 [D] */
} tatvpr_patch_embed;

typedef struct tatvpr_attention {
    const char *name;
    int32_t heads;
    int32_t dim; /* D; qkv is [T, 3 * D] */
} tatvpr_attention;

/* State of one call; made by tatvpr_describe, handed to the generated run function. */
typedef struct tatvpr_context {
    const tatvpr_model *model;
    const tatvpr_options *options;
    const uint8_t *pixels; /* uint8 [S, S, 3], already squashed to the model's square */
    uint8_t *arena;        /* planned buffers begin here */
    uint8_t *scratch;      /* workspace shared by all operators, program->scratch_bytes */
    size_t scratch_bytes;
    float k;
    float tokens;
    float *descriptor;     /* the output */
    struct tatvpr_pool *pool; /* the core's own: workers beside the calling thread; null: none */
    uint8_t *tables;       /* options.tables, where the program's look-up tables lie apart */
} tatvpr_context;

/* One model's generated constants and code. */
struct tatvpr_program {
    uint32_t abi; /* TATVPR_ABI */
    const char *name;
    uint8_t model_hash[32];
    int32_t image_size;
    int32_t descriptor_size;
    int32_t token_dim;
    int32_t max_tokens;
    size_t planned_bytes; /* buffers planned by TVM */
    uint32_t layout;      /* the blob's layout id, checked against its header */
    size_t blob_bytes;
    const tatvpr_ternary *const *ternaries; /* every ternary matrix, for preparation on load */
    int32_t ternary_count;
    const tatvpr_mlp *const *mlps;
    int32_t mlp_count;
    const tatvpr_gated_linear *const *linears; /* gated linears outside the MLPs */
    int32_t linear_count;
    const tatvpr_patch_embed *patch_embed;
    const tatvpr_attention *attention; /* the widest one */
    tatvpr_status (*run)(tatvpr_context *context);
    int32_t tile_tokens;  /* tokens that share one unpacking of the weights; 0: the core's own choice */
    int32_t tables_apart; /* 1: look-up tables lie in options.tables; 0: in the arena */
    const uint8_t *core;  /* &TATVPR_CORE_ID: with another core than it was built with, it does not link */
};

/* A microcontroller's build names its core; a program asks for it by that name. */
#if defined(TATVPR_CORE_ID)
extern const uint8_t TATVPR_CORE_ID;
#endif

/* Bytes of scratch that all operators of this program need at most (computed from the tables above). */
size_t tatvpr_scratch_bytes(const tatvpr_program *program, int32_t threads);

/* Each operator: pointers are into the arena, shapes in comments, T = tokens at run time. */
tatvpr_status tatvpr_op_patch_embed(tatvpr_context *c, const tatvpr_patch_embed *op,
                                    float *y /* [(S/P)^2, D] */);
tatvpr_status tatvpr_op_gated_linear(tatvpr_context *c, const tatvpr_gated_linear *op,
                                     const float *x /* [T, K] */, int32_t t,
                                     const float *residual /* [T, N] or null */,
                                     float *y /* [T, N], may be residual */);
tatvpr_status tatvpr_op_mlp(tatvpr_context *c, const tatvpr_mlp *op,
                            const float *x /* [T, D] */, int32_t t, float *y /* may be x */);
tatvpr_status tatvpr_op_attention(tatvpr_context *c, const tatvpr_attention *op,
                                  const float *qkv /* [T, 3 D] */, int32_t t,
                                  float *y /* [T, D] */, float *a /* [T] or null */);
/* Writes 1 + n rows and answers that count in *t_out. */
tatvpr_status tatvpr_op_keep_tokens(tatvpr_context *c, const float *x /* [T, D] */,
                                    const float *a /* [T] */, int32_t t, int32_t dim,
                                    float *y /* [1 + n, D] */, int32_t *t_out);
tatvpr_status tatvpr_op_layer_norm(tatvpr_context *c, const tatvpr_norm *op,
                                   const float *x /* [T, D] */, int32_t t, int32_t dim, float *y);
tatvpr_status tatvpr_op_gelu(tatvpr_context *c, const float *x, int32_t count, float *y);
/* Generalised mean over rows: y[d] = (mean_t(max(x[t, d], clamp)^3 * weight[t]))^(1/3) */
tatvpr_status tatvpr_op_gem(tatvpr_context *c, const float *x /* [T, D] */,
                            const float *weight /* [T], above 0, or null for ones */, int32_t t,
                            int32_t dim, float clamp, float *y /* [D] */);
/* y = x / max(sqrt(sum x^2), eps) */
tatvpr_status tatvpr_op_l2_normalize(tatvpr_context *c, const float *x, int32_t dim, float eps,
                                     float *y);

/* Where the tensor at that offset of the blob lies, in the blob or in its prepared copy. */
const uint8_t *tatvpr_tensor(const tatvpr_model *model, uint32_t offset);

/* Marks the begin and the end of a layer for options.trace. */
void tatvpr_trace_layer(const tatvpr_context *c, const char *layer, int begin);
/* Copies the last block's tokens to options.tokens_out where asked for. */
tatvpr_status tatvpr_export_tokens(const tatvpr_context *c, const float *x, int32_t t, int32_t dim);

#ifdef __cplusplus
}
#endif
#endif
