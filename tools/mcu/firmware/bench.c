/* Firmware that runs matmuls and gates on what the host sends and counts their instructions.
 *
 * The command line is "JOBS RESULTS": JOBS holds records of 16 words {operation, payload bytes,
 * arguments...} followed by their payload, padded to 64 bytes; RESULTS receives {bytes} and the
 * kernel's output for each. The Python side is tools/mcu/bench.py.
 */
#include "bench.h"

#if defined(WITH_CMSIS_NN)
#include "arm_nnfunctions.h"
#include "arm_nnsupportfunctions.h"
#endif

uint8_t pool[POOL_BYTES] __attribute__((section(".pool"), aligned(64)));

enum operation { OP_END = 0, OP_MATMUL = 1, OP_SELECT = 2, OP_CMSIS = 10 };

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
#if defined(WITH_CMSIS_NN)
    case OP_CMSIS: run_cmsis(b, arguments, payload); break;
#endif
#if defined(WITH_OTHERS)
    default: run_other(b, operation, arguments, payload);
#else
    default: sh_text("bench: unknown operation\n"); sh_exit(EXIT_JOB);
#endif
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
