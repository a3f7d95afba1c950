/* The best of what lies elsewhere than an answer: for the search's margin and for a path's. */
#include "core.h"
#include "where.h"

enum { BLOCK = 256 }; /* places looked at at once */

static float larger(float a, float b) { return a > b ? a : b; }

#define NOTHING (-__builtin_inff())

enum { WIDE = 32 }; /* maxima kept side by side; so many, that compilers keep them in vectors */

float tatvpr_highest(const float *values, uint64_t count) {
    float best[WIDE];
    uint64_t i = 0;
    for (int lane = 0; lane < WIDE; lane++) {
        best[lane] = NOTHING;
    }
    for (; i + WIDE <= count; i += WIDE) {
        for (int lane = 0; lane < WIDE; lane++) {
            best[lane] = larger(values[i + (uint64_t)lane], best[lane]);
        }
    }
    for (int lane = 0; i < count; i++, lane++) {
        best[lane] = larger(values[i], best[lane]);
    }
    for (int width = WIDE / 2; width > 0; width /= 2) {
        for (int lane = 0; lane < width; lane++) {
            best[lane] = larger(best[lane], best[width + lane]);
        }
    }
    return best[0];
}

/* Looks at the places `at` .. `at + count - 1` of a part, whose tables begin at `first` and `second`. */
static void look_at(tatvpr_rivals *found, const tatvpr_places *places, const tatvpr_part *part,
                    const tatvpr_calibration *c, tatvpr_spot from, const float *first,
                    const float *second, uint64_t at, uint64_t count) {
    for (uint64_t i = at; i < at + count; i++) {
        /* Once there are enough, only what would change the answer is looked at. */
        const int enough = found->count >= TATVPR_FEWEST_RIVALS;
        if ((first[i] > found->first || second[i] > found->second ||
             (!enough && first[i] > NOTHING)) &&
            tatvpr_elsewhere(c, places->geographic, tatvpr_spot_of(part, i), from)) {
            found->first = larger(first[i], found->first);
            found->second = larger(second[i], found->second);
            found->count += first[i] > NOTHING;
        }
    }
}

tatvpr_rivals tatvpr_rivals_of(const tatvpr_places *places, const tatvpr_calibration *c,
                               tatvpr_spot from, const float *first, const float *second) {
    tatvpr_rivals found = {NOTHING, NOTHING, 0};
    for (uint32_t p = 0; p < places->parts; p++) {
        const tatvpr_part *part = &places->part[p];
        for (uint64_t at = 0; at < part->places; at += BLOCK) {
            const uint64_t count = part->places - at < BLOCK ? part->places - at : BLOCK;
            if (found.count < TATVPR_FEWEST_RIVALS ||
                tatvpr_highest(first + at, count) > found.first ||
                (second != first && tatvpr_highest(second + at, count) > found.second)) {
                look_at(&found, places, part, c, from, first, second, at, count);
            }
        }
        first += part->places;
        second += part->places;
    }
    return found;
}
