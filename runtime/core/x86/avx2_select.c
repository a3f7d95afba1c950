/* AVX2: the gate's choice among single channels; among groups: next door. A threshold is found by
 * comparing and counting over the whole row, four candidates at a time, around the row before's at
 * first; ties at the threshold go to the lower index; kept channels are compressed by table. */
#include "avx2_select.h"

/* All ones in every byte whose bit of `mask` is set. */
static __m256i spread_bits(uint32_t mask) {
    const __m256i which = _mm256_setr_epi8(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2,
                                           2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3);
    const __m256i bits = _mm256_set1_epi64x((int64_t)0x8040201008040201);
    const __m256i bytes = _mm256_shuffle_epi8(_mm256_set1_epi32((int32_t)mask), which);
    return _mm256_cmpeq_epi8(_mm256_and_si256(bytes, bits), bits);
}

enum { CANDIDATES = 4 };

/* How many of the magnitudes reach first, first + step, ...: four counts of 16 bits. With `q`, the
 * magnitudes are written on the way. */
static inline uint64_t count_reaching(const int8_t *q, uint8_t *magnitude, int32_t padded,
                                      int32_t first, int32_t step) {
    __m256i limits[CANDIDATES], counts[CANDIDATES];
    for (int32_t j = 0; j < CANDIDATES; j++) { /* a >= b is a > b - 1; nothing is above 127 */
        limits[j] = _mm256_set1_epi8((int8_t)tatvpr_min_i32(first + j * step - 1, 127));
        counts[j] = _mm256_setzero_si256();
    }
    for (int32_t i = 0; i < padded; i += 32) { /* byte counters: at most 128 */
        const __m256i a = q != NULL ? _mm256_abs_epi8(load(q + i)) : load(magnitude + i);
        if (q != NULL) {
            _mm256_store_si256((__m256i *)(void *)(magnitude + i), a);
        }
        for (int32_t j = 0; j < CANDIDATES; j++) {
            counts[j] = _mm256_sub_epi8(counts[j], _mm256_cmpgt_epi8(a, limits[j]));
        }
    }
    return sum_four(counts);
}

typedef struct cut {
    int32_t least; /* the largest magnitude that at least `keep` channels reach */
    int32_t above; /* how many lie above it */
} cut;

static cut find_cut(const int8_t *q, uint8_t *magnitude, int32_t padded, int32_t keep,
                    int32_t guess) {
    enum { SPREAD = 4 };
    int32_t low = 0; /* reached by `keep` channels */
    int32_t high = 128; /* not reached by them, but by `above` */
    int32_t above = 0;
    int32_t step = guess > 0 ? SPREAD : (high - low + CANDIDATES) / (CANDIDATES + 1);
    int32_t first = guess > 0 ? tatvpr_max_i32(guess - SPREAD * 3 / 2, 1) : step;
    uint64_t counts = count_reaching(q, magnitude, padded, first, step);
    for (;;) {
        for (int32_t j = 0; j < CANDIDATES; j++, counts >>= 16) {
            const int32_t count = (int32_t)(counts & 0xFFFFu);
            const int32_t value = first + j * step;
            if (count >= keep) {
                low = value; /* values rise, and are below `high` while counts suffice */
            } else if (value < high) {
                high = value;
                above = count;
            }
        }
        if (high - low <= 1) {
            const cut found = {low, above};
            return found;
        }
        step = (high - low + CANDIDATES) / (CANDIDATES + 1);
        first = low + step;
        counts = count_reaching(NULL, magnitude, padded, first, step);
    }
}

/* What the row before says about this one's cut. */
static int32_t guess_of(const tatvpr_tile *tile, int32_t t) {
    const float cut = tile->hint / tile->s[t];
    return cut > 0.0f && cut < 127.0f ? (int32_t)(cut + 0.5f) : 0;
}

static void select_channels(tatvpr_tile *tile, int32_t t, int32_t keep, int32_t list) {
    uint8_t magnitude[TATVPR_MOST_CHANNELS] __attribute__((aligned(32)));
    const int32_t padded = (tile->k_in + 31) / 32 * 32;
    int8_t *q = tile->q + (ptrdiff_t)t * tile->q_stride;
    const cut at = find_cut(q, magnitude, padded, keep, guess_of(tile, t));
    tile->hint = (float)at.least * tile->s[t];
    int32_t ties = keep - at.above; /* at least one: of those at the cut, the first ones stay */
    const __m256i least = _mm256_set1_epi8((int8_t)at.least);
    __m256i bound = _mm256_set1_epi8((int8_t)(at.least - 1));
    list_end end = begin_list(tile, t, list);
    __m256i sums = _mm256_setzero_si256();
    for (int32_t i = 0; i < padded; i += 32) {
        const __m256i a = load(magnitude + i);
        __m256i kept = _mm256_cmpgt_epi8(a, bound);
        if (ties > 0) {
            const uint32_t equal = (uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(a, least));
            const uint32_t first = first_ties(equal, &ties);
            if (ties == 0) {
                kept = _mm256_andnot_si256(spread_bits(equal ^ first), kept);
                bound = least;
            }
        }
        const __m256i v = keep_32(q, i, kept);
        sums = _mm256_add_epi32(sums, sum_32(v));
        if (list) { /* where the cut is 0, zeros are kept, but not listed */
            const uint32_t mask = (uint32_t)_mm256_movemask_epi8(kept);
            end = list_32(q, i, at.least > 0 ? mask : nonzero(v), end);
        }
    }
    finish(tile, t, list, end, sums);
}

static void keep_all(tatvpr_tile *tile, int32_t t, int32_t list) {
    int8_t *q = tile->q + (ptrdiff_t)t * tile->q_stride;
    list_end end = begin_list(tile, t, list);
    __m256i sums = _mm256_setzero_si256();
    for (int32_t i = 0; i < tile->k_in; i += 32) {
        const __m256i v = load(q + i);
        sums = _mm256_add_epi32(sums, sum_32(v));
        end = list ? list_32(q, i, nonzero(v), end) : end;
    }
    finish(tile, t, list, end, sums);
}

void tatvpr_avx2_select(tatvpr_tile *tile, int32_t t, int32_t keep, int32_t group, int32_t list) {
    if (tatvpr_ranks_groups(tile, keep, group, list)) {
        tatvpr_avx2_select_groups(tile, t, 1, keep, group, list);
    } else if (list == TATVPR_LIST_FOURS) {
        tatvpr_avx2_select(tile, t, keep, group, TATVPR_LIST_NOTHING);
        tatvpr_list_fours(tile, t);
    } else if (keep >= tile->k_in / group) {
        keep_all(tile, t, list);
    } else if (group == 1 && tile->k_in <= TATVPR_MOST_CHANNELS) {
        select_channels(tile, t, keep, list);
    } else {
        tatvpr_portable_select(tile, t, keep, group, list);
    }
}

void tatvpr_avx2_select_rows(tatvpr_tile *tile, int32_t keep, int32_t group, int32_t list) {
    const int32_t together =
        tatvpr_ranks_groups(tile, keep, group, list) ? TATVPR_ROWS_TOGETHER : 1;
    for (int32_t t = 0; t < tile->tokens; t += together) {
        if (together > 1) {
            const int32_t rows = tatvpr_min_i32(together, tile->tokens - t);
            tatvpr_avx2_select_groups(tile, t, rows, keep, group, list);
        } else {
            tatvpr_avx2_select(tile, t, keep, group, list);
        }
    }
}
