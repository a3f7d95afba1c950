/* The table of kernels that one kind of CPU fills in, and the structures that they share.
 *
 * Operators (op_*.c) own the order of work, tiles of tokens and scratch memory; kernels own the
 * arithmetic. A variant is one file (a table begun from another variant's, TATVPR_VARIANT below,
 * and the kernels of its own) and one row in the variants.h of its architecture. Every variant gives
 * the same bits as common/portable_*.c, which is the reference in C: integers are exact, float
 * reductions are 16 strided partial sums and one tree (floats.h), no fused multiply-add, no
 * approximate reciprocal.
 *
 * Kernels allocate nothing, keep no state and never fail: operators have checked the arguments.
 */
#ifndef TATVPR_KERNELS_H
#define TATVPR_KERNELS_H

#include "../include/tatvpr_ops.h"
#include "exact.h"

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
#error "weights and maps are read as they lie, little endian: compile for a little-endian core"
#endif

#if defined(TATVPR_MCU)
#include "../mcu/config.h" /* sizes of a microcontroller build */
#endif

/* Tokens of one tile: the unit of gating, of the MLP and of threads. A microcontroller build sets
 * a few; a CPU with caches wants the hidden layer of a tile to stay in its second level. */
#ifndef TATVPR_TILE_TOKENS
#if defined(TATVPR_X86)
#define TATVPR_TILE_TOKENS 96 /* 1 MB of second-level cache and more: weights unpacked less often */
#elif defined(TATVPR_AARCH64)
#define TATVPR_TILE_TOKENS 68 /* a grid of eight by eight patches with its CLS token is one tile */
#else
#define TATVPR_TILE_TOKENS 64
#endif
#endif

/* Tiles are made equal, then rounded up to a multiple of this: what the kernels take at once. */
#ifndef TATVPR_TILE_ROUND
#if defined(TATVPR_X86)
#define TATVPR_TILE_ROUND 6
#else
#define TATVPR_TILE_ROUND 4
#endif
#endif

/* Rows of int8 activations are padded with zeros to this many bytes and begin at a multiple of
 * it, so that a vector kernel needs no tail. A power of two, at least 4. */
#ifndef TATVPR_ROW_ALIGN
#define TATVPR_ROW_ALIGN 64
#endif

/* Scratch of one matmul, handed over as tatvpr_matmul.panel: unpacked weights. */
#ifndef TATVPR_PANEL_BYTES
#define TATVPR_PANEL_BYTES(k_in) ((size_t)64 * (((size_t)(k_in) + 63) / 64 * 64))
#endif

/* CPUs with kernels of their own where microcontrollers do without: elsewhere these members of the
 * table are left out, and so is the code that asks for them. It hangs on what all files of a program
 * share (a microcontroller's library that is sized on this machine included). */
#if (defined(__x86_64__) || defined(__aarch64__)) && !defined(TATVPR_MCU)
#define TATVPR_WIDE
#endif

/* Tokens that go through GELU, LayerNorm and quantisation together, where the CPU is wide. */
#if defined(TATVPR_WIDE)
#define TATVPR_ROWS_TOGETHER 4
#else
#define TATVPR_ROWS_TOGETHER 1
#endif

#define TATVPR_LAYOUT_BIT(layout) (1u << (unsigned)(layout))

/* What select() lists of a row. */
enum {
    TATVPR_LIST_NOTHING = 0,
    TATVPR_LIST_CHANNELS = 1, /* for tatvpr_kernels.sparse */
    TATVPR_LIST_FOURS = 4     /* for tatvpr_kernels.fours */
};

/* Gated activations of one tile: T = tokens rows of K = k_in channels. */
typedef struct tatvpr_tile {
    int32_t tokens;
    int32_t k_in;
    int32_t q_stride;  /* bytes from row to row of q: K rounded up to TATVPR_ROW_ALIGN */
    int8_t *q;         /* [T, q_stride]: int8 activations, dropped channels and padding are 0 */
    float *s;          /* [T]: the token's scale */
    int32_t *sum;      /* [T]: sum of the token's row of q, for kernels that store w + 1 */
    /* Lists, only filled when the operator goes sparse. Of the kept channels, rising: entries
     * count .. count rounded up to a multiple of 4 are index 0 with value 0. Or of the kept fours
     * of aligned channels, rising: `index` holds the number of each four (its first channel / 4),
     * `value` its four activations; a four of zeros may be listed or not. */
    int32_t list_stride; /* entries from row to row */
    uint16_t *index;   /* [T, list_stride] */
    int8_t *value;     /* [T, list_stride] */
    int32_t *count;    /* [T] */
    /* Where select() may look first: the cut of the row before, in units of x; 0: nowhere. Only
     * time depends on it. */
    float hint;
} tatvpr_tile;

/* Sparse matmuls are never taken at or above this share of kept channels (costs.c). */
#ifndef TATVPR_SPARSE_MOST
#define TATVPR_SPARSE_MOST 1.0f
#endif

/* List entries of a row: room for padding and for a whole vector stored at the end. A build with a
 * lower TATVPR_SPARSE_MOST may have shorter ones. */
#ifndef TATVPR_LIST_STRIDE
#define TATVPR_LIST_STRIDE(k_in) (((k_in) + 63) / 64 * 64 + 64)
#endif

/* One ternary matrix times one tile: y[t, n] = (acc * s[t]) * scale[n] + bias[n] [+ residual]. */
typedef struct tatvpr_matmul {
    const tatvpr_ternary *op;
    const uint8_t *weight;     /* in the layout that this variant reads (in place or prepared) */
    const float *scale;        /* [N], or [1] where !op->scale_per_row */
    const float *bias;         /* [N] */
    const float *residual;     /* [T, N] rows `y_stride` floats apart, or null; may be y */
    float *y;                  /* [T, N] rows `y_stride` floats apart */
    int32_t y_stride;
    const tatvpr_tile *tile;
    uint8_t *panel;            /* TATVPR_PANEL_BYTES(K) of scratch, aligned to 64 */
} tatvpr_matmul;

/* Patches [first_row, first_row + rows) x all columns of the frame. */
typedef struct tatvpr_patch_job {
    const tatvpr_patch_embed *op;
    const uint8_t *pixels;     /* [S, S, 3] */
    const int8_t *weight;      /* [D, P*P*3] */
    const float *scale;        /* [D] */
    const float *bias;         /* [D] */
    int32_t first_row;
    int32_t rows;
    uint8_t *scratch;          /* TATVPR_PATCH_SCRATCH(op) bytes, aligned to 64 */
    float *y;                  /* [(S/P)^2, D]: the whole output */
} tatvpr_patch_job;

/* One row of patches as int16, each padded to 64 bytes, and two rows of weights likewise. */
#define TATVPR_PATCH_SCRATCH(op) \
    ((size_t)((op)->image_size / (op)->patch + 2) * \
     (((size_t)(op)->patch * (size_t)(op)->patch * 3 * 2 + 63) / 64 * 64))

/* One head of QuantAttention: writes columns [head * H, (head + 1) * H) of y, H = dim / heads. */
typedef struct tatvpr_head_job {
    const float *qkv;          /* [T, 3 * dim] */
    int32_t tokens;            /* T */
    int32_t dim;
    int32_t head_dim;          /* H */
    int32_t head;
    uint8_t *scratch;          /* TATVPR_HEAD_SCRATCH(T, H) bytes, aligned to 64 */
    float *y;                  /* [T, dim] */
    float *a;                  /* [T]: what this head's CLS token looks at; null: not wanted */
} tatvpr_head_job;

/* Keys and values as up to 16 bits with rows and columns padded, and 8 rows of logits. */
#define TATVPR_HEAD_SCRATCH(t, h) \
    (((size_t)(t) + 64) * (((size_t)(h) + 31) / 32 * 32) * 4 + ((size_t)(t) + 64) * 4 * 9 + \
     (((size_t)(h) + 31) / 32 * 32) * 16 + 1024)

#define TATVPR_SQUASH_BITS 22 /* of the fraction of a resize's weight */

/* The horizontal pass of a resize: of which RGB pixels of a row `side` pixels are made. */
typedef struct tatvpr_squash_columns {
    int32_t width;          /* pixels of the row */
    int32_t side;
    int32_t stride;         /* weights from pixel to pixel */
    const int32_t *first;   /* [side]: first pixel of the row */
    const int32_t *count;   /* [side]: how many */
    const int32_t *weights; /* [side, stride] */
} tatvpr_squash_columns;

/* Costs of one token in a block of outputs, in any unit that is the same in a whole row. */
typedef struct tatvpr_block_cost {
    int32_t outputs;     /* of the block, as the variant's prepared layout has it */
    float dense_fixed;   /* dense: what does not depend on K (epilogue) */
    float dense_four;    /* dense: four channels, and their share of unpacking */
    float sparse_fixed;  /* sparse: what does not depend on the list */
    float sparse_four;   /* sparse: four listed channels */
    float fours_fixed;   /* fours: what does not depend on the list */
    float fours_four;    /* fours: one listed four; 0: this variant has no `fours` */
} tatvpr_block_cost;

#define TATVPR_BLOCK_KINDS 3

/* Where dense and sparse meet hangs on the layer's shape and on the CPU: one row a family of CPUs,
 * measured (tools/break_even.py, tools/mcu_break_even.py). Bytes do not depend on it. */
typedef struct tatvpr_costs {
    const char *family;                            /* "zen4" */
    tatvpr_block_cost blocks[TATVPR_BLOCK_KINDS];  /* widest first; outputs = 0 ends the list */
    float list_channel;  /* sparse: listing, for each channel of the row, less what dense takes for it */
    float unpack_four;   /* sparse: unpacking four channels of a block, once a tile, beyond dense */
#if defined(TATVPR_WIDE)
    int32_t fetches_rows; /* 1: map search gains by `hamming_ahead` */
#endif
} tatvpr_costs;

typedef struct tatvpr_kernels {
    const char *name;                 /* as tatvpr_model_init() is asked for it */
    int32_t (*usable)(void);          /* 1: this CPU has every instruction that it uses */

    /* ---- weights. `in_place` is a set of TATVPR_LAYOUT_BIT that the matmuls read as stored;
     * other layouts are rewritten once by `prepare` (from TATVPR_LAYOUT_ROWS2 or _TRIT5). */
    uint32_t in_place;
    size_t (*prepared_bytes)(const tatvpr_ternary *op);   /* null: this variant prepares nothing */
    void (*prepare)(const tatvpr_ternary *op, const uint8_t *stored, uint8_t *prepared);
#if defined(TATVPR_WIDE)
    /* Bytes of an input channel in the first block of prepared weights, which come to the second
     * level of cache while rows are quantised; 0: they do not. */
    int32_t first_row;
#endif

    /* ---- one row of activations */
    /* s = max(max|x|, 1e-5) / 127; q = clip(rint(x * (1 / s)), -127, 127): one division a row.
     * Zeros up to the padding. */
    float (*quantise)(const float *x /* [K] */, int32_t k_in, int8_t *q /* [q_stride] */);
    /* Keeps the `keep` groups of row `t` with the largest sum of |q| (ties to the lower index),
     * writes sum[t] and, unless `list` is TATVPR_LIST_NOTHING, index, value and count. Without a
     * list the others are zeroed in q; with one, what q then holds is not said: nothing reads it.
     * TATVPR_LIST_FOURS is only asked of variants with `fours`. */
    void (*select)(tatvpr_tile *tile, int32_t t, int32_t keep, int32_t group, int32_t list);
#if defined(TATVPR_WIDE)
    /* The same for all rows of the tile, which hide each other's latencies; null: one by one. */
    void (*select_rows)(tatvpr_tile *tile, int32_t keep, int32_t group, int32_t list);
#endif
    void (*layer_norm)(const float *x, const float *gamma, const float *beta, float eps,
                       int32_t dim, float *y /* may be x */);
#if defined(TATVPR_WIDE)
    /* layer_norm and quantise of TATVPR_ROWS_TOGETHER rows without gaps, which hide each other's
     * latencies; null: one by one. */
    void (*norm_quantise)(const float *x, const float *gamma, const float *beta, float eps,
                          int32_t dim, float *y /* room for the rows; may be x */,
                          int8_t *q /* rows q_stride bytes apart */, int32_t q_stride,
                          float *s /* [TATVPR_ROWS_TOGETHER] */);
#endif
    void (*gelu)(const float *x, int32_t count, float *y /* may be x */);

    /* ---- one tile. `sparse` reads the lists, `dense` reads q; same result. `sparse` may be
     * null. It is chosen where k is below what `costs` says (costs.c). `fours`, which may be null
     * too, takes its place where group is a multiple of 4, and reads lists of fours. */
    void (*dense)(const tatvpr_matmul *job);
    void (*sparse)(const tatvpr_matmul *job);
#if defined(TATVPR_WIDE)
    void (*fours)(const tatvpr_matmul *job);
#endif
    /* The row for this CPU; it is asked once, when a model is bound. Null: sparse_below is asked. */
    const tatvpr_costs *(*costs)(void);
    /* Where a variant says it otherwise: the share of kept channels below which sparse is faster. */
    float (*sparse_below)(const tatvpr_ternary *op, int32_t group);

    void (*patch_embed)(const tatvpr_patch_job *job);
    void (*attention)(const tatvpr_head_job *job);

#if defined(TATVPR_WIDE)
    /* ---- resize (common/resize.c); null: its own loops */
    void (*squash_across)(const tatvpr_squash_columns *c, const uint8_t *row /* [width, 3] */,
                          uint8_t *out /* [side, 3] */);
    /* sums += row * weight */
    void (*squash_add)(int32_t *sums, const uint8_t *row, int32_t weight, int32_t count);
    /* bytes = min(sums >> TATVPR_SQUASH_BITS, 255); `bytes` may be where `sums` begins */
    void (*squash_bytes)(const int32_t *sums, int32_t count, uint8_t *bytes);
#endif

    /* ---- map search: `count` rows, `stride` bytes apart, of `dim` int8 (or of `bytes` bytes of
     * bits, the lowest first) against one query */
    void (*dot_i8)(const int8_t *query, const int8_t *rows, int32_t dim, int32_t stride,
                   int32_t count, int32_t *dot);
    void (*hamming)(const uint8_t *query, const uint8_t *rows, int32_t bytes, int32_t stride,
                    int32_t count, int32_t *distance);
#if defined(TATVPR_WIDE)
    /* The same, rows fetched from memory ahead of their distances; null: this variant has none. */
    void (*hamming_ahead)(const uint8_t *query, const uint8_t *rows, int32_t bytes, int32_t stride,
                    int32_t count, int32_t *distance);
#endif
    /* The sum of those of the query's 8 * bytes numbers, at most 1024, whose bit a row has set. */
    void (*dot_bits)(const int8_t *query, const uint8_t *rows, int32_t bytes, int32_t stride,
                     int32_t count, int32_t *dot);
} tatvpr_kernels;

/* Variants of this build, best first, null-terminated (kernels_list.c). */
extern const tatvpr_kernels *const tatvpr_kernels_list[];

extern const tatvpr_kernels tatvpr_kernels_portable;

/* Declares whatever a variant may put into its table and others may take from it: each has some of
 * these. */
#define TATVPR_KERNELS_OF(variant)                                                               \
    int32_t tatvpr_##variant##_usable(void);                                                     \
    size_t tatvpr_##variant##_prepared_bytes(const tatvpr_ternary *op);                          \
    void tatvpr_##variant##_prepare(const tatvpr_ternary *op, const uint8_t *stored,             \
                                    uint8_t *prepared);                                          \
    float tatvpr_##variant##_quantise(const float *x, int32_t k_in, int8_t *q);                  \
    void tatvpr_##variant##_select(tatvpr_tile *tile, int32_t t, int32_t keep, int32_t group,    \
                                   int32_t list);                                                \
    void tatvpr_##variant##_select_rows(tatvpr_tile *tile, int32_t keep, int32_t group,          \
                                        int32_t list);                                           \
    void tatvpr_##variant##_layer_norm(const float *x, const float *gamma, const float *beta,    \
                                       float eps, int32_t dim, float *y);                        \
    void tatvpr_##variant##_norm_quantise(const float *x, const float *gamma, const float *beta, \
                                          float eps, int32_t dim, float *y, int8_t *q,           \
                                          int32_t q_stride, float *s);                           \
    void tatvpr_##variant##_gelu(const float *x, int32_t count, float *y);                       \
    void tatvpr_##variant##_dense(const tatvpr_matmul *job);                                     \
    void tatvpr_##variant##_sparse(const tatvpr_matmul *job);                                    \
    void tatvpr_##variant##_fours(const tatvpr_matmul *job);                                     \
    float tatvpr_##variant##_sparse_below(const tatvpr_ternary *op, int32_t group);              \
    void tatvpr_##variant##_patch_embed(const tatvpr_patch_job *job);                            \
    void tatvpr_##variant##_attention(const tatvpr_head_job *job);                               \
    void tatvpr_##variant##_squash_across(const tatvpr_squash_columns *c, const uint8_t *row,    \
                                          uint8_t *out);                                         \
    void tatvpr_##variant##_squash_add(int32_t *sums, const uint8_t *row, int32_t weight,        \
                                       int32_t count);                                           \
    void tatvpr_##variant##_squash_bytes(const int32_t *sums, int32_t count, uint8_t *bytes);    \
    void tatvpr_##variant##_dot_i8(const int8_t *query, const int8_t *rows, int32_t dim,         \
                                   int32_t stride, int32_t count, int32_t *dot);                 \
    void tatvpr_##variant##_hamming(const uint8_t *query, const uint8_t *rows, int32_t bytes,    \
                                    int32_t stride, int32_t count, int32_t *distance);           \
    void tatvpr_##variant##_hamming_ahead(const uint8_t *query, const uint8_t *rows,             \
                                          int32_t bytes, int32_t stride, int32_t count,          \
                                          int32_t *distance);                                    \
    void tatvpr_##variant##_dot_bits(const int8_t *query, const uint8_t *rows, int32_t bytes,    \
                                     int32_t stride, int32_t count, int32_t *dot)

TATVPR_KERNELS_OF(portable);

/* Kept channels of row `t` of a tile into its list (and the padding of the list): for variants
 * whose select() zeroes first. Zeroes among the kept are left out: they add nothing. */
void tatvpr_list_row(tatvpr_tile *tile, int32_t t);

#if defined(TATVPR_WIDE)
/* The same for the fours of aligned channels. K is a multiple of 4. */
void tatvpr_list_fours(tatvpr_tile *tile, int32_t t);

/* Pixel `x` of squash_across, for variants that leave some of them. */
void tatvpr_squash_column(const tatvpr_squash_columns *c, const uint8_t *row, int32_t x,
                          uint8_t *out /* [3] */);
#endif

/* Weight codes (w + 1) of channels first .. first + count of row `n`, one byte each, from
 * TATVPR_LAYOUT_ROWS2 or _TRIT5. `first` is a multiple of 20 or 0. */
void tatvpr_read_codes(const tatvpr_ternary *op, const uint8_t *stored, int32_t n, int32_t first,
                       int32_t count, uint8_t *codes /* [count] */);

/* The table of a variant: `base` is what it takes from another one (TATVPR_PORTABLE_TABLE or a
 * variant's own), the members after it are what it has of its own. */
#define TATVPR_VARIANT(symbol, base, ...)                      \
    _Pragma("GCC diagnostic push")                             \
    _Pragma("GCC diagnostic ignored \"-Woverride-init\"")      \
    const tatvpr_kernels tatvpr_kernels_##symbol = {base, __VA_ARGS__}; \
    _Pragma("GCC diagnostic pop")

#define TATVPR_PORTABLE_TABLE                                   \
    .usable = tatvpr_portable_usable,                           \
    .in_place = TATVPR_LAYOUT_BIT(TATVPR_LAYOUT_ROWS2),         \
    .prepared_bytes = tatvpr_portable_prepared_bytes,           \
    .prepare = tatvpr_portable_prepare,                         \
    .quantise = tatvpr_portable_quantise,                       \
    .select = tatvpr_portable_select,                           \
    .layer_norm = tatvpr_portable_layer_norm,                   \
    .gelu = tatvpr_portable_gelu,                               \
    .dense = tatvpr_portable_dense,                             \
    .sparse = tatvpr_portable_sparse,                           \
    .sparse_below = tatvpr_portable_sparse_below,               \
    .patch_embed = tatvpr_portable_patch_embed,                 \
    .attention = tatvpr_portable_attention,                     \
    .dot_i8 = tatvpr_portable_dot_i8,                           \
    .hamming = tatvpr_portable_hamming,                         \
    .dot_bits = tatvpr_portable_dot_bits

/* LayerNorm is the only kernel that sums floats: a build that sums them in another order (see
 * floats.h) takes it from here and the rest from the variant, which is much faster. */
#if defined(TATVPR_PERMUTED)
#define TATVPR_LAYER_NORM(fast) tatvpr_portable_layer_norm
#define TATVPR_NORM_QUANTISE(fast) NULL
#else
#define TATVPR_LAYER_NORM(fast) fast
#define TATVPR_NORM_QUANTISE(fast) fast
#endif

#endif
