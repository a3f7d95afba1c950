/* AVX-512: the gate's choice among single channels: the largest magnitudes, ties to the first.
 *
 * Where the cut lies is nearly known from the rows before. One pass over a row sets aside what lies
 * near it (of a list: all above it too); only that is ranked. A row is one long chain of
 * dependent steps and the scheduler too small to reach the next one by itself: four rows take each
 * step together. */
#include "avx512_select.h"

enum { HIGHEST = 128 }; /* above every magnitude */

/* One row on the way to its cut: the largest magnitude that at least `keep` of it reach. */
typedef struct row {
    int32_t t;
    int32_t low;    /* magnitudes from here on, */
    int32_t high;   /* and below this, are the candidates */
    int32_t count;  /* how many there are */
    int32_t sure;   /* how many lie above them */
    int32_t wanted; /* how many of them stay */
    int32_t least;  /* the cut */
    int32_t above;  /* how many candidates lie above it */
    int8_t *candidate; /* [count], then zeros: values of the list, or magnitudes on the stack */
} row;

/* ---- candidates */

/* To the row's list: everything from `low` on. */
static void list_candidates(const tatvpr_tile *tile, row *r) {
    const int8_t *q = tile->q + (ptrdiff_t)r->t * tile->q_stride;
    const __m512i low = _mm512_set1_epi8((int8_t)r->low);
    const __m512i next = _mm512_set1_epi16(64);
    __m512i first = _mm512_setzero_si512();
    list_end end = begin_list(tile, r->t, TATVPR_LIST_CHANNELS);
    r->candidate = end.value;
    for (int32_t i = 0; i < tile->k_in; i += 64) {
        const __m512i v = _mm512_loadu_si512(q + i);
        const uint64_t mask = _mm512_cmpge_epu8_mask(_mm512_abs_epi8(v), low);
        end = append_64(v, first, mask, end);
        first = _mm512_add_epi16(first, next);
    }
    r->count = (int32_t)(end.value - r->candidate);
    r->sure = 0;
}

/* Without a list: magnitudes from `low` to below `high`, and how many lie above. */
static void set_candidates_aside(const tatvpr_tile *tile, row *r) {
    const int8_t *q = tile->q + (ptrdiff_t)r->t * tile->q_stride;
    const __m512i low = _mm512_set1_epi8((int8_t)r->low);
    const __m512i high = _mm512_set1_epi8((int8_t)r->high);
    int8_t *end = r->candidate;
    r->sure = 0;
    for (int32_t i = 0; i < tile->k_in; i += 64) {
        const __m512i a = _mm512_abs_epi8(_mm512_loadu_si512(q + i));
        const uint64_t reached = _mm512_cmpge_epu8_mask(a, low);
        const uint64_t above = _mm512_cmpge_epu8_mask(a, high);
        const uint64_t mask = reached & ~above;
        _mm512_storeu_si512(end, compress_bytes(mask, a));
        end += __builtin_popcountll(mask);
        r->sure += __builtin_popcountll(above);
    }
    r->count = (int32_t)(end - r->candidate);
}

static void find_candidates(const tatvpr_tile *tile, row *r, int32_t keep, int32_t list) {
    for (;;) {
        if (list) {
            list_candidates(tile, r);
        } else {
            set_candidates_aside(tile, r);
        }
        r->wanted = keep - r->sure;
        const int missed = r->wanted <= 0 || r->wanted > r->count;
        if (__builtin_expect(!missed || (r->low == 1 && r->high == HIGHEST), 1)) {
            break;
        }
        r->low = 1;
        r->high = HIGHEST;
    }
    /* Where fewer are not 0, all of them stay. */
    r->wanted = tatvpr_max_i32(tatvpr_min_i32(r->wanted, r->count), 1);
    r->least = r->low;
    r->above = 0;
}

/* Candidates lie around the cuts before, farther where few channels stay: it varies more there. */
static row begin_row(const tatvpr_tile *tile, int32_t t, int32_t keep, int32_t list,
                     int8_t *candidate) {
    const int32_t margin = list && keep <= 96 ? 8 : 4;
    const float guess = tile->hint / tile->s[t];
    row r = {.t = t, .low = 1, .high = HIGHEST, .candidate = candidate};
    if (guess > 0.0f && guess < 127.0f) {
        const int32_t at = (int32_t)(guess + 0.5f);
        r.low = tatvpr_max_i32(at - margin, 1);
        r.high = list ? HIGHEST : tatvpr_min_i32(at + margin, HIGHEST);
    }
    return r;
}

/* ---- the cut */

#define COUNT(j) n##j += (uint32_t)__builtin_popcountll(_mm512_cmpge_epu8_mask(a, limit##j));
/* Opaque, so that compilers make no vectors of four scalars. */
#define COMPARE(j)                 \
    __asm__("" : "+r"(n##j));      \
    reached += n##j >= wanted;

/* Raises the cut by up to four steps, as far as enough candidates reach it; by how many. */
static inline int32_t raise_cut(row *r, int32_t count, __m512i step, int32_t by) {
    const __m512i limit0 = _mm512_add_epi8(_mm512_set1_epi8((int8_t)r->least), step);
    const __m512i limit1 = _mm512_add_epi8(limit0, step);
    const __m512i limit2 = _mm512_add_epi8(limit1, step);
    const __m512i limit3 = _mm512_add_epi8(limit2, step);
    const uint32_t wanted = (uint32_t)r->wanted;
    uint32_t n0 = 0, n1 = 0, n2 = 0, n3 = 0;
    for (int32_t i = 0; i < count; i += 64) {
        const __m512i a = _mm512_abs_epi8(_mm512_loadu_si512(r->candidate + i));
        EACH_4(COUNT)
    }
    int32_t reached = 0;
    EACH_4(COMPARE)
    r->least += reached * by;
    return reached;
}

static inline void count_above(row *r, int32_t count) {
    const __m512i cut = _mm512_set1_epi8((int8_t)r->least);
    for (int32_t i = 0; i < count; i += 64) {
        const __m512i a = _mm512_abs_epi8(_mm512_loadu_si512(r->candidate + i));
        r->above += __builtin_popcountll(_mm512_cmpgt_epu8_mask(a, cut));
    }
}

/* From the lowest candidate upwards, by fives and ones: 24 reach from one guess past the next. By
 * 25, five and one, 124: all that there are. */
static void find_cuts(row *r, int32_t rows, int guessed) {
    int32_t most = 0;
    for (int32_t i = 0; i < rows; i++) {
        most = tatvpr_max_i32(most, (r[i].count + 63) / 64 * 64);
    }
    for (int32_t i = 0; i < rows; i++) {
        for (int32_t at = r[i].count; at < most; at += 64) {
            _mm512_storeu_si512(r[i].candidate + at, _mm512_setzero_si512());
        }
    }
    int32_t by = guessed ? 5 : 25;
    for (int again = 1; again;) {
        again = 0;
        for (int32_t i = 0; i < rows; i++) {
            again |= raise_cut(r + i, most, _mm512_set1_epi8((int8_t)by), by) == 4;
        }
        for (by /= 5; by > 0; by /= 5) {
            for (int32_t i = 0; i < rows; i++) {
                raise_cut(r + i, most, _mm512_set1_epi8((int8_t)by), by);
            }
        }
        by = 25;
    }
    for (int32_t i = 0; i < rows; i++) {
        count_above(r + i, most);
    }
}

/* ---- what stays */

/* Of the candidates in `magnitude`, or of a row's channels. */
static inline uint64_t staying(__m512i magnitude, int32_t least, int32_t *ties) {
    const __m512i cut = _mm512_set1_epi8((int8_t)least);
    const uint64_t equal = _mm512_cmpeq_epi8_mask(magnitude, cut);
    return _mm512_cmpgt_epu8_mask(magnitude, cut) | first_ties(equal, ties);
}

/* The list is thinned where it lies: what is stored never reaches what is still to be read. */
static void keep_listed(tatvpr_tile *tile, const row *r) {
    list_end end = begin_list(tile, r->t, TATVPR_LIST_CHANNELS);
    const list_end from = end;
    const __m512i ones = _mm512_set1_epi8(1);
    __m512i sums = _mm512_setzero_si512();
    int32_t ties = r->wanted - r->above; /* of those at the cut, the first ones stay */
    for (int32_t i = 0; i < r->count; i += 64) {
        const __m512i v = _mm512_loadu_si512(from.value + i);
        const uint64_t mask = staying(_mm512_abs_epi8(v), r->least, &ties);
        const __mmask32 lower = (__mmask32)mask, upper = (__mmask32)(mask >> 32);
        const __m512i value = compress_bytes(mask, v);
        const __m512i low = _mm512_loadu_si512(from.index + i);
        const __m512i high = _mm512_loadu_si512(from.index + i + 32);
        _mm512_storeu_si512(end.value, value);
        _mm512_storeu_si512(end.index, _mm512_maskz_compress_epi16(lower, low));
        _mm512_storeu_si512(end.index + __builtin_popcount(lower),
                            _mm512_maskz_compress_epi16(upper, high));
        TATVPR_DP512(sums, ones, value);
        end.value += __builtin_popcountll(mask);
        end.index += __builtin_popcountll(mask);
    }
    finish(tile, r->t, TATVPR_LIST_CHANNELS, end, sums);
}

static void drop_channels(tatvpr_tile *tile, const row *r) {
    int8_t *q = tile->q + (ptrdiff_t)r->t * tile->q_stride;
    const list_end none = {NULL, NULL};
    const __m512i ones = _mm512_set1_epi8(1);
    __m512i sums = _mm512_setzero_si512();
    int32_t ties = r->wanted - r->above;
    for (int32_t i = 0; i < tile->k_in; i += 64) {
        const __m512i v = _mm512_loadu_si512(q + i);
        const __m512i kept = _mm512_maskz_mov_epi8(
            staying(_mm512_abs_epi8(v), r->least, &ties), v);
        _mm512_storeu_si512(q + i, kept);
        TATVPR_DP512(sums, ones, kept);
    }
    finish(tile, r->t, TATVPR_LIST_NOTHING, none, sums);
}

void tatvpr_avx512_select_channels(tatvpr_tile *tile, int32_t t, int32_t rows, int32_t keep,
                                   int32_t list) {
    int8_t candidates[TATVPR_ROWS_TOGETHER][TATVPR_MOST_CHANNELS + 64]
        __attribute__((aligned(64)));
    const int guessed = tile->hint > 0.0f;
    row r[TATVPR_ROWS_TOGETHER];
    for (int32_t i = 0; i < rows; i++) {
        r[i] = begin_row(tile, t + i, keep, list, candidates[i]);
        find_candidates(tile, r + i, keep, list);
    }
    find_cuts(r, rows, guessed);
    for (int32_t i = 0; i < rows; i++) {
        if (list) {
            keep_listed(tile, r + i);
        } else {
            drop_channels(tile, r + i);
        }
        const float cut = (float)r[i].least * tile->s[t + i];
        tile->hint = tile->hint > 0.0f ? 0.75f * tile->hint + 0.25f * cut : cut;
    }
}
