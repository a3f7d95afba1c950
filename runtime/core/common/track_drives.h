/* The drives that a path's places come from (tatvpr_track.h): where each begins, how far along it a
 * place lies, and how far it has turned there. Part of a tatvpr_track, which track.c makes. */
#ifndef TATVPR_TRACK_DRIVES_H
#define TATVPR_TRACK_DRIVES_H

#include "where.h"

#include "../include/tatvpr_track.h"

#define TATVPR_UNKNOWN __builtin_nanf("")

enum { TATVPR_BEGIN_WORD = 32 }; /* places whose beginnings one word says */

/* Callers that were compiled before there were turns, or before frames were compared, have smaller
 * structures, which end before them. */
#define TATVPR_LEAST_TRACK offsetof(tatvpr_track, turned)
#define TATVPR_TURNS_TRACK offsetof(tatvpr_track, last)
#define TATVPR_LEAST_STEP offsetof(tatvpr_step, turned_rad)
#define TATVPR_TURNS_STEP offsetof(tatvpr_step, descriptor)

static inline size_t tatvpr_begin_words(uint64_t places) {
    return (size_t)((places + TATVPR_BEGIN_WORD - 1) / TATVPR_BEGIN_WORD);
}

/* Null: turns are not known. */
static inline float *tatvpr_turned_of(const tatvpr_track *track) {
    return track->size >= TATVPR_TURNS_TRACK ? track->turned : NULL;
}

/* The evidence of paths that go back along their drive; `evidence` begins with those that go ahead. */
static inline float *tatvpr_back_of(const tatvpr_track *track) {
    return track->evidence + track->room;
}

/* Goes through the places of all parts; `local` may begin beyond a part. */
typedef struct tatvpr_walk {
    const tatvpr_places *places;
    uint32_t part;
    uint64_t local;
} tatvpr_walk;

static inline tatvpr_spot tatvpr_next_spot(tatvpr_walk *w) {
    while (w->local >= w->places->part[w->part].places) {
        w->local -= w->places->part[w->part].places;
        w->part++;
    }
    return tatvpr_spot_of(&w->places->part[w->part], w->local++);
}

static inline tatvpr_spot tatvpr_spot_at(const tatvpr_places *places, uint64_t place) {
    uint64_t local = place;
    const tatvpr_part *part = tatvpr_part_of(places, &local);
    return tatvpr_spot_of(part, local);
}

/* Places that came since the last call: nothing speaks for them yet; which begin a drive, and, with
 * odometry, metres along their drive and how far it has turned. */
void tatvpr_meet_places(tatvpr_track *track, const tatvpr_places *places, uint64_t total);

/* How many metres places are apart at `place`, of it and its neighbours; NaN: not known. */
float tatvpr_spacing_at(const tatvpr_track *track, uint64_t place);

/* Every path goes `moved_m` along its drive and turns by `turned_rad`, or a step where that is not
 * known; or jumps. */
void tatvpr_go_along_drives(tatvpr_track *track, uint64_t total, float moved_m, float turned_rad,
                            float jump);

#endif
