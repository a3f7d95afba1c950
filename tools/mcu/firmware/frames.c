/* Firmware that describes frames with the whole library and counts the instructions of each: one
 * model is linked in; nothing of the library is rebuilt.
 *
 * The command line is "JOBS RESULTS" as in bench.c. A job is a frame of RGB888 pixels; its answer
 * begins with the status that the library gave. The arena lies in the board's own bank; frames
 * stand in a pool beside it.
 */
#include "../../../runtime/core/include/tatvpr.h"
#include "count.h"
#include "jobs.h"

/* BANK_BYTES: size of the board's region (tools/mcu/emulation.py) */
enum { DESCRIBE = 1, EXIT_MODEL = 13, FRAME_BYTES = 320 * 240 * 3, TABLES_BYTES = 48 << 10 };
enum argument { WIDTH, HEIGHT, K_BITS, TOKENS_BITS };

static uint8_t bank[BANK_BYTES] __attribute__((aligned(64), section(".bss.tatvpr_arena")));
static uint8_t tables[TABLES_BYTES] __attribute__((aligned(64), section(".bss.tatvpr_tables")));
static uint8_t frame_bytes[FRAME_BYTES] __attribute__((aligned(64), section(".pool")));
static float descriptor[2048];
extern const uint8_t tatvpr_weights[];
extern const uint32_t tatvpr_weights_bytes;

static tatvpr_status describe(const tatvpr_model *model, const int32_t *a)
{
    const tatvpr_arena arena = {bank, sizeof(bank)};
    tatvpr_frame frame = {.size = sizeof(frame), .format = TATVPR_RGB888};
    frame.width = a[WIDTH];
    frame.height = a[HEIGHT];
    frame.planes[0] = frame_bytes;
    frame.strides[0] = 3 * a[WIDTH];
    tatvpr_options options = {.size = sizeof(options), .k = as_float(a[K_BITS])};
    options.tokens = as_float(a[TOKENS_BITS]);
    options.tables = tables;
    options.tables_bytes = sizeof(tables);
    COUNT_BEGIN();
    const tatvpr_status status = tatvpr_describe(model, arena, &frame, &options, descriptor);
    COUNT_END();
    return status;
}

int main(void)
{
    int32_t jobs, results;
    static tatvpr_model model;
    if (open_jobs(&jobs, &results) != 0)
        return EXIT_FILE;
    if (tatvpr_model_init(&model, tatvpr_program_get(), tatvpr_weights, tatvpr_weights_bytes, NULL,
                          NULL, 0) != TATVPR_OK)
        return EXIT_MODEL;
    for (;;) {
        uint32_t header[WORDS];
        if (sh_read(jobs, header, sizeof(header)) != 0)
            return EXIT_JOB;
        if (header[0] != DESCRIBE)
            return sh_close(results) == 0 ? 0 : EXIT_FILE;
        receive(jobs, frame_bytes, sizeof(frame_bytes), header[1]);
        const uint32_t status = describe(&model, (const int32_t *)header + 2);
        answer(results, &status, sizeof(status));
    }
}
