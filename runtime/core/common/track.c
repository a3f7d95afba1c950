/* The filter of tatvpr_track.h: a few passes over the places, in place. */
#include "core.h"
#include "floats.h"
#include "where.h"

#include "../include/tatvpr_track.h"

#define LEFT_OUT (-__builtin_inff())
#define UNKNOWN __builtin_nanf("")
#define LOWEST (-3.0e38f) /* below: a place that was left out */

static float larger(float a, float b) { return a > b ? a : b; }

static float distance(float a, float b) { return __builtin_fabsf(a - b); }

/* ---- memory ---- */

enum { WORD = 32 }; /* places whose beginnings one word says */

static size_t tables(int32_t odometry) { return odometry ? 4 : 2; }

static size_t words(uint64_t places) { return (size_t)((places + WORD - 1) / WORD); }

size_t tatvpr_track_bytes(uint64_t places, int32_t odometry) {
    return (size_t)places * tables(odometry) * sizeof(float) + words(places) * sizeof(uint32_t);
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
    if (places > SIZE_MAX / ((tables(1) + 1) * sizeof(float)) ||
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
    track->begins = (uint32_t *)(void *)(table + tables(odometry) * (size_t)places);
    return tatvpr_track_start(track);
}

tatvpr_status tatvpr_track_move(tatvpr_track *track, uint64_t places, void *memory, size_t bytes) {
    if (track == NULL) {
        return TATVPR_ERR_NULL;
    }
    const tatvpr_track old = *track;
    if (places < old.known) {
        return TATVPR_ERR_ARGUMENT;
    }
    const tatvpr_status status =
        tatvpr_track_init(track, old.frames, places, old.along != NULL, memory, bytes);
    if (status != TATVPR_OK) {
        return status;
    }
    const size_t known = (size_t)old.known;
    tatvpr_copy(track->evidence, old.evidence, known * sizeof(float));
    tatvpr_copy(track->still, old.still, known * sizeof(float));
    if (old.along != NULL) {
        tatvpr_copy(track->along, old.along, known * sizeof(float));
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
    track->most = LEFT_OUT;
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

/* Places that came since: nothing speaks for them yet; which begin a drive, and, with odometry,
 * metres along their drive. */
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
        track->evidence[i] = track->still[i] = LEFT_OUT;
        if (track->along != NULL) {
            track->along[i] = 0.0f;
            if ((spot.moment->known & TATVPR_POSITION) != TATVPR_POSITION) {
                track->along[beginning(track, i)] = UNMEASURED;
            } else if (!begins && tatvpr_both_known(spot, before)) {
                track->along[i] = track->along[i - 1] + tatvpr_sqrt((float)tatvpr_spots_apart(
                                                           places->geographic, spot, before));
            }
        }
        before = spot;
    }
    track->known = total;
}

/* ---- where paths may go ---- */

enum { BLOCK = 256 }; /* places looked at at once */

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
static inline float between(const float *along, const float *spread, uint64_t p, uint64_t last,
                            float metres, float price) {
    const uint64_t q = p + (p < last);
    return larger(spread[p] - price * distance(metres, along[p]),
                  spread[q] - price * distance(metres, along[q]));
}

/* A sweep's step: what `place` has, or what it is worth to come from its neighbour `from`. */
static inline float reached(const float *along, const float *spread, uint64_t from, float value,
                            uint64_t place, float price) {
    return larger(spread[place], value - price * distance(along[place], along[from]));
}

/* Spreads evidence by `price` a metre over the places first .. last, both ways. A sweep waits for
 * its own last step: so two run at once, from both ends to the middle, and on to the other ends. */
static void spread_out(const float *restrict along, float *restrict spread, uint64_t first,
                       uint64_t last, float price) {
    const uint64_t half = (last - first) / 2;
    const uint64_t low = first + half, high = last - half; /* one place, or neighbours */
    float up = spread[first], down = spread[last];
    for (uint64_t i = 0; i < half; i++) {
        up = reached(along, spread, first + i, up, first + i + 1, price);
        spread[first + i + 1] = up;
        down = reached(along, spread, last - i, down, last - i - 1, price);
        spread[last - i - 1] = down;
    }
    up = reached(along, spread, low, spread[low], high, price);
    down = reached(along, spread, high, spread[high], low, price);
    spread[high] = larger(spread[high], up);
    spread[low] = larger(spread[low], down);
    up = spread[high];
    down = spread[low];
    for (uint64_t i = 0; i < half; i++) {
        up = reached(along, spread, high + i, up, high + i + 1, price);
        spread[high + i + 1] = up;
        down = reached(along, spread, low - i, down, low - i - 1, price);
        spread[low - i - 1] = down;
    }
}

/* The places first .. last of one drive, of known positions: paths go `moved` metres along it,
 * either way. What a path ending at s pays is price * | |s - from| - moved |: the evidence is spread
 * by that price a metre, and read `moved` metres before and behind every place. */
static void along_stretch(tatvpr_track *track, uint64_t first, uint64_t last, float moved,
                          float price, float jump) {
    const float *restrict along = track->along;
    float *restrict spread = track->spread;
    float *restrict evidence = track->evidence;
    for (uint64_t i = first; i <= last; i++) {
        spread[i] = evidence[i];
    }
    spread_out(along, spread, first, last, price);
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
        evidence[i] = larger(best, jump);
    }
}

/* Drive by drive. Where a position is unknown, so is how far it is to the next place. */
static void along_drives(tatvpr_track *track, uint64_t total, float moved_m, float jump) {
    for (uint64_t first = 0, next; first < total; first = next) {
        next = next_beginning(track, first + 1, total);
        if (moved_m == moved_m && track->along[first] != UNMEASURED) {
            along_stretch(track, first, next - 1, moved_m < 0.0f ? -moved_m : moved_m,
                          TATVPR_TRACK_METRE * track->lead, jump);
        } else {
            by_steps(track->evidence, first, next - 1, TATVPR_TRACK_STEP * track->lead, jump);
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
        const float mean = larger(still[i], jump);
        evidence[i] = prior + share * (score - prior);
        still[i] = mean + share * (score - mean);
    }
}

/* Takes in a frame's scores. Answers the place with most evidence, ties to the lower one. */
static uint64_t take_in(tatvpr_track *track, const float *scores, uint64_t total, int first,
                        float jump) {
    uint64_t best = 0;
    track->most = LEFT_OUT;
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
    float most = LEFT_OUT;
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
        o.lead = larger(tatvpr_highest(scores, total) - sums[0] / (float)counts[0], 0.0f);
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
    meet(track, places, total);
    if (track->seen == 0) {
        return LEFT_OUT;
    }
    const float jump = track->most - TATVPR_TRACK_JUMP * track->lead;
    along_drives(track, total, moved_m, jump);
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
