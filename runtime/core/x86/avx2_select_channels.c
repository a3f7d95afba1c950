/* AVX2: the gate's choice among single channels, in the order of channel_select.h. */
#include "avx2_select.h"
#include "channel_select.h"

/* The magnitudes of 32 channels: at most 127, so that signed comparisons do. */
static inline __m256i magnitudes(const int8_t *q, int32_t i) {
    return _mm256_abs_epi8(load(q + i));
}

/* a >= b is a > b - 1; what is above 127 is reached by nothing. */
static inline __m256i just_below(int32_t limit) {
    return _mm256_set1_epi8((int8_t)(tatvpr_min_i32(limit, 128) - 1));
}

static inline __attribute__((always_inline)) int32_t count(const int8_t *q, int32_t k_in,
                                                           int32_t limit) {
    const __m256i below = just_below(limit);
    __m256i n = _mm256_setzero_si256();
    for (int32_t i = 0; i < k_in; i += 32) { /* byte counters: at most 128 */
        n = _mm256_sub_epi8(n, _mm256_cmpgt_epi8(magnitudes(q, i), below));
    }
    return sum_bytes(n);
}

static inline __attribute__((always_inline)) void count_near(const int8_t *q, int32_t k_in,
                                                             int32_t first, int32_t *n) {
    __m256i below[TATVPR_NEAR], counts[TATVPR_NEAR];
    for (int32_t j = 0; j < TATVPR_NEAR; j++) {
        below[j] = just_below(first + j);
        counts[j] = _mm256_setzero_si256();
    }
    for (int32_t i = 0; i < k_in; i += 32) {
        const __m256i a = magnitudes(q, i);
        for (int32_t j = 0; j < TATVPR_NEAR; j++) {
            counts[j] = _mm256_sub_epi8(counts[j], _mm256_cmpgt_epi8(a, below[j]));
        }
    }
    const uint64_t all = sum_four(counts);
    for (int32_t j = 0; j < TATVPR_NEAR; j++) {
        n[j] = (int32_t)(all >> 16 * j & 0xFFFFu);
    }
}

/* The channel from which on all those at the cut go, whose first `ties` stay. */
static inline __attribute__((always_inline)) int32_t end_of_ties(const int8_t *q, int32_t k_in,
                                                                 __m256i cut, int32_t ties) {
    for (int32_t i = 0; i < k_in; i += 64) {
        uint64_t equal = bits_of_64(_mm256_cmpeq_epi8(magnitudes(q, i), cut),
                                    _mm256_cmpeq_epi8(magnitudes(q, i + 32), cut));
        const int32_t here = __builtin_popcountll(equal);
        if (here > ties) {
            for (; ties > 0; ties--) {
                equal &= equal - 1u;
            }
            return i + __builtin_ctzll(equal);
        }
        ties -= here;
    }
    return k_in;
}

static inline __attribute__((always_inline)) void keep_row(tatvpr_tile *tile, int32_t t,
                                                           int32_t k_in, int32_t keep,
                                                           int32_t list,
                                                           const tatvpr_cut_row *r) {
    /* What is added to the cut around the end of its ties. */
    static const int8_t steps[64] = {
        -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1,
        -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1};
    int8_t *q = tile->q + (ptrdiff_t)t * tile->q_stride;
    const __m256i cut = _mm256_set1_epi8((int8_t)r->least);
    const __m256i ones = _mm256_set1_epi8(1);
    const int32_t ties_end = end_of_ties(q, k_in, cut, keep - r->above);
    __m256i sums = _mm256_setzero_si256(); /* of 16 bits: 254 a turn, of which there are 128 */
    list_end end = begin_list(tile, t, list);
    for (int32_t i = 0; i < k_in; i += 32) {
        const int32_t at = tatvpr_max_i32(0, tatvpr_min_i32(32 + i - ties_end, 32));
        const __m256i v = load(q + i);
        const __m256i kept =
            _mm256_cmpgt_epi8(_mm256_abs_epi8(v), _mm256_add_epi8(cut, load(steps + at)));
        const __m256i stays = _mm256_and_si256(v, kept);
        sums = _mm256_add_epi16(sums, _mm256_maddubs_epi16(ones, stays));
        if (list) {
            end = list_32(q, i, (uint32_t)_mm256_movemask_epi8(kept), end);
        } else {
            _mm256_storeu_si256((__m256i *)(void *)(q + i), stays);
        }
    }
    finish(tile, t, list, end, _mm256_madd_epi16(sums, _mm256_set1_epi16(1)));
}

void tatvpr_avx2_select_channels(tatvpr_tile *tile, int32_t t, int32_t rows, int32_t keep,
                                 int32_t list) {
    static const tatvpr_channel_kernels own = {count, count_near, keep_row};
    tatvpr_select_channels(&own, tile, t, rows, keep, list);
}
