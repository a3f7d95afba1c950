/* An opened map, for the search. */
#ifndef TATVPR_MAP_H
#define TATVPR_MAP_H

#include "../include/tatvpr.h"

/* 3 is kept. A weighed map stores what a binary one does. */
enum { TATVPR_MAP_INT8 = 1, TATVPR_MAP_BINARY = 2, TATVPR_MAP_WEIGHED = 4 };

/* Reads band `index` of an opened map and where its descriptors lie. */
void tatvpr_map_band(const tatvpr_map *map, uint32_t index, tatvpr_band *band, tatvpr_rows *rows);
/* How band `index` judges queries at (k, tokens): what it says of sequences of frames, and of single ones. */
tatvpr_sequence tatvpr_map_judging(const tatvpr_map *map, uint32_t index, float k,
                                   float tokens, tatvpr_calibration *calibration);
/* All places of an opened map as one part of the band `rows`. */
tatvpr_part tatvpr_map_part(const tatvpr_map *map, const tatvpr_rows *rows);
/* What binds a journal to an opened map: 48 bytes, as its header has them. */
void tatvpr_map_binding(const tatvpr_map *map, uint8_t *binding);
/* 1 where a stored pose (56 bytes) and its moment (16) obey the rules of every number. */
int tatvpr_map_place_valid(const uint8_t *pose, const uint8_t *moment, uint32_t geographic);
/* The places of an opened journal as one part of band `band`, whose rows `rows` receives. */
tatvpr_part tatvpr_journal_part(const tatvpr_map *map, const tatvpr_journal *journal, uint32_t band,
                                tatvpr_rows *rows);
/* 1 where poses are longitude and latitude. */
uint32_t tatvpr_map_geographic(const tatvpr_map *map);
/* Elements in a descriptor of the map's model. */
uint32_t tatvpr_map_descriptor_size(const tatvpr_map *map);

/* Places of all parts of a table. */
static inline uint64_t tatvpr_places_total(const tatvpr_places *places) {
    uint64_t total = 0;
    for (uint32_t p = 0; p < places->parts; p++) {
        total += places->part[p].places;
    }
    return total;
}

/* What tatvpr_map_search says before it looks at the descriptor. */
tatvpr_status tatvpr_map_check(const tatvpr_map *map, const tatvpr_model *model, float k,
                               float tokens, const tatvpr_match *matches, int32_t count,
                               const int32_t *found);

/* ---- map_query.c: one descriptor against rows of one band */

enum {
    TATVPR_MAP_BLOCK = 256,  /* rows compared at once */
    TATVPR_MAP_CHUNK = 1024  /* elements compared at once */
};

/* A descriptor as a band stores them. Up to TATVPR_MAP_CHUNK elements (every descriptor in
 * practice) it is quantised once. */
typedef struct tatvpr_map_query {
    const float *descriptor;
    const float *mean; /* null: zero */
    const struct tatvpr_kernels *kernels;
    int32_t ahead; /* 1: bits are compared by kernels->hamming_ahead */
    int32_t dim;
    uint32_t kind;
    float inverse; /* 1 / scale: of the descriptor; weighed: of how far it lies from the mean */
    float norm;    /* int8: 1 / sqrt(sum q^2) */
    int32_t weights;     /* weighed: what all bits count, */
    int32_t set_weights; /* and those that the query has set */
    int32_t held;        /* first element of the chunk that `part` holds; -1: none */
    uint32_t held_as;    /* as the kind says; of a weighed map's query bits, or what they count */
    int8_t part[TATVPR_MAP_CHUNK];
} tatvpr_map_query;

/* What a row of a block gives: first its dot product or distance, then its score. */
typedef union tatvpr_likeness {
    int32_t sum;
    float score;
} tatvpr_likeness;

/* Refuses descriptors that are not finite (TATVPR_ERR_NOT_FINITE) or round to zeros only, so that
 * they look like nothing (TATVPR_ERR_ARGUMENT). */
tatvpr_status tatvpr_map_query_begin(tatvpr_map_query *q, uint32_t kind, uint32_t dim,
                                     const float *mean, const struct tatvpr_kernels *kernels,
                                     const float *descriptor);

enum { TATVPR_MAP_WEIGHED_BEST = 16 }; /* places that are ranked by weighed bits */

/* Scores of `count` rows from row `first` on. Scores below `worst` of a binary map may be left
 * out: 0 says that the whole block was. */
int tatvpr_map_query_block(tatvpr_map_query *q, const tatvpr_rows *rows, uint64_t first,
                           int32_t count, float worst, tatvpr_likeness *block);

/* The same of a weighed map, whose bits count as much as the query's numbers lie from the mean, in 127
 * steps of the largest: 1 - 2 * (weights that differ) / (all). 0 where no number lies apart from the
 * mean: nothing is weighed then. */
int tatvpr_map_query_weigh(tatvpr_map_query *q, const tatvpr_rows *rows, uint64_t first,
                           int32_t count, tatvpr_likeness *block);

#endif
