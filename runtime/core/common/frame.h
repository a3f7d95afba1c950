/* Rows of a frame, for the resize. */
#ifndef TATVPR_FRAME_H
#define TATVPR_FRAME_H

#include "../include/tatvpr.h"

/* 1: rows have to be converted into a line buffer; 0: they are read in place. */
int tatvpr_frame_converts(const tatvpr_frame *frame);

/* 1 for gray, else 3. */
int32_t tatvpr_frame_channels(const tatvpr_frame *frame);

/* Row `y` as bytes, `channels` a pixel: in place, or in `line` [width, channels] where converted.
 * BGR888 comes as it is: whoever writes the last pixels swaps them. */
const uint8_t *tatvpr_frame_row(const tatvpr_frame *frame, int32_t y, uint8_t *line);

#endif
