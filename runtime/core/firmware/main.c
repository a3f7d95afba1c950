/* Example firmware: it tests itself, then a camera frame goes in and a place comes out.
 *
 * Supply the functions of board.h and link with the library. The weights are linked in as
 * tatvpr_weights; to keep them in a partition of their own, program weights.bin there (64-byte
 * aligned) and pass that address instead: the header's CRC is checked before first use.
 */
#include "board.h"
#include "tatvpr.h"
#include "tatvpr_build.h"
#include "tatvpr_selftest.h"

/* Neither is in the flash image nor has to be zeroed; tatvpr.ld says which bank each goes to. */
static uint8_t arena[TATVPR_ARENA_BYTES] TATVPR_IN_ARENA;
#if TATVPR_TABLES_BYTES > 0
static uint8_t tables[TATVPR_TABLES_BYTES] TATVPR_IN_TABLES;
#endif
static float descriptor[TATVPR_DESCRIPTOR_SIZE];

static void say(void *user, const char *line) {
    (void)user;
    board_say(line);
}

static tatvpr_status where_am_i(const tatvpr_model *model, const tatvpr_options *options,
                                const tatvpr_map *map) {
    const tatvpr_arena memory = {arena, sizeof(arena)};
    for (;;) {
        tatvpr_frame frame = {.size = sizeof(frame)};
        if (!board_camera_frame(&frame)) {
            return TATVPR_OK;
        }
        tatvpr_match match = {.size = sizeof(match)};
        int32_t found = 0;
        const tatvpr_status status =
            tatvpr_query(model, memory, &frame, options, map, &match, 1, &found);
        board_report(status == TATVPR_OK && found == 1 ? &match : NULL, status);
    }
}

int main(void) {
    tatvpr_model model;
    tatvpr_status status = tatvpr_model_init(&model, tatvpr_program_get(), tatvpr_weights,
                                             tatvpr_weights_bytes, NULL, NULL, 0);
    if (status != TATVPR_OK) {
        board_report(NULL, status);
        return (int)status;
    }
    tatvpr_options options = {.size = sizeof(options)};
    options.k = TATVPR_DEFAULT_K; /* or a dial, or the governor's choice (tatvpr_governor.h) */
    options.tokens = TATVPR_DEFAULT_TOKENS;
#if TATVPR_TABLES_BYTES > 0
    options.tables = tables;
    options.tables_bytes = sizeof(tables);
#endif
    const tatvpr_selftest_job test = {&model,   &tatvpr_golden_vectors, {arena, sizeof(arena)},
                                      &options, descriptor,             say,
                                      NULL};
    if (tatvpr_selftest(&test) != 0) {
        board_say("this firmware does not compute what it should: other compiler flags?");
        return 1;
    }
    size_t bytes = 0;
    const void *stored = board_place_map(&bytes);
    tatvpr_map map = {.size = sizeof(map)};
    status = tatvpr_map_open(&map, stored, bytes, &model);
    if (status != TATVPR_OK) {
        board_report(NULL, status);
        return (int)status;
    }
    return (int)where_am_i(&model, &options, &map);
}
