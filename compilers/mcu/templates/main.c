/* Example firmware: a camera frame goes in, a place comes out.
 *
 * Supply the four functions below for your board and link with libtatvpr_model.a. The weights are
 * linked in as tatvpr_weights; to keep them in a partition of their own, program weights.bin there
 * (64-byte aligned) and pass that address instead: the header's CRC is checked before first use.
 */
#include <stddef.h>
#include <stdint.h>

#include "tatvpr.h"
#include "tatvpr_build.h" /* TATVPR_ARENA_BYTES */

/* ---- what your board has to supply */
const uint8_t *board_camera_frame(int32_t *width, int32_t *height, int32_t *stride); /* RGB565 */
const void *board_place_map(size_t *bytes); /* a .placemap in flash, 64-byte aligned; or null */
float board_wanted_k(void);                 /* a dial, a constant, or the governor's choice */
void board_report(int32_t place, float score, int32_t status);

extern const uint8_t tatvpr_weights[];
extern const uint32_t tatvpr_weights_bytes;

/* Place it in the bank that the memory report names. */
static uint8_t arena[TATVPR_ARENA_BYTES]
    __attribute__((aligned(TATVPR_ARENA_ALIGN), section(".tatvpr_arena")));

int main(void) {
    tatvpr_model model;
    tatvpr_status status =
        tatvpr_model_init(&model, tatvpr_program_get(), tatvpr_weights, tatvpr_weights_bytes,
                          NULL, NULL, 0);
    tatvpr_map map = {.size = sizeof(map)};
    if (status == TATVPR_OK) {
        size_t bytes = 0;
        const void *stored = board_place_map(&bytes);
        status = tatvpr_map_open(&map, stored, bytes, &model);
    }
    if (status != TATVPR_OK) {
        board_report(-1, 0.0f, (int32_t)status);
        for (;;) {
        }
    }
    for (;;) {
        tatvpr_frame frame = {.size = sizeof(frame), .format = TATVPR_RGB565};
        frame.planes[0] = board_camera_frame(&frame.width, &frame.height, &frame.strides[0]);
        tatvpr_options options = {.size = sizeof(options), .k = board_wanted_k(), .tokens = 1.0f};
        const tatvpr_arena memory = {arena, sizeof(arena)};
        tatvpr_match match = {.size = sizeof(match)};
        int32_t found = 0;
        status = tatvpr_query(&model, memory, &frame, &options, &map, &match, 1, &found);
        if (status == TATVPR_OK && found == 1) {
            board_report((int32_t)match.place, match.score, 0);
        } else {
            board_report(-1, 0.0f, (int32_t)status);
        }
    }
}
