/* The board of main.c in an emulator: the camera shows the golden frames, text goes to the host.
 * Nothing here is a time: an emulator counts instructions at best.
 */
#include "board.h"
#include "semihosting.h"
#include "tatvpr_build.h"
#include "tatvpr_selftest.h"

extern const uint8_t place_map[]; /* map.S */
extern const uint32_t place_map_bytes;

int board_camera_frame(tatvpr_frame *frame) {
    static int32_t at;
    const tatvpr_golden *golden = &tatvpr_golden_vectors;
    if (at == golden->frames) {
        return 0;
    }
    frame->format = TATVPR_RGB888;
    frame->width = golden->frame[at].width;
    frame->height = golden->frame[at].height;
    frame->planes[0] = golden->frame[at].pixels;
    frame->strides[0] = 3 * frame->width;
    at++;
    return 1;
}

const void *board_place_map(size_t *bytes) {
    *bytes = place_map_bytes;
    return place_map;
}

void board_say(const char *line) {
    sh_text(line);
    sh_text("\n");
}

/* n with a point before its last `decimals` digits. */
static void say_number(uint32_t n, uint32_t decimals) {
    char digits[13];
    uint32_t at = sizeof(digits) - 1, said = 0;
    digits[at] = '\0';
    do {
        if (decimals > 0 && said == decimals) {
            digits[--at] = '.';
        }
        digits[--at] = (char)('0' + n % 10u);
        n /= 10u;
        said++;
    } while (n > 0 || said <= decimals);
    sh_text(digits + at);
}

void board_report(const tatvpr_match *match, tatvpr_status status) {
    if (match == NULL) {
        sh_text("no place: ");
        board_say(tatvpr_status_text(status));
        return;
    }
    sh_text("place ");
    say_number((uint32_t)match->place, 0);
    sh_text(match->score < 0.0f ? ", score -" : ", score ");
    say_number((uint32_t)((match->score < 0.0f ? -match->score : match->score) * 1000.0f + 0.5f), 3);
    sh_text("\n");
}
