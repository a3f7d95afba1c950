/* Times the C core's kernels one by one, for tools/roofline.py and tools/bench_peers.py.
 *
 *     core_bench KERNELS WHAT T K N KEEP GROUP ROUNDS
 *
 * WHAT: dense sparse gate layer_norm gelu quantise select attention patch, or peak, memory, list.
 * `sparse` and the lists of `gate` and `select` are of aligned fours where GROUP is a multiple of 4
 * and the variant has such a matmul. KEEP is the fraction of channels kept. `attention` takes
 * K = dim, N = heads; `patch` takes T = image side, K = patch side, N = dim. Prints the median and
 * the quartiles of ROUNDS thread-CPU times in nanoseconds. `peak` is the best rate of the variant's
 * int8 multiply-accumulate instruction on registers (MACs per ns).
 */
#define _POSIX_C_SOURCE 200809L
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../runtime/core/common/gated_tile.h"

static double now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static void *zeroed(size_t bytes) {
    void *p = NULL;
    if (posix_memalign(&p, 64, bytes + 64) != 0) {
        fprintf(stderr, "core_bench: out of memory\n");
        exit(1);
    }
    memset(p, 0, bytes + 64);
    return p;
}

static uint32_t state = 1;
static uint32_t random_u32(void) { return state = state * 1664525u + 1013904223u; }

static float random_normal(void) { /* sum of uniforms: near enough for activations */
    float sum = -6.0f;
    for (int i = 0; i < 12; i++) {
        sum += (float)(random_u32() >> 8) / 16777216.0f;
    }
    return sum;
}

static int by_value(const void *a, const void *b) {
    const double x = *(const double *)a;
    const double y = *(const double *)b;
    return x < y ? -1 : x > y;
}

typedef struct bench {
    const tatvpr_kernels *kernels;
    tatvpr_ternary op;
    tatvpr_tile tile;
    tatvpr_matmul job;
    tatvpr_head_job head;
    tatvpr_patch_embed patch;
    tatvpr_patch_job patch_job;
    int8_t *fresh; /* quantised rows before selection */
    float *x;
    float *row;
    int32_t tokens;
    int32_t keep;
    int32_t group;
} bench;

static void fill_tile(bench *b, int32_t list) {
    for (int32_t t = 0; t < b->tokens; t++) {
        int8_t *q = b->tile.q + (ptrdiff_t)t * b->tile.q_stride;
        memcpy(q, b->fresh + (ptrdiff_t)t * b->tile.q_stride, (size_t)b->tile.q_stride);
    }
    tatvpr_select_tile(b->kernels, &b->tile, b->keep, b->group, list);
}

/* What select() lists: as the operators ask for it. */
static int32_t list_of(const bench *b) {
#if defined(TATVPR_WIDE)
    if (b->group % 4 == 0 && b->kernels->fours != NULL) {
        return TATVPR_LIST_FOURS;
    }
#endif
    return TATVPR_LIST_CHANNELS;
}

/* The sparse kernel of this group, to the same end. */
static void (*sparse_kernel(const bench *b))(const tatvpr_matmul *job) {
#if defined(TATVPR_WIDE)
    if (list_of(b) == TATVPR_LIST_FOURS) {
        return b->kernels->fours;
    }
#endif
    return b->kernels->sparse;
}

static void setup(bench *b, int32_t k_in, int32_t n_out, double fraction) {
    const int32_t t = b->tokens;
    b->op.k_in = k_in;
    b->op.n_out = n_out;
    b->op.layout = TATVPR_LAYOUT_ROWS2;
    b->keep = tatvpr_kept((float)fraction, k_in / b->group);
    uint8_t *stored = zeroed((size_t)n_out * (size_t)(k_in + 3) / 4);
    for (size_t i = 0; i < (size_t)n_out * (size_t)(k_in + 3) / 4; i++) {
        uint32_t byte = 0;
        for (int j = 0; j < 4; j++) {
            byte = byte << 2 | (random_u32() >> 16) % 3u;
        }
        stored[i] = (uint8_t)byte;
    }
    const uint8_t *weight = stored;
    if ((b->kernels->in_place & TATVPR_LAYOUT_BIT(TATVPR_LAYOUT_ROWS2)) == 0) {
        uint8_t *prepared = zeroed(b->kernels->prepared_bytes(&b->op));
        b->kernels->prepare(&b->op, stored, prepared);
        weight = prepared;
    }
    b->x = zeroed((size_t)t * (size_t)k_in * 4);
    b->row = zeroed((size_t)k_in * 4);
    for (int32_t i = 0; i < t * k_in; i++) {
        b->x[i] = random_normal();
    }
    b->tile.tokens = t;
    b->tile.k_in = k_in;
    b->tile.q_stride = (k_in + 63) / 64 * 64;
    b->tile.list_stride = TATVPR_LIST_STRIDE(k_in);
    b->tile.q = zeroed((size_t)t * (size_t)b->tile.q_stride);
    b->fresh = zeroed((size_t)t * (size_t)b->tile.q_stride);
    b->tile.s = zeroed((size_t)t * 4);
    b->tile.sum = zeroed((size_t)t * 4);
    b->tile.count = zeroed((size_t)t * 4);
    b->tile.index = zeroed((size_t)t * (size_t)b->tile.list_stride * 2);
    b->tile.value = zeroed((size_t)t * (size_t)b->tile.list_stride);
    for (int32_t i = 0; i < t; i++) {
        b->tile.s[i] = b->kernels->quantise(b->x + (ptrdiff_t)i * k_in, k_in,
                                            b->fresh + (ptrdiff_t)i * b->tile.q_stride);
    }
    fill_tile(b, list_of(b));
    float *scale = zeroed((size_t)n_out * 4);
    b->job.op = &b->op;
    b->job.weight = weight;
    b->job.scale = scale;
    b->job.bias = zeroed((size_t)n_out * 4);
    b->job.y = zeroed((size_t)t * (size_t)n_out * 4);
    b->job.y_stride = n_out;
    b->job.tile = &b->tile;
    b->job.panel = zeroed(TATVPR_PANEL_BYTES(k_in));
}

/* The same tiles as the operators use: results do not depend on it, caches do. */
static void in_tiles(bench *b, void (*kernel)(const tatvpr_matmul *job)) {
    static const tatvpr_program plain = {0}; /* the core's own tiles */
    const int32_t size = tatvpr_tile_tokens(&plain, b->tokens, 1);
    for (int32_t first = 0; first < b->tokens; first += size) {
        tatvpr_tile tile = b->tile;
        tile.tokens = tatvpr_min_i32(size, b->tokens - first);
        tile.q += (ptrdiff_t)first * tile.q_stride;
        tile.s += first;
        tile.sum += first;
        tile.count += first;
        tile.index += (ptrdiff_t)first * tile.list_stride;
        tile.value += (ptrdiff_t)first * tile.list_stride;
        tatvpr_matmul job = b->job;
        job.tile = &tile;
        job.y += (ptrdiff_t)first * job.y_stride;
        kernel(&job);
    }
}

static double run(bench *b, const char *what) {
    const int32_t k_in = b->op.k_in;
    const int layer_norm = strcmp(what, "layer_norm") == 0;
    const int gelu = strcmp(what, "gelu") == 0;
    const int gate = strcmp(what, "gate") == 0;
    const int quantise = gate || strcmp(what, "quantise") == 0;
    const int select = strcmp(what, "select") == 0;
    if (select) { /* what selection costs beside copying the rows */
        for (int32_t t = 0; t < b->tokens; t++) {
            memcpy(b->tile.q + (ptrdiff_t)t * b->tile.q_stride,
                   b->fresh + (ptrdiff_t)t * b->tile.q_stride, (size_t)b->tile.q_stride);
        }
    }
    const double start = now_ns();
    if (strcmp(what, "dense") == 0) {
        in_tiles(b, b->kernels->dense);
    } else if (strcmp(what, "sparse") == 0) {
        in_tiles(b, sparse_kernel(b));
    } else if (strcmp(what, "attention") == 0) {
        for (int32_t h = 0; h < b->op.n_out; h++) {
            b->head.head = h;
            b->kernels->attention(&b->head);
        }
    } else if (strcmp(what, "patch") == 0) {
        b->kernels->patch_embed(&b->patch_job);
    } else {
        for (int32_t t = 0; !select && t < b->tokens; t++) {
            const float *x = b->x + (ptrdiff_t)t * k_in;
            if (layer_norm) {
                b->kernels->layer_norm(x, b->job.bias, b->job.bias, 1e-6f, k_in, b->row);
            } else if (gelu) {
                b->kernels->gelu(x, k_in, b->row);
            } else if (quantise) {
                b->tile.s[t] =
                    b->kernels->quantise(x, k_in, b->tile.q + (ptrdiff_t)t * b->tile.q_stride);
            }
        }
        if (gate || select) {
            tatvpr_select_tile(b->kernels, &b->tile, b->keep, b->group, list_of(b));
        }
    }
    return now_ns() - start;
}

static void setup_attention(bench *b, int32_t dim, int32_t heads) {
    float *qkv = zeroed((size_t)b->tokens * 3 * (size_t)dim * 4);
    for (int32_t i = 0; i < b->tokens * 3 * dim; i++) {
        qkv[i] = random_normal();
    }
    b->op.n_out = heads;
    b->head.qkv = qkv;
    b->head.tokens = b->tokens;
    b->head.dim = dim;
    b->head.head_dim = dim / heads;
    b->head.scratch = zeroed(TATVPR_HEAD_SCRATCH(b->tokens, dim / heads));
    b->head.y = zeroed((size_t)b->tokens * (size_t)dim * 4);
    b->head.a = NULL;
}

static void setup_patch(bench *b, int32_t side, int32_t patch, int32_t dim) {
    const size_t rows = (size_t)(side / patch);
    const size_t length = (size_t)patch * (size_t)patch * 3;
    b->patch.image_size = side;
    b->patch.patch = patch;
    b->patch.dim = dim;
    b->patch_job.op = &b->patch;
    b->patch_job.pixels = zeroed((size_t)side * (size_t)side * 3);
    b->patch_job.weight = zeroed((size_t)dim * length);
    b->patch_job.scale = zeroed((size_t)dim * 4);
    b->patch_job.bias = zeroed((size_t)dim * 4);
    b->patch_job.rows = (int32_t)rows;
    b->patch_job.scratch = zeroed(TATVPR_PATCH_SCRATCH(&b->patch));
    b->patch_job.y = zeroed(rows * rows * (size_t)dim * 4);
}

/* Bytes of a stream that no cache holds, read once: what memory gives one core. */
static double read_memory(void) {
    const size_t words = (size_t)32 << 20; /* 256 MB */
    uint64_t *data = zeroed(words * 8);
    double best = 0.0;
    for (int round = 0; round < 5; round++) {
        uint64_t sum[8] = {0};
        const double start = now_ns();
        for (size_t i = 0; i < words; i += 8) {
            for (int j = 0; j < 8; j++) {
                sum[j] += data[i + (size_t)j];
            }
        }
        const double rate = (double)words * 8 / (now_ns() - start);
        data[0] = sum[0] + sum[1] + sum[2] + sum[3] + sum[4] + sum[5] + sum[6] + sum[7];
        best = rate > best ? rate : best;
    }
    return best;
}

double core_bench_peak(const char *kernels); /* core_bench_peak.c */

int main(int argc, char **argv) {
    if (argc != 9) {
        fprintf(stderr, "usage: core_bench KERNELS WHAT T K N KEEP GROUP ROUNDS\n");
        return 2;
    }
    if (strcmp(argv[2], "peak") == 0 || strcmp(argv[2], "memory") == 0) {
        printf("%.3f\n", argv[2][0] == 'p' ? core_bench_peak(argv[1]) : read_memory());
        return 0;
    }
    if (strcmp(argv[2], "list") == 0) {
        for (int32_t i = 0; tatvpr_kernels_list[i] != NULL; i++) {
            if (tatvpr_kernels_list[i]->usable()) {
                printf("%s\n", tatvpr_kernels_list[i]->name);
            }
        }
        return 0;
    }
    bench b;
    memset(&b, 0, sizeof(b));
    for (int32_t i = 0; tatvpr_kernels_list[i] != NULL; i++) {
        if (strcmp(tatvpr_kernels_list[i]->name, argv[1]) == 0) {
            b.kernels = tatvpr_kernels_list[i];
        }
    }
    if (b.kernels == NULL || !b.kernels->usable()) {
        fprintf(stderr, "core_bench: kernels %s do not exist or cannot run here\n", argv[1]);
        return 1;
    }
    const char *what = argv[2];
    b.tokens = atoi(argv[3]);
    b.group = atoi(argv[7]);
    const int rounds = atoi(argv[8]);
    if (strcmp(what, "attention") == 0) {
        setup_attention(&b, atoi(argv[4]), atoi(argv[5]));
    } else if (strcmp(what, "patch") == 0) {
        setup_patch(&b, b.tokens, atoi(argv[4]), atoi(argv[5]));
    } else {
        setup(&b, atoi(argv[4]), atoi(argv[5]), atof(argv[6]));
    }
    double *times = zeroed((size_t)rounds * sizeof(double));
    (void)run(&b, what);
    for (int i = 0; i < rounds; i++) {
        times[i] = run(&b, what);
    }
    qsort(times, (size_t)rounds, sizeof(double), by_value);
    printf("%.0f %.0f %.0f\n", times[rounds / 2], times[rounds / 4], times[rounds * 3 / 4]);
    return 0;
}
