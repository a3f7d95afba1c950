/* Where paths may go from one frame to the next (tatvpr_track.h), along one stretch of a drive. */
#ifndef TATVPR_TRACK_PATHS_H
#define TATVPR_TRACK_PATHS_H

#include <stddef.h>
#include <stdint.h>

#define TATVPR_LEFT_OUT (-__builtin_inff()) /* the evidence for a place that nothing speaks for */

static inline float tatvpr_larger(float a, float b) { return a > b ? a : b; }

static inline float tatvpr_distance(float a, float b) { return __builtin_fabsf(a - b); }

/* The places first .. last of one drive, of known positions. */
typedef struct tatvpr_stretch {
    const float *along;  /* [places] metres along the drive */
    float *spread;       /* [places] room */
    const float *turned; /* [places] radians that the drive has turned; null: turns are not known */
    uint64_t first, last;
    float price;      /* of a metre */
    float turn_price; /* of a radian */
    float turned_rad; /* since the last frame */
} tatvpr_stretch;

/* The places first .. last of one drive: paths stay, go one place on (those of `ahead`) or one place
 * back (those of `back`), go over to the others for `reverse`, or jump. */
void tatvpr_go_by_steps(float *ahead, float *back, uint64_t first, uint64_t last, float price,
                        float reverse, float jump);

/* Paths go `moved` metres along the stretch, either way; those of `ahead` and `back` alike, which hold
 * the same afterwards. What a path ending at s pays is
 * price * | |s - from| - moved |: the evidence is spread by that price a metre, and read `moved`
 * metres before and behind every place. Where turns are known, it is read less the price of every
 * radian that the drive turns more or less from there to here. */
void tatvpr_go_by_metres(const tatvpr_stretch *stretch, float *ahead, float *back, float moved,
                         float jump);

#endif
