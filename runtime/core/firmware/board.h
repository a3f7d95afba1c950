/* What main.c wants of a board. Write these four for yours; emulated.c is that of the emulator. */
#ifndef BOARD_H
#define BOARD_H

#include "tatvpr.h"

/* The next camera frame (`frame` comes zeroed, with its size set); 0: there are no more. */
int board_camera_frame(tatvpr_frame *frame);
/* A .placemap in flash at a multiple of 64 bytes, and its own size: not that of its partition. */
const void *board_place_map(size_t *bytes);
/* A line of text for whoever watches. */
void board_say(const char *line);
/* Where the frame was taken; `match` is null where no place was found or the status is an error. */
void board_report(const tatvpr_match *match, tatvpr_status status);

#endif
