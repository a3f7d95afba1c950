/* The best places for one descriptor: which are looked at, which are best, and whether the best is
 * right. A map's file is one part of one band here; a map in memory has as many as it likes. */
#include "core.h"
#include "floats.h"
#include "map.h"
#include "where.h"

enum { BLOCK = TATVPR_MAP_BLOCK };

#define LEFT_OUT (-__builtin_inff())
#define UNKNOWN __builtin_nanf("")

/* One band of all parts, and what of it is looked at. */
typedef struct scope {
    const tatvpr_places *places;
    uint32_t band;
    uint64_t total;
    const tatvpr_search *asked;
    const double *near;          /* x y z; null: anywhere */
    double radius;
    const tatvpr_spot *beyond;   /* only what lies elsewhere than this place; null: all */
} scope;

/* ---- bands ---- */

/* 1 where `a` serves a query at `asked` better than `b`: the nearest that is not below it, else the
 * highest. */
static int better(float a, float b, float asked) {
    if (a == b) {
        return 0;
    }
    if (a >= asked && b >= asked) {
        return a < b;
    }
    return a > b; /* one or both are below: the higher */
}

static int band_better(const tatvpr_band *a, const tatvpr_band *b, float k, float tokens) {
    return a->k == b->k ? better(a->tokens, b->tokens, tokens) : better(a->k, b->k, k);
}

/* ---- which places ---- */

static int counts(const scope *s, const tatvpr_part *part, uint64_t local, uint64_t place) {
    const tatvpr_spot spot = tatvpr_spot_of(part, local);
    const uint32_t geographic = s->places->geographic;
    if (s->asked->without != NULL && s->asked->without[place] != 0) {
        return 0;
    }
    if (s->near != NULL && !tatvpr_within(geographic, spot, s->near, s->radius)) {
        return 0;
    }
    return s->beyond == NULL || tatvpr_elsewhere(&s->places->band[s->band].calibration, geographic,
                                                 spot, *s->beyond);
}

/* Marks which of `rows` places count; answers whether one does. */
static int mark(const scope *s, const tatvpr_part *part, uint64_t local, uint64_t place,
                int32_t rows, uint8_t *wanted) {
    int any = 0;
    for (int32_t i = 0; i < rows; i++) {
        wanted[i] = (uint8_t)counts(s, part, local + (uint64_t)i, place + (uint64_t)i);
        any |= wanted[i];
    }
    return any;
}

/* ---- the best ---- */

/* Matches may be larger than this library knows: they are `stride` bytes apart. */
static tatvpr_match *match_at(tatvpr_match *matches, size_t stride, int32_t i) {
    return (tatvpr_match *)(void *)((uint8_t *)(void *)matches + stride * (size_t)i);
}

/* What a ranking holds of a match, as it lies in one: a match is 88 bytes. */
typedef struct ranked {
    uint64_t place;
    float score;
} ranked;

#define SCORE_BEHIND (offsetof(tatvpr_match, score) - offsetof(tatvpr_match, place))
typedef char ranked_lies_in_a_match[SCORE_BEHIND == offsetof(ranked, score) ? 1 : -1];

/* The best so far, best first. */
typedef struct ranking {
    uint8_t *first; /* the place of the first; those of the others are `stride` bytes apart */
    size_t stride;
    int32_t count; /* room */
    int32_t held;
    float worst;   /* what a place must exceed; below every score while there is room */
    uint64_t seen; /* places that were looked at */
} ranking;

static ranking ranking_of(tatvpr_match *matches, size_t stride, int32_t count) {
    uint8_t *first = (uint8_t *)(void *)matches + offsetof(tatvpr_match, place);
    return (ranking){first, stride, count, 0, LEFT_OUT, 0};
}

static uint64_t *place_at(const ranking *r, int32_t i) {
    return (uint64_t *)(void *)(r->first + r->stride * (size_t)i);
}

static float *score_at(const ranking *r, int32_t i) {
    return (float *)(void *)(r->first + r->stride * (size_t)i + offsetof(ranked, score));
}

/* Puts (place, score) in its rank; equal scores stay behind. */
static void insert(ranking *r, uint64_t place, float score) {
    int32_t at = r->held < r->count ? r->held++ : r->count - 1;
    for (; at > 0 && score > *score_at(r, at - 1); at--) {
        *place_at(r, at) = *place_at(r, at - 1);
        *score_at(r, at) = *score_at(r, at - 1);
    }
    *place_at(r, at) = place;
    *score_at(r, at) = score;
    if (r->held == r->count) {
        r->worst = *score_at(r, r->held - 1);
    }
}

/* Says of the places first .. end - 1 that they were left out; `scores` may be null. */
static void leave_out(float *scores, uint64_t first, uint64_t end) {
    for (uint64_t i = first; scores != NULL && i < end; i++) {
        scores[i] = LEFT_OUT;
    }
}

/* How many of `wanted` are 1. */
static uint64_t count_of(const uint8_t *wanted, int32_t rows) {
    uint64_t count = 0;
    for (int32_t i = 0; i < rows; i++) {
        count += wanted[i];
    }
    return count;
}

/* Ranks places of one part, of which `at` lie before it; every score of it is written once. */
static void rank_part(const scope *s, tatvpr_map_query *q, const tatvpr_part *part, uint64_t at,
                      ranking *r, float *scores) {
    const uint64_t begin = s->asked->first > at ? s->asked->first - at : 0;
    const uint64_t last = s->asked->end == 0 ? s->total : s->asked->end;
    const uint64_t end = last <= at ? 0 : last - at < part->places ? last - at : part->places;
    const int chosen = s->asked->without != NULL || s->near != NULL || s->beyond != NULL;
    tatvpr_likeness block[BLOCK];
    uint8_t wanted[BLOCK];
    leave_out(scores, at, at + (begin < part->places ? begin : part->places));
    leave_out(scores, at + (end > begin ? end : begin), at + part->places);
    for (uint64_t first = begin; first < end; first += BLOCK) {
        const int32_t rows = end - first < BLOCK ? (int32_t)(end - first) : BLOCK;
        if (chosen && !mark(s, part, first, at + first, rows, wanted)) {
            leave_out(scores, at + first, at + first + (uint64_t)rows);
            continue;
        }
        r->seen += chosen ? count_of(wanted, rows) : (uint64_t)rows;
        const float least = scores == NULL ? r->worst : LEFT_OUT;
        if (!tatvpr_map_query_block(q, &part->rows[s->band], first, rows, least, block)) {
            continue;
        }
        for (int32_t i = 0; chosen && i < rows; i++) {
            block[i].score = wanted[i] ? block[i].score : LEFT_OUT;
        }
        for (int32_t i = 0; scores != NULL && i < rows; i++) {
            scores[at + first + (uint64_t)i] = block[i].score;
        }
        for (int32_t i = 0; i < rows; i++) {
            if (block[i].score > r->worst) {
                insert(r, at + first + (uint64_t)i, block[i].score);
            }
        }
    }
}

/* `r` is empty so far. */
static void rank_all(const scope *s, tatvpr_map_query *q, ranking *r, float *scores) {
    uint64_t at = 0;
    for (uint32_t p = 0; p < s->places->parts; p++) {
        rank_part(s, q, &s->places->part[p], at, r, scores);
        at += s->places->part[p].places;
    }
}

/* ---- the best, weighed ---- */

/* Weighs the best of `r`, and ranks these anew; equal scores stay in their order. */
static void weigh(const scope *s, tatvpr_map_query *q, ranking *r) {
    const int32_t best =
        r->held < TATVPR_MAP_WEIGHED_BEST ? r->held : (int32_t)TATVPR_MAP_WEIGHED_BEST;
    tatvpr_likeness scores[TATVPR_MAP_WEIGHED_BEST];
    uint64_t numbers[TATVPR_MAP_WEIGHED_BEST];
    for (int32_t i = 0; i < best; i++) {
        uint64_t local = *place_at(r, i);
        numbers[i] = local;
        scores[i].score = *score_at(r, i);
        const tatvpr_part *part = tatvpr_part_of(s->places, &local);
        (void)tatvpr_map_query_weigh(q, &part->rows[s->band], local, 1, &scores[i]);
    }
    ranking anew = {r->first, r->stride, best, 0, LEFT_OUT, 0};
    for (int32_t i = 0; i < best; i++) {
        insert(&anew, numbers[i], scores[i].score);
    }
}

/* Weighs every place that has a score. Apart, for the same reason as the next. */
static __attribute__((noinline)) void weigh_all(const scope *s, tatvpr_map_query *q,
                                                float *scores) {
    tatvpr_likeness block[BLOCK];
    for (uint32_t p = 0; p < s->places->parts; p++) {
        const tatvpr_part *part = &s->places->part[p];
        for (uint64_t first = 0; first < part->places; first += BLOCK) {
            const int32_t rows =
                part->places - first < BLOCK ? (int32_t)(part->places - first) : BLOCK;
            const int weighed =
                tatvpr_highest(scores, (uint64_t)rows) > LEFT_OUT &&
                tatvpr_map_query_weigh(q, &part->rows[s->band], first, rows, block);
            for (int32_t i = 0; weighed && i < rows; i++) {
                scores[i] = scores[i] > LEFT_OUT ? block[i].score : LEFT_OUT;
            }
            scores += rows;
        }
    }
}

/* The best of a weighed map, and every score. Apart, so that searches of other maps need no stack for
 * it. */
static __attribute__((noinline)) void rank_weighed(const scope *s, tatvpr_map_query *q, ranking *r,
                                                   float *scores) {
    ranked few[TATVPR_MAP_WEIGHED_BEST];
    ranking wide = {(uint8_t *)few, sizeof(few[0]), TATVPR_MAP_WEIGHED_BEST, 0, LEFT_OUT, 0};
    const int enough = r->count >= TATVPR_MAP_WEIGHED_BEST;
    ranking *best = enough ? r : &wide;
    rank_all(s, q, best, scores);
    weigh(s, q, best);
    if (scores != NULL) {
        weigh_all(s, q, scores);
    }
    if (enough) {
        return;
    }
    r->held = wide.held < r->count ? wide.held : r->count;
    r->seen = wide.seen;
    for (int32_t i = 0; i < r->held; i++) {
        *place_at(r, i) = few[i].place;
        *score_at(r, i) = few[i].score;
    }
}

/* The best by distance as `rank_all` has them, of a weighed map the first of them weighed. */
static void rank(const scope *s, tatvpr_map_query *q, ranking *r, float *scores) {
    if (s->places->kind == TATVPR_MAP_WEIGHED) {
        rank_weighed(s, q, r, scores);
    } else {
        rank_all(s, q, r, scores);
    }
}

/* ---- what is said of them ---- */

/* The best score elsewhere than `from`, whatever `near` says of the answer. */
static tatvpr_rivals rivals(scope *s, tatvpr_map_query *q, tatvpr_spot from) {
    if (s->asked->scores != NULL && s->near == NULL && s->places->kind != TATVPR_MAP_WEIGHED) {
        /* every score is there already */
        const float *scores = s->asked->scores;
        return tatvpr_rivals_of(s->places, &s->places->band[s->band].calibration, from, scores,
                                scores);
    }
    ranked other;
    ranking second = {(uint8_t *)&other, sizeof(other), 1, 0, LEFT_OUT, 0};
    s->beyond = &from;
    s->near = NULL;
    rank(s, q, &second, NULL);
    return (tatvpr_rivals){second.held > 0 ? other.score : LEFT_OUT, LEFT_OUT, second.seen};
}

/* Margin and confidence of the best match, where the band is calibrated by them. Where there is
 * hardly any rival, as in the first minute of a map that grows, nothing can be said of it and it is
 * not accepted. */
static void judge(scope *s, tatvpr_map_query *q, tatvpr_match *best) {
    const tatvpr_calibration *c = &s->places->band[s->band].calibration;
    uint64_t local = best->place;
    const tatvpr_part *part = tatvpr_part_of(s->places, &local);
    const tatvpr_rivals others = rivals(s, q, tatvpr_spot_of(part, local));
    if (others.count < TATVPR_FEWEST_RIVALS) {
        best->accepted = 0;
        return;
    }
    best->margin = best->score - others.first;
    const float odds = (c->weights[0] + c->weights[1] * best->score) + c->weights[2] * best->margin;
    best->confidence = 1.0f / (1.0f + tatvpr_exp(-odds));
    best->accepted = odds >= c->threshold ? 1 : 0;
}

static void describe_match(const scope *s, tatvpr_match *match, size_t stride) {
    const tatvpr_calibration *c = &s->places->band[s->band].calibration;
    uint64_t local = match->place;
    const tatvpr_part *part = tatvpr_part_of(s->places, &local);
    match->size = (uint32_t)stride;
    match->band = s->band;
    match->accepted = -1;
    if (c->kind == TATVPR_CALIBRATION_SCORE) {
        match->accepted = match->score >= c->threshold ? 1 : 0;
    }
    match->margin = UNKNOWN;
    match->confidence = UNKNOWN;
    tatvpr_tell_pose(tatvpr_spot_of(part, local), match->pose);
}

/* ---- the calls ---- */

/* All of a search but the descriptor. */
static tatvpr_status check(const tatvpr_places *places, const tatvpr_search *asked,
                           const tatvpr_match *matches, int32_t count, const int32_t *found) {
    if (places == NULL || places->band == NULL || (places->parts > 0 && places->part == NULL) ||
        asked == NULL || matches == NULL || found == NULL) {
        return TATVPR_ERR_NULL;
    }
    if (!tatvpr_sized(places->size, sizeof(tatvpr_places)) ||
        !tatvpr_sized(asked->size, sizeof(tatvpr_search)) ||
        !tatvpr_sized(matches->size, sizeof(tatvpr_match)) ||
        matches->size % sizeof(double) != 0) {
        return TATVPR_ERR_ABI;
    }
    if (count < 1 || !(asked->radius_m >= 0.0)) {
        return TATVPR_ERR_ARGUMENT;
    }
    if (!(asked->k > 0.0f && asked->k <= 1.0f)) {
        return TATVPR_ERR_K;
    }
    if (!(asked->tokens > 0.0f && asked->tokens <= 1.0f)) {
        return TATVPR_ERR_TOKENS;
    }
    return tatvpr_places_total(places) == 0 ? TATVPR_ERR_MAP_EMPTY : TATVPR_OK;
}

tatvpr_status tatvpr_places_search(const tatvpr_places *places, const tatvpr_model *model,
                                   const float *descriptor, const tatvpr_search *asked,
                                   tatvpr_match *matches, int32_t count, int32_t *found) {
    if (descriptor == NULL) {
        return TATVPR_ERR_NULL;
    }
    tatvpr_status status = check(places, asked, matches, count, found);
    if (status != TATVPR_OK) {
        return status;
    }
    scope s = {places, 0, tatvpr_places_total(places), asked, NULL, asked->radius_m, NULL};
    s.near = asked->radius_m > 0.0 ? asked->near : NULL;
    for (uint32_t b = 1; b < places->bands; b++) {
        if (band_better(&places->band[b], &places->band[s.band], asked->k, asked->tokens)) {
            s.band = b;
        }
    }
    const tatvpr_kernels *kernels =
        model != NULL && model->kernels != NULL ? model->kernels : &tatvpr_kernels_portable;
    const tatvpr_band *band = &places->band[s.band];
    tatvpr_map_query q;
    status = tatvpr_map_query_begin(&q, places->kind, places->dim, band->mean, kernels, descriptor);
    if (status != TATVPR_OK) {
        return status;
    }
#if defined(TATVPR_WIDE)
    q.ahead = model != NULL && model->costs != NULL && model->costs->fetches_rows != 0 &&
              kernels->hamming_ahead != NULL;
#endif
    ranking best = ranking_of(matches, matches->size, count);
    rank(&s, &q, &best, asked->scores);
    for (int32_t i = 0; i < best.held; i++) {
        describe_match(&s, match_at(matches, best.stride, i), best.stride);
    }
    if (best.held > 0 && tatvpr_by_odds(&band->calibration)) {
        judge(&s, &q, matches);
    }
    *found = best.held;
    return TATVPR_OK;
}

tatvpr_status tatvpr_map_look(const tatvpr_map *map, const tatvpr_journal *journal, float k,
                              float tokens, tatvpr_map_view *view) {
    if (map == NULL || map->base == NULL || view == NULL ||
        (journal != NULL && journal->tables == NULL)) {
        return TATVPR_ERR_NULL;
    }
    if (!tatvpr_sized(map->size, sizeof(tatvpr_map)) ||
        !tatvpr_sized(view->size, sizeof(tatvpr_map_view)) ||
        (journal != NULL && !tatvpr_sized(journal->size, sizeof(tatvpr_journal)))) {
        return TATVPR_ERR_ABI;
    }
    if (journal != NULL && (journal->first != map->places || journal->bands != map->bands)) {
        return TATVPR_ERR_MAP_JOURNAL;
    }
    /* One band is all that is asked of: the others need no room. */
    view->band_index = 0;
    tatvpr_map_band(map, 0, &view->band, &view->rows);
    for (uint32_t b = 1; b < map->bands; b++) {
        tatvpr_band other;
        tatvpr_rows others;
        tatvpr_map_band(map, b, &other, &others);
        if (band_better(&other, &view->band, k, tokens)) {
            view->band = other;
            view->rows = others;
            view->band_index = b;
        }
    }
    view->sequence = tatvpr_map_judging(map, view->band_index, k, tokens, &view->band.calibration);
    view->part[0] = tatvpr_map_part(map, &view->rows);
    if (journal != NULL) {
        view->part[1] = tatvpr_journal_part(map, journal, view->band_index, &view->added);
    }
    const tatvpr_places places = {sizeof(places), map->kind, map->dim, tatvpr_map_geographic(map),
                                  1, journal == NULL ? 1 : 2, &view->band, view->part};
    view->places = places;
    return TATVPR_OK;
}

tatvpr_status tatvpr_map_search(const tatvpr_map *map, const tatvpr_model *model,
                                const float *descriptor, float k, float tokens,
                                tatvpr_match *matches, int32_t count, int32_t *found) {
    return tatvpr_journal_search(map, NULL, model, descriptor, k, tokens, matches, count, found);
}

/* The table of a map and its journal, and what is looked for in it. */
static tatvpr_status prepare(const tatvpr_map *map, const tatvpr_journal *journal,
                             const tatvpr_model *model, float k, float tokens,
                             tatvpr_map_view *view, tatvpr_search *asked) {
    view->size = sizeof(*view);
    const tatvpr_status seen = tatvpr_map_look(map, journal, k, tokens, view);
    if (seen != TATVPR_OK) {
        return seen;
    }
    if (model != NULL && model->program != NULL &&
        (uint32_t)model->program->descriptor_size != tatvpr_map_descriptor_size(map)) {
        return TATVPR_ERR_MAP_MODEL;
    }
    tatvpr_zero(asked, sizeof(*asked));
    asked->size = sizeof(*asked);
    asked->k = k;
    asked->tokens = tokens;
    return TATVPR_OK;
}

tatvpr_status tatvpr_map_check(const tatvpr_map *map, const tatvpr_model *model, float k,
                               float tokens, const tatvpr_match *matches, int32_t count,
                               const int32_t *found) {
    tatvpr_map_view view;
    tatvpr_search asked;
    const tatvpr_status status = prepare(map, NULL, model, k, tokens, &view, &asked);
    return status != TATVPR_OK ? status : check(&view.places, &asked, matches, count, found);
}

tatvpr_status tatvpr_journal_search(const tatvpr_map *map, const tatvpr_journal *journal,
                                    const tatvpr_model *model, const float *descriptor, float k,
                                    float tokens, tatvpr_match *matches, int32_t count,
                                    int32_t *found) {
    tatvpr_map_view view;
    tatvpr_search asked;
    const tatvpr_status seen = prepare(map, journal, model, k, tokens, &view, &asked);
    if (seen != TATVPR_OK) {
        return seen;
    }
    const tatvpr_status status =
        tatvpr_places_search(&view.places, model, descriptor, &asked, matches, count, found);
    for (int32_t i = 0; status == TATVPR_OK && i < *found; i++) {
        match_at(matches, matches->size, i)->band = view.band_index;
    }
    return status;
}
