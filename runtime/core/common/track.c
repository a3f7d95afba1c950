/* The filter of tatvpr_track.h: a few passes over the places, in place. */
#include "core.h"
#include "floats.h"
#include "map.h"
#include "track_drives.h"
#include "track_news.h"
#include "track_paths.h"

#define LOWEST (-3.0e38f) /* below: a place that was left out */

static float turned_rad_of(const tatvpr_step *step) {
    return step->size >= TATVPR_TURNS_STEP ? step->turned_rad : TATVPR_UNKNOWN;
}

enum { BLOCK = 256 }; /* places looked at at once */

/* ---- what a frame says ---- */

/* The first frame is taken as it is. */
static void begin(tatvpr_track *track, const float *scores, uint64_t total) {
    tatvpr_copy(track->evidence, scores, (size_t)total * sizeof(float));
    tatvpr_copy(tatvpr_back_of(track), scores, (size_t)total * sizeof(float));
    tatvpr_copy(track->still, scores, (size_t)total * sizeof(float));
}

/* Of the best path that ends there, whichever way it goes. */
static float evidence_of(const tatvpr_track *track, uint64_t place) {
    return tatvpr_larger(track->evidence[place], tatvpr_back_of(track)[place]);
}

/* The most of so many places. */
static float most_of(const tatvpr_track *track, uint64_t at, uint64_t count) {
    return tatvpr_larger(tatvpr_highest(track->evidence + at, count),
                         tatvpr_highest(tatvpr_back_of(track) + at, count));
}

/* Takes in the scores of places `at` .. `at + count - 1`. A place that is left out has none, and then
 * nothing speaks for it: prior and mean are finite, as a jump's worth is. */
static inline void fold(tatvpr_track *track, const float *all, uint64_t at, uint64_t count,
                        float jump) {
    const float share = 1.0f / (float)track->seen;
    const float *restrict scores = all + at;
    float *restrict ahead = track->evidence + at;
    float *restrict back = tatvpr_back_of(track) + at;
    float *restrict still = track->still + at;
    for (uint64_t i = 0; i < count; i++) {
        const float score = scores[i];
        /* A place that was left out before begins where a jump to it would. */
        const float mean = tatvpr_larger(still[i], jump);
        ahead[i] = ahead[i] + share * (score - ahead[i]);
        back[i] = back[i] + share * (score - back[i]);
        still[i] = mean + share * (score - mean);
    }
}

/* Nothing speaks for a place that a frame leaves out, be the frame new or not. */
static inline void leave_out(tatvpr_track *track, const float *all, uint64_t at, uint64_t count) {
    const float *restrict scores = all + at;
    float *restrict ahead = track->evidence + at;
    float *restrict back = tatvpr_back_of(track) + at;
    float *restrict still = track->still + at;
    for (uint64_t i = 0; i < count; i++) {
        const int looked = scores[i] >= LOWEST;
        ahead[i] = looked ? ahead[i] : TATVPR_LEFT_OUT;
        back[i] = looked ? back[i] : TATVPR_LEFT_OUT;
        still[i] = looked ? still[i] : TATVPR_LEFT_OUT;
    }
}

/* Takes in a frame's scores; of one that does not count, what was left out. Answers the place with
 * most evidence, ties to the lower one; `total`: none has any. */
static uint64_t take_in(tatvpr_track *track, const float *scores, uint64_t total, int first,
                        int counts, float jump) {
    uint64_t best = 0;
    track->most = TATVPR_LEFT_OUT;
    if (first) {
        begin(track, scores, total);
    }
    for (uint64_t at = 0; at < total; at += BLOCK) {
        const uint64_t count = total - at < BLOCK ? total - at : BLOCK;
        if (!counts) {
            leave_out(track, scores, at, count);
        } else if (!first) {
            fold(track, scores, at, count, jump);
        }
        const float most = most_of(track, at, count);
        if (most > track->most) {
            track->most = most;
            best = at;
        }
    }
    if (track->most == TATVPR_LEFT_OUT) {
        return total;
    }
    while (evidence_of(track, best) < track->most) {
        best++;
    }
    return best;
}

/* The place near `step->near` with most evidence, ties to the lower one; `total`: none is near. */
static uint64_t best_near(const tatvpr_track *track, const tatvpr_places *places, uint64_t total,
                          const tatvpr_step *step) {
    uint64_t best = total;
    float most = TATVPR_LEFT_OUT;
    tatvpr_walk w = {places, 0, 0};
    for (uint64_t i = 0; i < total; i++) {
        const tatvpr_spot spot = tatvpr_next_spot(&w);
        const float own = evidence_of(track, i);
        if (own > most &&
            tatvpr_within(places->geographic, spot, step->near, step->radius_m)) {
            most = own;
            best = i;
        }
    }
    return best;
}

/* Where the camera stands, about the path's answer `best`: the place for which the path and this frame
 * speak most together. A path lags behind a camera on its way. */
static uint64_t stands_at(const tatvpr_track *track, const tatvpr_places *places, uint64_t total,
                          const tatvpr_step *step, uint64_t best) {
    uint64_t at = best;
    float most = evidence_of(track, best) + step->scores[best];
    for (uint64_t i = 0; i < total; i++) {
        const float both = evidence_of(track, i) + step->scores[i];
        if (both > most) {
            most = both;
            at = i;
        }
    }
    const tatvpr_spot spot = tatvpr_spot_at(places, at);
    const int near = step->radius_m <= 0.0 ||
                     tatvpr_within(places->geographic, spot, step->near, step->radius_m);
    return near && !tatvpr_elsewhere(&places->band[step->band].calibration, places->geographic, spot,
                                     tatvpr_spot_at(places, best))
               ? at
               : best;
}

/* What sequences of as many frames as the track's are judged by; null: they are not. */
static const tatvpr_sequence *judged_by(const tatvpr_track *track, const tatvpr_places *places,
                                        const tatvpr_step *step) {
    const tatvpr_sequence *s = step->sequence;
    const tatvpr_calibration *c = &places->band[step->band].calibration;
    return s != NULL && s->frames == track->frames && tatvpr_by_odds(c) ? s : NULL;
}

static float signed_root(float value) {
    return value < 0.0f ? -tatvpr_sqrt(-value) : tatvpr_sqrt(value);
}

/* Margins, confidence, acceptance. */
static void judge(const tatvpr_track *track, const tatvpr_places *places,
                  const tatvpr_step *step, tatvpr_tracked *found) {
    const tatvpr_calibration *c = &places->band[step->band].calibration;
    const tatvpr_sequence *s = judged_by(track, places, step);
    if (!tatvpr_by_odds(c)) {
        return;
    }
    const tatvpr_spot own = tatvpr_spot_at(places, track->place);
    const float *back = tatvpr_back_of(track);
    const tatvpr_rivals others = tatvpr_rivals_of(places, c, own, track->evidence, track->still);
    if (others.count < TATVPR_FEWEST_RIVALS) {
        return;
    }
    const tatvpr_rivals backward = tatvpr_rivals_of(places, c, own, back, back);
    found->margin = found->evidence - tatvpr_larger(others.first, backward.first);
    found->still_margin = found->still - others.second;
    if (s == NULL) {
        return;
    }
    /* The first bit of a margin tells more than the next. */
    const float margin =
        c->kind == TATVPR_CALIBRATION_ROOTED ? signed_root(found->margin) : found->margin;
    const float *w = s->weights;
    const float odds = ((((w[0] + w[1] * found->evidence) + w[2] * margin) +
                         w[3] * found->still) +
                        w[4] * found->still_margin) +
                       w[5] * (float)found->steady;
    found->confidence = 1.0f / (1.0f + tatvpr_exp(-odds));
    found->accepted = odds >= s->threshold ? 1 : 0;
    if (track->seen < track->frames) {
        /* Fewer frames than it was learned with: what is said of a single one has to hold as well. */
        const float single = (c->weights[0] + c->weights[1] * found->evidence) +
                             c->weights[2] * found->margin;
        const float sure = 1.0f / (1.0f + tatvpr_exp(-single));
        found->confidence = sure < found->confidence ? sure : found->confidence;
        found->accepted = found->accepted && single >= c->threshold;
    }
}

/* Lost, found again, moved or here; `on`: the answer goes on from the one before, at another
 * place where `moved`. */
static uint32_t state_of(tatvpr_track *track, int32_t accepted, int on, int moved, int counts) {
    if (accepted < 0) {
        return TATVPR_TRACK_UNJUDGED;
    }
    const int held = track->held && on;
    if (accepted) {
        track->since = 0;
        track->held = 1;
        return !held ? TATVPR_TRACK_FOUND : moved ? TATVPR_TRACK_MOVED : TATVPR_TRACK_HERE;
    }
    track->since += (uint32_t)(counts && track->since < track->frames);
    track->held = held && track->since < track->frames;
    return !track->held ? TATVPR_TRACK_LOST : moved ? TATVPR_TRACK_MOVED : TATVPR_TRACK_HERE;
}

/* ---- the call ---- */

/* What a frame's scores are like. */
typedef struct outline {
    int usable; /* nothing is NaN or +infinity */
    int any;    /* a place was looked at */
    float best, mean;
} outline;

enum { LANES = 8 };

/* The order of adding is fixed: place i goes into sum i % LANES. */
static outline outline_of(const float *scores, uint64_t total) {
    float sums[LANES] = {0.0f};
    uint32_t counts[LANES] = {0}, bad[LANES] = {0};
    uint64_t i = 0;
    outline o = {1, 0, 0.0f, 0.0f};
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
        o.best = tatvpr_highest(scores, total);
        o.mean = sums[0] / (float)counts[0];
    }
    return o;
}

static tatvpr_status check(const tatvpr_track *track, const tatvpr_places *places,
                           const tatvpr_step *step, const tatvpr_tracked *found) {
    if (track == NULL || places == NULL || places->band == NULL || places->part == NULL ||
        step == NULL || found == NULL || track->evidence == NULL || track->still == NULL) {
        return TATVPR_ERR_NULL;
    }
    if (!tatvpr_sized(track->size, TATVPR_LEAST_TRACK) ||
        !tatvpr_sized(places->size, sizeof(tatvpr_places)) ||
        !tatvpr_sized(step->size, TATVPR_LEAST_STEP) ||
        !tatvpr_sized(found->size, sizeof(tatvpr_tracked))) {
        return TATVPR_ERR_ABI;
    }
    const int moved = step->moved_m == step->moved_m;
    const float turned_rad = turned_rad_of(step);
    if (step->band >= places->bands || !(step->radius_m >= 0.0) ||
        (moved && (step->moved_m - step->moved_m != 0.0f || track->along == NULL)) ||
        (turned_rad == turned_rad && turned_rad - turned_rad != 0.0f)) {
        return TATVPR_ERR_ARGUMENT;
    }
    const uint64_t total = tatvpr_places_total(places);
    if (total == 0) {
        return TATVPR_ERR_MAP_EMPTY;
    }
    if (total > track->room ||
        (tatvpr_remembers(track, step) && places->dim > track->last_size)) {
        return TATVPR_ERR_ARENA;
    }
    return TATVPR_OK;
}

/* How the camera moved since the path did; NaN where a part of it is not known. */
typedef struct motion {
    float moved_m, turned_rad;
} motion;

static motion motion_of(const tatvpr_track *track, const tatvpr_step *step) {
    motion m = {step->moved_m, turned_rad_of(step)};
    if (track->size >= sizeof(tatvpr_track)) {
        m.moved_m += track->owed_m;
        m.turned_rad += track->owed_rad;
    }
    return m;
}

static void owe(tatvpr_track *track, motion m) {
    if (track->size >= sizeof(tatvpr_track)) {
        track->owed_m = m.moved_m;
        track->owed_rad = m.turned_rad;
    }
}

/* Moves every path on, before the frame is looked at; answers what a jump anywhere is worth. */
static float move_on(tatvpr_track *track, uint64_t total, motion m) {
    if (track->seen == 0) {
        return TATVPR_LEFT_OUT;
    }
    const float jump = track->most - TATVPR_TRACK_JUMP * track->lead;
    tatvpr_go_along_drives(track, total, m.moved_m, m.turned_rad, jump);
    return jump;
}

tatvpr_status tatvpr_track_step(tatvpr_track *track, const tatvpr_places *places,
                                const tatvpr_step *step, tatvpr_tracked *found) {
    const tatvpr_status status = check(track, places, step, found);
    if (status != TATVPR_OK) {
        return status;
    }
    const uint64_t total = tatvpr_places_total(places);
    outline seen = {1, 0, 0.0f, 0.0f};
    if (step->scores != NULL) {
        seen = outline_of(step->scores, total);
    }
    if (!seen.usable) {
        return TATVPR_ERR_NOT_FINITE;
    }
    if (track->known > total) { /* not the places that it knew */
        (void)tatvpr_track_start(track);
    }
    tatvpr_meet_places(track, places, total);
    const motion moved = motion_of(track, step);
    /* A dark frame counts, though it says nothing. */
    const int counts = !seen.any || tatvpr_is_news(track, places, step, moved.moved_m, seen.best,
                                                   seen.mean);
    float jump = TATVPR_LEFT_OUT;
    if (counts) {
        track->lead = seen.any ? tatvpr_larger(seen.best - seen.mean, 0.0f) : track->lead;
        jump = move_on(track, total, moved);
    }
    owe(track, counts ? (motion){0.0f, 0.0f} : moved);
    const tatvpr_calibration *c = &places->band[step->band].calibration;
    const int first = track->seen == 0;
    const uint64_t before = track->place;
    uint64_t best = total;
    if (seen.any) {
        track->seen = counts ? track->seen + (track->seen < track->frames) : track->rested;
        best = take_in(track, step->scores, total, first, counts, jump);
        if (best == total) { /* nothing speaks for any place that is left: the path is forgotten */
            track->seen = 0;
        } else if (step->radius_m > 0.0) {
            best = best_near(track, places, total, step);
        }
        tatvpr_remember(track, places, step, counts);
    } else { /* the path goes on by itself, and is forgotten in the end */
        track->seen -= track->seen > 0;
        track->most = most_of(track, 0, total);
        tatvpr_see_nothing(track, moved.moved_m);
    }
    if (track->size >= sizeof(tatvpr_track)) {
        track->counted = (uint32_t)counts;
        track->rested = seen.any ? track->seen : track->rested;
    }
    found->margin = found->still_margin = found->confidence = TATVPR_UNKNOWN;
    found->evidence = found->still = TATVPR_UNKNOWN;
    found->accepted = judged_by(track, places, step) != NULL ? 0 : -1;
    found->seen = seen.any ? 0 : track->seen; /* a dark frame leaves the answer; no place near has none */
    found->place = before;
    int on = track->seen > 0;
    if (best < total) {
        track->place = best;
        on = !first && !tatvpr_elsewhere(c, places->geographic, tatvpr_spot_at(places, best),
                                         tatvpr_spot_at(places, before));
        track->steady += (uint32_t)(counts && track->steady < TATVPR_TRACK_STEADY);
        track->steady = on ? track->steady : 0;
        found->place = best;
        found->seen = track->seen;
        found->steady = track->steady;
        found->evidence = evidence_of(track, best);
        found->still = track->still[best];
        judge(track, places, step, found);
    } else {
        track->steady = 0;
    }
    found->steady = track->steady;
    if (best < total && !counts) {
        found->place = stands_at(track, places, total, step, best);
    }
    tatvpr_tell_pose(tatvpr_spot_at(places, found->place), found->pose);
    found->state = state_of(track, found->accepted, on, best < total && best != before,
                            counts);
    return TATVPR_OK;
}
