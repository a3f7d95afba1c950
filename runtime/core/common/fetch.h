/* Weights come to the second level of cache while something else is worked on, a share at a time. */
#ifndef TATVPR_FETCH_H
#define TATVPR_FETCH_H

#include <stddef.h>
#include <stdint.h>

typedef struct tatvpr_fetch {
    const uint8_t *at;
    const uint8_t *end;
    ptrdiff_t share; /* bytes */
} tatvpr_fetch;

/* `bytes` from `from` on, but none from `end` on, in that many equal shares. */
static inline tatvpr_fetch tatvpr_begin_fetch(const uint8_t *from, const uint8_t *end,
                                              ptrdiff_t bytes, int32_t shares) {
    const ptrdiff_t most = end > from ? end - from : 0;
    const tatvpr_fetch f = {from, from + (bytes < most ? bytes : most),
                            (bytes / shares + 63) / 64 * 64};
    return f;
}

static inline void tatvpr_fetch_share(tatvpr_fetch *f) {
    const uint8_t *to = f->end - f->at > f->share ? f->at + f->share : f->end;
    for (; f->at < to; f->at += 64) {
        __builtin_prefetch(f->at, 0, 2);
    }
}

#endif
