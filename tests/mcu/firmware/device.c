/* Firmware that does what the host asks of the whole library: describe, query, and the mistakes
 * that a firmware engineer can make. One model is linked in; nothing of the library is rebuilt.
 *
 * The command line is "JOBS RESULTS" as in bench.c. Every answer begins with the status that the
 * library gave. The arena lies in the board's own bank between canaries; frames, maps and second
 * copies of the weights stand in a pool beside it, as in another flash partition.
 */
#include "../../../runtime/core/include/tatvpr.h"
#include "../../../tools/mcu/firmware/count.h"
#include "../../../tools/mcu/firmware/jobs.h"
#include "startup.h"

#define IN_POOL __attribute__((aligned(64), section(".pool")))

/* BANK_BYTES and POOL_BYTES: sizes of the board's regions (tools/mcu/emulation.py) */
static uint8_t bank[BANK_BYTES] __attribute__((aligned(64), section(".bss.tatvpr_arena")));
extern const uint8_t tatvpr_weights[];
extern const uint32_t tatvpr_weights_bytes;

enum command { END = 0, DESCRIBE = 1, INIT = 2, MAP = 3, QUERY = 4, INFO = 5, NULLS = 6 };
enum { EXIT_MODEL = 13, CANARY_BYTES = 64, CANARY = 0x5C, FRAME_BYTES = 320 * 240 * 3, MATCHES = 8 };

/* arguments of DESCRIBE and QUERY, in words; see tests/support/mcu_device.py */
enum argument {
    FORMAT, WIDTH, HEIGHT, STRIDE0, STRIDE1, PLANE1, K_BITS, TOKENS_BITS, ARENA_LESS, ARENA_SHIFT,
    WANT_TOKENS, COUNT, TABLES_LESS
};

typedef struct device {
    int32_t jobs, results;
    tatvpr_model model;
    tatvpr_map map;
    tatvpr_model_info info;
} device;

enum { TABLES_BYTES = 48 << 10, TOKENS_FLOATS = 64 << 10 };
static uint8_t frame_bytes[FRAME_BYTES] IN_POOL;
static float tokens_out[TOKENS_FLOATS] IN_POOL;
static uint8_t pool[POOL_BYTES - FRAME_BYTES - 4 * TOKENS_FLOATS - 256] IN_POOL;
static uint8_t tables[TABLES_BYTES] __attribute__((aligned(64), section(".bss.tatvpr_tables")));
static float descriptor[2048];

static void answer_word(const device *d, uint32_t word) { answer(d->results, &word, sizeof(word)); }

/* Canaries below and above `bytes` of arena; the arena itself is filled with noise. */
static uint8_t *set_arena(size_t bytes)
{
    uint8_t *base = bank + CANARY_BYTES;
    if (bytes + 2 * CANARY_BYTES > sizeof(bank)) {
        sh_text("device: the arena does not fit its region\n");
        sh_exit(EXIT_ROOM);
    }
    for (size_t i = 0; i < CANARY_BYTES; i++) {
        bank[i] = CANARY;
        base[bytes + i] = CANARY;
    }
    for (size_t i = 0; i < bytes; i++)
        base[i] = (uint8_t)(i * 167u + 13u);
    return base;
}

static uint32_t canaries_whole(const uint8_t *base, size_t bytes)
{
    for (size_t i = 0; i < CANARY_BYTES; i++)
        if (bank[i] != CANARY || base[bytes + i] != CANARY)
            return 0;
    return 1;
}

static void run_frame(device *d, uint32_t command, const int32_t *a, uint32_t payload)
{
    receive(d->jobs, frame_bytes, sizeof(frame_bytes), payload);
    tatvpr_frame frame = {.size = sizeof(frame), .format = (uint32_t)a[FORMAT]};
    frame.width = a[WIDTH];
    frame.height = a[HEIGHT];
    frame.strides[0] = a[STRIDE0];
    frame.strides[1] = a[STRIDE1];
    frame.planes[0] = a[STRIDE0] < 0
                          ? frame_bytes + (ptrdiff_t)(a[HEIGHT] - 1) * -a[STRIDE0]
                          : frame_bytes;
    frame.planes[1] = frame_bytes + a[PLANE1];
    frame.planes[2] = frame.planes[1] + (ptrdiff_t)a[STRIDE1] * (a[HEIGHT] / 2);
    frame.strides[2] = a[STRIDE1];
    const size_t needed = tatvpr_arena_bytes(&d->model, 1);
    uint8_t *base = set_arena(needed);
    const tatvpr_arena arena = {base + a[ARENA_SHIFT], needed - (size_t)a[ARENA_LESS]};
    tatvpr_options options = {.size = sizeof(options), .k = as_float(a[K_BITS])};
    options.tokens = as_float(a[TOKENS_BITS]);
    options.tables = tables;
    options.tables_bytes = tatvpr_tables_bytes(&d->model, 1) - (size_t)a[TABLES_LESS];
    int32_t rows = 0;
    if (a[WANT_TOKENS]) {
        options.tokens_out = tokens_out;
        options.tokens_out_floats = (size_t)(d->info.max_tokens * d->info.token_dim);
        options.token_count_out = &rows;
    }
    for (int32_t i = 0; i < d->info.descriptor_size; i++)
        descriptor[i] = -7.0f;
    tatvpr_match matches[MATCHES];
    for (int32_t i = 0; i < MATCHES; i++)
        matches[i].size = sizeof(matches[i]);
    int32_t found = 0;
    tatvpr_status status;
    COUNT_BEGIN();
    if (command == DESCRIBE)
        status = tatvpr_describe(&d->model, arena, &frame, &options, descriptor);
    else
        status = tatvpr_query(&d->model, arena, &frame, &options, &d->map, matches, a[COUNT],
                              &found);
    COUNT_END();
    answer_word(d, status);
    answer_word(d, canaries_whole(base, needed));
    if (command == DESCRIBE) {
        answer(d->results, descriptor, (size_t)d->info.descriptor_size * sizeof(float));
        answer(d->results, options.tokens_out, (size_t)(rows * d->info.token_dim) * sizeof(float));
    } else {
        answer(d->results, matches, (size_t)found * sizeof(matches[0]));
    }
}

/* {bytes stated, shift}: binds the payload as weights; the bound model stays as it was */
static void run_init(device *d, const int32_t *a, uint32_t payload)
{
    receive(d->jobs, pool, sizeof(pool), payload);
    tatvpr_model model;
    answer_word(d, tatvpr_model_init(&model, tatvpr_program_get(), pool + a[1],
                                     (size_t)a[0], NULL, NULL, 0));
}

/* {bytes stated, shift, compare the model}: opens the payload as a map and keeps it */
static void run_map(device *d, const int32_t *a, uint32_t payload)
{
    receive(d->jobs, pool, sizeof(pool), payload);
    d->map.size = sizeof(d->map);
    answer_word(d, tatvpr_map_open(&d->map, pool + a[1], (size_t)a[0],
                                   a[2] ? &d->model : NULL));
}

static void run_info(device *d)
{
    const uint32_t words[] = {(uint32_t)d->info.arena_bytes,     (uint32_t)d->info.weight_bytes,
                              (uint32_t)d->info.image_size,      (uint32_t)d->info.descriptor_size,
                              (uint32_t)d->info.max_tokens,      (uint32_t)d->info.token_dim,
                              (uint32_t)sizeof(bank),
                              stack_used(),
                              (uint32_t)tatvpr_tables_bytes(&d->model, 1)};
    answer(d->results, words, sizeof(words));
    const char *name = tatvpr_kernels_name(0);
    size_t length = 0;
    while (name[length] != '\0')
        length++;
    answer(d->results, name, length);
}

/* Every pointer that may not be null, null in turn; all answers must be TATVPR_ERR_NULL. */
static void run_nulls(device *d)
{
    const tatvpr_program *program = tatvpr_program_get();
    const size_t needed = tatvpr_arena_bytes(&d->model, 1);
    const tatvpr_arena arena = {set_arena(needed), needed};
    const tatvpr_arena none = {NULL, needed};
    tatvpr_frame frame = {.size = sizeof(frame), .format = TATVPR_RGB888, .width = 8, .height = 8};
    tatvpr_options options = {.size = sizeof(options), .k = 1.0f, .tokens = 1.0f};
    options.tables = tables;
    options.tables_bytes = sizeof(tables);
    frame.planes[0] = frame_bytes;
    frame.strides[0] = 24;
    tatvpr_model model = d->model;
    tatvpr_match match = {.size = sizeof(match)};
    int32_t found = 0;
    uint32_t words[] = {
        tatvpr_model_init(NULL, program, tatvpr_weights, tatvpr_weights_bytes, NULL, NULL, 0),
        tatvpr_model_init(&model, NULL, tatvpr_weights, tatvpr_weights_bytes, NULL, NULL, 0),
        tatvpr_model_init(&model, program, NULL, tatvpr_weights_bytes, NULL, NULL, 0),
        tatvpr_describe(NULL, arena, &frame, &options, descriptor),
        tatvpr_describe(&d->model, none, &frame, &options, descriptor),
        tatvpr_describe(&d->model, arena, NULL, &options, descriptor),
        tatvpr_describe(&d->model, arena, &frame, NULL, descriptor),
        tatvpr_describe(&d->model, arena, &frame, &options, NULL),
        tatvpr_map_open(NULL, pool, 64, NULL),
        tatvpr_map_open(&d->map, NULL, 64, NULL),
        tatvpr_query(&d->model, arena, &frame, &options, NULL, &match, 1, &found),
        tatvpr_query(&d->model, arena, &frame, &options, &d->map, NULL, 1, &found),
        tatvpr_query(&d->model, arena, &frame, &options, &d->map, &match, 1, NULL),
    };
    answer(d->results, words, sizeof(words));
}

static void run(device *d, const uint32_t *header)
{
    int32_t a[WORDS - 2];
    for (int32_t i = 0; i < WORDS - 2; i++)
        a[i] = (int32_t)header[2 + i];
    switch (header[0]) {
    case DESCRIBE:
    case QUERY: run_frame(d, header[0], a, header[1]); break;
    case INIT: run_init(d, a, header[1]); break;
    case MAP: run_map(d, a, header[1]); break;
    case INFO: run_info(d); break;
    case NULLS: run_nulls(d); break;
    default: sh_text("device: unknown command\n"); sh_exit(EXIT_JOB);
    }
}

int main(void)
{
    static device d;
    if (open_jobs(&d.jobs, &d.results) != 0)
        return EXIT_FILE;
    d.info.size = sizeof(d.info);
    if (tatvpr_model_init(&d.model, tatvpr_program_get(), tatvpr_weights, tatvpr_weights_bytes,
                          NULL, NULL, 0) != TATVPR_OK ||
        tatvpr_model_get_info(d.model.program, &d.info) != TATVPR_OK ||
        d.info.descriptor_size > 2048)
        return EXIT_MODEL;
    for (;;) {
        uint32_t header[WORDS];
        if (sh_read(d.jobs, header, sizeof(header)) != 0)
            return EXIT_JOB;
        if (header[0] == END)
            return sh_close(d.results) == 0 ? 0 : EXIT_FILE;
        run(&d, header);
    }
}
