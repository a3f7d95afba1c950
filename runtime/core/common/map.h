/* An opened map, for the search. */
#ifndef TATVPR_MAP_H
#define TATVPR_MAP_H

#include "../include/tatvpr.h"

enum { TATVPR_MAP_INT8 = 1, TATVPR_MAP_BINARY = 2 };

typedef struct tatvpr_map_band {
    uint32_t index;
    float threshold;     /* NaN: none */
    const uint8_t *rows; /* int8 [places, dim] or bits [places, dim / 8] */
    const float *norms;  /* [places]; meaningless for binary maps */
} tatvpr_map_band;

/* The band that costs a query at this k and tokens least (docs/placemap.md); ties to the first. */
tatvpr_map_band tatvpr_map_nearest(const tatvpr_map *map, float k, float tokens);
void tatvpr_map_pose(const tatvpr_map *map, uint64_t place, double pose[7]);

#endif
