/* A whole small model for the tests of the public interface, written as generated code is: 32 px,
 * patch 8 (17 tokens with CLS), dim 64, 2 heads, one block, KeepTokens, CLS head; fuzzing makes it
 * smaller. Tensors lie in the order of small_vit.py, each at a multiple of 64 bytes. */
#include <stdlib.h>
#include <string.h>

#include "../../runtime/core/common/core.h"

#if !defined(SMALL_VIT_SIDE)
#define SMALL_VIT_SIDE 32
#define SMALL_VIT_PATCH_SIDE 8
#define SMALL_VIT_DIM 64
#define SMALL_VIT_HIDDEN 256
#endif

enum {
    SIDE = SMALL_VIT_SIDE,
    PATCH = SMALL_VIT_PATCH_SIDE,
    DIM = SMALL_VIT_DIM,
    HIDDEN = SMALL_VIT_HIDDEN,
    HEADS = 2,
    TOKENS = (SIDE / PATCH) * (SIDE / PATCH) + 1
};

#define PADDED(bytes) (((bytes) + 63) / 64 * 64)
enum { ONE = PADDED(4), ROW = PADDED(4 * DIM), PACKED_DIM = DIM / 4, PACKED_HIDDEN = HIDDEN / 4 };

enum {
    PATCH_WEIGHT = 64,
    PATCH_SCALE = PATCH_WEIGHT + PADDED(DIM * PATCH * PATCH * 3),
    PATCH_BIAS = PATCH_SCALE + ROW,
    CLS_TOKEN = PATCH_BIAS + ROW,
    POSITIONS = CLS_TOKEN + ROW,
    NORMS = POSITIONS + PADDED(TOKENS * DIM * 4), /* three times gamma, beta */
    QKV_WEIGHT = NORMS + 6 * ROW,
    QKV_SCALE = QKV_WEIGHT + PADDED(3 * DIM * PACKED_DIM),
    QKV_BIAS = QKV_SCALE + ONE,
    OUT_WEIGHT = QKV_BIAS + 3 * ROW,
    OUT_SCALE = OUT_WEIGHT + PADDED(DIM * PACKED_DIM),
    OUT_BIAS = OUT_SCALE + ROW,
    UP_WEIGHT = OUT_BIAS + ROW,
    UP_SCALE = UP_WEIGHT + PADDED(HIDDEN * PACKED_DIM),
    UP_BIAS = UP_SCALE + ONE,
    DOWN_WEIGHT = UP_BIAS + PADDED(4 * HIDDEN),
    DOWN_SCALE = DOWN_WEIGHT + PADDED(DIM * PACKED_HIDDEN),
    DOWN_BIAS = DOWN_SCALE + ONE,
    BLOB_BYTES = DOWN_BIAS + ROW
};

static const tatvpr_patch_embed PATCH_EMBED = {
    "patch_embed", SIDE, PATCH, DIM, PATCH_WEIGHT, PATCH_SCALE, PATCH_BIAS};
static const tatvpr_norm NORM1 = {NORMS, NORMS + ROW, 1e-6f};
static const tatvpr_norm NORM2 = {NORMS + 2 * ROW, NORMS + 3 * ROW, 1e-6f};
static const tatvpr_norm NORM3 = {NORMS + 4 * ROW, NORMS + 5 * ROW, 1e-6f};
static const tatvpr_gated_linear QKV = {
    "qkv", 0, &NORM1, {1, 0, 0.0f},
    {DIM, 3 * DIM, QKV_WEIGHT, QKV_SCALE, QKV_BIAS, 0, TATVPR_LAYOUT_ROWS2}};
static const tatvpr_gated_linear OUT = {
    "out", 0, NULL, {1, 0, 0.0f},
    {DIM, DIM, OUT_WEIGHT, OUT_SCALE, OUT_BIAS, 1, TATVPR_LAYOUT_ROWS2}};
static const tatvpr_mlp MLP = {
    "mlp",
    {"up", 0, &NORM2, {1, 0, 0.0f},
     {DIM, HIDDEN, UP_WEIGHT, UP_SCALE, UP_BIAS, 0, TATVPR_LAYOUT_ROWS2}},
    {"down", 1, NULL, {4, 0, 0.0f},
     {HIDDEN, DIM, DOWN_WEIGHT, DOWN_SCALE, DOWN_BIAS, 0, TATVPR_LAYOUT_ROWS2}}};
static const tatvpr_attention ATTENTION = {"attention", HEADS, DIM};

/* Planned buffers: x | y | qkv | a | kept. */
enum {
    X = 0,
    Y = TOKENS * DIM * 4,
    QKV_AT = 2 * Y,
    A = 5 * Y,
    KEPT = A + PADDED(TOKENS * 4),
    PLANNED = KEPT + Y
};

static tatvpr_status run(tatvpr_context *c) {
    float *x = (float *)(void *)(c->arena + X);
    float *y = (float *)(void *)(c->arena + Y);
    float *qkv = (float *)(void *)(c->arena + QKV_AT);
    float *a = (float *)(void *)(c->arena + A);
    float *kept = (float *)(void *)(c->arena + KEPT);
    const float *cls = tatvpr_floats(c->model, CLS_TOKEN);
    const float *positions = tatvpr_floats(c->model, POSITIONS);
    tatvpr_status status = tatvpr_op_patch_embed(c, &PATCH_EMBED, x + DIM);
    if (status != TATVPR_OK) return status;
    for (int32_t i = 0; i < DIM; i++) x[i] = cls[i];
    for (int32_t i = 0; i < TOKENS * DIM; i++) x[i] = x[i] + positions[i];
    status = tatvpr_op_gated_linear(c, &QKV, x, TOKENS, NULL, qkv);
    if (status != TATVPR_OK) return status;
    status = tatvpr_op_attention(c, &ATTENTION, qkv, TOKENS, y, a);
    if (status != TATVPR_OK) return status;
    status = tatvpr_op_gated_linear(c, &OUT, y, TOKENS, x, x);
    if (status != TATVPR_OK) return status;
    int32_t t = 0;
    status = tatvpr_op_keep_tokens(c, x, a, TOKENS, DIM, kept, &t);
    if (status != TATVPR_OK) return status;
    status = tatvpr_op_mlp(c, &MLP, kept, t, kept);
    if (status != TATVPR_OK) return status;
    status = tatvpr_op_layer_norm(c, &NORM3, kept, t, DIM, x);
    if (status != TATVPR_OK) return status;
    status = tatvpr_export_tokens(c, x, t, DIM);
    if (status != TATVPR_OK) return status;
    return tatvpr_op_l2_normalize(c, x, DIM, 1e-12f, c->descriptor);
}

static const tatvpr_ternary *const TERNARIES[] = {&QKV.linear, &OUT.linear, &MLP.fc1.linear,
                                                  &MLP.fc2.linear};
static const tatvpr_mlp *const MLPS[] = {&MLP};
static const tatvpr_gated_linear *const LINEARS[] = {&QKV, &OUT};

static const tatvpr_program PROGRAM = {
    .abi = TATVPR_ABI,
    .name = "small-vit",
    .model_hash = {7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
                   7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7},
    .image_size = SIDE,
    .descriptor_size = DIM,
    .token_dim = DIM,
    .max_tokens = TOKENS,
    .planned_bytes = PLANNED,
    .layout = TATVPR_LAYOUT_ROWS2,
    .blob_bytes = BLOB_BYTES,
    .ternaries = TERNARIES,
    .ternary_count = 4,
    .mlps = MLPS,
    .mlp_count = 1,
    .linears = LINEARS,
    .linear_count = 2,
    .patch_embed = &PATCH_EMBED,
    .attention = &ATTENTION,
    .run = run,
};

const tatvpr_program *tatvpr_program_get(void) { return &PROGRAM; }

static void *aligned(size_t bytes) {
    void *p = NULL;
    return posix_memalign(&p, 64, bytes == 0 ? 1 : bytes) == 0 ? p : NULL;
}

/* integers: width, height, fault, threads. Faults: 1 arena one byte short, 2 arena misaligned,
 * 3 null frame, 4 null descriptor, 5 options of a newer caller with something set, 6 options of a
 * newer caller with nothing set, 7 null arena, 8 blob one byte short, 9 no such kernels,
 * 10 prepared memory one byte short, 11 misaligned blob, 12 older options, 13 too little room for
 * the tokens. Answers the status, or 100 if the arena's neighbours were written. */
int32_t run_model(const uint8_t *blob, size_t blob_bytes, const char *kernels,
                  const int32_t *integers, const float *floats, const uint8_t *frame,
                  float *descriptor, float *tokens);
int32_t run_model(const uint8_t *blob, size_t blob_bytes, const char *kernels,
                  const int32_t *integers, const float *floats, const uint8_t *frame,
                  float *descriptor, float *tokens) {
    enum { GUARD = 4096 };
    const int32_t fault = integers[2];
    const size_t prepared_bytes = tatvpr_prepared_bytes(&PROGRAM, kernels);
    uint8_t *prepared = prepared_bytes > 0 ? (uint8_t *)aligned(prepared_bytes) : NULL;
    tatvpr_model model;
    memset(&model, 0, sizeof(model));
    tatvpr_status status = tatvpr_model_init(
        &model, &PROGRAM, blob + (fault == 11 ? 4 : 0), blob_bytes - (fault == 8 ? 1 : 0),
        fault == 9 ? "no-such" : kernels, prepared,
        prepared_bytes - (fault == 10 && prepared_bytes > 0 ? 1 : 0));
    if (status != TATVPR_OK) {
        free(prepared);
        return (int32_t)status;
    }
    const size_t bytes = tatvpr_arena_bytes(&model, integers[3]);
    uint8_t *memory = (uint8_t *)aligned(bytes + 2 * GUARD);
    memset(memory, 0xC3, bytes + 2 * GUARD);
    tatvpr_arena arena = {memory + GUARD, bytes};
    if (fault == 1) arena.bytes -= 1;
    if (fault == 2) arena.base = memory + GUARD + 32;
    if (fault == 7) arena.base = NULL;
    tatvpr_frame f;
    memset(&f, 0, sizeof(f));
    f.size = sizeof(f);
    f.format = TATVPR_RGB888;
    f.width = integers[0];
    f.height = integers[1];
    f.planes[0] = frame;
    f.strides[0] = 3 * integers[0];
    struct {
        tatvpr_options known;
        uint64_t unknown[4];
    } options;
    memset(&options, 0, sizeof(options));
    options.known.size = fault == 5 || fault == 6 ? sizeof(options) : sizeof(options.known);
    options.known.k = floats[0];
    options.known.tokens = floats[1];
    options.known.threads = integers[3];
    options.known.tokens_out = tokens;
    options.known.tokens_out_floats = fault == 13 ? 3 : TOKENS * DIM;
    if (fault == 5) options.unknown[3] = 1;
    if (fault == 12) options.known.size = offsetof(tatvpr_options, threads);
    status = tatvpr_describe(&model, arena, fault == 3 ? NULL : &f, &options.known,
                             fault == 4 ? NULL : descriptor);
    int intact = 1;
    for (size_t i = 0; i < GUARD; i++) {
        intact &= memory[i] == 0xC3 && memory[GUARD + bytes + i] == 0xC3;
    }
    free(memory);
    free(prepared);
    return intact ? (int32_t)status : 100;
}
