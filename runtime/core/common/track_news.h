/* Which frames of a path count (tatvpr_track.h): those that say something new. */
#ifndef TATVPR_TRACK_NEWS_H
#define TATVPR_TRACK_NEWS_H

#include "../include/tatvpr_track.h"

/* 1 where a track, or a step, has what callers that were compiled before frames were compared have
 * not: their structures end before it. */
int tatvpr_remembers(const tatvpr_track *track, const tatvpr_step *step);

/* 1 where a frame counts, whose scores are `best` at the most and `mean` on the mean; the camera moved
 * `moved_m` since the path moved on. */
int tatvpr_is_news(const tatvpr_track *track, const tatvpr_places *places, const tatvpr_step *step,
                   float moved_m, float best, float mean);

/* Keeps what the next frame is compared with; nothing where a frame has no descriptor. */
void tatvpr_remember(tatvpr_track *track, const tatvpr_places *places, const tatvpr_step *step,
                     int counted);

/* A frame that shows nothing, since which the camera may be elsewhere. */
void tatvpr_see_nothing(tatvpr_track *track, float moved_m);

#endif
