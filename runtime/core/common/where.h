/* How far apart places lie, and what is elsewhere: for the search and for sequences. */
#ifndef TATVPR_WHERE_H
#define TATVPR_WHERE_H

#include "../include/tatvpr.h"

#define TATVPR_POSITION 3u /* x and y are known */
#define TATVPR_FEWEST_RIVALS 8u /* places elsewhere without which a margin says nothing */
#define TATVPR_METRES_A_DEGREE 111195.08023353292 /* of a circle around the earth, radius 6,371,008.8 m */
#define TATVPR_RADIANS_A_DEGREE 0.017453292519943295

/* A place as far as where it is. */
typedef struct tatvpr_spot {
    const double *pose; /* [7] */
    const tatvpr_moment *moment;
} tatvpr_spot;

/* Cosine by its series: within 1e-9 for angles up to a quarter turn. */
static inline double tatvpr_cosine(double degrees) {
    const double x = degrees * TATVPR_RADIANS_A_DEGREE;
    const double square = x * x;
    double term = 1.0;
    double sum = 1.0;
    for (int i = 1; i <= 8; i++) {
        term = -term * square / (double)((2 * i - 1) * (2 * i));
        sum += term;
    }
    return sum;
}

/* Square of the metres between two positions; z counts where it is asked for and is not NaN. */
static inline double tatvpr_square_metres(uint32_t geographic, const double *a, const double *b,
                                          int with_z) {
    double dx = a[0] - b[0];
    double dy = a[1] - b[1];
    const double dz = a[2] - b[2];
    if (geographic) {
        dx = dx < 0.0 ? -dx : dx;
        dx = dx > 180.0 ? 360.0 - dx : dx;
        dx *= TATVPR_METRES_A_DEGREE * tatvpr_cosine((a[1] + b[1]) * 0.5);
        dy *= TATVPR_METRES_A_DEGREE;
    }
    return (dx * dx + dy * dy) + (with_z && dz == dz ? dz * dz : 0.0);
}

/* 1 where both positions are known. */
static inline int tatvpr_both_known(tatvpr_spot a, tatvpr_spot b) {
    return (a.moment->known & b.moment->known & TATVPR_POSITION) == TATVPR_POSITION;
}

/* The same of two places whose x and y are known. */
static inline double tatvpr_spots_apart(uint32_t geographic, tatvpr_spot a, tatvpr_spot b) {
    return tatvpr_square_metres(geographic, a.pose, b.pose,
                                (a.moment->known & b.moment->known & 4u) != 0);
}

/* 1 where a place lies within `radius` metres of x, y (and z, unless it is NaN). */
static inline int tatvpr_within(uint32_t geographic, tatvpr_spot spot, const double *near,
                                double radius) {
    return (spot.moment->known & TATVPR_POSITION) == TATVPR_POSITION &&
           tatvpr_square_metres(geographic, spot.pose, near, (spot.moment->known & 4u) != 0) <=
               radius * radius;
}

/* 1 where `c` judges by log-odds, so that margins are asked for. */
static inline int tatvpr_by_odds(const tatvpr_calibration *c) {
    return c->kind == TATVPR_CALIBRATION_LOGISTIC || c->kind == TATVPR_CALIBRATION_ROOTED;
}

/* 1 where `a` lies elsewhere than `from`, as a calibration says. */
static inline int tatvpr_elsewhere(const tatvpr_calibration *c, uint32_t geographic, tatvpr_spot a,
                                   tatvpr_spot from) {
    if (c->elsewhere_m > 0.0f && tatvpr_both_known(a, from)) {
        const double limit = (double)c->elsewhere_m;
        return tatvpr_spots_apart(geographic, a, from) > limit * limit;
    }
    if (c->elsewhere_places == 0 || a.moment->drive != from.moment->drive) {
        return 1;
    }
    const uint32_t order = a.moment->order, other = from.moment->order;
    return (order > other ? order - other : other - order) > c->elsewhere_places;
}

/* The part that holds `*place`, which becomes its number there. */
static inline const tatvpr_part *tatvpr_part_of(const tatvpr_places *places, uint64_t *place) {
    const tatvpr_part *part = places->part;
    while (*place >= part->places) {
        *place -= part->places;
        part++;
    }
    return part;
}

static inline tatvpr_spot tatvpr_spot_of(const tatvpr_part *part, uint64_t local) {
    const tatvpr_spot spot = {part->poses + 7 * local, part->moments + local};
    return spot;
}

/* The pose of a place as it is told: x y z qx qy qz qw, NaN where unknown. */
static inline void tatvpr_tell_pose(tatvpr_spot spot, double *pose) {
    for (uint32_t i = 0; i < 7; i++) {
        const int known = spot.moment->known >> i & 1;
        pose[i] = known ? spot.pose[i] : (double)__builtin_nanf("");
    }
}

/* What lies elsewhere than an answer. */
typedef struct tatvpr_rivals {
    float first, second; /* the most of two tables; -infinity: none */
    uint64_t count;      /* of places whose `first` is above -infinity; exact up to TATVPR_FEWEST_RIVALS */
} tatvpr_rivals;

/* The rivals of an answer at `from`, by two tables [all places] (which may be one). */
tatvpr_rivals tatvpr_rivals_of(const tatvpr_places *places, const tatvpr_calibration *c,
                               tatvpr_spot from, const float *first, const float *second);

/* The most of `values`; -infinity of none. */
float tatvpr_highest(const float *values, uint64_t count);

#endif
