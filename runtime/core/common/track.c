/* The filter of tatvpr_track.h: a few passes over the places, in place. */
#include "core.h"
#include "floats.h"
#include "map.h"
#include "track_drives.h"
#include "track_paths.h"

#define LOWEST (-3.0e38f) /* below: a place that was left out */

/* ---- memory ---- */

static size_t tables(int32_t odometry) {
    return odometry == TATVPR_TRACK_TURNS ? 6 : odometry ? 5 : 3;
}

/* Callers that were compiled before there were turns have smaller structures, which end before them. */
#define LEAST_TRACK offsetof(tatvpr_track, turned)
#define LEAST_STEP offsetof(tatvpr_step, turned_rad)

static float turned_rad_of(const tatvpr_step *step) {
    return step->size >= sizeof(tatvpr_step) ? step->turned_rad : TATVPR_UNKNOWN;
}

size_t tatvpr_track_bytes(uint64_t places, int32_t odometry) {
    return (size_t)places * tables(odometry) * sizeof(float) +
           tatvpr_begin_words(places) * sizeof(uint32_t);
}

tatvpr_status tatvpr_track_init(tatvpr_track *track, uint32_t frames, uint64_t places,
                                int32_t odometry, void *memory, size_t bytes) {
    if (track == NULL || memory == NULL) {
        return TATVPR_ERR_NULL;
    }
    const int turns = odometry == TATVPR_TRACK_TURNS;
    if (!tatvpr_sized(track->size, turns ? sizeof(tatvpr_track) : LEAST_TRACK)) {
        return TATVPR_ERR_ABI;
    }
    if (frames < 1 || frames > TATVPR_TRACK_MOST_FRAMES || places < 1 ||
        odometry < TATVPR_TRACK_WITHOUT || odometry > TATVPR_TRACK_TURNS) {
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
    track->still = table + 2 * places;
    track->along = odometry ? table + 3 * places : NULL;
    track->spread = odometry ? table + 4 * places : NULL;
    if (track->size >= sizeof(tatvpr_track)) {
        track->turned = turns ? table + 5 * places : NULL;
    }
    track->begins = (uint32_t *)(void *)(table + tables(odometry) * (size_t)places);
    return tatvpr_track_start(track);
}

tatvpr_status tatvpr_track_move(tatvpr_track *track, uint64_t places, void *memory, size_t bytes) {
    if (track == NULL) {
        return TATVPR_ERR_NULL;
    }
    if (!tatvpr_sized(track->size, LEAST_TRACK)) {
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
    tatvpr_copy(tatvpr_back_of(track), tatvpr_back_of(&old), known * sizeof(float));
    tatvpr_copy(track->still, old.still, known * sizeof(float));
    if (old.along != NULL) {
        tatvpr_copy(track->along, old.along, known * sizeof(float));
    }
    if (old.turned != NULL) {
        tatvpr_copy(track->turned, old.turned, known * sizeof(float));
    }
    tatvpr_copy(track->begins, old.begins, tatvpr_begin_words(old.known) * sizeof(uint32_t));
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
    if (!tatvpr_sized(track->size, LEAST_TRACK)) {
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
        const float most = most_of(track, at, count);
        if (most > track->most) {
            track->most = most;
            best = at;
        }
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

static tatvpr_status check(const tatvpr_track *track, const tatvpr_places *places,
                           const tatvpr_step *step, const tatvpr_tracked *found) {
    if (track == NULL || places == NULL || places->band == NULL || places->part == NULL ||
        step == NULL || found == NULL || track->evidence == NULL || track->still == NULL) {
        return TATVPR_ERR_NULL;
    }
    if (!tatvpr_sized(track->size, LEAST_TRACK) ||
        !tatvpr_sized(places->size, sizeof(tatvpr_places)) ||
        !tatvpr_sized(step->size, LEAST_STEP) ||
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
    return total > track->room ? TATVPR_ERR_ARENA : TATVPR_OK;
}

/* Moves every path on, before the frame is looked at; answers what a jump anywhere is worth. */
static float move_on(tatvpr_track *track, const tatvpr_places *places, uint64_t total,
                     float moved_m, float turned_rad) {
    if (track->known > total) { /* not the places that it knew */
        (void)tatvpr_track_start(track);
    }
    tatvpr_meet_places(track, places, total);
    if (track->seen == 0) {
        return TATVPR_LEFT_OUT;
    }
    const float jump = track->most - TATVPR_TRACK_JUMP * track->lead;
    tatvpr_go_along_drives(track, total, moved_m, turned_rad, jump);
    return jump;
}

tatvpr_status tatvpr_track_step(tatvpr_track *track, const tatvpr_places *places,
                                const tatvpr_step *step, tatvpr_tracked *found) {
    const tatvpr_status status = check(track, places, step, found);
    if (status != TATVPR_OK) {
        return status;
    }
    const uint64_t total = tatvpr_places_total(places);
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
        track->most = most_of(track, 0, total);
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
        track->steady = on ? track->steady + (track->steady < TATVPR_TRACK_STEADY) : 0;
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
    tatvpr_tell_pose(tatvpr_spot_at(places, found->place), found->pose);
    found->state = state_of(track, found->accepted, on, best < total && best != before);
    return TATVPR_OK;
}
