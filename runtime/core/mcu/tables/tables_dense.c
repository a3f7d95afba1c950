/* Dense ternary matmul on cores without vectors or packed arithmetic (RV32IMAC): look-up tables
 * as in dsp_dense.c, in C.
 *
 * Two tokens share a word as low + high * 65536, and plain additions keep that form: what a low
 * half borrows is added back when the word is taken apart. Safe for 258 channels of |q| <= 127.
 */
#include "../../common/core.h"

#if defined(TATVPR_MCU_TABLES)

#include "../lut4.h"
#include "tables_epilogue.h"

/* Sums of one group of four channels for two tokens, every ENTRY_WORDS words of `to`. */
static void write_pair(const int8_t *a, const int8_t *b, uint32_t *to) {
    const uint32_t p0 = (uint32_t)a[0] + ((uint32_t)b[0] << 16);
    const uint32_t p1 = (uint32_t)a[1] + ((uint32_t)b[1] << 16);
    const uint32_t p2 = (uint32_t)a[2] + ((uint32_t)b[2] << 16);
    const uint32_t p3 = (uint32_t)a[3] + ((uint32_t)b[3] << 16);
    uint32_t high = 0u - p2 - p3; /* digits 2 and 3 */
    for (int32_t i = 0; i < 9; i++) {
        uint32_t middle = high - p1;
        for (int32_t j = 0; j < 3; j++, to += 3 * ENTRY_WORDS) {
            to[0] = middle - p0;
            to[ENTRY_WORDS] = middle;
            to[2 * ENTRY_WORDS] = middle + p0;
            middle += p1;
        }
        high += i % 3 != 2 ? p2 : p3 - 2 * p2;
    }
}

static void write_tables(const int8_t *const *rows, int32_t channel, int32_t channels,
                         uint32_t *table) {
    for (int32_t c = channel; c < channel + channels; c += 4, table += ENTRIES * ENTRY_WORDS) {
        for (int32_t pair = 0; pair < ENTRY_WORDS; pair++) {
            write_pair(rows[2 * pair] + c, rows[2 * pair + 1] + c, table + pair);
        }
    }
}

/* Four words of an entry onto four sums. That the address is in a register of its own keeps the
 * compiler from adding a group's offset to every index: loads have room for one group's. */
#define ADD_ENTRY(base, byte, group)                                            \
    {                                                                           \
        const uint32_t *e = (base) + (int32_t)(byte) * ENTRY_WORDS;             \
        __asm("" : "+r"(e));                                                    \
        c0 += e[(group) * ENTRIES * ENTRY_WORDS];                               \
        c1 += e[(group) * ENTRIES * ENTRY_WORDS + 1];                           \
        c2 += e[(group) * ENTRIES * ENTRY_WORDS + 2];                           \
        c3 += e[(group) * ENTRIES * ENTRY_WORDS + 3];                           \
    }

/* sums[row][4] += the entries of `bytes` weight bytes a row. */
static void look_up(const uint8_t *weight, int32_t row_bytes, int32_t bytes, const uint32_t *table,
                    uint32_t *sums, int32_t rows) {
    for (int32_t n = 0; n < rows; n++, weight += row_bytes, sums += ENTRY_WORDS) {
        const uint8_t *end = weight + bytes;
        const uint32_t *group = table;
        uint32_t c0 = sums[0], c1 = sums[1], c2 = sums[2], c3 = sums[3];
        for (const uint8_t *w = weight; w != end; w += 4) {
            const uint32_t *later = group + 2 * ENTRIES * ENTRY_WORDS;
            __asm("" : "+r"(later));
            ADD_ENTRY(group, w[0], 0)
            ADD_ENTRY(group, w[1], 1)
            ADD_ENTRY(later, w[2], 0)
            ADD_ENTRY(later, w[3], 1)
            group = later + 2 * ENTRIES * ENTRY_WORDS;
        }
        sums[0] = c0;
        sums[1] = c1;
        sums[2] = c2;
        sums[3] = c3;
    }
}

static inline int32_t low_sum(uint32_t pair) { return (int16_t)pair; }
static inline int32_t high_sum(uint32_t pair) { return (int32_t)(pair + 0x8000u) >> 16; }

/* wide[n][token] += sums[n][token], and sums become 0. */
static void widen_sums(uint32_t *sums, int32_t *wide, int32_t words) {
    for (int32_t i = 0; i < words; i++, wide += 2) {
        wide[0] += low_sum(sums[i]);
        wide[1] += high_sum(sums[i]);
        sums[i] = 0;
    }
}

/* Outputs n0 .. n0 + rows of the tokens t and t + 1, or of t alone, from sums that share a word,
 * `step` words apart. What differs between matrices is constant where this is inlined. */
static inline __attribute__((always_inline)) void
pair_outputs(const tatvpr_matmul *job, int32_t t, int32_t n0, int32_t rows, const uint32_t *sums,
             int32_t step, int per_row, int add) {
    const int32_t both = t + 1 < job->tile->tokens; /* else the second is the first, written last */
    const float s0 = job->tile->s[t];
    const float s1 = job->tile->s[t + both];
    const float *bias = job->bias + n0;
    const float *scales = job->scale + (per_row ? n0 : 0);
    const float one_scale = scales[0];
    const ptrdiff_t at = (ptrdiff_t)t * job->y_stride + n0;
    float *y0 = job->y + at;
    float *y1 = y0 + (both ? job->y_stride : 0);
    const float *r0 = add ? job->residual + at : NULL;
    const float *r1 = add ? r0 + (both ? job->y_stride : 0) : NULL;
    for (int32_t n = 0; n < rows; n++, sums += step) {
        const float scale = per_row ? scales[n] : one_scale;
        const float v0 = ((float)low_sum(*sums) * s0) * scale + bias[n];
        const float v1 = ((float)high_sum(*sums) * s1) * scale + bias[n];
        const float w0 = add ? r0[n] + v0 : v0;
        y1[n] = add ? r1[n] + v1 : v1;
        y0[n] = w0;
    }
}

static void write_pair_outputs(const tatvpr_matmul *job, int32_t t, int32_t n0, int32_t rows,
                               const uint32_t *sums, int32_t step) {
    TATVPR_OF_KIND(job, pair_outputs, job, t, n0, rows, sums, step);
}

/* Outputs n0 .. n0 + rows of up to eight tokens from t0. `memory` holds tables and sums. */
static void eight_tokens(const tatvpr_matmul *job, int32_t t0, int32_t n0, int32_t rows,
                         uint32_t *memory) {
    const tatvpr_tile *tile = job->tile;
    const int32_t tokens = tatvpr_min_i32(PASS_TOKENS, tile->tokens - t0);
    const int32_t row_words = tatvpr_lut4_row_words(job->op->k_in);
    const int narrow = is_narrow(job->op);
    const int8_t *q[PASS_TOKENS];
    for (int32_t i = 0; i < PASS_TOKENS; i++) { /* past the end: the last row again, not used */
        q[i] = tile->q + (ptrdiff_t)(t0 + tatvpr_min_i32(i, tokens - 1)) * tile->q_stride;
    }
    uint32_t *sums = memory + TABLE_WORDS;
    int32_t *wide = (int32_t *)(sums + rows * ENTRY_WORDS);
    for (int32_t i = 0; i < rows * ENTRY_WORDS; i++) {
        sums[i] = 0;
    }
    for (int32_t i = 0; !narrow && i < rows * PASS_TOKENS; i++) {
        wide[i] = 0;
    }
    int32_t blocks = 0;
    for (int32_t first = 0; first < row_words; first += BLOCK_WORDS) {
        const int32_t words = tatvpr_min_i32(BLOCK_WORDS, row_words - first);
        write_tables(q, 16 * first, 16 * words, memory);
        look_up(job->weight + 4 * ((ptrdiff_t)n0 * row_words + first), 4 * row_words, 4 * words,
                memory, sums, rows);
        if (!narrow && (++blocks % BLOCKS_PER_WIDENING == 0 || first + words == row_words)) {
            widen_sums(sums, wide, rows * ENTRY_WORDS);
        }
    }
    for (int32_t i = 0; narrow && i < tokens; i += 2) {
        write_pair_outputs(job, t0 + i, n0, rows, sums + i / 2, ENTRY_WORDS);
    }
    for (int32_t i = 0; !narrow && i < tokens; i++) {
        tatvpr_tables_outputs(job, t0 + i, n0, rows, wide + i, PASS_TOKENS);
    }
}

/* ---- one or two tokens that are left over: entries of one word */

/* The table of four channels, as write_pair() has it, without gaps. */
static void write_two(const int8_t *a, const int8_t *b, uint32_t *to) {
    uint32_t p[4];
    for (int32_t i = 0; i < 4; i++) {
        p[i] = (uint32_t)a[i] + ((uint32_t)b[i] << 16);
    }
    const uint32_t up2 = p[2] - 2 * p[1]; /* digit 1 has fallen by two */
    const uint32_t up3 = p[3] - 2 * p[1] - 2 * p[2];
    uint32_t sum = 0u - p[1] - p[2] - p[3];
    for (int32_t i = 0; i < ENTRIES / 3; i++, to += 3) {
        to[0] = sum - p[0];
        to[1] = sum;
        to[2] = sum + p[0];
        sum += i % 3 != 2 ? p[1] : i % 9 != 8 ? up2 : up3;
    }
}

/* sums[row] += the entries of `words` words of weights a row. */
static void look_up_two(const uint8_t *weight, int32_t row_bytes, int32_t words,
                        const uint32_t *table, uint32_t *sums, int32_t rows) {
    for (int32_t n = 0; n < rows; n++, weight += row_bytes) {
        const uint32_t *group = table;
        const uint8_t *end = weight + 4 * words;
        uint32_t sum = 0;
        for (const uint8_t *w = weight; w != end; w += 4, group += 4 * ENTRIES) {
#pragma GCC unroll 4
            for (int32_t i = 0; i < 4; i++) {
                const uint32_t *e = group + w[i];
                __asm("" : "+r"(e));
                sum += e[i * ENTRIES];
            }
        }
        sums[n] = sum;
    }
}

static void two_tokens(const tatvpr_matmul *job, int32_t t0, int32_t n0, int32_t rows,
                       uint32_t *memory) {
    const tatvpr_tile *tile = job->tile;
    const int32_t tokens = tatvpr_min_i32(2, tile->tokens - t0);
    const int32_t row_words = tatvpr_lut4_row_words(job->op->k_in);
    const int32_t part_words = BLOCKS_PER_WIDENING * BLOCK_WORDS;
    const int8_t *a = tile->q + (ptrdiff_t)t0 * tile->q_stride;
    const int8_t *b = a + (tokens == 2 ? tile->q_stride : 0);
    uint32_t *sums = memory + TABLE_WORDS;
    int32_t *wide = (int32_t *)(sums + rows);
    for (int32_t first = 0; first < row_words; first += part_words) {
        const int32_t words = tatvpr_min_i32(part_words, row_words - first);
        for (int32_t group = 0; group < 4 * words; group++) {
            const int32_t channel = 16 * first + 4 * group;
            write_two(a + channel, b + channel, memory + group * ENTRIES);
        }
        look_up_two(job->weight + 4 * ((ptrdiff_t)n0 * row_words + first), 4 * row_words, words,
                    memory, sums, rows);
        for (int32_t n = 0; !is_narrow(job->op) && n < rows; n++) {
            wide[2 * n] = low_sum(sums[n]) + (first == 0 ? 0 : wide[2 * n]);
            wide[2 * n + 1] = high_sum(sums[n]) + (first == 0 ? 0 : wide[2 * n + 1]);
        }
    }
    if (is_narrow(job->op)) {
        write_pair_outputs(job, t0, n0, rows, sums, 1);
        return;
    }
    for (int32_t i = 0; i < tokens; i++) {
        tatvpr_tables_outputs(job, t0 + i, n0, rows, wide + i, 2);
    }
}

void tatvpr_tables_dense(const tatvpr_matmul *job) {
    uint32_t *memory = (uint32_t *)(void *)job->panel;
    const size_t panel_words = TATVPR_PANEL_BYTES((uint32_t)job->op->k_in) / 4;
    /* outputs whose sums fit beside the tables; for more of them tables are written again */
    const size_t words_a_row = is_narrow(job->op) ? ENTRY_WORDS : ENTRY_WORDS + PASS_TOKENS;
    const int32_t room = (int32_t)((panel_words - TABLE_WORDS) / words_a_row);
    const int32_t tokens = job->tile->tokens;
    for (int32_t n0 = 0; n0 < job->op->n_out; n0 += room) {
        const int32_t rows = tatvpr_min_i32(room, job->op->n_out - n0);
        int32_t t = 0;
        for (; tokens - t > 2; t += PASS_TOKENS) {
            eight_tokens(job, t, n0, rows, memory);
        }
        if (t < tokens) {
            two_tokens(job, t, n0, rows, memory);
        }
    }
}

#endif
