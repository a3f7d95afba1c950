/* AVX2: the gate's choice among aligned groups of 2, 4, 8 or 16 channels: the largest sums of
 * magnitudes, ties to the first. `group` is a constant wherever it is used. */
#include "avx2_select.h"

/* ---- sums */

static inline void store(void *p, __m256i v) { _mm256_storeu_si256((__m256i *)p, v); }

/* Sums of |q| of 32 channels by twos, and by eights. */
static inline __m256i twos(const int8_t *q) {
    return _mm256_maddubs_epi16(_mm256_abs_epi8(load(q)), _mm256_set1_epi8(1));
}

static inline __m256i eights(const int8_t *q) {
    return _mm256_sad_epu8(_mm256_abs_epi8(load(q)), _mm256_setzero_si256());
}

/* The lowest words of a's numbers of 64 bits, then of b's; what follows is overwritten later. */
static inline __m256i words_of(__m256i a, __m256i b) {
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    const __m256i words = _mm256_packs_epi32(a, b);
    return _mm256_permutevar8x32_epi32(_mm256_packs_epi32(words, words), order);
}

/* Sums of |q| of 64 channels by groups, which are stored. */
static inline __attribute__((always_inline)) void
sum_64(const int8_t *q, int32_t group, int16_t *score) {
    const __m256i ones = _mm256_set1_epi16(1);
    if (group == 2) {
        store(score, twos(q));
        store(score + 16, twos(q + 32));
    } else if (group == 4) {
        const __m256i fours = _mm256_packs_epi32(_mm256_madd_epi16(twos(q), ones),
                                                 _mm256_madd_epi16(twos(q + 32), ones));
        store(score, _mm256_permute4x64_epi64(fours, 0xD8));
    } else if (group == 8) {
        store(score, words_of(eights(q), eights(q + 32)));
    } else {
        const __m256i a = eights(q), b = eights(q + 32);
        const __m256i both =
            _mm256_add_epi64(_mm256_unpacklo_epi64(a, b), _mm256_unpackhi_epi64(a, b));
        const __m256i sixteens = _mm256_permute4x64_epi64(both, 0xD8);
        store(score, words_of(sixteens, sixteens));
    }
}

static inline __attribute__((always_inline)) void
sum_groups(const int8_t *q, int32_t channels, int32_t group, int16_t *score) {
    for (int32_t i = 0; i < channels; i += 64) {
        sum_64(q + i, group, score + i / group);
    }
    store(score + channels / group, _mm256_setzero_si256()); /* padding */
    store(score + channels / group + 16, _mm256_setzero_si256());
}

/* ---- the cut */

/* A lane counts at most 4096 / 2 / 16 times: a byte holds it. */
static inline void count_above(const tatvpr_groups *g, const int32_t *bound, int32_t *count) {
    __m256i limit[TATVPR_ROWS_TOGETHER], lanes[TATVPR_ROWS_TOGETHER];
    for (int32_t j = 0; j < TATVPR_ROWS_TOGETHER; j++) {
        limit[j] = _mm256_set1_epi16((int16_t)bound[j]);
        lanes[j] = _mm256_setzero_si256();
    }
    for (int32_t i = 0; i < g->padded; i += 16) {
        for (int32_t j = 0; j < TATVPR_ROWS_TOGETHER; j++) {
            const __m256i reach = _mm256_cmpgt_epi16(load(g->score[j] + i), limit[j]);
            lanes[j] = _mm256_sub_epi16(lanes[j], reach);
        }
    }
    uint64_t sums = sum_four(lanes);
    for (int32_t j = 0; j < TATVPR_ROWS_TOGETHER; j++, sums >>= 16) {
        count[j] = (int32_t)(sums & 0xFFFFu);
    }
}

/* ---- what stays */

/* All ones in every byte of a group whose bit of `mask` is set, of 32 channels. */
static inline __attribute__((always_inline)) __m256i spread(uint32_t mask, int32_t group) {
    const __m256i words = _mm256_set1_epi16((int16_t)mask);
    const __m256i bits =
        group == 2   ? _mm256_setr_epi16(1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096,
                                         8192, 16384, -32768)
        : group == 4 ? _mm256_setr_epi16(1, 1, 2, 2, 4, 4, 8, 8, 16, 16, 32, 32, 64, 64, 128, 128)
        : group == 8 ? _mm256_setr_epi16(1, 1, 1, 1, 2, 2, 2, 2, 4, 4, 4, 4, 8, 8, 8, 8)
                     : _mm256_setr_epi16(1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2);
    return _mm256_cmpeq_epi16(_mm256_and_si256(words, bits), bits);
}

/* Appends the fours of `mask` among eight from number `first` on. Stores go up to seven entries
 * beyond the end, as those of append_8. */
static inline list_end append_fours(list_end end, __m256i q, int32_t first, uint32_t mask) {
    const __m128i shuffle =
        _mm_loadl_epi64((const __m128i *)(const void *)&tatvpr_compress_table[mask]);
    store(end.value, _mm256_permutevar8x32_epi32(q, _mm256_cvtepu8_epi32(shuffle)));
    _mm_storeu_si128((__m128i *)(void *)end.index,
                     _mm_add_epi16(_mm_cvtepu8_epi16(shuffle), _mm_set1_epi16((int16_t)first)));
    const int32_t count = __builtin_popcount(mask);
    end.index += count;
    end.value += 4 * count;
    return end;
}

/* One bit for each of 32 words that is all ones: of a, then of b. */
static inline uint32_t bits_of(__m256i a, __m256i b) {
    const __m256i bytes = _mm256_permute4x64_epi64(_mm256_packs_epi16(a, b), 0xD8);
    return (uint32_t)_mm256_movemask_epi8(bytes);
}

/* 32 groups are compared at once, and dropped or listed by 32 channels. */
static inline __attribute__((always_inline)) void
keep_groups(tatvpr_tile *tile, int32_t t, const tatvpr_groups *g, int32_t row, int32_t keep,
            int32_t group, int32_t list) {
    int8_t *q = tile->q + (ptrdiff_t)t * tile->q_stride;
    const __m256i cut = _mm256_set1_epi16((int16_t)g->least[row]);
    __m256i sums = _mm256_setzero_si256();
    list_end end = begin_list(tile, t, list);
    int32_t ties = keep - g->above[row]; /* of those at the cut, the first ones stay */
    for (int32_t first = 0; first < tile->k_in; first += 32 * group) {
        const __m256i a = load(g->score[row] + first / group);
        const __m256i b = load(g->score[row] + first / group + 16);
        uint64_t mask = bits_of(_mm256_cmpgt_epi16(a, cut), _mm256_cmpgt_epi16(b, cut));
        mask |= first_ties(bits_of(_mm256_cmpeq_epi16(a, cut), _mm256_cmpeq_epi16(b, cut)), &ties);
        const int32_t beyond = tatvpr_min_i32(first + 32 * group, tile->k_in);
        for (int32_t i = first; i < beyond; i += 32, mask >>= 32 / group) {
            const __m256i kept = spread((uint32_t)mask, group);
            const __m256i v = _mm256_and_si256(load(q + i), kept);
            sums = _mm256_add_epi32(sums, sum_32(v));
            if (group > 2 && list == TATVPR_LIST_FOURS) {
                const int32_t fours = _mm256_movemask_ps(_mm256_castsi256_ps(kept));
                end = append_fours(end, v, i / 4, (uint32_t)fours);
            } else if (list) {
                end = list_32(q, i, nonzero(v), end);
            } else {
                store(q + i, v);
            }
        }
    }
    finish(tile, t, list, end, sums);
}

void tatvpr_avx2_select_groups(tatvpr_tile *tile, int32_t t, int32_t rows, int32_t keep,
                               int32_t group, int32_t list) {
    static const tatvpr_group_kernels own = {sum_groups, count_above, keep_groups};
    tatvpr_select_groups(&own, tile, t, rows, keep, group, list);
}
