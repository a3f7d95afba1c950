/* AVX-512: the gate's choice among single channels: the largest magnitudes, ties to the first.
 *
 * Where the cut lies is nearly known from the rows before. How many reach that guess says on which
 * side of it the cut is, and how many reach the four magnitudes there nearly always says which; a
 * row whose cut lies farther off is searched bit by bit. A row is one long chain of dependent steps
 * and the scheduler too small to reach the next one by itself: four rows take each step together. */
#include "avx512_select.h"

enum {
    NEAR = 4,    /* magnitudes that are looked at beside the guess */
    USUAL = 192, /* channels of most rows of the shipped models: loops over them are unrolled */
};

/* One row on the way to its cut: the largest magnitude that at least `keep` of it reach, or 1
 * where fewer are not 0. */
typedef struct row {
    const int8_t *q;
    int32_t first; /* the lowest magnitude that is looked at */
    int32_t guess;
    int32_t reach; /* how many reach the guess */
    int32_t least; /* the cut */
    int32_t above; /* how many lie above it */
} row;

static inline __m512i magnitudes(const int8_t *q, int32_t i) {
    return _mm512_abs_epi8(_mm512_loadu_si512(q + i));
}

static inline int32_t reaching(__m512i magnitude, __m512i limit) {
    return __builtin_popcountll(_mm512_cmpge_epu8_mask(magnitude, limit));
}

static inline __attribute__((always_inline)) int32_t count_reaching(const int8_t *q, int32_t k_in,
                                                                    int32_t limit) {
    const __m512i at = _mm512_set1_epi8((int8_t)limit);
    int32_t count = 0;
    for (int32_t i = 0; i < k_in; i += 64) {
        count += reaching(magnitudes(q, i), at);
    }
    return count;
}

static inline __attribute__((always_inline)) void
look_at_guess(const tatvpr_tile *tile, int32_t t, int32_t k_in, int32_t keep, row *r) {
    const float guess = tile->hint / tile->s[t]; /* 0 where no row says anything */
    r->q = tile->q + (ptrdiff_t)t * tile->q_stride;
    r->guess = guess < 127.0f ? tatvpr_max_i32((int32_t)(guess + 0.5f), 1) : 127;
    r->reach = count_reaching(r->q, k_in, r->guess);
    r->first = r->reach >= keep ? r->guess + 1 : tatvpr_max_i32(r->guess - NEAR, 1);
}

#define COUNT(j) n##j += reaching(a, limit##j);
/* Opaque, so that compilers make no vectors of four scalars. */
#define COMPARE(j)                 \
    __asm__("" : "+r"(n##j));      \
    reached += n##j >= keep;       \
    above = tatvpr_max_i32(above, n##j >= keep ? 0 : n##j);

/* 1: the cut is found. */
static inline __attribute__((always_inline)) int look_beside_guess(row *r, int32_t k_in,
                                                                   int32_t keep) {
    const __m512i one = _mm512_set1_epi8(1);
    const __m512i limit0 = _mm512_set1_epi8((int8_t)r->first);
    const __m512i limit1 = _mm512_add_epi8(limit0, one);
    const __m512i limit2 = _mm512_add_epi8(limit1, one);
    const __m512i limit3 = _mm512_add_epi8(limit2, one);
    int32_t n0 = 0, n1 = 0, n2 = 0, n3 = 0;
    for (int32_t i = 0; i < k_in; i += 64) {
        const __m512i a = magnitudes(r->q, i);
        EACH_4(COUNT)
    }
    int32_t reached = 0;
    int32_t above = r->reach >= keep ? 0 : r->reach;
    EACH_4(COMPARE)
    r->above = above;
    r->least = r->first + reached - 1;
    return r->reach >= keep ? reached < NEAR : reached > 0;
}

static void search_everywhere(row *r, int32_t k_in, int32_t keep) {
    r->least = 0;
    r->above = 0;
    for (int32_t bit = 64; bit > 0; bit /= 2) {
        const int32_t count = count_reaching(r->q, k_in, r->least + bit);
        const int enough = count >= keep;
        r->least += enough ? bit : 0;
        r->above = enough ? r->above : count;
    }
    if (r->least == 0) { /* fewer are not 0: all of them stay */
        r->least = 1;
        r->above = 0;
    }
}

static inline __attribute__((always_inline)) void
keep_row(tatvpr_tile *tile, int32_t t, int32_t k_in, int32_t keep, int32_t list, const row *r) {
    int8_t *q = tile->q + (ptrdiff_t)t * tile->q_stride;
    const __m512i ones = _mm512_set1_epi8(1);
    const __m512i cut = _mm512_set1_epi8((int8_t)r->least);
    __m512i sums = _mm512_setzero_si512();
    int32_t ties = keep - r->above; /* of those at the cut, the first ones stay */
    list_end end = begin_list(tile, t, list);
    for (int32_t i = 0; i < k_in; i += 64) {
        const __m512i v = _mm512_loadu_si512(q + i);
        const __m512i a = _mm512_abs_epi8(v);
        const __mmask64 above = _mm512_cmpgt_epu8_mask(a, cut);
        const uint64_t tied = first_ties(_mm512_cmpeq_epi8_mask(a, cut), &ties);
        /* One after the other: a mask that leaves its registers takes longer. */
        const __m512i kept = _mm512_mask_mov_epi8(_mm512_maskz_mov_epi8(above, v), tied, v);
        TATVPR_DP512(sums, ones, kept);
        if (list) {
            end = append_64(v, _mm512_set1_epi16((int16_t)i), above | tied, end);
        } else {
            _mm512_storeu_si512(q + i, kept);
        }
    }
    finish(tile, t, list, end, sums);
}

static inline __attribute__((always_inline)) void
select_rows(tatvpr_tile *tile, int32_t t, int32_t rows, int32_t k_in, int32_t keep, int32_t list) {
    row r[TATVPR_ROWS_TOGETHER];
    int found[TATVPR_ROWS_TOGETHER];
    int all = 1;
    for (int32_t i = 0; i < rows; i++) {
        look_at_guess(tile, t + i, k_in, keep, r + i);
    }
    for (int32_t i = 0; i < rows; i++) {
        found[i] = look_beside_guess(r + i, k_in, keep);
        all &= found[i];
    }
    for (int32_t i = 0; !all && i < rows; i++) {
        if (!found[i]) {
            search_everywhere(r + i, k_in, keep);
        }
    }
    float cut = 0.0f; /* one step of the hint for all rows: the next ones wait for it */
    for (int32_t i = 0; i < rows; i++) {
        cut += (float)r[i].least * tile->s[t + i];
    }
    cut /= (float)rows;
    tile->hint = tile->hint > 0.0f ? 0.5f * (tile->hint + cut) : cut;
    for (int32_t i = 0; i < rows; i++) {
        keep_row(tile, t + i, k_in, keep, list, r + i);
    }
}

#define SELECT(n, channels, list) select_rows(tile, t, n, channels, keep, list)

void tatvpr_avx512_select_channels(tatvpr_tile *tile, int32_t t, int32_t rows, int32_t keep,
                                   int32_t list) {
    if (rows < TATVPR_ROWS_TOGETHER) {
        SELECT(rows, tile->k_in, list);
    } else if (tile->k_in != USUAL) {
        SELECT(TATVPR_ROWS_TOGETHER, tile->k_in, list);
    } else if (list) {
        SELECT(TATVPR_ROWS_TOGETHER, USUAL, TATVPR_LIST_CHANNELS);
    } else {
        SELECT(TATVPR_ROWS_TOGETHER, USUAL, TATVPR_LIST_NOTHING);
    }
}
