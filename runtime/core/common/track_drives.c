/* Where drives begin, and paths along them: track_drives.h. */
#include "track_drives.h"

#include "floats.h"
#include "track_paths.h"

#define UNMEASURED (-1.0f) /* `along` of a drive's first place, where the position of one is unknown */
#define UNTURNED TATVPR_UNKNOWN /* `turned` likewise, where an orientation is */
#define ORIENTATION 0x78u       /* of tatvpr_moment.known: qx qy qz qw */
#define HALF_TURN 3.14159265f

enum { WORD = TATVPR_BEGIN_WORD };

/* Arc tangent of t in 0..1: within 2e-6 (Abramowitz and Stegun, 4.4.49). */
static float arc_tangent(float t) {
    static const float c[8] = {0.0028662257f, -0.0161657367f, 0.0429096138f, -0.0752896400f,
                               0.1065626393f, -0.1420889944f, 0.1999355085f, -0.3333314528f};
    const float square = t * t;
    float sum = c[0];
    for (int i = 1; i < 8; i++) {
        sum = sum * square + c[i];
    }
    return t + t * (sum * square);
}

/* The angle of a point from the x axis, counter-clockwise, in -pi..pi; 0 of none. */
static float angle_of(float x, float y) {
    const float wide = x < 0.0f ? -x : x, high = y < 0.0f ? -y : y;
    const float most = tatvpr_larger(wide, high);
    if (!(most > 0.0f)) {
        return 0.0f;
    }
    float angle = arc_tangent((wide < high ? wide : high) / most);
    angle = high > wide ? 0.5f * HALF_TURN - angle : angle;
    angle = x < 0.0f ? HALF_TURN - angle : angle;
    return y < 0.0f ? -angle : angle;
}

/* Radians about z from one orientation to the next, in -pi..pi: of where their x axes point, seen
 * from above. */
static float turn_between(tatvpr_spot from, tatvpr_spot to) {
    float ahead[2], left[2];
    const double *both[2] = {from.pose + 3, to.pose + 3};
    for (int i = 0; i < 2; i++) {
        const double *q = both[i];
        ahead[i] = (float)(1.0 - 2.0 * (q[1] * q[1] + q[2] * q[2]));
        left[i] = (float)(2.0 * (q[0] * q[1] + q[3] * q[2]));
    }
    return angle_of(ahead[0] * ahead[1] + left[0] * left[1],
                    ahead[0] * left[1] - left[0] * ahead[1]);
}

/* The first place of the drive that `place` belongs to. */
static uint64_t beginning(const tatvpr_track *track, uint64_t place) {
    uint64_t word = place / WORD;
    uint32_t bits = track->begins[word] & 0xFFFFFFFFu >> (WORD - 1 - place % WORD);
    while (bits == 0) {
        bits = track->begins[--word];
    }
    uint64_t bit = WORD - 1;
    while (bits >> bit == 0) {
        bit--;
    }
    return word * WORD + bit;
}

/* The first place from `place` on that begins a drive; `total` where none does. */
static uint64_t next_beginning(const tatvpr_track *track, uint64_t place, uint64_t total) {
    while (place < total) {
        const uint32_t bits = track->begins[place / WORD] >> place % WORD;
        if (bits & 1u) {
            return place;
        }
        place += bits != 0 ? 1 : WORD - place % WORD;
    }
    return total;
}

/* How far the drive has turned at place `i`, which comes after `before`. */
static void meet_turn(tatvpr_track *track, float *turned, uint64_t i, int begins, tatvpr_spot spot,
                      tatvpr_spot before) {
    turned[i] = 0.0f;
    if ((spot.moment->known & ORIENTATION) != ORIENTATION) {
        turned[beginning(track, i)] = UNTURNED;
    } else if (!begins && (before.moment->known & ORIENTATION) == ORIENTATION) {
        /* The first place's says whether the drive's are known: its own is 0. */
        const float so_far = i - 1 == beginning(track, i) ? 0.0f : turned[i - 1];
        turned[i] = so_far + turn_between(before, spot);
    }
}

void tatvpr_meet_places(tatvpr_track *track, const tatvpr_places *places, uint64_t total) {
    if (track->known == total) {
        return;
    }
    const uint64_t last = track->known > 0 ? track->known - 1 : 0;
    tatvpr_walk w = {places, 0, track->known};
    tatvpr_spot before = tatvpr_spot_at(places, last);
    for (uint64_t i = track->known; i < total; i++) {
        const tatvpr_spot spot = tatvpr_next_spot(&w);
        const int begins = i == 0 || spot.moment->drive != before.moment->drive;
        const uint32_t kept = i % WORD == 0 ? 0u : track->begins[i / WORD];
        track->begins[i / WORD] = kept | (uint32_t)begins << i % WORD;
        track->evidence[i] = tatvpr_back_of(track)[i] = TATVPR_LEFT_OUT;
        track->still[i] = TATVPR_LEFT_OUT;
        if (track->along != NULL) {
            track->along[i] = 0.0f;
            if ((spot.moment->known & TATVPR_POSITION) != TATVPR_POSITION) {
                track->along[beginning(track, i)] = UNMEASURED;
            } else if (!begins && tatvpr_both_known(spot, before)) {
                track->along[i] = track->along[i - 1] + tatvpr_sqrt((float)tatvpr_spots_apart(
                                                           places->geographic, spot, before));
            }
        }
        if (tatvpr_turned_of(track) != NULL) {
            meet_turn(track, tatvpr_turned_of(track), i, begins, spot, before);
        }
        before = spot;
    }
    track->known = total;
}

float tatvpr_spacing_at(const tatvpr_track *track, uint64_t place) {
    if (track->along == NULL || track->known <= place) {
        return TATVPR_UNKNOWN;
    }
    const uint64_t first = beginning(track, place);
    const uint64_t last = next_beginning(track, place + 1, track->known) - 1;
    if (track->along[first] == UNMEASURED) {
        return TATVPR_UNKNOWN;
    }
    const uint64_t from = place > first ? place - 1 : place, to = place < last ? place + 1 : place;
    const float apart = (track->along[to] - track->along[from]) / (float)(to - from);
    return apart > 0.0f ? apart : TATVPR_UNKNOWN; /* of none, and where they lie on one point */
}

/* ---- where paths go ---- */

/* The places first .. last of one drive, of known positions: paths go `moved` metres along it,
 * either way. */
static void along_stretch(tatvpr_track *track, uint64_t first, uint64_t last, float moved,
                          float turned_rad, float jump) {
    const float *turned = tatvpr_turned_of(track);
    const int turns = turned != NULL && turned_rad == turned_rad && turned[first] == turned[first];
    const tatvpr_stretch stretch = {track->along,
                                    track->spread,
                                    turns ? turned : NULL,
                                    first,
                                    last,
                                    TATVPR_TRACK_METRE * track->lead,
                                    TATVPR_TRACK_RADIAN * track->lead,
                                    turned_rad};
    tatvpr_go_by_metres(&stretch, track->evidence, tatvpr_back_of(track), moved, jump);
}

/* Drive by drive. Where a position is unknown, so is how far it is to the next place. */
void tatvpr_go_along_drives(tatvpr_track *track, uint64_t total, float moved_m, float turned_rad,
                            float jump) {
    for (uint64_t first = 0, next; first < total; first = next) {
        next = next_beginning(track, first + 1, total);
        if (moved_m == moved_m && track->along[first] != UNMEASURED) {
            along_stretch(track, first, next - 1, moved_m, turned_rad, jump);
        } else {
            tatvpr_go_by_steps(track->evidence, tatvpr_back_of(track), first, next - 1,
                               TATVPR_TRACK_STEP * track->lead,
                               TATVPR_TRACK_REVERSE * track->lead, jump);
        }
    }
}
