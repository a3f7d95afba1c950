/* Operations that the tests ask of the bench (tools/mcu/firmware/bench.c) beside its own. */
#include "../../../tools/mcu/firmware/bench.h"

#include "../../../runtime/core/include/tatvpr_track.h"

enum operation {
    OP_QUANTISE = 3,
    OP_LAYER_NORM = 4,
    OP_GELU = 5,
    OP_PATCH_EMBED = 6,
    OP_ATTENTION = 7,
    OP_DOT = 8,
    OP_HAMMING = 9,
    OP_TRACK = 11,
    OP_STRUCTURE = 12,
    OP_DOT_BITS = 13,
    OP_SPARSE_BELOW = 14
};

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

void run_other(bench *b, uint32_t operation, const int32_t *arguments, const uint8_t *payload)
{
    switch (operation) {
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
    default: sh_text("kernels: unknown operation\n"); sh_exit(EXIT_JOB);
    }
}
