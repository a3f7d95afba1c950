/* Firmware that runs single kernels on what the host sends and counts their instructions.
 *
 * The command line is "JOBS RESULTS": JOBS holds records of 16 words {operation, payload bytes,
 * arguments...} followed by their payload, padded to 64 bytes; RESULTS receives {bytes} and the
 * kernel's output for each. The Python side is tools/mcu/bench.py.
 */
#include "../../../runtime/core/common/core.h"
#include "../../../runtime/core/include/tatvpr_track.h"
#include "count.h"
#include "jobs.h"

#if defined(WITH_CMSIS_NN)
#include "arm_nnfunctions.h"
#include "arm_nnsupportfunctions.h"
#endif

enum operation {
    OP_END = 0,
    OP_MATMUL = 1,
    OP_SELECT = 2,
    OP_QUANTISE = 3,
    OP_LAYER_NORM = 4,
    OP_GELU = 5,
    OP_PATCH_EMBED = 6,
    OP_ATTENTION = 7,
    OP_DOT = 8,
    OP_HAMMING = 9,
    OP_CMSIS = 10,
    OP_TRACK = 11,
    OP_STRUCTURE = 12,
    OP_DOT_BITS = 13,
    OP_SPARSE_BELOW = 14
};

enum { EXIT_BEYOND = 14, BEYOND = 1024 /* floats: more than a row */ };
#define UNTOUCHED 1234.5f

static uint8_t pool[POOL_BYTES] __attribute__((section(".pool"), aligned(64)));

typedef struct bench {
    int32_t jobs, results;
    size_t used; /* of the pool */
    const tatvpr_kernels *kernels;
} bench;

static void *take(bench *b, size_t bytes)
{
    void *at = pool + b->used;
    b->used = tatvpr_round_up(b->used + bytes, 64);
    if (b->used > POOL_BYTES) {
        sh_text("bench: pool exhausted\n");
        sh_exit(EXIT_ROOM);
    }
    return at;
}

/* Room for `count` outputs of a kernel, and behind it for a row that no kernel may write. */
static float *take_outputs(bench *b, size_t count)
{
    float *y = take(b, (count + BEYOND) * sizeof(float));
    for (size_t i = count; i < count + BEYOND; i++)
        y[i] = UNTOUCHED;
    return y;
}

static void answer_outputs(const bench *b, const float *y, size_t count)
{
    for (size_t i = count; i < count + BEYOND; i++) {
        if (y[i] != UNTOUCHED) {
            sh_text("bench: a kernel wrote past its outputs\n");
            sh_exit(EXIT_BEYOND);
        }
    }
    answer(b->results, y, count * sizeof(float));
}

/* The payload's parts, in order. */
static const void *part(const uint8_t **payload, size_t bytes)
{
    const void *at = *payload;
    *payload += tatvpr_round_up(bytes, 64);
    return at;
}

static void make_tile(bench *b, tatvpr_tile *tile, int32_t tokens, int32_t k_in,
                      const int8_t *rows, const float *s)
{
    const size_t t = (size_t)tokens;
    tile->tokens = tokens;
    tile->k_in = k_in;
    tile->q_stride = (int32_t)tatvpr_round_up((size_t)k_in, TATVPR_ROW_ALIGN);
    tile->q = take(b, t * (size_t)tile->q_stride);
    tile->s = take(b, t * sizeof(float));
    tile->sum = take(b, t * sizeof(int32_t));
    tile->list_stride = TATVPR_LIST_STRIDE(k_in);
    tile->index = take(b, t * (size_t)tile->list_stride * 2);
    tile->value = take(b, t * (size_t)tile->list_stride);
    tile->count = take(b, t * sizeof(int32_t));
    tatvpr_zero(tile->q, t * (size_t)tile->q_stride);
    for (int32_t i = 0; i < tokens; i++) {
        tatvpr_copy(tile->q + (ptrdiff_t)i * tile->q_stride, rows + (ptrdiff_t)i * k_in,
                    (size_t)k_in);
        tile->s[i] = s == NULL ? 1.0f : s[i];
        tile->sum[i] = 0;
        tile->count[i] = 0;
    }
}

/* {K, N, T, layout, scale per row, residual, mode (0 dense, 1 sparse), weight bytes, tile} */
static void run_matmul(bench *b, const int32_t *a, const uint8_t *payload)
{
    const int32_t k_in = a[0], n_out = a[1], tokens = a[2];
    const size_t outputs = (size_t)tokens * (size_t)n_out;
    tatvpr_ternary op = {k_in, n_out, 0, 0, 0, (uint8_t)a[4], (uint8_t)a[3]};
    tatvpr_matmul job;
    job.op = &op;
    job.weight = part(&payload, (size_t)a[7]);
    job.scale = part(&payload, (a[4] ? (size_t)n_out : 1) * sizeof(float));
    job.bias = part(&payload, (size_t)n_out * sizeof(float));
    const int8_t *q = part(&payload, (size_t)tokens * (size_t)k_in);
    const float *s = part(&payload, (size_t)tokens * sizeof(float));
    const float *residual = a[5] ? part(&payload, outputs * sizeof(float)) : NULL;
    float *y = take_outputs(b, outputs);
    job.panel = take(b, TATVPR_PANEL_BYTES((uint32_t)k_in));
    job.y_stride = n_out;
    const size_t kept = b->used;
    for (int32_t t = 0; t < tokens; t += a[8]) { /* tiles of tokens, as operators make them */
        tatvpr_tile tile;
        b->used = kept;
        make_tile(b, &tile, tatvpr_min_i32(a[8], tokens - t), k_in, q + (ptrdiff_t)t * k_in,
                  s + t);
        if (a[6])
            for (int32_t i = 0; i < tile.tokens; i++)
                tatvpr_list_row(&tile, i);
        job.tile = &tile;
        job.y = y + (ptrdiff_t)t * n_out;
        job.residual = residual == NULL ? NULL : residual + (ptrdiff_t)t * n_out;
        COUNT_BEGIN();
        if (a[6])
            b->kernels->sparse(&job);
        else
            b->kernels->dense(&job);
        COUNT_END();
    }
    answer_outputs(b, y, outputs);
}

/* {K, N, layout, tokens, tokens of a tile at most}: answers the k below which a layer is sparse */
static void run_sparse_below(bench *b, const int32_t *a)
{
    const tatvpr_program program = {.max_tokens = a[3], .tile_tokens = a[4]};
    const tatvpr_ternary op = {a[0], a[1], 0, 0, 0, 0, (uint8_t)a[2]};
    const tatvpr_model model = {
        .program = &program, .kernels = b->kernels,
        .costs = b->kernels->costs == NULL ? NULL : b->kernels->costs()};
    const float below = tatvpr_sparse_below(&model, &op, 1);
    answer(b->results, &below, sizeof(below));
}

/* {K, T, keep, group, list}: answers q, sum, count, then the lists */
static void run_select(bench *b, const int32_t *a, const uint8_t *payload)
{
    tatvpr_tile tile;
    const size_t t = (size_t)a[1];
    make_tile(b, &tile, a[1], a[0], part(&payload, t * (size_t)a[0]), NULL);
    COUNT_BEGIN();
    for (int32_t i = 0; i < a[1]; i++)
        b->kernels->select(&tile, i, a[2], a[3], a[4]);
    COUNT_END();
    answer(b->results, tile.q, t * (size_t)tile.q_stride);
    answer(b->results, tile.sum, t * sizeof(int32_t));
    answer(b->results, tile.count, t * sizeof(int32_t));
    answer(b->results, tile.index, t * (size_t)tile.list_stride * 2);
    answer(b->results, tile.value, t * (size_t)tile.list_stride);
}

/* {K, T}: answers q rows (padded) and s */
static void run_quantise(bench *b, const int32_t *a, const uint8_t *payload)
{
    const float *x = part(&payload, (size_t)a[0] * (size_t)a[1] * sizeof(float));
    const size_t stride = tatvpr_round_up((size_t)a[0], TATVPR_ROW_ALIGN);
    int8_t *q = take(b, (size_t)a[1] * stride);
    float *s = take(b, (size_t)a[1] * sizeof(float));
    COUNT_BEGIN();
    for (int32_t t = 0; t < a[1]; t++)
        s[t] = b->kernels->quantise(x + (ptrdiff_t)t * a[0], a[0], q + (size_t)t * stride);
    COUNT_END();
    answer(b->results, q, (size_t)a[1] * stride);
    answer(b->results, s, (size_t)a[1] * sizeof(float));
}

/* {dim, T} */
static void run_layer_norm(bench *b, const int32_t *a, const uint8_t *payload)
{
    const size_t dim = (size_t)a[0];
    const float *x = part(&payload, dim * (size_t)a[1] * sizeof(float));
    const float *gamma = part(&payload, dim * sizeof(float));
    const float *beta = part(&payload, dim * sizeof(float));
    float *y = take_outputs(b, dim * (size_t)a[1]);
    COUNT_BEGIN();
    for (int32_t t = 0; t < a[1]; t++)
        b->kernels->layer_norm(x + (size_t)t * dim, gamma, beta, 1e-6f, a[0],
                               y + (size_t)t * dim);
    COUNT_END();
    answer_outputs(b, y, dim * (size_t)a[1]);
}

/* {count} */
static void run_gelu(bench *b, const int32_t *a, const uint8_t *payload)
{
    float *y = take_outputs(b, (size_t)a[0]);
    COUNT_BEGIN();
    b->kernels->gelu((const float *)(const void *)payload, a[0], y);
    COUNT_END();
    answer_outputs(b, y, (size_t)a[0]);
}

/* {image size, patch, dim} */
static void run_patch_embed(bench *b, const int32_t *a, const uint8_t *payload)
{
    tatvpr_patch_embed op = {.name = "patch", .image_size = a[0], .patch = a[1], .dim = a[2]};
    const size_t dim = (size_t)a[2], depth = (size_t)a[1] * (size_t)a[1] * 3;
    tatvpr_patch_job job;
    job.op = &op;
    job.pixels = part(&payload, (size_t)a[0] * (size_t)a[0] * 3);
    job.weight = part(&payload, dim * depth);
    job.scale = part(&payload, dim * sizeof(float));
    job.bias = part(&payload, dim * sizeof(float));
    job.first_row = 0;
    job.rows = a[0] / a[1];
    job.scratch = take(b, TATVPR_PATCH_SCRATCH(&op));
    const size_t outputs = (size_t)job.rows * (size_t)job.rows * dim;
    job.y = take_outputs(b, outputs);
    COUNT_BEGIN();
    b->kernels->patch_embed(&job);
    COUNT_END();
    answer_outputs(b, job.y, outputs);
}

/* {T, dim, heads}: answers y and, for each head, a */
static void run_attention(bench *b, const int32_t *a, const uint8_t *payload)
{
    const size_t t = (size_t)a[0];
    tatvpr_head_job job;
    job.qkv = (const float *)(const void *)payload;
    job.tokens = a[0];
    job.dim = a[1];
    job.head_dim = a[1] / a[2];
    job.scratch = take(b, TATVPR_HEAD_SCRATCH((uint32_t)a[0], (uint32_t)job.head_dim));
    job.y = take_outputs(b, t * (size_t)a[1]);
    float *looked = take(b, t * (size_t)a[2] * sizeof(float));
    COUNT_BEGIN();
    for (job.head = 0; job.head < a[2]; job.head++) {
        job.a = looked + (size_t)job.head * t;
        b->kernels->attention(&job);
    }
    COUNT_END();
    answer_outputs(b, job.y, t * (size_t)a[1]);
    answer(b->results, looked, t * (size_t)a[2] * sizeof(float));
}

/* {bytes a row, rows}; int8 or bits, or bits against eight numbers a byte */
static void run_search(bench *b, uint32_t operation, const int32_t *a, const uint8_t *payload)
{
    const void *query = part(&payload, (size_t)a[0] * (operation == OP_DOT_BITS ? 8 : 1));
    int32_t *result = take(b, (size_t)a[1] * sizeof(int32_t));
    COUNT_BEGIN();
    if (operation == OP_DOT)
        b->kernels->dot_i8(query, (const int8_t *)payload, a[0], a[0], a[1], result);
    else if (operation == OP_DOT_BITS)
        b->kernels->dot_bits(query, payload, a[0], a[0], a[1], result);
    else
        b->kernels->hamming(query, payload, a[0], a[0], a[1], result);
    COUNT_END();
    answer(b->results, result, (size_t)a[1] * sizeof(int32_t));
}

/* {places, frames, steps, odometry}: a path through places, judged */
static void run_track(bench *b, const int32_t *a, const uint8_t *payload)
{
    const size_t places = (size_t)a[0], steps = (size_t)a[2];
    const float *scores = part(&payload, steps * places * sizeof(float));
    const uint8_t *shown = part(&payload, steps);
    const float *moved = part(&payload, steps * sizeof(float));
    const tatvpr_moment *moments = part(&payload, places * sizeof(tatvpr_moment));
    const double *poses = part(&payload, places * 7 * sizeof(double));
    const float *judged = part(&payload, 8 * sizeof(float)); /* elsewhere, threshold, weights */
    tatvpr_band band;
    tatvpr_sequence sequence;
    tatvpr_zero(&band, sizeof(band));
    tatvpr_zero(&sequence, sizeof(sequence));
    band.calibration.kind = TATVPR_CALIBRATION_LOGISTIC;
    band.calibration.elsewhere_m = judged[0];
    sequence.frames = (uint32_t)a[1];
    sequence.threshold = judged[1];
    tatvpr_copy(sequence.weights, judged + 2, sizeof(sequence.weights));
    const tatvpr_part of = {places, NULL, poses, moments};
    const tatvpr_places table = {sizeof(table), 1, 1, 0, 1, 1, &band, &of};
    const size_t bytes = tatvpr_track_bytes(places, a[3]);
    tatvpr_track track;
    track.size = sizeof(track);
    tatvpr_status status =
        tatvpr_track_init(&track, sequence.frames, places, a[3], take(b, bytes), bytes);
    tatvpr_tracked *found = take(b, steps * sizeof(*found));
    COUNT_BEGIN();
    for (size_t t = 0; t < steps && status == TATVPR_OK; t++) {
        tatvpr_step step;
        tatvpr_zero(&step, sizeof(step));
        step.size = sizeof(step);
        step.scores = shown[t] ? scores + t * places : NULL;
        step.sequence = &sequence;
        step.moved_m = moved[t];
        found[t].size = sizeof(*found);
        status = tatvpr_track_step(&track, &table, &step, &found[t]);
    }
    COUNT_END();
    const int32_t said = (int32_t)status; /* an enum may be one byte here */
    answer(b->results, &said, sizeof(said));
    answer(b->results, found, steps * sizeof(*found));
}

/* {format, width, height, stride}: what a frame of one plane shows */
static void run_structure(bench *b, const int32_t *a, const uint8_t *payload)
{
    tatvpr_frame frame;
    float levels = -1.0f;
    tatvpr_zero(&frame, sizeof(frame));
    frame.size = sizeof(frame);
    frame.format = (uint32_t)a[0];
    frame.width = a[1];
    frame.height = a[2];
    frame.planes[0] = payload;
    frame.strides[0] = a[3];
    COUNT_BEGIN();
    const tatvpr_status status = tatvpr_frame_structure(&frame, &levels);
    COUNT_END();
    const int32_t said = (int32_t)status; /* an enum may be one byte here */
    answer(b->results, &said, sizeof(said));
    answer(b->results, &levels, sizeof(levels));
}

#if defined(WITH_CMSIS_NN)
/* {K, N, T}: int8 weights and activations, requantised to int8 as that library does */
static void run_cmsis(bench *b, const int32_t *a, const uint8_t *payload)
{
    const size_t k_in = (size_t)a[0], n_out = (size_t)a[1], tokens = (size_t)a[2];
    const int8_t *weights = part(&payload, k_in * n_out);
    const int8_t *q = part(&payload, k_in * tokens);
    int32_t *bias = take(b, n_out * 4), *multiplier = take(b, n_out * 4);
    int32_t *shift = take(b, n_out * 4);
    int8_t *y = take(b, n_out * tokens);
    for (size_t n = 0; n < n_out; n++) {
        bias[n] = 0;
        multiplier[n] = 1 << 30;
        shift[n] = -6;
    }
    COUNT_BEGIN();
#if defined(CMSIS_NN_ROW_OFFSET) /* since 6.0: from output row to output row */
    (void)arm_nn_mat_mult_nt_t_s8(q, weights, bias, y, multiplier, shift, a[2], a[1], a[0], 0, 0,
                                  -128, 127, a[1], a[0]);
#else
    (void)arm_nn_mat_mult_nt_t_s8(q, weights, bias, y, multiplier, shift, a[2], a[1], a[0], 0, 0,
                                  -128, 127, a[0]);
#endif
    COUNT_END();
    answer(b->results, y, n_out * tokens);
}
#endif

static void run(bench *b, uint32_t operation, const int32_t *arguments, const uint8_t *payload)
{
    switch (operation) {
    case OP_MATMUL: run_matmul(b, arguments, payload); break;
    case OP_SELECT: run_select(b, arguments, payload); break;
    case OP_QUANTISE: run_quantise(b, arguments, payload); break;
    case OP_LAYER_NORM: run_layer_norm(b, arguments, payload); break;
    case OP_GELU: run_gelu(b, arguments, payload); break;
    case OP_PATCH_EMBED: run_patch_embed(b, arguments, payload); break;
    case OP_ATTENTION: run_attention(b, arguments, payload); break;
    case OP_DOT:
    case OP_DOT_BITS:
    case OP_HAMMING: run_search(b, operation, arguments, payload); break;
    case OP_TRACK: run_track(b, arguments, payload); break;
    case OP_SPARSE_BELOW: run_sparse_below(b, arguments); break;
    case OP_STRUCTURE: run_structure(b, arguments, payload); break;
#if defined(WITH_CMSIS_NN)
    case OP_CMSIS: run_cmsis(b, arguments, payload); break;
#endif
    default: sh_text("bench: unknown operation\n"); sh_exit(EXIT_JOB);
    }
}

int main(void)
{
    bench b = {.kernels = tatvpr_kernels_list[0]};
    if (open_jobs(&b.jobs, &b.results) != 0)
        return EXIT_FILE;
    for (;;) {
        uint32_t header[WORDS];
        if (sh_read(b.jobs, header, sizeof(header)) != 0)
            return EXIT_JOB;
        if (header[0] == OP_END)
            return sh_close(b.results) == 0 ? 0 : EXIT_FILE;
        b.used = 0;
        uint8_t *payload = take(&b, header[1]);
        if (sh_read(b.jobs, payload, header[1]) != 0)
            return EXIT_JOB;
        int32_t arguments[WORDS - 2];
        for (int32_t i = 0; i < WORDS - 2; i++)
            arguments[i] = (int32_t)header[2 + i];
        run(&b, header[0], arguments, payload);
    }
}
