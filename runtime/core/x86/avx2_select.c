/* AVX2: the gate's choice. A threshold is found by comparing and counting over the whole row, four
 * candidates at a time, around the row before's at first; ties at the threshold go to the lower
 * index; kept channels are compressed by table. */
#include "avx2.h"
#include "../common/compress_table.h"

enum { MOST_CHANNELS = 4096 }; /* rows up to this are ranked from the stack; longer: portable */

static __m256i load(const void *p) { return _mm256_loadu_si256((const __m256i *)p); }

/* All ones in every byte whose bit of `mask` is set. */
static __m256i spread_bits(uint32_t mask) {
    const __m256i which = _mm256_setr_epi8(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2,
                                           2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3);
    const __m256i bits = _mm256_set1_epi64x((int64_t)0x8040201008040201);
    const __m256i bytes = _mm256_shuffle_epi8(_mm256_set1_epi32((int32_t)mask), which);
    return _mm256_cmpeq_epi8(_mm256_and_si256(bytes, bits), bits);
}

/* The lowest `*ties` ones of `equal`; takes them off *ties. */
static uint32_t first_ties(uint32_t equal, int32_t *ties) {
    const int32_t count = __builtin_popcount(equal);
    if (count <= *ties) {
        *ties -= count;
        return equal;
    }
    uint32_t kept = 0;
    for (; *ties > 0; (*ties)--) { /* once a row at most */
        kept |= equal & (~equal + 1u);
        equal &= equal - 1u;
    }
    return kept;
}

/* A row's list under construction. */
typedef struct list_end {
    uint16_t *index;
    int8_t *value;
} list_end;

/* Appends eight channels from number `first` on, those of `byte`. Stores go up to seven entries
 * beyond the end: the next append or the padding overwrites them. */
static inline list_end append_8(list_end end, const int8_t *q, __m128i first, uint32_t byte) {
    const __m128i shuffle =
        _mm_loadl_epi64((const __m128i *)(const void *)&tatvpr_compress_table[byte]);
    const __m128i values =
        _mm_shuffle_epi8(_mm_loadl_epi64((const __m128i *)(const void *)q), shuffle);
    _mm_storeu_si128((__m128i *)(void *)end.index,
                     _mm_add_epi16(_mm_cvtepu8_epi16(shuffle), first));
    _mm_storel_epi64((__m128i *)(void *)end.value, values);
    const int32_t count = __builtin_popcount(byte);
    end.index += count;
    end.value += count;
    return end;
}

/* Channels `base` .. `base` + 31 of q stay where `kept` is set. */
static inline __m256i keep_32(int8_t *q, int32_t base, __m256i kept) {
    const __m256i v = _mm256_and_si256(load(q + base), kept);
    _mm256_storeu_si256((__m256i *)(void *)(q + base), v);
    return v;
}

/* Those of `mask` join the list. */
static inline list_end list_32(const int8_t *q, int32_t base, uint32_t mask, list_end end) {
    const __m128i eight = _mm_set1_epi16(8);
    __m128i first = _mm_set1_epi16((int16_t)base);
    end = append_8(end, q + base, first, mask & 255u);
    first = _mm_add_epi16(first, eight);
    end = append_8(end, q + base + 8, first, mask >> 8 & 255u);
    first = _mm_add_epi16(first, eight);
    end = append_8(end, q + base + 16, first, mask >> 16 & 255u);
    first = _mm_add_epi16(first, eight);
    return append_8(end, q + base + 24, first, mask >> 24);
}

static inline uint32_t nonzero(__m256i v) {
    return ~(uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(v, _mm256_setzero_si256()));
}

/* Sums by fours. */
static inline __m256i sum_32(__m256i v) {
    const __m256i pairs = _mm256_maddubs_epi16(_mm256_set1_epi8(1), v);
    return _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
}

static list_end begin_list(const tatvpr_tile *tile, int32_t t, int32_t list) {
    list_end end = {NULL, NULL};
    if (list) {
        end.index = tile->index + (ptrdiff_t)t * tile->list_stride;
        end.value = tile->value + (ptrdiff_t)t * tile->list_stride;
    }
    return end;
}

static void finish(tatvpr_tile *tile, int32_t t, int32_t list, list_end end, __m256i sums) {
    tile->sum[t] = tatvpr_sum_epi32(sums);
    if (list) {
        const uint16_t *index = tile->index + (ptrdiff_t)t * tile->list_stride;
        int32_t n = (int32_t)(end.index - index);
        tile->count[t] = n;
        for (; n % 4 != 0; n++) { /* the padding of the list */
            *end.index++ = 0;
            *end.value++ = 0;
        }
    }
}

/* ---- single channels */

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
    const __m256i zero = _mm256_setzero_si256();
    __m256i all = _mm256_sad_epu8(counts[0], zero);
    all = _mm256_add_epi64(all, _mm256_slli_epi64(_mm256_sad_epu8(counts[1], zero), 16));
    all = _mm256_add_epi64(all, _mm256_slli_epi64(_mm256_sad_epu8(counts[2], zero), 32));
    all = _mm256_add_epi64(all, _mm256_slli_epi64(_mm256_sad_epu8(counts[3], zero), 48));
    __m128i two = _mm_add_epi64(_mm256_castsi256_si128(all), _mm256_extracti128_si256(all, 1));
    two = _mm_add_epi64(two, _mm_unpackhi_epi64(two, two));
    return (uint64_t)_mm_cvtsi128_si64(two);
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
    uint8_t magnitude[MOST_CHANNELS] __attribute__((aligned(32)));
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

/* ---- aligned groups of four */

static int32_t count_groups_above(const int16_t *scores, int32_t padded, int32_t bound) {
    const __m256i limit = _mm256_set1_epi16((int16_t)bound);
    __m256i counts = _mm256_setzero_si256();
    for (int32_t i = 0; i < padded; i += 16) {
        counts = _mm256_sub_epi16(counts, _mm256_cmpgt_epi16(load(scores + i), limit));
    }
    return tatvpr_sum_epi32(_mm256_madd_epi16(counts, _mm256_set1_epi16(1)));
}

/* All ones in the four bytes of every group whose bit of `mask` is set. */
static inline __m256i spread_groups(uint32_t mask) {
    const __m256i bits = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    const __m256i lanes = _mm256_set1_epi32((int32_t)mask);
    return _mm256_cmpeq_epi32(_mm256_and_si256(lanes, bits), bits);
}

/* Appends the groups of `mask` among eight from number `first` on. Stores go up to seven entries
 * beyond the end, as those of append_8. */
static inline list_end append_groups(list_end end, __m256i q, int32_t first, uint32_t mask) {
    const __m128i shuffle =
        _mm_loadl_epi64((const __m128i *)(const void *)&tatvpr_compress_table[mask]);
    _mm256_storeu_si256((__m256i *)(void *)end.value,
                        _mm256_permutevar8x32_epi32(q, _mm256_cvtepu8_epi32(shuffle)));
    _mm_storeu_si128((__m128i *)(void *)end.index,
                     _mm_add_epi16(_mm_cvtepu8_epi16(shuffle), _mm_set1_epi16((int16_t)first)));
    const int32_t count = __builtin_popcount(mask);
    end.index += count;
    end.value += 4 * count;
    return end;
}

/* `list`: fours or nothing. */
static void select_fours(tatvpr_tile *tile, int32_t t, int32_t keep, int32_t list) {
    int16_t scores[MOST_CHANNELS / 4];
    const int32_t channels = (tile->k_in + 63) / 64 * 64; /* the row is padded that far */
    const int32_t groups = channels / 4;
    int8_t *q = tile->q + (ptrdiff_t)t * tile->q_stride;
    const __m256i ones8 = _mm256_set1_epi8(1);
    const __m256i ones16 = _mm256_set1_epi16(1);
    for (int32_t i = 0; i < channels; i += 64) {
        const __m256i a = _mm256_maddubs_epi16(_mm256_abs_epi8(load(q + i)), ones8);
        const __m256i b = _mm256_maddubs_epi16(_mm256_abs_epi8(load(q + i + 32)), ones8);
        const __m256i packed =
            _mm256_packs_epi32(_mm256_madd_epi16(a, ones16), _mm256_madd_epi16(b, ones16));
        _mm256_storeu_si256((__m256i *)(void *)(scores + i / 4),
                            _mm256_permute4x64_epi64(packed, 0xD8));
    }
    int32_t least = 0;
    for (int32_t bit = 256; bit > 0; bit /= 2) {
        const int32_t reached = count_groups_above(scores, groups, least + bit - 1);
        least += reached >= keep ? bit : 0;
    }
    int32_t ties = keep - count_groups_above(scores, groups, least);
    const __m256i bound = _mm256_set1_epi32(least);
    list_end end = begin_list(tile, t, list);
    __m256i sums = _mm256_setzero_si256();
    for (int32_t i = 0; i < channels; i += 32) {
        const __m256i s = _mm256_cvtepi16_epi32(
            _mm_loadu_si128((const __m128i *)(const void *)(scores + i / 4)));
        const __m256 above = _mm256_castsi256_ps(_mm256_cmpgt_epi32(s, bound));
        const __m256 equal = _mm256_castsi256_ps(_mm256_cmpeq_epi32(s, bound));
        const uint32_t first = first_ties((uint32_t)_mm256_movemask_ps(equal), &ties);
        const uint32_t mask = (uint32_t)_mm256_movemask_ps(above) | first;
        const __m256i v = keep_32(q, i, spread_groups(mask));
        sums = _mm256_add_epi32(sums, sum_32(v));
        end = list ? append_groups(end, v, i / 4, mask) : end;
    }
    tile->sum[t] = tatvpr_sum_epi32(sums);
    tile->count[t] = list ? keep : 0;
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
    const int all = keep >= tile->k_in / group;
    const int short_row = tile->k_in <= MOST_CHANNELS;
    if (group == 4 && !all && short_row && list != TATVPR_LIST_CHANNELS) {
        select_fours(tile, t, keep, list);
    } else if (list == TATVPR_LIST_FOURS) {
        tatvpr_avx2_select(tile, t, keep, group, TATVPR_LIST_NOTHING);
        tatvpr_list_fours(tile, t);
    } else if (all) {
        keep_all(tile, t, list);
    } else if (group == 1 && short_row) {
        select_channels(tile, t, keep, list);
    } else {
        tatvpr_portable_select(tile, t, keep, group, list);
    }
}
