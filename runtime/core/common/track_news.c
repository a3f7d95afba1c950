/* Which frames of a path say something new: track_news.h. */
#include "track_news.h"

#include "core.h"
#include "floats.h"
#include "map.h"
#include "track_drives.h"
#include "track_paths.h"

enum { LANES = 8, BINARY = 2 };

int tatvpr_remembers(const tatvpr_track *track, const tatvpr_step *step) {
    return track->size >= sizeof(tatvpr_track) && step->size >= sizeof(tatvpr_step) &&
           track->last != NULL && step->descriptor != NULL;
}

/* One less the cosine of two descriptors around `mean`, null: zero. NaN of none. */
static float apart(const float *a, const float *b, const float *mean, uint32_t dim) {
    float both[LANES] = {0.0f}, first[LANES] = {0.0f}, second[LANES] = {0.0f};
    for (uint32_t i = 0; i < dim; i++) {
        const float middle = mean != NULL ? mean[i] : 0.0f;
        const float x = a[i] - middle, y = b[i] - middle;
        both[i % LANES] += x * y;
        first[i % LANES] += x * x;
        second[i % LANES] += y * y;
    }
    for (int lane = 1; lane < LANES; lane++) {
        both[0] += both[lane];
        first[0] += first[lane];
        second[0] += second[lane];
    }
    return 1.0f - both[0] / (tatvpr_sqrt(first[0]) * tatvpr_sqrt(second[0]));
}

/* One less the cosine that a score says; a binary map's tells an angle by its share of a half turn. */
static float apart_by(const tatvpr_places *places, float score) {
    return 1.0f - (places->kind == BINARY ? (float)tatvpr_cosine(90.0 * (1.0 - (double)score))
                                          : score);
}

/* As much of it as is kept: callers that say nothing keep all. */
static float kept(float share) { return share > 0.0f ? share : 1.0f; }

static int moved_on(const tatvpr_track *track, float moved_m) {
    return tatvpr_distance(moved_m, 0.0f) >=
           TATVPR_TRACK_SPACE * tatvpr_spacing_at(track, track->place);
}

static int described_alike(const tatvpr_track *track, const tatvpr_step *step) {
    return kept(step->k) == track->last_k && kept(step->tokens) == track->last_tokens;
}

/* The next frame counts. */
static void forget(tatvpr_track *track) {
    if (track->size >= sizeof(tatvpr_track)) {
        track->last_k = 0.0f;
    }
}

int tatvpr_is_news(const tatvpr_track *track, const tatvpr_places *places, const tatvpr_step *step,
                   float moved_m, float best, float mean) {
    if (!tatvpr_remembers(track, step) || track->last_k == 0.0f || track->seen == 0 ||
        moved_on(track, moved_m)) {
        return 1;
    }
    if (!described_alike(track, step)) { /* not to be compared: of two one counts */
        return (int)track->swapped;
    }
    const float off = apart(step->descriptor, track->last, places->band[step->band].mean,
                            places->dim);
    const float noise =
        TATVPR_TRACK_ALIKE / tatvpr_sqrt(kept(step->k) * kept(step->tokens));
    return !(off <= TATVPR_TRACK_NEARER * apart_by(places, best) &&
             off <= noise * apart_by(places, mean));
}

void tatvpr_remember(tatvpr_track *track, const tatvpr_places *places, const tatvpr_step *step,
                     int counted) {
    if (!tatvpr_remembers(track, step)) {
        forget(track);
        return;
    }
    if (!counted && described_alike(track, step)) { /* compared */
        return;
    }
    tatvpr_copy(track->last, step->descriptor, places->dim * sizeof(float));
    track->last_k = kept(step->k);
    track->last_tokens = kept(step->tokens);
    track->swapped = (uint32_t)!counted;
}

void tatvpr_see_nothing(tatvpr_track *track, float moved_m) {
    if (track->size < sizeof(tatvpr_track)) {
        return;
    }
    track->swapped = 1;
    if (moved_on(track, moved_m)) {
        forget(track);
    }
}
