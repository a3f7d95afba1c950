/* Workers beside the calling thread. A build without POSIX threads runs on the caller alone. */
#include "core.h"

int tatvpr_threads_valid(int32_t threads) { return threads == 0 || threads == 1; }

int32_t tatvpr_workers(const tatvpr_context *c) {
    (void)c;
    return 1;
}

size_t tatvpr_pool_bytes(int32_t threads) {
    (void)threads;
    return 0;
}

void tatvpr_parallel(const tatvpr_context *c, tatvpr_work work, void *argument, int32_t items) {
    (void)c;
    for (int32_t i = 0; i < items; i++) {
        work(argument, i, 0);
    }
}

tatvpr_status tatvpr_pool_start(tatvpr_context *c, void *memory, int32_t threads) {
    (void)memory;
    (void)threads;
    c->pool = NULL;
    return TATVPR_OK;
}

void tatvpr_pool_stop(tatvpr_context *c) { c->pool = NULL; }
