/* The journal of a map: places added since its base was written. Layout, and the rules of what is
 * torn and what was altered: tatvpr_edge/runtime/mapjournal.py; both readers give the same verdict on
 * the same bytes. Places lie in records there; they are copied into tables, as a search reads them. */
#include "core.h"
#include "map.h"

#define HEADER 64u
#define VERSION 2u
#define HEAD 16u /* of a record: magic, bytes, places before it, places in it */
#define TAIL 8u  /* of a record: checksum, bytes again */
#define POSE 56u
#define MOMENT 16u
#define TABLE 64u /* every table begins at a multiple */

enum { AT_VERSION = 8, AT_CRC = 12, AT_BINDING = 16, AT_MODEL_HASH = 32 };
enum { RECORD_BYTES = 4, RECORD_BEFORE = 8, RECORD_PLACES = 12 };

static uint32_t row_bytes(const tatvpr_map *map) {
    return map->kind == TATVPR_MAP_INT8 ? map->dim : map->dim / 8;
}

static uint32_t norm_bytes(const tatvpr_map *map) { return map->kind == TATVPR_MAP_INT8 ? 4 : 0; }

/* Everything of a place before the size of its tag. */
static uint64_t fixed_bytes(const tatvpr_map *map) {
    return (uint64_t)map->bands * (row_bytes(map) + norm_bytes(map)) + POSE + MOMENT;
}

static int same(const uint8_t *a, const uint8_t *b, uint64_t count) {
    for (uint64_t i = 0; i < count; i++) {
        if (a[i] != b[i]) {
            return 0;
        }
    }
    return 1;
}

/* ---- records ---- */

/* Bytes of the record at `at`; 0 where there is no whole one. */
static uint64_t whole_record(const uint8_t *p, uint64_t size, uint64_t at) {
    static const uint8_t magic[4] = {'P', 'L', 'C', 'S'};
    if (at + HEAD + TAIL > size || !same(p + at, magic, sizeof(magic))) {
        return 0;
    }
    const uint64_t length = tatvpr_read_u32(p + at + RECORD_BYTES);
    if (length < HEAD + TAIL || length > size - at) {
        return 0;
    }
    const uint8_t *tail = p + at + length - TAIL;
    if (tatvpr_read_u32(tail + 4) != length ||
        tatvpr_crc32(0, p + at, (size_t)(length - TAIL)) != tatvpr_read_u32(tail)) {
        return 0;
    }
    return length;
}

/* Well-formed UTF-8 (RFC 3629): no overlong form, no surrogate, nothing beyond U+10FFFF. */
static int is_text(const uint8_t *p, uint32_t count) {
    for (uint32_t i = 0; i < count;) {
        const uint8_t c = p[i];
        uint32_t more = 0;
        uint8_t low = 0x80;
        uint8_t high = 0xBF;
        if (c >= 0xC2 && c <= 0xDF) {
            more = 1;
        } else if (c >= 0xE0 && c <= 0xEF) {
            more = 2;
            low = c == 0xE0 ? 0xA0 : low;
            high = c == 0xED ? 0x9F : high;
        } else if (c >= 0xF0 && c <= 0xF4) {
            more = 3;
            low = c == 0xF0 ? 0x90 : low;
            high = c == 0xF4 ? 0x8F : high;
        } else if (c >= 0x80) {
            return 0;
        }
        if (more > count - i - 1) {
            return 0;
        }
        for (uint32_t j = 1; j <= more; j++) {
            if (p[i + j] < (j == 1 ? low : 0x80) || p[i + j] > (j == 1 ? high : 0xBF)) {
                return 0;
            }
        }
        i += 1 + more;
    }
    return 1;
}

static int place_valid(const tatvpr_map *map, const uint8_t *place) {
    const uint32_t row = row_bytes(map);
    const uint32_t norm = norm_bytes(map);
    for (uint32_t b = 0; norm > 0 && b < map->bands; b++) {
        const float x = tatvpr_read_f32(place + (uint64_t)b * (row + norm) + row);
        if (!(x > 0.0f && x <= 1.0f)) {
            return 0;
        }
    }
    const uint8_t *pose = place + fixed_bytes(map) - POSE - MOMENT;
    return tatvpr_map_place_valid(pose, pose + POSE, tatvpr_map_geographic(map));
}

/* ---- tables in the caller's room: of each band rows and norms, poses, moments, ends of tags, tags */

typedef struct tables {
    uint64_t rows; /* of the first band; each band takes `band` bytes */
    uint64_t norms;
    uint64_t band;
    uint64_t poses;
    uint64_t moments;
    uint64_t ends;
    uint64_t tags;
    uint64_t bytes;
} tables;

static uint64_t up(uint64_t n) { return (n + TABLE - 1) / TABLE * TABLE; }

static tables lay_out(const tatvpr_map *map, uint64_t places, uint64_t tag_bytes) {
    tables t;
    t.rows = 0;
    t.norms = up(places * row_bytes(map));
    t.band = t.norms + up(places * norm_bytes(map));
    t.poses = t.band * map->bands;
    t.moments = t.poses + up(places * POSE);
    t.ends = t.moments + up(places * MOMENT);
    t.tags = t.ends + up((places + 1) * 8);
    t.bytes = t.tags + up(tag_bytes);
    return t;
}

/* One walk over the records: counts into `journal`; with `room`, copies too. */
typedef struct walk {
    const tatvpr_map *map;
    const uint8_t *p;
    uint64_t size;
    uint64_t places;
    uint64_t tag_bytes;
    uint64_t end; /* of the last whole record */
    uint8_t *room;
    tables t;
} walk;

static void put_u64(uint8_t *p, uint64_t value) {
    for (uint32_t i = 0; i < 8; i++) {
        p[i] = (uint8_t)(value >> (8 * i));
    }
}

static void copy_place(const walk *w, const uint8_t *place, uint32_t tag_bytes) {
    const uint32_t row = row_bytes(w->map);
    const uint32_t norm = norm_bytes(w->map);
    for (uint32_t b = 0; b < w->map->bands; b++) {
        uint8_t *band = w->room + w->t.band * b;
        const uint8_t *from = place + (uint64_t)b * (row + norm);
        tatvpr_copy(band + w->t.rows + w->places * row, from, row);
        tatvpr_copy(band + w->t.norms + w->places * norm, from + row, norm);
    }
    const uint8_t *pose = place + fixed_bytes(w->map) - POSE - MOMENT;
    tatvpr_copy(w->room + w->t.poses + w->places * POSE, pose, POSE);
    tatvpr_copy(w->room + w->t.moments + w->places * MOMENT, pose + POSE, MOMENT);
    tatvpr_copy(w->room + w->t.tags + w->tag_bytes, pose + POSE + MOMENT + 4, tag_bytes);
    put_u64(w->room + w->t.ends + 8 * (w->places + 1), w->tag_bytes + tag_bytes);
}

/* The places of the record that ends before `end`, from `at` on. */
static int walk_record(walk *w, uint64_t at, uint64_t end, uint32_t count) {
    const uint64_t fixed = fixed_bytes(w->map);
    for (uint32_t i = 0; i < count; i++) {
        if (fixed + 4 > end - at) {
            return 0;
        }
        const uint32_t tag_bytes = tatvpr_read_u32(w->p + at + fixed);
        if (tag_bytes > end - at - fixed - 4) {
            return 0;
        }
        if (w->room != NULL) {
            copy_place(w, w->p + at, tag_bytes);
        } else if (!place_valid(w->map, w->p + at) ||
                   !is_text(w->p + at + fixed + 4, tag_bytes)) {
            return 0;
        }
        w->places++;
        w->tag_bytes += tag_bytes;
        at += fixed + 4 + tag_bytes;
    }
    return at == end;
}

static tatvpr_status walk_all(walk *w) {
    uint64_t at = HEADER;
    uint64_t length = 0;
    w->places = 0;
    w->tag_bytes = 0;
    while ((length = whole_record(w->p, w->size, at)) > 0) {
        const uint32_t count = tatvpr_read_u32(w->p + at + RECORD_PLACES);
        if (tatvpr_read_u32(w->p + at + RECORD_BEFORE) != w->places ||
            !walk_record(w, at + HEAD, at + length - TAIL, count)) {
            return TATVPR_ERR_MAP_HEADER;
        }
        at += length;
    }
    w->end = at;
    /* An append that was cut is the last thing here: if a whole record follows, one was altered. */
    for (at++; w->room == NULL && at < w->size; at++) {
        if (w->p[at] == 'P' && whole_record(w->p, w->size, at) > 0) {
            return TATVPR_ERR_MAP_CRC;
        }
    }
    return TATVPR_OK;
}

static tatvpr_status check_header(const uint8_t *p, size_t size) {
    static const uint8_t magic[8] = {'T', 'V', 'P', 'R', 'J', 'R', 'N', '1'};
    if (size < HEADER) {
        return TATVPR_ERR_MAP_TRUNCATED;
    }
    if (!same(p, magic, sizeof(magic))) {
        return TATVPR_ERR_MAP_MAGIC;
    }
    if (tatvpr_read_u32(p + AT_VERSION) != VERSION) {
        return TATVPR_ERR_MAP_VERSION;
    }
    const uint32_t crc = tatvpr_crc32(0, p + AT_BINDING, HEADER - AT_BINDING);
    return crc == tatvpr_read_u32(p + AT_CRC) ? TATVPR_OK : TATVPR_ERR_MAP_CRC;
}

/* ---- the calls ---- */

static tatvpr_status look(walk *w, const tatvpr_map *map, const void *bytes, size_t size) {
    if (map == NULL || map->base == NULL || bytes == NULL) {
        return TATVPR_ERR_NULL;
    }
    if (!tatvpr_sized(map->size, sizeof(tatvpr_map))) {
        return TATVPR_ERR_ABI;
    }
    tatvpr_zero(w, sizeof(*w));
    w->map = map;
    w->p = (const uint8_t *)bytes;
    w->size = size;
    const tatvpr_status status = check_header(w->p, size);
    return status == TATVPR_OK ? walk_all(w) : status;
}

tatvpr_status tatvpr_journal_bytes(const tatvpr_map *map, const void *bytes, size_t size,
                                   size_t *room_bytes) {
    walk w;
    if (room_bytes == NULL) {
        return TATVPR_ERR_NULL;
    }
    const tatvpr_status status = look(&w, map, bytes, size);
    const uint64_t needed = status == TATVPR_OK ? lay_out(map, w.places, w.tag_bytes).bytes : 0;
    if (needed > SIZE_MAX) {
        return TATVPR_ERR_ARENA;
    }
    *room_bytes = (size_t)needed;
    return status;
}

/* Equal places: descriptors, poses, moments and tags. */
static int same_place(const tatvpr_map *map, const tatvpr_journal *j, uint64_t mine,
                      uint64_t theirs) {
    const uint32_t row = row_bytes(map);
    tatvpr_band band;
    tatvpr_rows rows;
    tatvpr_rows added;
    for (uint32_t b = 0; b < map->bands; b++) {
        tatvpr_map_band(map, b, &band, &rows);
        tatvpr_journal_part(map, j, b, &added);
        if (!same(rows.data + mine * row, added.data + theirs * row, row)) {
            return 0;
        }
    }
    const tatvpr_part base = tatvpr_map_part(map, &rows);
    const tatvpr_part more = tatvpr_journal_part(map, j, 0, &added);
    for (uint32_t i = 0; i < 7; i++) {
        if (base.poses[7 * mine + i] != more.poses[7 * theirs + i]) {
            return 0;
        }
    }
    const char *tag = NULL;
    const char *other = NULL;
    size_t tag_bytes = 0;
    size_t other_bytes = 0;
    tatvpr_map_tag(map, mine, &tag, &tag_bytes);
    tatvpr_journal_tag(j, map->places + theirs, &other, &other_bytes);
    return tag_bytes == other_bytes &&
           same((const uint8_t *)tag, (const uint8_t *)other, tag_bytes) &&
           same((const uint8_t *)(base.moments + mine), (const uint8_t *)(more.moments + theirs),
                MOMENT);
}

/* Whether the base ends with these places: compaction was cut before it removed the journal. */
static int absorbed(const tatvpr_map *map, const tatvpr_journal *j) {
    if (j->places > map->places) {
        return 0;
    }
    for (uint64_t i = 0; i < j->places; i++) {
        if (!same_place(map, j, map->places - j->places + i, i)) {
            return 0;
        }
    }
    return 1;
}

tatvpr_status tatvpr_journal_open(tatvpr_journal *journal, const tatvpr_map *map,
                                  const void *bytes, size_t size, void *room, size_t room_bytes) {
    walk w;
    if (journal == NULL || (room == NULL && room_bytes > 0)) {
        return TATVPR_ERR_NULL;
    }
    if (!tatvpr_sized(journal->size, sizeof(tatvpr_journal))) {
        return TATVPR_ERR_ABI;
    }
    tatvpr_status status = look(&w, map, bytes, size);
    if (status != TATVPR_OK) {
        return status;
    }
    if (room != NULL && !tatvpr_aligned(room)) {
        return TATVPR_ERR_ALIGNMENT;
    }
    w.t = lay_out(map, w.places, w.tag_bytes);
    if (room == NULL || w.t.bytes > room_bytes) {
        return TATVPR_ERR_ARENA;
    }
    w.room = (uint8_t *)room;
    put_u64(w.room + w.t.ends, 0);
    walk_all(&w);
    journal->bands = map->bands;
    journal->places = w.places;
    journal->first = map->places;
    journal->torn_bytes = size - (size_t)w.end;
    journal->count = w.places;
    journal->tag_bytes = w.tag_bytes;
    journal->tables = w.room;
    journal->tag_ends = w.room + w.t.ends;
    uint8_t binding[HEADER - AT_BINDING];
    tatvpr_map_binding(map, binding);
    if (!same(w.p + AT_BINDING, binding, sizeof(binding))) {
        if (!same(w.p + AT_MODEL_HASH, binding + (AT_MODEL_HASH - AT_BINDING), 32) ||
            !absorbed(map, journal)) {
            return TATVPR_ERR_MAP_JOURNAL;
        }
        journal->places = 0;
        journal->torn_bytes = 0;
    }
    return TATVPR_OK;
}

tatvpr_status tatvpr_journal_tag(const tatvpr_journal *journal, uint64_t place, const char **tag,
                                 size_t *bytes) {
    if (journal == NULL || journal->tables == NULL || tag == NULL || bytes == NULL) {
        return TATVPR_ERR_NULL;
    }
    if (place < journal->first || place - journal->first >= journal->places) {
        return TATVPR_ERR_ARGUMENT;
    }
    const uint8_t *ends = (const uint8_t *)journal->tag_ends + 8 * (place - journal->first);
    const uint64_t first = tatvpr_read_u64(ends);
    const uint8_t *tags = (const uint8_t *)journal->tag_ends + up((journal->count + 1) * 8);
    *tag = (const char *)(tags + first);
    *bytes = (size_t)(tatvpr_read_u64(ends + 8) - first);
    return TATVPR_OK;
}

tatvpr_part tatvpr_journal_part(const tatvpr_map *map, const tatvpr_journal *journal, uint32_t band,
                                tatvpr_rows *rows) {
    const tables t = lay_out(map, journal->count, journal->tag_bytes);
    const uint8_t *room = (const uint8_t *)journal->tables;
    tatvpr_part part;
    rows->data = room + t.band * band + t.rows;
    rows->norms = (const float *)(const void *)(room + t.band * band + t.norms);
    part.places = journal->places;
    part.rows = rows;
    part.poses = (const double *)(const void *)(room + t.poses);
    part.moments = (const tatvpr_moment *)(const void *)(room + t.moments);
    return part;
}
