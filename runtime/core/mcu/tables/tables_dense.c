/* Dense ternary matmul on cores without vectors or packed arithmetic (RV32IMAC): look-up tables
 * as in dsp_dense.c, in C.
 *
 * Two tokens share a word as low + high * 65536, and plain additions keep that form: what a low
 * half borrows is added back when the word is taken apart. Safe for 258 channels of |q| <= 127.
 */
#include "../../common/core.h"

#if defined(TATVPR_MCU_TABLES)

#include "../mcu.h"
#include "tables_epilogue.h"

#define PASS_TOKENS 8
#define ENTRIES 81     /* 3^4 */
#define ENTRY_WORDS 4  /* eight tokens */
#define BLOCK_WORDS 6  /* of weights a row: 24 bytes, 96 channels */
#define TABLE_WORDS (4 * BLOCK_WORDS * ENTRIES * ENTRY_WORDS)
#define BLOCKS_PER_WIDENING 2

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

/* sums[row][4] += the entries of `bytes` weight bytes a row. */
static void look_up(const uint8_t *weight, int32_t row_bytes, int32_t bytes, const uint32_t *table,
                    uint32_t *sums, int32_t rows) {
    for (int32_t n = 0; n < rows; n++, weight += row_bytes, sums += ENTRY_WORDS) {
        const uint8_t *end = weight + bytes;
        const uint32_t *group = table;
        uint32_t c0 = sums[0], c1 = sums[1], c2 = sums[2], c3 = sums[3];
        for (const uint8_t *w = weight; w != end; w += 4, group += 4 * ENTRIES * ENTRY_WORDS) {
#pragma GCC unroll 4
            for (int32_t i = 0; i < 4; i++) {
                const uint32_t *e = group + (int32_t)w[i] * ENTRY_WORDS + i * ENTRIES * ENTRY_WORDS;
                c0 += e[0];
                c1 += e[1];
                c2 += e[2];
                c3 += e[3];
            }
        }
        sums[0] = c0;
        sums[1] = c1;
        sums[2] = c2;
        sums[3] = c3;
    }
}

/* wide[n][token] += sums[n][token], and sums become 0. */
static void widen_sums(uint32_t *sums, int32_t *wide, int32_t words) {
    for (int32_t i = 0; i < words; i++, wide += 2) {
        wide[0] += (int16_t)sums[i];
        wide[1] += (int32_t)(sums[i] + 0x8000u) >> 16;
        sums[i] = 0;
    }
}

static void some_tokens(const tatvpr_matmul *job, int32_t t0, int32_t n0, int32_t rows,
                        uint32_t *memory) {
    const tatvpr_tile *tile = job->tile;
    const int32_t tokens = tatvpr_min_i32(PASS_TOKENS, tile->tokens - t0);
    const int32_t row_words = tatvpr_lut4_row_words(job->op->k_in);
    const int8_t *q[PASS_TOKENS];
    for (int32_t i = 0; i < PASS_TOKENS; i++) { /* past the end: the last row again, not used */
        q[i] = tile->q + (ptrdiff_t)(t0 + tatvpr_min_i32(i, tokens - 1)) * tile->q_stride;
    }
    uint32_t *sums = memory + TABLE_WORDS;
    int32_t *wide = (int32_t *)(sums + rows * ENTRY_WORDS);
    for (int32_t i = 0; i < rows * ENTRY_WORDS; i++) {
        sums[i] = 0;
        wide[2 * i] = 0;
        wide[2 * i + 1] = 0;
    }
    int32_t blocks = 0;
    for (int32_t first = 0; first < row_words; first += BLOCK_WORDS) {
        const int32_t words = tatvpr_min_i32(BLOCK_WORDS, row_words - first);
        write_tables(q, 16 * first, 16 * words, memory);
        look_up(job->weight + 4 * ((ptrdiff_t)n0 * row_words + first), 4 * row_words, 4 * words,
                memory, sums, rows);
        if (++blocks % BLOCKS_PER_WIDENING == 0 || first + words == row_words) {
            widen_sums(sums, wide, rows * ENTRY_WORDS);
        }
    }
    for (int32_t i = 0; i < tokens; i++) {
        tatvpr_tables_outputs(job, t0 + i, n0, rows, wide + i, PASS_TOKENS);
    }
}

void tatvpr_tables_dense(const tatvpr_matmul *job) {
    uint32_t *memory = (uint32_t *)(void *)job->panel;
    const size_t panel_words = TATVPR_PANEL_BYTES((uint32_t)job->op->k_in) / 4;
    const int32_t room = (int32_t)((panel_words - TABLE_WORDS) / (ENTRY_WORDS + PASS_TOKENS));
    for (int32_t n0 = 0; n0 < job->op->n_out; n0 += room) {
        const int32_t rows = tatvpr_min_i32(room, job->op->n_out - n0);
        for (int32_t t = 0; t < job->tile->tokens; t += PASS_TOKENS) {
            some_tokens(job, t, n0, rows, memory);
        }
    }
}

#endif
