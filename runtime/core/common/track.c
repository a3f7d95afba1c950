/* The filter of tatvpr_track.h: a few passes over the places, in place. */
#include "core.h"
#include "floats.h"
#include "track_paths.h"
#include "where.h"

#include "../include/tatvpr_track.h"

#define UNKNOWN __builtin_nanf("")
#define LOWEST (-3.0e38f) /* below: a place that was left out */

/* ---- memory ---- */

enum { WORD = 32 }; /* places whose beginnings one word says */

/* Any number but those that mean something else stood for metres before there were turns. */
static size_t tables(int32_t odometry) {
    return odometry == TATVPR_TRACK_TURNS ? 5 : odometry ? 4 : 2;
}

/* Callers that were compiled before there were turns have smaller structures, which end before them. */
#define LEAST_TRACK offsetof(tatvpr_track, turned)
#define LEAST_STEP offsetof(tatvpr_step, turned_rad)

static float *turned_of(const tatvpr_track *track) {
    return track->size >= sizeof(tatvpr_track) ? track->turned : NULL;
}

static float turned_rad_of(const tatvpr_step *step) {
    return step->size >= sizeof(tatvpr_step) ? step->turned_rad : UNKNOWN;
}

static size_t words(uint64_t places) { return (size_t)((places + WORD - 1) / WORD); }

size_t tatvpr_track_bytes(uint64_t places, int32_t odometry) {
    return (size_t)places * tables(odometry) * sizeof(float) + words(places) * sizeof(uint32_t);
}

tatvpr_status tatvpr_track_init(tatvpr_track *track, uint32_t frames, uint64_t places,
                                int32_t odometry, void *memory, size_t bytes) {
    if (track == NULL || memory == NULL) {
        return TATVPR_ERR_NULL;
    }
    const int turns = odometry == TATVPR_TRACK_TURNS;
    if (track->size < (turns ? sizeof(tatvpr_track) : LEAST_TRACK)) {
        return TATVPR_ERR_ABI;
    }
    if (frames < 1 || frames > TATVPR_TRACK_MOST_FRAMES || places < 1) {
        return TATVPR_ERR_ARGUMENT;
    }
    if ((uintptr_t)memory % sizeof(float) != 0) {
        return TATVPR_ERR_ALIGNMENT;
    }
    if (places > SIZE_MAX / ((tables(TATVPR_TRACK_TURNS) + 1) * sizeof(float)) ||
        bytes < tatvpr_track_bytes(places, odometry)) {
        return TATVPR_ERR_ARENA;
    }
    float *table = (float *)memory;
    track->frames = frames;
    track->room = places;
    track->evidence = table;
    track->still = table + places;
    track->along = odometry ? table + 2 * places : NULL;
    track->spread = odometry ? table + 3 * places : NULL;
    if (track->size >= sizeof(tatvpr_track)) {
        track->turned = turns ? table + 4 * places : NULL;
    }
    track->begins = (uint32_t *)(void *)(table + tables(odometry) * (size_t)places);
    return tatvpr_track_start(track);
}

tatvpr_status tatvpr_track_move(tatvpr_track *track, uint64_t places, void *memory, size_t bytes) {
    if (track == NULL) {
        return TATVPR_ERR_NULL;
    }
    if (track->size < LEAST_TRACK) {
        return TATVPR_ERR_ABI;
    }
    tatvpr_track old;
    tatvpr_zero(&old, sizeof(old));
    tatvpr_copy(&old, track, LEAST_TRACK);
    if (track->size >= sizeof(old)) {
        old.turned = track->turned;
    }
    if (places < old.known) {
        return TATVPR_ERR_ARGUMENT;
    }
    const int32_t odometry = old.turned != NULL  ? TATVPR_TRACK_TURNS
                             : old.along != NULL ? TATVPR_TRACK_METRES
                                                 : TATVPR_TRACK_WITHOUT;
    const tatvpr_status status =
        tatvpr_track_init(track, old.frames, places, odometry, memory, bytes);
    if (status != TATVPR_OK) {
        return status;
    }
    const size_t known = (size_t)old.known;
    tatvpr_copy(track->evidence, old.evidence, known * sizeof(float));
    tatvpr_copy(track->still, old.still, known * sizeof(float));
    if (old.along != NULL) {
        tatvpr_copy(track->along, old.along, known * sizeof(float));
    }
    if (old.turned != NULL) {
        tatvpr_copy(track->turned, old.turned, known * sizeof(float));
    }
    tatvpr_copy(track->begins, old.begins, words(old.known) * sizeof(uint32_t));
    track->known = old.known;
    track->place = old.place;
    track->seen = old.seen;
    track->steady = old.steady;
    track->since = old.since;
    track->held = old.held;
    track->lead = old.lead;
    track->most = old.most;
    return TATVPR_OK;
}

tatvpr_status tatvpr_track_start(tatvpr_track *track) {
    if (track == NULL) {
        return TATVPR_ERR_NULL;
    }
    if (track->size < LEAST_TRACK) {
        return TATVPR_ERR_ABI;
    }
    track->known = 0;
    track->place = 0;
    track->seen = 0;
    track->steady = 0;
    track->since = 0;
    track->held = 0;
    track->lead = 0.0f;
    track->most = TATVPR_LEFT_OUT;
    return TATVPR_OK;
}

/* ---- places one after another ---- */

/* Goes through the places of all parts; `local` may begin beyond a part. */
typedef struct walk {
    const tatvpr_places *places;
    uint32_t part;
    uint64_t local;
} walk;

static tatvpr_spot next_spot(walk *w) {
    while (w->local >= w->places->part[w->part].places) {
        w->local -= w->places->part[w->part].places;
        w->part++;
    }
    return tatvpr_spot_of(&w->places->part[w->part], w->local++);
}

static tatvpr_spot spot_at(const tatvpr_places *places, uint64_t place) {
    uint64_t local = place;
    const tatvpr_part *part = tatvpr_part_of(places, &local);
    return tatvpr_spot_of(part, local);
}

/* ---- drives ---- */

#define UNMEASURED (-1.0f) /* `along` of a drive's first place, where the position of one is unknown */
#define UNTURNED UNKNOWN   /* `turned` likewise, where an orientation is */
#define ORIENTATION 0x78u  /* of tatvpr_moment.known: qx qy qz qw */
#define HALF_TURN 3.14159265f

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

/* Places that came since: nothing speaks for them yet; which begin a drive, and, with odometry,
 * metres along their drive and how far it has turned. */
static void meet(tatvpr_track *track, const tatvpr_places *places, uint64_t total) {
    if (track->known == total) {
        return;
    }
    const uint64_t last = track->known > 0 ? track->known - 1 : 0;
    walk w = {places, 0, track->known};
    tatvpr_spot before = spot_at(places, last);
    for (uint64_t i = track->known; i < total; i++) {
        const tatvpr_spot spot = next_spot(&w);
        const int begins = i == 0 || spot.moment->drive != before.moment->drive;
        const uint32_t kept = i % WORD == 0 ? 0u : track->begins[i / WORD];
        track->begins[i / WORD] = kept | (uint32_t)begins << i % WORD;
        track->evidence[i] = track->still[i] = TATVPR_LEFT_OUT;
        if (track->along != NULL) {
            track->along[i] = 0.0f;
            if ((spot.moment->known & TATVPR_POSITION) != TATVPR_POSITION) {
                track->along[beginning(track, i)] = UNMEASURED;
            } else if (!begins && tatvpr_both_known(spot, before)) {
                track->along[i] = track->along[i - 1] + tatvpr_sqrt((float)tatvpr_spots_apart(
                                                           places->geographic, spot, before));
            }
        }
        if (turned_of(track) != NULL) {
            meet_turn(track, turned_of(track), i, begins, spot, before);
        }
        before = spot;
    }
    track->known = total;
}

enum { BLOCK = 256 }; /* places looked at at once */

/* ---- where paths go ---- */

/* The places first .. last of one drive, of known positions: paths go `moved` metres along it. */
static void along_stretch(tatvpr_track *track, uint64_t first, uint64_t last, float moved,
                          float turned_rad, float jump) {
    const float *turned = turned_of(track);
    const int turns = turned != NULL && turned_rad == turned_rad && turned[first] == turned[first];
    const tatvpr_stretch stretch = {track->along,
                                    track->spread,
                                    turns ? turned : NULL,
                                    first,
                                    last,
                                    TATVPR_TRACK_METRE * track->lead,
                                    TATVPR_TRACK_RADIAN * track->lead,
                                    turned_rad};
    tatvpr_go_by_metres(&stretch, track->evidence, moved, jump);
}

/* Drive by drive. Where a position is unknown, so is how far it is to the next place. */
static void along_drives(tatvpr_track *track, uint64_t total, float moved_m, float turned_rad,
                         float jump) {
    for (uint64_t first = 0, next; first < total; first = next) {
        next = next_beginning(track, first + 1, total);
        if (moved_m == moved_m && track->along[first] != UNMEASURED) {
            along_stretch(track, first, next - 1, moved_m < 0.0f ? -moved_m : moved_m, turned_rad,
                          jump);
        } else {
            tatvpr_go_by_steps(track->evidence, first, next - 1, TATVPR_TRACK_STEP * track->lead,
                               jump);
        }
    }
}

/* ---- what a frame says ---- */

/* The first frame is taken as it is. */
static void begin(tatvpr_track *track, const float *scores, uint64_t total) {
    tatvpr_copy(track->evidence, scores, (size_t)total * sizeof(float));
    tatvpr_copy(track->still, scores, (size_t)total * sizeof(float));
}

/* Takes in the scores of places `at` .. `at + count - 1`. A place that is left out has none, and then
 * nothing speaks for it: prior and mean are finite, as a jump's worth is. */
static inline void fold(tatvpr_track *track, const float *all, uint64_t at, uint64_t count,
                        float jump) {
    const float share = 1.0f / (float)track->seen;
    const float *restrict scores = all + at;
    float *restrict evidence = track->evidence + at;
    float *restrict still = track->still + at;
    for (uint64_t i = 0; i < count; i++) {
        const float score = scores[i], prior = evidence[i];
        /* A place that was left out before begins where a jump to it would. */
        const float mean = tatvpr_larger(still[i], jump);
        evidence[i] = prior + share * (score - prior);
        still[i] = mean + share * (score - mean);
    }
}

/* Takes in a frame's scores. Answers the place with most evidence, ties to the lower one. */
static uint64_t take_in(tatvpr_track *track, const float *scores, uint64_t total, int first,
                        float jump) {
    uint64_t best = 0;
    track->most = TATVPR_LEFT_OUT;
    if (first) {
        begin(track, scores, total);
    }
    for (uint64_t at = 0; at < total; at += BLOCK) {
        const uint64_t count = total - at < BLOCK ? total - at : BLOCK;
        if (!first) {
            fold(track, scores, at, count, jump);
        }
        const float most = tatvpr_highest(track->evidence + at, count);
        if (most > track->most) {
            track->most = most;
            best = at;
        }
    }
    while (track->evidence[best] < track->most) {
        best++;
    }
    return best;
}

/* The place near `step->near` with most evidence, ties to the lower one; `total`: none is near. */
static uint64_t best_near(const tatvpr_track *track, const tatvpr_places *places, uint64_t total,
                          const tatvpr_step *step) {
    uint64_t best = total;
    float most = TATVPR_LEFT_OUT;
    walk w = {places, 0, 0};
    for (uint64_t i = 0; i < total; i++) {
        const tatvpr_spot spot = next_spot(&w);
        if (track->evidence[i] > most &&
            tatvpr_within(places->geographic, spot, step->near, step->radius_m)) {
            most = track->evidence[i];
            best = i;
        }
    }
    return best;
}

/* Margins, confidence, acceptance. */
static void judge(const tatvpr_track *track, const tatvpr_places *places,
                  const tatvpr_step *step, tatvpr_tracked *found) {
    const tatvpr_calibration *c = &places->band[step->band].calibration;
    const tatvpr_sequence *s = step->sequence;
    if (c->kind != TATVPR_CALIBRATION_LOGISTIC) {
        return;
    }
    const tatvpr_rivals others = tatvpr_rivals_of(places, c, spot_at(places, track->place),
                                                  track->evidence, track->still);
    if (others.count < TATVPR_FEWEST_RIVALS) {
        return;
    }
    found->margin = found->evidence - others.first;
    found->still_margin = found->still - others.second;
    if (s == NULL || s->frames == 0) {
        return;
    }
    const float *w = s->weights;
    const float odds = ((((w[0] + w[1] * found->evidence) + w[2] * found->margin) +
                         w[3] * found->still) +
                        w[4] * found->still_margin) +
                       w[5] * (float)found->steady;
    found->confidence = 1.0f / (1.0f + tatvpr_exp(-odds));
    found->accepted = odds >= s->threshold ? 1 : 0;
}

/* Lost, found again, moved or here; `on`: the answer goes on from the one before, at another
 * place where `moved`. */
static uint32_t state_of(tatvpr_track *track, int32_t accepted, int on, int moved) {
    if (accepted < 0) {
        return TATVPR_TRACK_UNJUDGED;
    }
    const int held = track->held && on;
    if (accepted) {
        track->since = 0;
        track->held = 1;
        return !held ? TATVPR_TRACK_FOUND : moved ? TATVPR_TRACK_MOVED : TATVPR_TRACK_HERE;
    }
    track->since += track->since < track->frames;
    track->held = held && track->since < track->frames;
    return !track->held ? TATVPR_TRACK_LOST : moved ? TATVPR_TRACK_MOVED : TATVPR_TRACK_HERE;
}

/* ---- the call ---- */

/* What a frame's scores are like. */
typedef struct outline {
    int usable; /* nothing is NaN or +infinity */
    int any;    /* a place was looked at */
    float lead; /* the best score less the mean one */
} outline;

enum { LANES = 8 };

/* The order of adding is fixed: place i goes into sum i % LANES. */
static outline outline_of(const float *scores, uint64_t total) {
    float sums[LANES] = {0.0f};
    uint32_t counts[LANES] = {0}, bad[LANES] = {0};
    uint64_t i = 0;
    outline o = {1, 0, 0.0f};
    for (; i + LANES <= total; i += LANES) {
        for (int lane = 0; lane < LANES; lane++) {
            const float score = scores[i + (uint64_t)lane];
            const int looked = score >= LOWEST;
            sums[lane] += looked ? score : 0.0f;
            counts[lane] += (uint32_t)looked;
            bad[lane] |= !(score <= -LOWEST);
        }
    }
    for (int lane = 0; i < total; i++, lane++) {
        const int looked = scores[i] >= LOWEST;
        sums[lane] += looked ? scores[i] : 0.0f;
        counts[lane] += (uint32_t)looked;
        bad[lane] |= !(scores[i] <= -LOWEST);
    }
    for (int lane = 1; lane < LANES; lane++) {
        sums[0] += sums[lane];
        counts[0] += counts[lane];
        bad[0] |= bad[lane];
    }
    o.usable = bad[0] == 0;
    if (o.usable && counts[0] > 0) {
        o.any = 1;
        o.lead = tatvpr_larger(tatvpr_highest(scores, total) - sums[0] / (float)counts[0], 0.0f);
    }
    return o;
}

static uint64_t total_of(const tatvpr_places *places) {
    uint64_t total = 0;
    for (uint32_t p = 0; p < places->parts; p++) {
        total += places->part[p].places;
    }
    return total;
}

static tatvpr_status check(const tatvpr_track *track, const tatvpr_places *places,
                           const tatvpr_step *step, const tatvpr_tracked *found) {
    if (track == NULL || places == NULL || places->band == NULL || places->part == NULL ||
        step == NULL || found == NULL || track->evidence == NULL || track->still == NULL) {
        return TATVPR_ERR_NULL;
    }
    if (track->size < LEAST_TRACK || places->size < sizeof(tatvpr_places) ||
        step->size < LEAST_STEP || found->size < sizeof(tatvpr_tracked)) {
        return TATVPR_ERR_ABI;
    }
    const int moved = step->moved_m == step->moved_m;
    const float turned_rad = turned_rad_of(step);
    if (step->band >= places->bands || track->frames < 1 || !(step->radius_m >= 0.0) ||
        (moved && (step->moved_m - step->moved_m != 0.0f || track->along == NULL)) ||
        (turned_rad == turned_rad && turned_rad - turned_rad != 0.0f)) {
        return TATVPR_ERR_ARGUMENT;
    }
    const uint64_t total = total_of(places);
    if (total == 0) {
        return TATVPR_ERR_MAP_EMPTY;
    }
    return total > track->room ? TATVPR_ERR_ARENA : TATVPR_OK;
}

/* Moves every path on, before the frame is looked at; answers what a jump anywhere is worth. */
static float move_on(tatvpr_track *track, const tatvpr_places *places, uint64_t total,
                     float moved_m, float turned_rad) {
    if (track->known > total) { /* not the places that it knew */
        (void)tatvpr_track_start(track);
    }
    meet(track, places, total);
    if (track->seen == 0) {
        return TATVPR_LEFT_OUT;
    }
    const float jump = track->most - TATVPR_TRACK_JUMP * track->lead;
    along_drives(track, total, moved_m, turned_rad, jump);
    return jump;
}

tatvpr_status tatvpr_track_step(tatvpr_track *track, const tatvpr_places *places,
                                const tatvpr_step *step, tatvpr_tracked *found) {
    const tatvpr_status status = check(track, places, step, found);
    if (status != TATVPR_OK) {
        return status;
    }
    const uint64_t total = total_of(places);
    outline seen = {1, 0, 0.0f};
    if (step->scores != NULL) {
        seen = outline_of(step->scores, total);
    }
    if (!seen.usable) {
        return TATVPR_ERR_NOT_FINITE;
    }
    if (seen.any) {
        track->lead = seen.lead;
    }
    const tatvpr_calibration *c = &places->band[step->band].calibration;
    const int judged = step->sequence != NULL && step->sequence->frames != 0 &&
                       c->kind == TATVPR_CALIBRATION_LOGISTIC;
    const float jump = move_on(track, places, total, step->moved_m, turned_rad_of(step));
    const int first = track->seen == 0;
    const uint64_t before = track->place;
    uint64_t best = total;
    if (seen.any) {
        track->seen += track->seen < track->frames;
        best = take_in(track, step->scores, total, first, jump);
        best = step->radius_m > 0.0 ? best_near(track, places, total, step) : best;
    } else { /* the path goes on by itself, and is forgotten in the end */
        track->seen -= track->seen > 0;
        track->most = tatvpr_highest(track->evidence, total);
    }
    found->margin = found->still_margin = found->confidence = UNKNOWN;
    found->evidence = found->still = UNKNOWN;
    found->accepted = judged ? 0 : -1;
    found->seen = seen.any ? 0 : track->seen; /* a dark frame leaves the answer; no place near has none */
    found->place = before;
    int on = track->seen > 0;
    if (best < total) {
        track->place = best;
        on = !first && !tatvpr_elsewhere(c, places->geographic, spot_at(places, best),
                                         spot_at(places, before));
        track->steady = on ? track->steady + (track->steady < TATVPR_TRACK_STEADY) : 0;
        found->place = best;
        found->seen = track->seen;
        found->steady = track->steady;
        found->evidence = track->evidence[best];
        found->still = track->still[best];
        judge(track, places, step, found);
    } else {
        track->steady = 0;
    }
    found->steady = track->steady;
    tatvpr_tell_pose(spot_at(places, found->place), found->pose);
    found->state = state_of(track, found->accepted, on, best < total && best != before);
    return TATVPR_OK;
}
