/* Dense ternary matmul on Cortex-M4 and M7: look-up tables, eight tokens at a time.
 *
 * Weights (TATVPR_LAYOUT_LUT4): a byte holds four ternary weights of one output as a number of
 * base 3, sum (w_i + 1) * 3^i, 0 to 80; a row is ceil(K / 16) words.
 *
 * Four channels have 81 possible weighted sums, whatever the output. For a block of channels and
 * eight tokens all of them are tabulated once (one 16-byte entry: eight int16), and every output
 * then costs one table entry and four two-lane additions for 32 multiply-accumulates. The lanes
 * are 16 bits: safe for 258 channels of |q| <= 127, so sums are widened every two blocks.
 *
 * The two loops that count are written in assembler, because their speed is the assignment of all
 * fourteen registers. A table fits the tightly coupled memory of an M7 (31 kB).
 */
#include "../../common/core.h"
#include "../../common/floats.h"

#if defined(TATVPR_MCU_DSP)

#include <arm_acle.h>

#include "../epilogue.h"
#include "../lut4.h"
#include "dsp_simd.h"

/* of TATVPR_ASSEMBLER */
#pragma GCC diagnostic ignored "-Wunused-parameter"

/* The table of one group of four channels, in rising order of index. `steps` is five entries:
 * the first sum, then what changes when digit 0, 1, 2, 3 of the index is counted up (and those
 * below it fall from 2 to 0). r0-r3 the running sum, r4-r7 and r8-r11 the two commonest steps. */
TATVPR_ASSEMBLER static void write_table(uint32_t *table, const uint32_t *steps) {
    __asm volatile(
        "push {r4-r11, lr}\n"
        "mov r12, r0\n"
        "mov lr, r1\n"
        "ldm lr!, {r0-r11}\n"
        ".macro STEP a, b, c, d\n"
        " sadd16 r0, r0, \\a\n sadd16 r1, r1, \\b\n sadd16 r2, r2, \\c\n sadd16 r3, r3, \\d\n"
        ".endm\n"
        ".macro THREE\n"
        " stm r12!, {r0-r3}\n STEP r4, r5, r6, r7\n"
        " stm r12!, {r0-r3}\n STEP r4, r5, r6, r7\n"
        " stm r12!, {r0-r3}\n"
        ".endm\n"
        ".macro NINE\n"
        " THREE\n STEP r8, r9, r10, r11\n THREE\n STEP r8, r9, r10, r11\n THREE\n"
        ".endm\n"
        ".macro RARE_STEP at\n" /* borrows r8-r11; lr points behind the first three entries */
        " ldrd r8, r9, [lr, #\\at]\n ldrd r10, r11, [lr, #\\at + 8]\n"
        " STEP r8, r9, r10, r11\n"
        " ldrd r8, r9, [lr, #-16]\n ldrd r10, r11, [lr, #-8]\n"
        ".endm\n"
        ".macro TWENTY_SEVEN\n"
        " NINE\n RARE_STEP 0\n NINE\n RARE_STEP 0\n NINE\n"
        ".endm\n"
        "TWENTY_SEVEN\n RARE_STEP 16\n TWENTY_SEVEN\n RARE_STEP 16\n TWENTY_SEVEN\n"
        "pop {r4-r11, pc}\n"
        ".purgem STEP\n.purgem THREE\n.purgem NINE\n.purgem RARE_STEP\n.purgem TWENTY_SEVEN\n");
}

typedef struct lookup_job {
    const uint8_t *weight; /* first row, at the block's first word */
    uint32_t row_skip;     /* from the end of a row's block to the next row's: bytes */
    const uint32_t *table;
    uint32_t *sums;        /* [rows][4]: eight int16 */
    uint32_t block_bytes;  /* of a row: 4 * words */
    int32_t rows;          /* > 0; counted down */
} lookup_job;

/* sums[row] += table entries of its bytes. r4-r7 sums, r8-r11 an entry, r12 four weight bytes,
 * lr an index, r0 weights, r1 where they end, r2 the group's table, r3 sums' address. */
TATVPR_ASSEMBLER static void look_up(lookup_job *job) {
    __asm volatile(
        "push {r0, r4-r11, lr}\n" /* [sp] = job */
        "mov r12, r0\n"
        "ldr r3, [r12, #12]\n"
        "ldr r0, [r12, #0]\n"
        ".macro ENTRY\n"
        " add lr, r2, lr, lsl #4\n ldm lr, {r8-r11}\n"
        " sadd16 r4, r4, r8\n sadd16 r5, r5, r9\n sadd16 r6, r6, r10\n sadd16 r7, r7, r11\n"
        " add r2, r2, #1296\n"
        ".endm\n"
        ".macro WORD\n"
        " ldr r12, [r0], #4\n"
        " uxtb lr, r12\n ENTRY\n ubfx lr, r12, #8, #8\n ENTRY\n"
        " ubfx lr, r12, #16, #8\n ENTRY\n lsr lr, r12, #24\n ENTRY\n"
        ".endm\n"
        "1:\n"
        "ldr r12, [sp]\n"
        "ldr r2, [r12, #8]\n"
        "ldr r1, [r12, #16]\n"
        "ldm r3, {r4-r7}\n"
        "lsls lr, r1, #29\n" /* an odd number of words? the sign is bit 2 */
        "add r1, r0, r1\n"
        "bmi 3f\n"
        "2:\n"
        "WORD\n"
        "3:\n"
        "WORD\n"
        "cmp r0, r1\n"
        "bne 2b\n"
        "ldr r12, [sp]\n"
        "stm r3!, {r4-r7}\n"
        "ldr r1, [r12, #4]\n"
        "ldr r2, [r12, #20]\n"
        "add r0, r0, r1\n"
        "subs r2, r2, #1\n"
        "str r2, [r12, #20]\n"
        "bne 1b\n"
        "pop {r0, r4-r11, pc}\n"
        ".purgem ENTRY\n.purgem WORD\n");
}

static inline uint32_t word_at(const int8_t *p) { return *(const uint32_t *)(const void *)p; }

static inline uint32_t add2(uint32_t a, uint32_t b) {
    return (uint32_t)__sadd16((int16x2_t)a, (int16x2_t)b);
}
static inline uint32_t sub2(uint32_t a, uint32_t b) {
    return (uint32_t)__ssub16((int16x2_t)a, (int16x2_t)b);
}
/* Tables of all groups of one block, for the eight rows `rows`. */
static void write_tables(const int8_t *const *rows, int32_t channel, int32_t channels,
                         uint32_t *table) {
    uint32_t steps[5 * ENTRY_WORDS];
    for (int32_t c = channel; c < channel + channels; c += 4, table += ENTRIES * ENTRY_WORDS) {
        for (int32_t pair = 0; pair < ENTRY_WORDS; pair++) {
            const uint32_t a = word_at(rows[2 * pair] + c);
            const uint32_t b = word_at(rows[2 * pair + 1] + c);
            const uint32_t p0 = tatvpr_low_halves(tatvpr_widen_even(a), tatvpr_widen_even(b));
            const uint32_t p1 = tatvpr_low_halves(tatvpr_widen_odd(a), tatvpr_widen_odd(b));
            const uint32_t p2 = tatvpr_high_halves(tatvpr_widen_even(a), tatvpr_widen_even(b));
            const uint32_t p3 = tatvpr_high_halves(tatvpr_widen_odd(a), tatvpr_widen_odd(b));
            const uint32_t fall1 = add2(p0, p0);
            const uint32_t fall2 = add2(fall1, add2(p1, p1));
            const uint32_t fall3 = add2(fall2, add2(p2, p2));
            steps[pair] = sub2(0, add2(add2(p0, p1), add2(p2, p3)));
            steps[pair + 4] = p0;
            steps[pair + 8] = sub2(p1, fall1);
            steps[pair + 12] = sub2(p2, fall2);
            steps[pair + 16] = sub2(p3, fall3);
        }
        write_table(table, steps);
    }
}

static void zero_words(uint32_t *to, int32_t words) {
    for (int32_t i = 0; i < words; i++) {
        to[i] = 0;
    }
}

/* wide[n][token] += sums[n][token], and sums become 0. */
static void widen_sums(uint32_t *sums, int32_t *wide, int32_t words) {
    for (int32_t i = 0; i < words; i++, wide += 2) {
        wide[0] += (int16_t)sums[i];
        wide[1] += (int32_t)sums[i] >> 16;
        sums[i] = 0;
    }
}

TATVPR_DEFINE_EPILOGUE(outputs_of_32, int32_t)

/* The low half of a word, an int16, as a float. */
static inline float low_half(uint32_t word) {
    float x = tatvpr_bits_float(word);
    __asm("vcvt.f32.s16 %0, %0, #0" : "+t"(x));
    return x;
}

/* Outputs n0 .. n0 + rows of tokens t and t + 1 from 16-bit sums that share a word, `sums` of
 * every row ENTRY_WORDS words apart; what differs between matrices is constant where inlined. */
static inline __attribute__((always_inline)) void
pair_outputs(const tatvpr_matmul *job, int32_t t, int32_t n0, int32_t rows, const uint32_t *sums,
             int per_row, int add) {
    const float s0 = job->tile->s[t], s1 = job->tile->s[t + 1];
    const float *bias = job->bias + n0;
    const float *scales = job->scale + (per_row ? n0 : 0);
    const float one_scale = scales[0];
    const ptrdiff_t at = (ptrdiff_t)t * job->y_stride + n0;
    float *y0 = job->y + at;
    float *y1 = y0 + job->y_stride;
    const float *r0 = add ? job->residual + at : NULL;
    const float *r1 = add ? r0 + job->y_stride : NULL;
#pragma GCC unroll 4
    for (int32_t n = 0; n < rows; n++) {
        const uint32_t word = sums[n * ENTRY_WORDS];
        const float scale = per_row ? scales[n] : one_scale;
        const float b = bias[n];
        const float v0 = (low_half(word) * s0) * scale + b;
        const float v1 = ((float)((int32_t)word >> 16) * s1) * scale + b;
        y0[n] = add ? r0[n] + v0 : v0;
        y1[n] = add ? r1[n] + v1 : v1;
    }
}

static void two_tokens_out(const tatvpr_matmul *job, int32_t t, int32_t n0, int32_t rows,
                           const uint32_t *sums) {
    TATVPR_OF_KIND(job, pair_outputs, job, t, n0, rows, sums);
}

/* Outputs n0 .. n0 + rows of up to eight tokens from t0. `memory` holds tables and sums. */
static void eight_tokens(const tatvpr_matmul *job, int32_t t0, int32_t n0, int32_t rows,
                         uint32_t *memory) {
    const tatvpr_tile *tile = job->tile;
    const int32_t tokens = tatvpr_min_i32(PASS_TOKENS, tile->tokens - t0);
    const int32_t row_words = tatvpr_lut4_row_words(job->op->k_in);
    const int32_t blocks = (row_words + BLOCK_WORDS - 1) / BLOCK_WORDS;
    const int32_t block_words = (row_words + blocks - 1) / blocks;
    const int narrow = is_narrow(job->op);
    const int8_t *q[PASS_TOKENS];
    for (int32_t i = 0; i < PASS_TOKENS; i++) { /* past the end: the last row again, not used */
        q[i] = tile->q + (ptrdiff_t)(t0 + tatvpr_min_i32(i, tokens - 1)) * tile->q_stride;
    }
    uint32_t *table = memory;
    uint32_t *sums = memory + TABLE_WORDS;
    int32_t *wide = (int32_t *)(sums + rows * ENTRY_WORDS);
    zero_words(sums, rows * ENTRY_WORDS);
    if (!narrow) {
        zero_words((uint32_t *)wide, rows * PASS_TOKENS);
    }
    for (int32_t b = 0; b < blocks; b++) {
        const int32_t first = b * block_words;
        const int32_t words = tatvpr_min_i32(block_words, row_words - first);
        if (words <= 0) {
            break;
        }
        write_tables(q, 16 * first, 16 * words, table);
        lookup_job lookup;
        lookup.weight = job->weight + 4 * ((ptrdiff_t)n0 * row_words + first);
        lookup.row_skip = 4u * (uint32_t)(row_words - words);
        lookup.table = table;
        lookup.sums = sums;
        lookup.block_bytes = 4u * (uint32_t)words;
        lookup.rows = rows;
        look_up(&lookup);
        if (!narrow && (b % BLOCKS_PER_WIDENING == BLOCKS_PER_WIDENING - 1)) {
            widen_sums(sums, wide, rows * ENTRY_WORDS);
        }
    }
    if (narrow && tokens % 2 == 0) {
        for (int32_t i = 0; i < tokens; i += 2) {
            two_tokens_out(job, t0 + i, n0, rows, sums + i / 2);
        }
        return;
    }
    if (narrow) { /* an odd token at the end: rare, so the sums take the long way */
        wide = (int32_t *)table;
        zero_words((uint32_t *)wide, rows * PASS_TOKENS);
    }
    widen_sums(sums, wide, rows * ENTRY_WORDS);
    for (int32_t i = 0; i < tokens; i++) {
        outputs_of_32(job, t0 + i, n0, rows, wide + i, PASS_TOKENS);
    }
}

/* One or two tokens that are left over: the same with entries of one word. */
static void two_tokens(const tatvpr_matmul *job, int32_t t0, int32_t n0, int32_t rows,
                       uint32_t *memory) {
    const tatvpr_tile *tile = job->tile;
    const int32_t row_words = tatvpr_lut4_row_words(job->op->k_in);
    const int32_t tokens = tatvpr_min_i32(2, tile->tokens - t0);
    const int8_t *qa = tile->q + (ptrdiff_t)t0 * tile->q_stride;
    const int8_t *qb = tile->q + (ptrdiff_t)(t0 + tokens - 1) * tile->q_stride;
    uint32_t *table = memory;
    int32_t *wide = (int32_t *)(memory + TABLE_WORDS);
    const int32_t step_words = BLOCKS_PER_WIDENING * BLOCK_WORDS;
    for (int32_t first = 0; first < row_words; first += step_words) {
        const int32_t words = tatvpr_min_i32(step_words, row_words - first);
        uint32_t *entry = table;
        for (int32_t c = 16 * first; c < 16 * (first + words); c += 4) {
            const uint32_t a = word_at(qa + c);
            const uint32_t b = word_at(qb + c);
            const uint32_t p0 = tatvpr_low_halves(tatvpr_widen_even(a), tatvpr_widen_even(b));
            const uint32_t p1 = tatvpr_low_halves(tatvpr_widen_odd(a), tatvpr_widen_odd(b));
            const uint32_t p2 = tatvpr_high_halves(tatvpr_widen_even(a), tatvpr_widen_even(b));
            const uint32_t p3 = tatvpr_high_halves(tatvpr_widen_odd(a), tatvpr_widen_odd(b));
            const uint32_t up2 = sub2(p2, add2(p1, p1)); /* digit 1 has fallen by two */
            const uint32_t up3 = sub2(p3, add2(add2(p1, p1), add2(p2, p2)));
            uint32_t sum = sub2(0, add2(add2(p1, p2), p3));
            for (int32_t i = 0; i < ENTRIES / 3; i++, entry += 3) {
                entry[0] = sub2(sum, p0);
                entry[1] = sum;
                entry[2] = add2(sum, p0);
                sum = add2(sum, i % 3 != 2 ? p1 : i % 9 != 8 ? up2 : up3);
            }
        }
        for (int32_t n = 0; n < rows; n++) {
            const uint32_t *w = (const uint32_t *)(const void *)job->weight +
                                (ptrdiff_t)(n0 + n) * row_words + first;
            const uint32_t *group = table;
            uint32_t sum = 0;
            for (int32_t i = 0; i < words; i++, group += 4 * ENTRIES) {
                const uint32_t bytes = w[i];
                sum = add2(sum, group[bytes & 255u]);
                sum = add2(sum, (group + ENTRIES)[bytes >> 8 & 255u]);
                sum = add2(sum, (group + 2 * ENTRIES)[bytes >> 16 & 255u]);
                sum = add2(sum, (group + 3 * ENTRIES)[bytes >> 24]);
            }
            wide[2 * n] = (int16_t)sum + (first == 0 ? 0 : wide[2 * n]);
            wide[2 * n + 1] = ((int32_t)sum >> 16) + (first == 0 ? 0 : wide[2 * n + 1]);
        }
    }
    for (int32_t i = 0; i < tokens; i++) {
        outputs_of_32(job, t0 + i, n0, rows, wide + i, 2);
    }
}

void tatvpr_dsp_dense(const tatvpr_matmul *job) {
    if (job->op->layout != TATVPR_LAYOUT_LUT4) {
        tatvpr_dsp_all_channels(job); /* stored for sparse: correct, at the sparse kernel's cost */
        return;
    }
    uint32_t *memory = (uint32_t *)(void *)job->panel;
    const size_t panel_words = TATVPR_PANEL_BYTES((uint32_t)job->op->k_in) / 4;
    /* outputs whose sums fit beside the tables; for more of them tables are written again */
    const size_t words_a_row = is_narrow(job->op) ? ENTRY_WORDS : ENTRY_WORDS + PASS_TOKENS;
    const int32_t room = (int32_t)((panel_words - TABLE_WORDS) / words_a_row);
    for (int32_t n0 = 0; n0 < job->op->n_out; n0 += room) {
        const int32_t rows = tatvpr_min_i32(room, job->op->n_out - n0);
        int32_t t = 0;
        while (t < job->tile->tokens) {
            const int32_t left = job->tile->tokens - t;
            if (left <= 2) {
                two_tokens(job, t, n0, rows, memory);
                t += 2;
            } else {
                eight_tokens(job, t, n0, rows, memory);
                t += PASS_TOKENS;
            }
        }
    }
}

#endif
