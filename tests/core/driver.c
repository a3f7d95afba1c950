/* Test driver of the C core: reads requests from standard input, runs one operator each, writes
 * the results to standard output, until the input ends. The same program is built natively, with
 * sanitizers and for foreign CPUs under an emulator.
 *
 * Request:  int32 op, int32 n (bytes of name), name of the kernels, int32 integers[24],
 *           float floats[8], int32 buffers, then for each: int64 bytes, bytes.
 * Response: int32 status, int32 buffers, then for each: int64 bytes, bytes.
 * Buffers are allocated to the byte, so that sanitizers see every overrun.
 */
#include <stdio.h>
#include <stdlib.h>

#include "driver.h"

void must(int ok, const char *what) {
    if (!ok) {
        fprintf(stderr, "driver: %s\n", what);
        exit(3);
    }
}

static void read_exactly(void *to, size_t bytes) {
    must(bytes == 0 || fread(to, 1, bytes, stdin) == bytes, "input ends inside a request");
}

uint8_t *aligned(size_t bytes) {
    void *p = NULL;
    must(posix_memalign(&p, 64, bytes == 0 ? 1 : bytes) == 0, "out of memory");
    return (uint8_t *)p;
}

static int read_request(request *r) {
    memset(r, 0, sizeof(*r));
    if (fread(&r->op, 1, 4, stdin) != 4) {
        return 0;
    }
    int32_t n = 0;
    read_exactly(&n, 4);
    must(n >= 0 && n < 64, "name too long");
    read_exactly(r->kernels, (size_t)n);
    read_exactly(r->i, sizeof(r->i));
    read_exactly(r->f, sizeof(r->f));
    read_exactly(&r->count, 4);
    must(r->count >= 0 && r->count <= MOST_BUFFERS, "too many buffers");
    for (int32_t b = 0; b < r->count; b++) {
        read_exactly(&r->in[b].bytes, 8);
        r->in[b].data = aligned((size_t)r->in[b].bytes);
        read_exactly(r->in[b].data, (size_t)r->in[b].bytes);
    }
    return 1;
}

uint8_t *output(request *r, size_t bytes) {
    buffer *b = &r->out[r->outputs++];
    b->bytes = (int64_t)bytes;
    b->data = aligned(bytes);
    memset(b->data, 0xA5, bytes);
    return b->data;
}

static void write_response(request *r, int32_t status) {
    fwrite(&status, 4, 1, stdout);
    fwrite(&r->outputs, 4, 1, stdout);
    for (int32_t b = 0; b < r->outputs; b++) {
        fwrite(&r->out[b].bytes, 8, 1, stdout);
        fwrite(r->out[b].data, 1, (size_t)r->out[b].bytes, stdout);
        free(r->out[b].data);
    }
    fflush(stdout);
    for (int32_t b = 0; b < r->count; b++) {
        free(r->in[b].data);
    }
}

const tatvpr_kernels *kernels_named(const char *name) {
    for (int32_t i = 0; tatvpr_kernels_list[i] != NULL; i++) {
        if (strcmp(tatvpr_kernels_list[i]->name, name) == 0) {
            return tatvpr_kernels_list[i];
        }
    }
    must(0, "no such kernels");
    return NULL;
}

static int32_t list_kernels(request *r) {
    char *names = (char *)output(r, 1024);
    memset(names, 0, 1024);
    for (int32_t i = 0; tatvpr_kernels_name(i) != NULL; i++) {
        if (tatvpr_kernels_usable(tatvpr_kernels_name(i))) {
            strcat(names, tatvpr_kernels_name(i));
            strcat(names, "\n");
        }
    }
    return 0;
}

int32_t run_model(const uint8_t *blob, size_t blob_bytes, const char *kernels,
                  const int32_t *integers, const float *floats, const uint8_t *frame,
                  float *descriptor, float *tokens); /* small_vit.c */

/* integers: width, height, fault, threads; see small_vit.c */
static int32_t run_whole(request *r) {
    float *descriptor = (float *)(void *)output(r, 64 * 4);
    float *tokens = (float *)(void *)output(r, 17 * 64 * 4);
    memset(tokens, 0, 17 * 64 * 4);
    return run_model(r->in[0].data, (size_t)r->in[0].bytes, r->kernels, r->i, r->f,
                     r->in[1].data, descriptor, tokens);
}

int main(void) {
    static request r;
    while (read_request(&r)) {
        int32_t status = -1;
        switch (r.op) {
        case OP_SQUASH: status = run_squash(&r); break;
        case OP_PATCH_EMBED: status = run_patch_embed(&r); break;
        case OP_LINEAR: status = run_linear(&r); break;
        case OP_MLP: status = run_mlp(&r); break;
        case OP_ATTENTION: status = run_attention(&r); break;
        case OP_KEEP_TOKENS:
        case OP_LAYER_NORM:
        case OP_GELU:
        case OP_GEM:
        case OP_L2: status = run_float(&r); break;
        case OP_FLOATS: status = run_floats(&r); break;
        case OP_MAP: status = run_map(&r); break;
        case OP_GATE: status = run_gate(&r); break;
        case OP_KERNELS: status = list_kernels(&r); break;
        case OP_MODEL: status = run_whole(&r); break;
        case OP_SPARSE_BELOW: status = run_sparse_below(&r); break;
        case OP_TRACK: status = run_track(&r); break;
        default: must(0, "unknown request");
        }
        write_response(&r, status);
    }
    return 0;
}
