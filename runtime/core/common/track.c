/* The filter of tatvpr_track.h: a few passes over the places, in place. */
#include "core.h"
#include "floats.h"
#include "where.h"

#include "../include/tatvpr_track.h"

#define LEFT_OUT (-__builtin_inff())
#define UNKNOWN __builtin_nanf("")
#define LOWEST (-3.0e38f) /* below: a place that was left out */

static float larger(float a, float b) { return a > b ? a : b; }

/* ---- memory ---- */

static size_t tables(int32_t odometry) { return odometry ? 4 : 2; }

size_t tatvpr_track_bytes(uint64_t places, int32_t odometry) {
    return (size_t)places * tables(odometry) * sizeof(float);
}

tatvpr_status tatvpr_track_init(tatvpr_track *track, uint32_t frames, uint64_t places,
                                int32_t odometry, void *memory, size_t bytes) {
    if (track == NULL || memory == NULL) {
        return TATVPR_ERR_NULL;
    }
    if (track->size < sizeof(tatvpr_track)) {
        return TATVPR_ERR_ABI;
    }
    if (frames < 1 || frames > TATVPR_TRACK_MOST_FRAMES || places < 1) {
        return TATVPR_ERR_ARGUMENT;
    }
    if ((uintptr_t)memory % sizeof(float) != 0) {
        return TATVPR_ERR_ALIGNMENT;
    }
    if (places > SIZE_MAX / (tables(1) * sizeof(float)) ||
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
    return tatvpr_track_start(track);
}

tatvpr_status tatvpr_track_start(tatvpr_track *track) {
    if (track == NULL) {
        return TATVPR_ERR_NULL;
    }
    if (track->size < sizeof(tatvpr_track)) {
        return TATVPR_ERR_ABI;
    }
    track->known = 0;
    track->place = 0;
    track->seen = 0;
    track->steady = 0;
    track->since = 0;
    track->held = 0;
    track->lead = 0.0f;
    return TATVPR_OK;
}

/* ---- places one after another ---- */

/* Goes through the places of all parts. */
typedef struct walk {
    const tatvpr_places *places;
    uint32_t part;
    uint64_t local;
} walk;

static tatvpr_spot next_spot(walk *w) {
    while (w->local >= w->places->part[w->part].places) {
        w->part++;
        w->local = 0;
    }
    return tatvpr_spot_of(&w->places->part[w->part], w->local++);
}

static tatvpr_spot spot_at(const tatvpr_places *places, uint64_t place) {
    uint64_t local = place;
    const tatvpr_part *part = tatvpr_part_of(places, &local);
    return tatvpr_spot_of(part, local);
}

/* Metres along the drive of places that came since; 0 where a drive begins. */
static void measure(tatvpr_track *track, const tatvpr_places *places, uint64_t total) {
    if (track->along == NULL || track->known == total) {
        return;
    }
    uint64_t i = track->known > 0 ? track->known - 1 : 0;
    walk w = {places, 0, i};
    while (w.local >= places->part[w.part].places) {
        w.local -= places->part[w.part].places;
        w.part++;
    }
    tatvpr_spot before = next_spot(&w);
    if (i == 0) {
        track->along[0] = 0.0f;
    }
    for (i++; i < total; i++) {
        const tatvpr_spot spot = next_spot(&w);
        float metres = 0.0f;
        if (spot.moment->drive == before.moment->drive && tatvpr_both_known(spot, before)) {
            metres = track->along[i - 1] + tatvpr_sqrt((float)tatvpr_spots_apart(
                                               places->geographic, spot, before));
        }
        track->along[i] = metres;
        before = spot;
    }
}

/* ---- where paths may go ---- */

enum { LANES = 8 }; /* maxima and sums that a processor may keep side by side */

static float highest(const float *values, uint64_t count) {
    float best[LANES];
    uint64_t i = 0;
    for (int lane = 0; lane < LANES; lane++) {
        best[lane] = LEFT_OUT;
    }
    for (; i + LANES <= count; i += LANES) {
        for (int lane = 0; lane < LANES; lane++) {
            best[lane] = larger(values[i + (uint64_t)lane], best[lane]);
        }
    }
    for (; i < count; i++) {
        best[0] = larger(values[i], best[0]);
    }
    for (int lane = 1; lane < LANES; lane++) {
        best[0] = larger(best[0], best[lane]);
    }
    return best[0];
}

enum { BLOCK = 64 }; /* places moved on at once */

/* The places first .. last of one drive: paths stay, go one place on or back, or jump. */
static void by_steps(float *evidence, uint64_t first, uint64_t last, float price, float jump) {
    float held[BLOCK + 2]; /* a block as it was, between its neighbours */
    held[0] = LEFT_OUT;
    for (uint64_t at = first; at <= last; at += BLOCK) {
        const uint64_t left = last - at + 1;
        const uint64_t count = left < BLOCK ? left : BLOCK;
        float *own = evidence + at;
        for (uint64_t i = 0; i < count; i++) {
            held[i + 1] = own[i];
        }
        held[count + 1] = left > count ? own[count] : LEFT_OUT;
        for (uint64_t i = 0; i < count; i++) {
            own[i] = larger(larger(held[i + 1], jump), larger(held[i], held[i + 2]) - price);
        }
        held[0] = held[count];
    }
}

/* Evidence at `metres` along a stretch, between its places `p` and `p + 1` or at its ends. */
static float between(const float *along, const float *spread, uint64_t p, uint64_t last,
                     float metres, float price) {
    const float off = metres - along[p];
    float best = spread[p] - price * (off < 0.0f ? -off : off);
    if (p < last) {
        const float rest = along[p + 1] - metres;
        best = larger(best, spread[p + 1] - price * (rest < 0.0f ? -rest : rest));
    }
    return best;
}

/* The places first .. last of one drive, of known positions: paths go `moved` metres along it, either way. What a
 * path ending at s pays is price * | |s - from| - moved |: the evidence is spread by that price a metre
 * in two passes, and read `moved` metres before and behind every place. */
static void along_stretch(tatvpr_track *track, uint64_t first, uint64_t last, float moved,
                          float price, float jump) {
    const float *along = track->along;
    float *spread = track->spread;
    spread[first] = track->evidence[first];
    for (uint64_t i = first + 1; i <= last; i++) {
        spread[i] = larger(track->evidence[i],
                           spread[i - 1] - price * (along[i] - along[i - 1]));
    }
    for (uint64_t i = last; i > first; i--) {
        spread[i - 1] =
            larger(spread[i - 1], spread[i] - price * (along[i] - along[i - 1]));
    }
    uint64_t behind = first, ahead = first;
    for (uint64_t i = first; i <= last; i++) {
        const float from = along[i] - moved, to = along[i] + moved;
        while (behind < last && along[behind + 1] <= from) {
            behind++;
        }
        while (ahead < last && along[ahead + 1] <= to) {
            ahead++;
        }
        const float best = larger(between(along, spread, behind, last, from, price),
                                  between(along, spread, ahead, last, to, price));
        track->evidence[i] = larger(best, jump);
    }
}

/* A run of places of one drive. */
typedef struct run {
    uint64_t first;
    uint32_t drive;
    uint32_t known; /* of every place's pose */
} run;

static void end_run(tatvpr_track *track, const run *r, uint64_t last, float moved_m, float jump) {
    if (moved_m == moved_m && (r->known & TATVPR_POSITION) == TATVPR_POSITION) {
        along_stretch(track, r->first, last, moved_m < 0.0f ? -moved_m : moved_m,
                      TATVPR_TRACK_METRE * track->lead, jump);
    } else {
        by_steps(track->evidence, r->first, last, TATVPR_TRACK_STEP * track->lead, jump);
    }
}

/* Drive by drive. Where a position is unknown, so is how far it is to the next place. */
static void along_drives(tatvpr_track *track, const tatvpr_places *places, uint64_t total,
                         float moved_m, float jump) {
    run r = {0, 0, 0};
    uint64_t at = 0;
    for (uint32_t p = 0; p < places->parts; p++) {
        const tatvpr_part *part = &places->part[p];
        for (uint64_t i = 0; i < part->places; i++) {
            const tatvpr_moment *moment = &part->moments[i];
            if (at + i > 0 && moment->drive == r.drive) {
                r.known &= moment->known;
                continue;
            }
            if (at + i > 0) {
                end_run(track, &r, at + i - 1, moved_m, jump);
            }
            r.first = at + i;
            r.drive = moment->drive;
            r.known = moment->known;
        }
        at += part->places;
    }
    end_run(track, &r, total - 1, moved_m, jump);
}

/* ---- what a frame says ---- */

/* Takes in the scores. */
static void fold(tatvpr_track *track, const float *restrict scores, uint64_t total, int first,
                 float jump) {
    const float share = 1.0f / (float)track->seen;
    /* The first frame is taken as it is, and so is what a place that is left out has: nothing. */
    const float least = first ? __builtin_inff() : LOWEST;
    float *restrict evidence = track->evidence;
    float *restrict still = track->still;
    for (uint64_t i = 0; i < total; i++) {
        const float score = scores[i], prior = evidence[i];
        /* A place that was left out before begins where a jump to it would. */
        const float mean = larger(still[i], jump);
        const float moved = prior + share * (score - prior);
        const float stayed = mean + share * (score - mean);
        evidence[i] = score < least ? score : moved;
        still[i] = score < least ? score : stayed;
    }
}

/* The place with most evidence, ties to the lower one; `total` where none may answer. */
static uint64_t best_place(const tatvpr_track *track, const tatvpr_places *places, uint64_t total,
                           const tatvpr_step *step) {
    uint64_t best = 0;
    if (!(step->radius_m > 0.0)) {
        const float most = highest(track->evidence, total);
        while (track->evidence[best] < most) {
            best++;
        }
        return best;
    }
    float most = LEFT_OUT;
    walk w = {places, 0, 0};
    best = total;
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

/* What lies elsewhere than the answer. */
typedef struct rivals {
    float evidence; /* the most of them */
    float still;
    uint64_t count;
} rivals;

static rivals rivals_of(const tatvpr_track *track, const tatvpr_places *places,
                        const tatvpr_calibration *c, tatvpr_spot from) {
    rivals found = {LEFT_OUT, LEFT_OUT, 0};
    const float *evidence = track->evidence, *still = track->still;
    for (uint32_t p = 0; p < places->parts; p++) {
        const tatvpr_part *part = &places->part[p];
        for (uint64_t i = 0; i < part->places; i++) {
            /* Once there are enough, only what would change the answer is looked at. */
            const int enough = found.count >= TATVPR_FEWEST_RIVALS;
            if ((evidence[i] > found.evidence || still[i] > found.still ||
                 (!enough && evidence[i] > LOWEST)) &&
                tatvpr_elsewhere(c, places->geographic, tatvpr_spot_of(part, i), from)) {
                found.evidence = larger(evidence[i], found.evidence);
                found.still = larger(still[i], found.still);
                found.count += evidence[i] > LOWEST;
            }
        }
        evidence += part->places;
        still += part->places;
    }
    return found;
}

/* Margins, confidence, acceptance. */
static void judge(const tatvpr_track *track, const tatvpr_places *places,
                  const tatvpr_step *step, tatvpr_tracked *found) {
    const tatvpr_calibration *c = &places->band[step->band].calibration;
    const tatvpr_sequence *s = step->sequence;
    if (c->kind != TATVPR_CALIBRATION_LOGISTIC) {
        return;
    }
    const rivals others = rivals_of(track, places, c, spot_at(places, track->place));
    if (others.count < TATVPR_FEWEST_RIVALS) {
        return;
    }
    found->margin = found->evidence - others.evidence;
    found->still_margin = found->still - others.still;
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
        o.lead = larger(highest(scores, total) - sums[0] / (float)counts[0], 0.0f);
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
    if (track->size < sizeof(tatvpr_track) || places->size < sizeof(tatvpr_places) ||
        step->size < sizeof(tatvpr_step) || found->size < sizeof(tatvpr_tracked)) {
        return TATVPR_ERR_ABI;
    }
    const int moved = step->moved_m == step->moved_m;
    if (step->band >= places->bands || track->frames < 1 || !(step->radius_m >= 0.0) ||
        (moved && (step->moved_m - step->moved_m != 0.0f || track->along == NULL))) {
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
                     float moved_m) {
    if (track->known > total) { /* not the places that it knew */
        (void)tatvpr_track_start(track);
    }
    for (uint64_t i = track->known; i < total; i++) {
        track->evidence[i] = track->still[i] = LEFT_OUT;
    }
    measure(track, places, total);
    track->known = total;
    if (track->seen == 0) {
        return LEFT_OUT;
    }
    const float jump = highest(track->evidence, total) - TATVPR_TRACK_JUMP * track->lead;
    along_drives(track, places, total, moved_m, jump);
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
    const float jump = move_on(track, places, total, step->moved_m);
    const int first = track->seen == 0;
    const uint64_t before = track->place;
    uint64_t best = total;
    if (seen.any) {
        track->seen += track->seen < track->frames;
        fold(track, step->scores, total, first, jump);
        best = best_place(track, places, total, step);
    } else { /* the path goes on by itself, and is forgotten in the end */
        track->seen -= track->seen > 0;
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
    found->state = state_of(track, found->accepted, on, best < total && best != before);
    return TATVPR_OK;
}
