/* Where the paths of tatvpr_track.h go from one frame to the next, along one stretch of a drive. */
#include "track_paths.h"

#include "core.h"

enum { BLOCK = 256 }; /* places looked at at once */

void tatvpr_go_by_steps(float *ahead, float *back, uint64_t first, uint64_t last, float price,
                        float reverse, float jump) {
    float held[BLOCK + 1]; /* a block of `ahead` as it was, behind its neighbour */
    held[0] = TATVPR_LEFT_OUT;
    for (uint64_t at = first; at <= last; at += BLOCK) {
        const uint64_t left = last - at + 1;
        const uint64_t count = left < BLOCK ? left : BLOCK;
        float *restrict on = ahead + at;
        float *restrict off = back + at;
        float next[BLOCK + 1]; /* a block of `back` as it was, before its neighbour */
        for (uint64_t i = 0; i < count; i++) {
            held[i + 1] = on[i];
            next[i] = off[i];
        }
        next[count] = left > count ? off[count] : TATVPR_LEFT_OUT;
        for (uint64_t i = 0; i < count; i++) {
            const float stay = tatvpr_larger(held[i + 1], next[i] - reverse);
            const float turn = tatvpr_larger(next[i], held[i + 1] - reverse);
            on[i] = tatvpr_larger(tatvpr_larger(stay, jump), held[i] - price);
            off[i] = tatvpr_larger(tatvpr_larger(turn, jump), next[i + 1] - price);
        }
        held[0] = held[count];
    }
}

/* A sweep's step: what `place` has, or what it is worth to come from its neighbour `from`. */
static inline float reached(const float *along, const float *spread, uint64_t from, float value,
                            uint64_t place, float price) {
    return tatvpr_larger(spread[place], value - price * tatvpr_distance(along[place], along[from]));
}

/* Sweeps four strips of `count` places each, the first and third from `up` and `up + 2 * count` on,
 * the others from `down` and `down + 2 * count` back: a sweep waits for its own last step, so four
 * run at once. */
static void sweep_strips(const float *restrict along, float *restrict spread, uint64_t up,
                         uint64_t down, uint64_t count, float price) {
    const uint64_t up2 = up + 2 * count, down2 = down + 2 * count;
    float a = spread[up], b = spread[down], c = spread[up2], d = spread[down2];
    for (uint64_t i = 1; i < count; i++) {
        a = reached(along, spread, up + i - 1, a, up + i, price);
        b = reached(along, spread, down - i + 1, b, down - i, price);
        c = reached(along, spread, up2 + i - 1, c, up2 + i, price);
        d = reached(along, spread, down2 - i + 1, d, down2 - i, price);
        spread[up + i] = a;
        spread[down - i] = b;
        spread[up2 + i] = c;
        spread[down2 - i] = d;
    }
}

/* Carries a sweep on from `from` over the places up to `last` (or down to it), until one has as
 * much: those behind it have what it is worth already. */
static void carry_on(const float *along, float *spread, uint64_t from, uint64_t last,
                     float price) {
    float value = spread[from];
    while (from != last) {
        const uint64_t next = from < last ? from + 1 : from - 1;
        value = value - price * tatvpr_distance(along[next], along[from]);
        if (!(value > spread[next])) {
            return;
        }
        spread[next] = value;
        from = next;
    }
}

/* Spreads evidence by `price` a metre over the places first .. last, both ways: strip by strip, then
 * over their ends. What a place has in the end is the most of what comes from either side, whatever
 * the order. */
static void spread_out(const float *along, float *spread, uint64_t first, uint64_t last,
                       float price) {
    const uint64_t most = (last - first + 1) / 4, count = most > 1 ? most : 0;
    const uint64_t rest = first + 4 * count; /* places that belong to no strip follow */
    if (count > 0) {
        sweep_strips(along, spread, first, first + 2 * count - 1, count, price);
        sweep_strips(along, spread, first + count, first + count - 1, count, price);
    }
    for (uint64_t end = first + count; count > 0 && end < rest; end += count) {
        carry_on(along, spread, end - 1, last, price);
    }
    for (uint64_t place = count > 0 ? rest - 1 : first; place < last; place++) {
        carry_on(along, spread, place, last, price);
    }
    for (uint64_t place = last; place >= rest && place > first; place--) {
        carry_on(along, spread, place, first, price);
    }
    for (uint64_t begin = rest - count; count > 0 && begin > first; begin -= count) {
        carry_on(along, spread, begin, first, price);
    }
}

enum { RUN = 16 }; /* places whose points are looked for at once */

/* What is spread at place `p` is worth so at a point `metres` along. */
static inline float worth(const float *along, const float *spread, uint64_t p, float metres,
                          float price) {
    return spread[p] - price * tatvpr_distance(metres, along[p]);
}

/* The same less the price of the turn that leads on from there, where turns are known; `turned`: of
 * the place that is reached, less what odometry says. */
static inline float worth_at(const tatvpr_stretch *r, int turns, uint64_t p, float metres,
                             float turned) {
    const float value = worth(r->along, r->spread, p, metres, r->price);
    return turns ? value - r->turn_price * tatvpr_distance(turned, r->turned[p]) : value;
}

/* Evidence `metres` before each of RUN places (behind, below 0), whose points all lie as many places
 * on as the place `guess` does from the first of them; answers 0 where one does not. A point's two
 * neighbours are then those that looking for it one by one finds. */
static inline int read_evenly(const tatvpr_stretch *of, int turns, uint64_t at, uint64_t guess,
                              float metres, float *restrict found) {
    const tatvpr_stretch r = *of;
    int32_t off = 0;
    for (uint64_t i = 0; i < RUN; i++) {
        const float point = r.along[at + i] + metres;
        const float turned = turns ? r.turned[at + i] - r.turned_rad : 0.0f;
        found[i] = tatvpr_larger(worth_at(&r, turns, guess + i, point, turned),
                                 worth_at(&r, turns, guess + i + 1, point, turned));
        off |= !(r.along[guess + i] <= point) | !(point < r.along[guess + i + 1]);
    }
    return !off;
}

/* The same where points may lie one place more or less on. */
static inline int read_nearly(const tatvpr_stretch *of, int turns, uint64_t at, uint64_t guess,
                              float metres, float *restrict found) {
    const tatvpr_stretch r = *of;
    const uint64_t before = guess - 1;
    int32_t off = 0;
    for (uint64_t i = 0; i < RUN; i++) {
        const float point = r.along[at + i] + metres;
        const float turned = turns ? r.turned[at + i] - r.turned_rad : 0.0f;
        const float a = worth_at(&r, turns, before + i, point, turned);
        const float b = worth_at(&r, turns, before + i + 1, point, turned);
        const float c = worth_at(&r, turns, before + i + 2, point, turned);
        const float d = worth_at(&r, turns, before + i + 3, point, turned);
        /* All of it is computed, so that it stays a loop over vectors. */
        const float less = tatvpr_larger(a, b), same = tatvpr_larger(b, c);
        const float more = tatvpr_larger(c, d);
        const float most = r.along[before + i + 1] <= point ? same : less;
        found[i] = r.along[before + i + 2] <= point ? more : most;
        off |= !(r.along[before + i] <= point) | !(point < r.along[before + i + 3]);
    }
    return !off;
}

/* Evidence `metres` before each of the places at .. at + count - 1 (behind, below 0). `*p` is the last
 * place at or before the point that was looked for last. */
static inline void read_off(const tatvpr_stretch *r, int turns, uint64_t at, uint64_t count,
                            float metres, uint64_t *p, float *restrict found) {
    const float *along = r->along;
    const uint64_t guess = *p + 1; /* places of a drive are about as far apart */
    uint64_t begin = 0;
    if (count == RUN && guess + RUN + 1 <= r->last) {
        if (read_evenly(r, turns, at, guess, metres, found)) {
            *p = guess + RUN - 1;
            return;
        }
        if (read_nearly(r, turns, at, guess, metres, found)) {
            *p = guess + RUN - 2; /* of the last point, or at most two before it */
            begin = RUN - 1;
        }
    }
    for (uint64_t i = begin; i < count; i++) {
        const float point = along[at + i] + metres;
        const float turned = turns ? r->turned[at + i] - r->turned_rad : 0.0f;
        while (*p < r->last && along[*p + 1] <= point) {
            (*p)++;
        }
        found[i] = tatvpr_larger(worth_at(r, turns, *p, point, turned),
                                 worth_at(r, turns, *p + (*p < r->last), point, turned));
    }
}

/* Reads the stretch `moved` metres before and behind every place. */
static inline void read_all(const tatvpr_stretch *r, int turns, float *restrict evidence,
                            float moved, float jump) {
    uint64_t p = r->first, q = r->first;
    for (uint64_t at = r->first; at <= r->last; at += RUN) {
        const uint64_t left = r->last - at + 1, count = left < RUN ? left : RUN;
        float behind[RUN], ahead[RUN];
        read_off(r, turns, at, count, -moved, &p, behind);
        read_off(r, turns, at, count, moved, &q, ahead);
        for (uint64_t i = 0; i < count; i++) {
            evidence[at + i] = tatvpr_larger(tatvpr_larger(behind[i], ahead[i]), jump);
        }
    }
}

void tatvpr_go_by_metres(const tatvpr_stretch *stretch, float *ahead, float *back, float moved,
                         float jump) {
    for (uint64_t i = stretch->first; i <= stretch->last; i++) {
        stretch->spread[i] = tatvpr_larger(ahead[i], back[i]);
    }
    spread_out(stretch->along, stretch->spread, stretch->first, stretch->last, stretch->price);
    if (stretch->turned != NULL) {
        read_all(stretch, 1, ahead, moved, jump);
    } else {
        read_all(stretch, 0, ahead, moved, jump);
    }
    for (uint64_t i = stretch->first; i <= stretch->last; i++) {
        back[i] = ahead[i];
    }
}
