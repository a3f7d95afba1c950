/* A track's memory (tatvpr_track.h): taken, moved, begun anew. */
#include "core.h"
#include "track_drives.h"
#include "track_paths.h"

static size_t tables(int32_t odometry) {
    return odometry == TATVPR_TRACK_TURNS ? 6 : odometry ? 5 : 3;
}

/* What is known of a structure that may end earlier. */
static size_t known_bytes(const tatvpr_track *track) {
    return track->size >= sizeof(tatvpr_track) ? sizeof(tatvpr_track)
           : track->size >= TATVPR_TURNS_TRACK ? TATVPR_TURNS_TRACK
                                               : TATVPR_LEAST_TRACK;
}

size_t tatvpr_track_bytes(uint64_t places, int32_t odometry) {
    return (size_t)places * tables(odometry) * sizeof(float) +
           tatvpr_begin_words(places) * sizeof(uint32_t);
}

tatvpr_status tatvpr_track_init(tatvpr_track *track, uint32_t frames, uint64_t places,
                                int32_t odometry, void *memory, size_t bytes) {
    if (track == NULL || memory == NULL) {
        return TATVPR_ERR_NULL;
    }
    const int turns = odometry == TATVPR_TRACK_TURNS;
    if (!tatvpr_sized(track->size, turns ? TATVPR_TURNS_TRACK : TATVPR_LEAST_TRACK)) {
        return TATVPR_ERR_ABI;
    }
    if (frames < 1 || frames > TATVPR_TRACK_MOST_FRAMES || places < 1 ||
        odometry < TATVPR_TRACK_WITHOUT || odometry > TATVPR_TRACK_TURNS) {
        return TATVPR_ERR_ARGUMENT;
    }
    if ((uintptr_t)memory % sizeof(float) != 0) {
        return TATVPR_ERR_ALIGNMENT;
    }
    if (places > SIZE_MAX / ((tables(TATVPR_TRACK_TURNS) + 1) * sizeof(float)) ||
        bytes < tatvpr_track_bytes(places, odometry)) {
        return TATVPR_ERR_ARENA;
    }
    float *table = (float *)memory;
    track->frames = frames;
    track->room = places;
    track->evidence = table;
    track->still = table + 2 * places;
    track->along = odometry ? table + 3 * places : NULL;
    track->spread = odometry ? table + 4 * places : NULL;
    if (track->size >= TATVPR_TURNS_TRACK) {
        track->turned = turns ? table + 5 * places : NULL;
    }
    if (track->size >= sizeof(tatvpr_track)) {
        track->last = NULL;
        track->last_size = 0;
    }
    track->begins = (uint32_t *)(void *)(table + tables(odometry) * (size_t)places);
    return tatvpr_track_start(track);
}

tatvpr_status tatvpr_track_move(tatvpr_track *track, uint64_t places, void *memory, size_t bytes) {
    if (track == NULL) {
        return TATVPR_ERR_NULL;
    }
    if (!tatvpr_sized(track->size, TATVPR_LEAST_TRACK)) {
        return TATVPR_ERR_ABI;
    }
    tatvpr_track old;
    tatvpr_zero(&old, sizeof(old));
    tatvpr_copy(&old, track, known_bytes(track));
    if (places < old.known) {
        return TATVPR_ERR_ARGUMENT;
    }
    const int32_t odometry = old.turned != NULL  ? TATVPR_TRACK_TURNS
                             : old.along != NULL ? TATVPR_TRACK_METRES
                                                 : TATVPR_TRACK_WITHOUT;
    const tatvpr_status status =
        tatvpr_track_init(track, old.frames, places, odometry, memory, bytes);
    if (status != TATVPR_OK) {
        return status;
    }
    const size_t known = (size_t)old.known;
    tatvpr_copy(track->evidence, old.evidence, known * sizeof(float));
    tatvpr_copy(tatvpr_back_of(track), tatvpr_back_of(&old), known * sizeof(float));
    tatvpr_copy(track->still, old.still, known * sizeof(float));
    if (old.along != NULL) {
        tatvpr_copy(track->along, old.along, known * sizeof(float));
    }
    if (old.turned != NULL) {
        tatvpr_copy(track->turned, old.turned, known * sizeof(float));
    }
    tatvpr_copy(track->begins, old.begins, tatvpr_begin_words(old.known) * sizeof(uint32_t));
    /* The tables are new; all else goes on. */
    const size_t tables_end = offsetof(tatvpr_track, known);
    uint8_t *to = (uint8_t *)(void *)track;
    const uint8_t *from = (const uint8_t *)(const void *)&old;
    tatvpr_copy(to + tables_end, from + tables_end, TATVPR_LEAST_TRACK - tables_end);
    tatvpr_copy(to + TATVPR_TURNS_TRACK, from + TATVPR_TURNS_TRACK,
                known_bytes(track) > TATVPR_TURNS_TRACK ? known_bytes(track) - TATVPR_TURNS_TRACK : 0);
    return TATVPR_OK;
}

tatvpr_status tatvpr_track_remember(tatvpr_track *track, float *room, uint32_t numbers) {
    if (track == NULL || room == NULL) {
        return TATVPR_ERR_NULL;
    }
    if (!tatvpr_sized(track->size, sizeof(tatvpr_track))) {
        return TATVPR_ERR_ABI;
    }
    track->last = room;
    track->last_size = numbers;
    return tatvpr_track_start(track);
}

tatvpr_status tatvpr_track_start(tatvpr_track *track) {
    if (track == NULL) {
        return TATVPR_ERR_NULL;
    }
    if (!tatvpr_sized(track->size, TATVPR_LEAST_TRACK)) {
        return TATVPR_ERR_ABI;
    }
    track->known = 0;
    track->place = 0;
    track->seen = 0;
    track->steady = 0;
    track->since = 0;
    track->held = 0;
    track->lead = 0.0f;
    track->most = TATVPR_LEFT_OUT;
    if (track->size >= sizeof(tatvpr_track)) {
        track->counted = track->swapped = track->rested = 0;
        track->last_k = track->last_tokens = 0.0f;
        track->owed_m = track->owed_rad = 0.0f;
    }
    return TATVPR_OK;
}
