/* What the Linux examples share: files, a model, a map, a line about a place. */
#ifndef EXAMPLE_H
#define EXAMPLE_H

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <tatvpr.h>

static inline void fail(const char *what, const char *why) {
    fprintf(stderr, "where: %s: %s\n", what, why);
    exit(1);
}

static inline void check(const char *what, tatvpr_status status) {
    if (status != TATVPR_OK) {
        fail(what, tatvpr_status_text(status));
    }
}

/* `text`, where it is a number and nothing else: 0.2x is a slip, not 0.2. */
static inline double number(const char *text) {
    char *end = NULL;
    const double value = strtod(text, &end);
    if (end == text || *end != '\0') {
        fail(text, "is no number");
    }
    return value;
}

static inline void *aligned(size_t bytes) {
    void *p = aligned_alloc(TATVPR_ARENA_ALIGN, (bytes / TATVPR_ARENA_ALIGN + 1) * TATVPR_ARENA_ALIGN);
    if (p == NULL) {
        fail("memory", strerror(ENOMEM));
    }
    return p;
}

/* What `file` holds, which was opened as `path`, or was not. */
static inline void *read_opened(FILE *file, const char *path, size_t *bytes) {
    /* A folder opens, and fails when it is read. */
    if (file == NULL || (fgetc(file) == EOF && ferror(file)) || fseek(file, 0, SEEK_END) != 0) {
        fail(path, strerror(errno));
    }
    const long size = ftell(file);
    rewind(file);
    void *data = aligned((size_t)(size < 0 ? 0 : size));
    if (size < 0 || fread(data, 1, (size_t)size, file) != (size_t)size) {
        fail(path, "cannot be read");
    }
    fclose(file);
    *bytes = (size_t)size;
    return data;
}

static inline void *read_file(const char *path, size_t *bytes) {
    return read_opened(fopen(path, "rb"), path, bytes);
}

/* The linked model with the weights of a file. */
static inline tatvpr_model load_model(const char *weights) {
    size_t blob_bytes = 0;
    void *blob = read_file(weights, &blob_bytes);
    const tatvpr_program *program = tatvpr_program_get();
    const size_t prepared_bytes = tatvpr_prepared_bytes(program, NULL);
    void *prepared = prepared_bytes > 0 ? aligned(prepared_bytes) : NULL;
    tatvpr_model model;
    check(weights, tatvpr_model_init(&model, program, blob, blob_bytes, NULL, prepared,
                                     prepared_bytes));
    if (prepared != NULL) {
        free(blob); /* the prepared copy is complete */
    }
    return model;
}

static inline tatvpr_arena make_arena(const tatvpr_model *model) {
    tatvpr_arena arena = {NULL, tatvpr_arena_bytes(model, 1)};
    arena.base = aligned(arena.bytes);
    return arena;
}

/* A map: its base file, and the journal of what was added since, where there is one. */
typedef struct place_map {
    tatvpr_map base;
    tatvpr_journal journal; /* without tables where there is none */
} place_map;

static inline place_map load_map(const char *path, const tatvpr_model *model) {
    place_map map = {.base = {.size = sizeof(map.base)}, .journal = {.size = sizeof(map.journal)}};
    char name[4096];
    size_t bytes = 0, journal_bytes = 0, room_bytes = 0;
    char *real = realpath(path, NULL); /* where a link leads to, the journal lies */
    if (real == NULL) {
        fail(path, strerror(errno));
    }
    if (snprintf(name, sizeof(name), "%s.journal", real) >= (int)sizeof(name)) {
        fail(path, strerror(ENAMETOOLONG));
    }
    FILE *file = fopen(name, "rb");
    if (file == NULL && errno != ENOENT) {
        fail(name, strerror(errno)); /* without its places the answer would be another */
    }
    void *journal = file == NULL ? NULL : read_opened(file, name, &journal_bytes);
    /* After its journal: the base that compaction puts in its place meanwhile holds those places. */
    const void *base = read_file(real, &bytes);
    check(path, tatvpr_map_open(&map.base, base, bytes, model));
    free(real);
    if (journal != NULL) {
        check(name, tatvpr_journal_bytes(&map.base, journal, journal_bytes, &room_bytes));
        check(name, tatvpr_journal_open(&map.journal, &map.base, journal, journal_bytes,
                                        aligned(room_bytes), room_bytes));
        free(journal); /* the places are copied */
    }
    return map;
}

static inline const tatvpr_journal *added_to(const place_map *map) {
    return map->journal.tables == NULL ? NULL : &map->journal;
}

static inline void print_place(const place_map *map, const tatvpr_match *best) {
    const char *tag = "";
    size_t tag_bytes = 0;
    const unsigned long long places = map->base.places + map->journal.places;
    if (best->place < map->base.places) {
        check("map", tatvpr_map_tag(&map->base, best->place, &tag, &tag_bytes));
    } else {
        check("map", tatvpr_journal_tag(&map->journal, best->place, &tag, &tag_bytes));
    }
    printf("place %llu of %llu", (unsigned long long)best->place, places);
    if (tag_bytes > 0) {
        printf(" \"%.*s\"", (int)tag_bytes, tag);
    }
    printf(", score %.4f, ", (double)best->score);
    if (best->pose[0] == best->pose[0]) {
        printf("at %.2f %.2f %.2f", best->pose[0], best->pose[1], best->pose[2]);
    } else { /* NaN: nobody said where this place is */
        printf("position unknown");
    }
    printf("%s\n", best->accepted == 0 ? " (below the map's threshold)" : "");
}

#endif
