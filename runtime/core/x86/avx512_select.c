/* AVX-512: the gate's choice, with compare masks, popcount and compression. */
#include "avx512.h"

enum { MOST_CHANNELS = 4096 }; /* rows up to this are ranked from the stack; longer: portable */

/* The lowest `*ties` ones of `equal`; takes them off *ties. No branch: how many there are in a
 * register cannot be predicted. */
static inline uint64_t first_ties(uint64_t equal, int32_t *ties) {
    const int32_t count = tatvpr_min_i32(__builtin_popcountll(equal), *ties);
    *ties -= count;
#if defined(TATVPR_SIMDE)
    uint64_t kept = 0;
    for (int32_t i = 0; i < count; i++) {
        kept |= equal & (~equal + 1u);
        equal &= equal - 1u;
    }
    return kept;
#else
    return _pdep_u64(_bzhi_u64(~(uint64_t)0, (uint32_t)count), equal);
#endif
}

/* ---- lists */

/* A row's list under construction. Stores go beyond its end, into the slack of
 * TATVPR_LIST_STRIDE. */
typedef struct list_end {
    uint16_t *index;
    int8_t *value;
} list_end;

static list_end begin_list(const tatvpr_tile *tile, int32_t t, int32_t list) {
    list_end end = {NULL, NULL};
    if (list != TATVPR_LIST_NOTHING) {
        end.index = tile->index + (ptrdiff_t)t * tile->list_stride;
        end.value = tile->value + (ptrdiff_t)t * tile->list_stride;
    }
    return end;
}

#if defined(TATVPR_SIMDE)
#define compress_bytes(mask, v) _mm512_maskz_compress_epi8(mask, v)
#else
/* Zen 5's vpcompressb waits for its destination's old value even where it zeroes: five cycles from
 * one to the next. A destination that was just cleared waits for nothing. */
static inline __m512i compress_bytes(uint64_t mask, __m512i v) {
    __m512i to = _mm512_setzero_si512();
    __asm__("vpcompressb %1, %0%{%2%}" : "+v"(to) : "v"(v), "Yk"((__mmask64)mask));
    return to;
}
#endif

static const uint8_t iota[64] __attribute__((aligned(64))) = {
    0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21,
    22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43,
    44, 45, 46, 47, 48, 49, 50, 51, 52, 53, 54, 55, 56, 57, 58, 59, 60, 61, 62, 63};

/* Appends the channels base .. base + 63 of `mask`. Up to 32, the usual case, one store holds their
 * indices. */
static inline list_end append_64(__m512i q, int32_t base, uint64_t mask, list_end end) {
    const int32_t count = __builtin_popcountll(mask);
    const __m512i where = compress_bytes(mask, _mm512_load_si512(iota));
    const __m512i first = _mm512_set1_epi16((int16_t)base);
    _mm512_storeu_si512(end.value, compress_bytes(mask, q));
    const __m512i low = _mm512_cvtepu8_epi16(_mm512_castsi512_si256(where));
    _mm512_storeu_si512(end.index, _mm512_add_epi16(low, first));
    if (__builtin_expect(count > 32, 0)) {
        const __m512i high = _mm512_cvtepu8_epi16(_mm512_extracti64x4_epi64(where, 1));
        _mm512_storeu_si512(end.index + 32, _mm512_add_epi16(high, first));
    }
    end.index += count;
    end.value += count;
    return end;
}

/* Appends the fours number first .. first + 15 of `mask`; q holds their 64 channels. */
static inline list_end append_fours(__m512i q, int32_t first, __mmask16 mask, list_end end) {
    const int32_t count = __builtin_popcount(mask);
    const __m512i where = _mm512_cvtepu8_epi32(_mm_load_si128((const __m128i *)(const void *)iota));
    const __m512i index = _mm512_add_epi32(where, _mm512_set1_epi32(first));
    _mm512_storeu_si512(end.value, _mm512_maskz_compress_epi32(mask, q));
    _mm256_storeu_si256((__m256i *)(void *)end.index,
                        _mm512_cvtepi32_epi16(_mm512_maskz_compress_epi32(mask, index)));
    end.index += count;
    end.value += 4 * count;
    return end;
}

/* Writes the sum and, of a list, its length; lists of channels are padded. */
static void finish(tatvpr_tile *tile, int32_t t, int32_t list, list_end end, __m512i sums) {
    tile->sum[t] = _mm512_reduce_add_epi32(sums);
    if (list == TATVPR_LIST_NOTHING) {
        return;
    }
    int32_t n = (int32_t)(end.index - (tile->index + (ptrdiff_t)t * tile->list_stride));
    tile->count[t] = n;
    for (; list == TATVPR_LIST_CHANNELS && n % 4 != 0; n++) {
        *end.index++ = 0;
        *end.value++ = 0;
    }
}

/* ---- the cut: the largest magnitude that at least `keep` of a row reach */

typedef struct cut {
    int32_t least;
    int32_t above; /* how many lie above it */
} cut;

enum { CANDIDATES = 8 };

/* Of the candidates first, first + step, ...: how many are reached by at least `keep`, and how many
 * magnitudes reach the next one. */
typedef struct reached {
    int32_t candidates;
    int32_t above;
} reached;

#define EACH_8(M) M(0) M(1) M(2) M(3) M(4) M(5) M(6) M(7)
#define LIMIT(j) /* nothing reaches more than 127 */                                           \
    const __m512i limit##j =                                                                   \
        _mm512_set1_epi8((int8_t)tatvpr_min_i32(first + (j) * step, 255));                     \
    int64_t n##j = 0;
#define COUNT(j) n##j += __builtin_popcountll(_mm512_cmpge_epu8_mask(a, limit##j));
/* Counts fall: the largest that is too small is the next one. Opaque, so that compilers make no
 * vectors of eight scalars. */
#define COMPARE(j)                     \
    __asm__("" : "+r"(n##j));          \
    found.candidates += n##j >= keep;  \
    found.above = tatvpr_max_i32(found.above, n##j < keep ? (int32_t)n##j : 0);

/* With `q`, the magnitudes are written on the way. */
static inline __attribute__((always_inline)) reached count_reaching(const int8_t *q,
                                                                    uint8_t *magnitude,
                                                                    int32_t padded, int32_t first,
                                                                    int32_t step, int32_t keep) {
    EACH_8(LIMIT)
    for (int32_t i = 0; i < padded; i += 64) {
        __m512i a;
        if (q != NULL) {
            a = _mm512_abs_epi8(_mm512_loadu_si512(q + i));
            _mm512_store_si512(magnitude + i, a);
        } else {
            a = _mm512_load_si512(magnitude + i);
        }
        EACH_8(COUNT)
    }
    reached found = {0, 0};
    EACH_8(COMPARE)
    return found;
}

/* Eight candidates at a time, at first those around the rows' before: one pass finds nearly every
 * cut, and the branch to a second one is rarely mispredicted. */
static cut find_cut(const int8_t *q, uint8_t *magnitude, int32_t padded, int32_t keep,
                    int32_t guess) {
    int32_t low = 0;    /* reached by `keep` channels */
    int32_t high = 128; /* not reached by them, but by `above` */
    int32_t above = 0;
    int32_t step = guess > 0 ? 1 : (high - low + CANDIDATES) / (CANDIDATES + 1);
    int32_t first = guess > 0 ? tatvpr_max_i32(guess - CANDIDATES / 2 + 1, 1) : step;
    reached found = count_reaching(q, magnitude, padded, first, step, keep);
    for (;;) {
        if (found.candidates > 0) {
            low = first + (found.candidates - 1) * step;
        }
        if (found.candidates < CANDIDATES && first + found.candidates * step < high) {
            high = first + found.candidates * step;
            above = found.above;
        }
        if (__builtin_expect(high - low <= 1, 1)) {
            const cut at = {low, above};
            return at;
        }
        step = (high - low + CANDIDATES) / (CANDIDATES + 1);
        first = low + step;
        found = count_reaching(NULL, magnitude, padded, first, step, keep);
    }
}

/* What the rows before say about this one's cut. */
static int32_t guess_of(const tatvpr_tile *tile, int32_t t) {
    const float guess = tile->hint / tile->s[t];
    return guess > 0.0f && guess < 127.0f ? (int32_t)(guess + 0.5f) : 0;
}

/* ---- rows */

static void select_channels(tatvpr_tile *tile, int32_t t, int32_t keep, int32_t list) {
    uint8_t magnitude[MOST_CHANNELS] __attribute__((aligned(64)));
    const int32_t padded = (tile->k_in + 63) / 64 * 64; /* the row is padded that far */
    int8_t *q = tile->q + (ptrdiff_t)t * tile->q_stride;
    const cut at = find_cut(q, magnitude, padded, keep, guess_of(tile, t));
    const float cut_at = (float)at.least * tile->s[t];
    tile->hint = tile->hint > 0.0f ? 0.75f * tile->hint + 0.25f * cut_at : cut_at;
    int32_t ties = keep - at.above; /* at least one: of those at the cut, the first ones stay */
    const __m512i least = _mm512_set1_epi8((int8_t)at.least);
    const __m512i ones = _mm512_set1_epi8(1);
    __m512i sums = _mm512_setzero_si512();
    list_end end = begin_list(tile, t, list);
    for (int32_t i = 0; i < padded; i += 64) {
        const __m512i a = _mm512_load_si512(magnitude + i);
        const uint64_t equal = _mm512_cmpeq_epi8_mask(a, least);
        const uint64_t mask = _mm512_cmpgt_epu8_mask(a, least) | first_ties(equal, &ties);
        const __m512i kept = _mm512_maskz_loadu_epi8(mask, q + i);
        _mm512_storeu_si512(q + i, kept);
        TATVPR_DP512(sums, ones, kept);
        if (list) { /* where the cut is 0, zeros are kept, but not listed */
            end = append_64(kept, i, at.least > 0 ? mask : _mm512_test_epi8_mask(kept, kept), end);
        }
    }
    finish(tile, t, list, end, sums);
}

/* How many of the scores of fours lie above `bound`. */
static int32_t count_above(const int16_t *scores, int32_t padded, int32_t bound) {
    const __m512i limit = _mm512_set1_epi16((int16_t)bound);
    int32_t count = 0;
    for (int32_t i = 0; i < padded; i += 32) {
        count += __builtin_popcount(_mm512_cmpgt_epi16_mask(_mm512_load_si512(scores + i), limit));
    }
    return count;
}

/* Aligned groups of four, ranked by their sums of magnitudes. `list`: fours or nothing. */
static void select_fours(tatvpr_tile *tile, int32_t t, int32_t keep, int32_t list) {
    enum { MOST_SCORE = 4 * 127 };
    int16_t scores[MOST_CHANNELS / 4] __attribute__((aligned(64)));
    const int32_t padded = (tile->k_in + 63) / 64 * 64;
    const int32_t groups = padded / 4;
    int8_t *q = tile->q + (ptrdiff_t)t * tile->q_stride;
    const __m512i ones = _mm512_set1_epi8(1);
    for (int32_t i = 0; i < padded; i += 64) {
        __m512i sums = _mm512_setzero_si512();
        TATVPR_DP512(sums, _mm512_abs_epi8(_mm512_loadu_si512(q + i)), ones);
        _mm256_store_si256((__m256i *)(void *)(scores + i / 4), _mm512_cvtepi32_epi16(sums));
    }
    if (groups % 32 != 0) { /* the second half of the last register */
        _mm256_store_si256((__m256i *)(void *)(scores + groups), _mm256_setzero_si256());
    }
    int32_t least = 0;
    for (int32_t bit = 256; bit > 0; bit /= 2) {
        const int32_t more = least + bit;
        least = more <= MOST_SCORE && count_above(scores, groups, more - 1) >= keep ? more : least;
    }
    int32_t ties = keep - count_above(scores, groups, least);
    const __m512i bound = _mm512_set1_epi32(least);
    __m512i sums = _mm512_setzero_si512();
    list_end end = begin_list(tile, t, list);
    for (int32_t i = 0; i < padded; i += 64) {
        const __m512i s = _mm512_cvtepi16_epi32(
            _mm256_load_si256((const __m256i *)(const void *)(scores + i / 4)));
        const uint64_t equal = _mm512_cmpeq_epi32_mask(s, bound);
        const __mmask16 mask =
            (__mmask16)(_mm512_cmpgt_epi32_mask(s, bound) | first_ties(equal, &ties));
        const __m512i kept = _mm512_maskz_mov_epi32(mask, _mm512_loadu_si512(q + i));
        _mm512_storeu_si512(q + i, kept);
        TATVPR_DP512(sums, ones, kept);
        end = list ? append_fours(kept, i / 4, mask, end) : end;
    }
    finish(tile, t, list, end, sums);
}

/* Nothing is dropped: the sum, and a list without the zeros. */
static void keep_all(tatvpr_tile *tile, int32_t t, int32_t list) {
    const int8_t *q = tile->q + (ptrdiff_t)t * tile->q_stride;
    const __m512i ones = _mm512_set1_epi8(1);
    __m512i sums = _mm512_setzero_si512();
    list_end end = begin_list(tile, t, list);
    for (int32_t i = 0; i < tile->k_in; i += 64) {
        const __m512i v = _mm512_loadu_si512(q + i);
        TATVPR_DP512(sums, ones, v);
        end = list ? append_64(v, i, _mm512_test_epi8_mask(v, v), end) : end;
    }
    finish(tile, t, list, end, sums);
}

void tatvpr_avx512_select(tatvpr_tile *tile, int32_t t, int32_t keep, int32_t group,
                          int32_t list) {
    const int all = keep >= tile->k_in / group;
    const int short_row = tile->k_in <= MOST_CHANNELS;
    if (group == 4 && !all && short_row && list != TATVPR_LIST_CHANNELS) {
        select_fours(tile, t, keep, list);
    } else if (list == TATVPR_LIST_FOURS) {
        tatvpr_avx512_select(tile, t, keep, group, TATVPR_LIST_NOTHING);
        tatvpr_list_fours(tile, t);
    } else if (all) {
        keep_all(tile, t, list);
    } else if (group == 1 && short_row) {
        select_channels(tile, t, keep, list);
    } else {
        tatvpr_portable_select(tile, t, keep, group, list);
    }
}
