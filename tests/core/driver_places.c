/* Maps and paths of the C core's test driver. */
#include <stdlib.h>

#include "../../runtime/core/common/map.h"
#include "../../runtime/core/include/tatvpr_track.h"
#include "driver.h"

/* Every score of a descriptor, asked of the band that serves it. */
static tatvpr_status every_score(request *r, const tatvpr_map *map, const tatvpr_model *model) {
    tatvpr_map_view view;
    tatvpr_match best;
    tatvpr_search asked;
    int32_t found;
    view.size = sizeof(view);
    best.size = sizeof(best);
    memset(&asked, 0, sizeof(asked));
    asked.size = sizeof(asked);
    asked.k = r->f[0];
    asked.tokens = r->f[1];
    asked.scores = (float *)(void *)output(r, (size_t)map->places * sizeof(float));
    const tatvpr_status status = tatvpr_map_look(map, NULL, asked.k, asked.tokens, &view);
    float *first = (float *)(void *)output(r, 2 * sizeof(float)); /* w0 of frames, of sequences */
    first[0] = view.band.calibration.weights[0];
    first[1] = view.sequence.weights[0];
    return status != TATVPR_OK
               ? status
               : tatvpr_places_search(&view.places, model,
                                      (const float *)(void *)r->in[1].data, &asked, &best, 1,
                                      &found);
}

/* A map's verdict, then the best `count` places of a descriptor, and every score. integers: count,
 * numbers in the model's descriptor, whether the map is opened without the model, whether this CPU's
 * family is taken for one that gains by rows fetched ahead. */
int32_t run_map(request *r) {
    tatvpr_program program;
    tatvpr_model model;
    memset(&program, 0, sizeof(program));
    memcpy(program.model_hash, r->in[2].data, 32);
    program.descriptor_size = r->i[1];
    model.program = &program;
    model.weights = NULL;
    model.kernels = kernels_named(r->kernels);
    tatvpr_costs costs;
    memset(&costs, 0, sizeof(costs));
#if defined(TATVPR_WIDE)
    costs.fetches_rows = r->i[3];
#endif
    model.costs = &costs;
    tatvpr_map map;
    memset(&map, 0, sizeof(map));
    map.size = sizeof(map);
    tatvpr_status status = tatvpr_map_open(&map, r->in[0].data, (size_t)r->in[0].bytes,
                                           r->i[2] != 0 ? NULL : &model);
    if (status != TATVPR_OK || r->i[0] == 0) {
        return (int32_t)status;
    }
    const int32_t count = r->i[0];
    tatvpr_match *matches = (tatvpr_match *)calloc((size_t)count, sizeof(tatvpr_match));
    must(matches != NULL, "out of memory");
    matches->size = sizeof(tatvpr_match);
    int32_t found = 0;
    status = tatvpr_map_search(&map, &model, (const float *)(void *)r->in[1].data, r->f[0],
                               r->f[1], matches, count, &found);
    uint64_t *places = (uint64_t *)(void *)output(r, (size_t)found * 8);
    float *scores = (float *)(void *)output(r, (size_t)found * 4);
    int32_t *rest = (int32_t *)(void *)output(r, (size_t)found * 8); /* band, accepted */
    double *poses = (double *)(void *)output(r, (size_t)found * 56);
    for (int32_t j = 0; j < found; j++) {
        places[j] = matches[j].place;
        scores[j] = matches[j].score;
        rest[2 * j] = (int32_t)matches[j].band;
        rest[2 * j + 1] = matches[j].accepted;
        memcpy(poses + 7 * j, matches[j].pose, 56);
    }
    free(matches);
    if (status == TATVPR_OK) {
        status = every_score(r, &map, &model);
    }
    return (int32_t)status;
}

/* integers: places, frames, steps, odometry; floats: elsewhere in metres, threshold, weights [6];
 * buffers: scores [steps, places], which frames show something [steps], metres moved [steps],
 * moments, poses, radians turned [steps] (heeded where odometry is TATVPR_TRACK_TURNS), descriptors
 * [steps, 1]; the last two may be left out. Memory for the path is allocated to the byte. */
int32_t run_track(request *r) {
    const uint64_t places = (uint64_t)r->i[0];
    const int32_t steps = r->i[2];
    tatvpr_band band;
    memset(&band, 0, sizeof(band));
    band.calibration.kind = TATVPR_CALIBRATION_LOGISTIC;
    band.calibration.elsewhere_m = r->f[0];
    tatvpr_sequence sequence;
    memset(&sequence, 0, sizeof(sequence));
    sequence.frames = (uint32_t)r->i[1];
    sequence.threshold = r->f[1];
    memcpy(sequence.weights, r->f + 2, sizeof(sequence.weights));
    const tatvpr_part part = {places, NULL, (const double *)(void *)r->in[4].data,
                              (const tatvpr_moment *)(void *)r->in[3].data};
    const tatvpr_places table = {sizeof(table), 1, 1, 0, 1, 1, &band, &part};
    const size_t bytes = tatvpr_track_bytes(places, r->i[3]);
    uint8_t *memory = aligned(bytes);
    tatvpr_track track;
    track.size = sizeof(track);
    tatvpr_status status =
        tatvpr_track_init(&track, sequence.frames, places, r->i[3], memory, bytes);
    const float *descriptors = r->count > 6 ? (const float *)(void *)r->in[6].data : NULL;
    uint8_t *room = aligned(sizeof(float));
    if (status == TATVPR_OK && descriptors != NULL) {
        status = tatvpr_track_remember(&track, (float *)(void *)room, 1);
    }
    tatvpr_tracked *found = (tatvpr_tracked *)(void *)output(r, (size_t)steps * sizeof(*found));
    for (int32_t t = 0; t < steps && status == TATVPR_OK; t++) {
        tatvpr_step step;
        memset(&step, 0, sizeof(step));
        step.size = sizeof(step);
        step.scores = r->in[1].data[t] ? (const float *)(void *)r->in[0].data + (size_t)t * places
                                       : NULL;
        step.sequence = &sequence;
        step.moved_m = ((const float *)(void *)r->in[2].data)[t];
        step.turned_rad = r->i[3] == TATVPR_TRACK_TURNS
                              ? ((const float *)(void *)r->in[5].data)[t]
                              : __builtin_nanf("");
        step.descriptor = descriptors != NULL ? descriptors + t : NULL;
        found[t].size = sizeof(*found);
        status = tatvpr_track_step(&track, &table, &step, &found[t]);
    }
    free(room);
    free(memory);
    return (int32_t)status;
}
