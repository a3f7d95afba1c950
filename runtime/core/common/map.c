/* Place maps: opening one checks every number before it is used. Layout: docs/placemap-format.md and
 * tatvpr_edge/spec/placemap.py; both readers give the same verdict on the same bytes. */
#include "core.h"
#include "floats.h"
#include "map.h"
#include "where.h"

#define HEADER 192u
#define BAND 128u
#define START 12u /* magic and version */
#define VERSION 2u
#define MOST_BANDS 16u
#define MOST_DIM 65536u
#define MOST_PLACES 0x7FFFFFFFu
#define GEOGRAPHIC 2u
#define SEQUENCES 1u /* required feature: a band is calibrated for sequences of frames */
#define ROOTED 4u /* required feature: margins of sequences count by their roots */
#define DIALS 2u /* required feature: how sure an answer is depends on the query's k or tokens */
#define MOST_FRAMES 1000u
#define FURTHEST_M 1e9  /* how far from its origin a position may be */
#define UNIT_SLACK 1e-6 /* how far from 1 the square of an orientation may be */

/* Fields of the header, by offset. */
enum {
    AT_VERSION = 8,
    AT_HEADER_BYTES = 12,
    AT_FILE_BYTES = 16,
    AT_REQUIRED = 24,
    AT_MODEL_HASH = 32,
    AT_KIND = 64,
    AT_DIM = 68,
    AT_DESCRIPTOR_SIZE = 72,
    AT_POSE_FRAME = 76,
    AT_PLACES = 80,
    AT_BANDS = 88,
    AT_ZERO = 92,
    AT_POSES = 96,
    AT_MOMENTS = 104,
    AT_TAGS = 112,
    AT_TAGS_BYTES = 120,
    AT_REST = 128, /* zeros */
    AT_PAYLOAD_CRC = 184,
    AT_HEADER_CRC = 188
};

/* Fields of a band, by offset. */
enum {
    BAND_TOKENS = 4,
    BAND_ROWS = 8,
    BAND_NORMS = 16,
    BAND_MEAN = 24,
    BAND_CALIBRATION = 32,
    BAND_PRECISION = 36,
    BAND_RECALL = 40,
    BAND_THRESHOLD = 44,
    BAND_WEIGHTS = 48,
    BAND_ELSEWHERE_M = 60,
    BAND_ELSEWHERE_PLACES = 64,
    BAND_SEQUENCE = 68,
    BAND_SEQUENCE_PRECISION = 72,
    BAND_SEQUENCE_RECALL = 76,
    BAND_SEQUENCE_THRESHOLD = 80,
    BAND_SEQUENCE_WEIGHTS = 84,
    BAND_DIALS = 108, /* what k and tokens count */
    BAND_SEQUENCE_DIALS = 116,
    BAND_LEAST = 124, /* the lowest k and tokens that it was learned at, in hundredths */
    BAND_SEQUENCE_LEAST = 126
};

typedef char moment_is_16_bytes[sizeof(tatvpr_moment) == 16 ? 1 : -1];

static uint64_t round_up_64(uint64_t n) { return (n + 63u) / 64u * 64u; }

static int all_zero(const uint8_t *p, uint64_t begin, uint64_t end) {
    for (uint64_t i = begin; i < end; i++) {
        if (p[i] != 0) {
            return 0;
        }
    }
    return 1;
}

static int fraction(float x) { return x > 0.0f && x <= 1.0f; }
static int share(float x) { return x >= 0.0f && x <= 1.0f; }
static int is_finite(float x) { return x - x == 0.0f; }

static const uint8_t *band_at(const uint8_t *p, uint32_t index) {
    return p + HEADER + (size_t)BAND * index;
}

static uint32_t header_crc(const uint8_t *p, uint32_t header_bytes) {
    static const uint8_t zero[4] = {0}; /* the header's checksum, its last field, counts as zero */
    uint32_t crc = tatvpr_crc32(0, p, AT_HEADER_CRC);
    crc = tatvpr_crc32(crc, zero, sizeof(zero));
    return tatvpr_crc32(crc, p + HEADER, header_bytes - HEADER);
}

/* Magic, version, sizes, header checksum, features. */
static tatvpr_status check_header(const uint8_t *p, size_t size) {
    static const uint8_t magic[8] = {'T', 'V', 'P', 'R', 'M', 'A', 'P', '1'};
    if (size < START) {
        return TATVPR_ERR_MAP_TRUNCATED;
    }
    for (size_t i = 0; i < sizeof(magic); i++) {
        if (p[i] != magic[i]) {
            return TATVPR_ERR_MAP_MAGIC;
        }
    }
    if (tatvpr_read_u32(p + AT_VERSION) != VERSION) {
        return TATVPR_ERR_MAP_VERSION;
    }
    if (size < HEADER) {
        return TATVPR_ERR_MAP_TRUNCATED;
    }
    const uint32_t bands = tatvpr_read_u32(p + AT_BANDS);
    const uint32_t header_bytes = tatvpr_read_u32(p + AT_HEADER_BYTES);
    if (bands < 1 || bands > MOST_BANDS || header_bytes != HEADER + BAND * bands) {
        return TATVPR_ERR_MAP_HEADER;
    }
    if (size < header_bytes) {
        return TATVPR_ERR_MAP_TRUNCATED;
    }
    if (header_crc(p, header_bytes) != tatvpr_read_u32(p + AT_HEADER_CRC)) {
        return TATVPR_ERR_MAP_CRC;
    }
    if ((tatvpr_read_u32(p + AT_REQUIRED) & ~(SEQUENCES | DIALS | ROOTED)) != 0) {
        return TATVPR_ERR_MAP_FEATURE;
    }
    const uint64_t file_bytes = tatvpr_read_u64(p + AT_FILE_BYTES);
    if (size < file_bytes) {
        return TATVPR_ERR_MAP_TRUNCATED;
    }
    return size > file_bytes ? TATVPR_ERR_MAP_HEADER : TATVPR_OK;
}

int32_t tatvpr_map_kind_known(uint32_t kind) {
    return kind == TATVPR_MAP_INT8 || kind == TATVPR_MAP_BINARY || kind == TATVPR_MAP_WEIGHED;
}

int32_t tatvpr_calibration_known(uint32_t kind) { return kind <= TATVPR_CALIBRATION_ROOTED; }

static int fields_valid(const uint8_t *p) {
    const uint32_t kind = tatvpr_read_u32(p + AT_KIND);
    const uint32_t dim = tatvpr_read_u32(p + AT_DIM);
    const uint32_t descriptor_size = tatvpr_read_u32(p + AT_DESCRIPTOR_SIZE);
    return tatvpr_map_kind_known(kind) && dim >= 1 && dim <= descriptor_size &&
           descriptor_size <= MOST_DIM &&
           (kind == TATVPR_MAP_INT8 || dim % 8 == 0) &&
           tatvpr_read_u32(p + AT_POSE_FRAME) <= GEOGRAPHIC &&
           tatvpr_read_u64(p + AT_PLACES) <= MOST_PLACES && tatvpr_read_u32(p + AT_ZERO) == 0 &&
           all_zero(p, AT_REST, AT_PAYLOAD_CRC);
}

static tatvpr_calibration read_calibration(const uint8_t *band) {
    tatvpr_calibration c;
    c.kind = tatvpr_read_u32(band + BAND_CALIBRATION);
    c.precision = tatvpr_read_f32(band + BAND_PRECISION);
    c.recall = tatvpr_read_f32(band + BAND_RECALL);
    c.threshold = tatvpr_read_f32(band + BAND_THRESHOLD);
    for (size_t i = 0; i < 3; i++) {
        c.weights[i] = tatvpr_read_f32(band + BAND_WEIGHTS + 4 * i);
    }
    c.elsewhere_m = tatvpr_read_f32(band + BAND_ELSEWHERE_M);
    c.elsewhere_places = tatvpr_read_u32(band + BAND_ELSEWHERE_PLACES);
    return c;
}

static int calibration_valid(const tatvpr_calibration *c) {
    const int weighted =
        c->weights[0] != 0.0f || c->weights[1] != 0.0f || c->weights[2] != 0.0f;
    const int apart = c->elsewhere_m != 0.0f || c->elsewhere_places != 0;
    if (c->kind == TATVPR_CALIBRATION_NONE) {
        return c->precision == 0.0f && c->recall == 0.0f && c->threshold == 0.0f && !weighted &&
               !apart;
    }
    if (!share(c->precision) || !share(c->recall) || !is_finite(c->threshold) ||
        !is_finite(c->weights[0]) || !is_finite(c->weights[1]) || !is_finite(c->weights[2]) ||
        !is_finite(c->elsewhere_m) || c->elsewhere_m < 0.0f) {
        return 0;
    }
    if (c->kind == TATVPR_CALIBRATION_SCORE) {
        return c->threshold >= -1.0f && c->threshold <= 1.0f && !weighted && !apart;
    }
    return tatvpr_by_odds(c) && apart;
}

/* What k and tokens count, where there is a calibration that it may belong to. */
static int dials_valid(const uint8_t *weights, const uint8_t *least, int judged) {
    for (size_t i = 0; i < 2; i++) {
        const float weight = tatvpr_read_f32(weights + 4 * i);
        const int counts = weight != 0.0f;
        if (counts != (least[i] != 0) || least[i] > 100 ||
            (counts && (!judged || !is_finite(weight)))) {
            return 0;
        }
    }
    return 1;
}

static int band_dials_valid(const uint8_t *band) {
    const tatvpr_calibration c = read_calibration(band);
    return dials_valid(band + BAND_DIALS, band + BAND_LEAST, tatvpr_by_odds(&c)) &&
           dials_valid(band + BAND_SEQUENCE_DIALS, band + BAND_SEQUENCE_LEAST,
                       tatvpr_read_u32(band + BAND_SEQUENCE) != 0);
}

static tatvpr_sequence read_sequence(const uint8_t *band) {
    tatvpr_sequence s;
    s.frames = tatvpr_read_u32(band + BAND_SEQUENCE);
    s.precision = tatvpr_read_f32(band + BAND_SEQUENCE_PRECISION);
    s.recall = tatvpr_read_f32(band + BAND_SEQUENCE_RECALL);
    s.threshold = tatvpr_read_f32(band + BAND_SEQUENCE_THRESHOLD);
    for (size_t i = 0; i < 6; i++) {
        s.weights[i] = tatvpr_read_f32(band + BAND_SEQUENCE_WEIGHTS + 4 * i);
    }
    return s;
}

static int sequence_valid(const uint8_t *band) {
    const tatvpr_sequence s = read_sequence(band);
    const tatvpr_calibration c = read_calibration(band);
    if (s.frames == 0) {
        return c.kind != TATVPR_CALIBRATION_ROOTED && all_zero(band, BAND_SEQUENCE, BAND_DIALS);
    }
    for (size_t i = 0; i < 6; i++) {
        if (!is_finite(s.weights[i])) {
            return 0;
        }
    }
    return s.frames <= MOST_FRAMES && share(s.precision) && share(s.recall) &&
           is_finite(s.threshold) && tatvpr_by_odds(&c);
}

/* 1 where the header asks for what bands have, and for nothing else. */
static int features_announced(const uint8_t *p, uint32_t bands) {
    uint32_t had = 0;
    for (uint32_t b = 0; b < bands; b++) {
        const uint8_t *band = band_at(p, b);
        had |= tatvpr_read_u32(band + BAND_SEQUENCE) != 0 ? SEQUENCES : 0;
        had |= all_zero(band, BAND_LEAST, BAND) ? 0 : DIALS;
        had |= read_calibration(band).kind == TATVPR_CALIBRATION_ROOTED ? ROOTED : 0;
    }
    return had == tatvpr_read_u32(p + AT_REQUIRED);
}

/* The next section must begin exactly at the next multiple of 64 after `end`, padded with zeros.
 * Nothing can overflow: 2^31 places x 2^16 bytes x 16 bands is below 2^52. */
static int section(const uint8_t *p, uint64_t *end, uint64_t offset, uint64_t bytes,
                   uint64_t file_bytes) {
    const uint64_t begin = round_up_64(*end);
    if (offset != begin || begin > file_bytes || bytes > file_bytes - begin ||
        !all_zero(p, *end, begin)) {
        return 0;
    }
    *end = begin + bytes;
    return 1;
}

static inline __attribute__((always_inline)) int
floats_valid(const uint8_t *p, uint64_t count, int (*valid)(float)) {
    for (uint64_t i = 0; i < count; i++) {
        if (!valid(tatvpr_read_f32(p + 4 * i))) {
            return 0;
        }
    }
    return 1;
}

static int band_valid(const uint8_t *p, const uint8_t *band, uint64_t *end) {
    const uint64_t file_bytes = tatvpr_read_u64(p + AT_FILE_BYTES);
    const uint64_t places = tatvpr_read_u64(p + AT_PLACES);
    const uint32_t dim = tatvpr_read_u32(p + AT_DIM);
    const int int8 = tatvpr_read_u32(p + AT_KIND) == TATVPR_MAP_INT8;
    const uint64_t norms = tatvpr_read_u64(band + BAND_NORMS);
    const uint64_t mean = tatvpr_read_u64(band + BAND_MEAN);
    const tatvpr_calibration calibration = read_calibration(band);
    if (!fraction(tatvpr_read_f32(band)) || !fraction(tatvpr_read_f32(band + BAND_TOKENS)) ||
        !calibration_valid(&calibration) || !sequence_valid(band) || !band_dials_valid(band) ||
        !section(p, end, tatvpr_read_u64(band + BAND_ROWS), places * (int8 ? dim : dim / 8),
                 file_bytes)) {
        return 0;
    }
    if (int8) {
        return mean == 0 && section(p, end, norms, places * 4, file_bytes) &&
               floats_valid(p + norms, places, fraction);
    }
    return norms == 0 && (mean == 0 || (section(p, end, mean, (uint64_t)dim * 4, file_bytes) &&
                                        floats_valid(p + mean, dim, is_finite)));
}

/* One pose and its moment: no number further than any position is, what is unknown zero, a turn
 * whole and of length one. */
int tatvpr_map_place_valid(const uint8_t *pose, const uint8_t *moment, uint32_t geographic) {
    const uint32_t known = moment[15];
    const uint32_t turned = known >> 3;
    double v[7];
    for (uint32_t i = 0; i < 7; i++) {
        v[i] = tatvpr_read_f64(pose + 8 * i);
        if (!(v[i] >= -FURTHEST_M && v[i] <= FURTHEST_M) || (!(known >> i & 1u) && v[i] != 0.0)) {
            return 0;
        }
    }
    if ((turned != 0 && turned != 15) || (moment[7] & 0x80u)) {
        return 0; /* half a turn, or a time before 1970 */
    }
    const double square = ((v[3] * v[3] + v[4] * v[4]) + v[5] * v[5]) + v[6] * v[6];
    if (turned == 15 && (square - 1.0 > UNIT_SLACK || 1.0 - square > UNIT_SLACK)) {
        return 0;
    }
    return !geographic ||
           (v[0] >= -180.0 && v[0] <= 180.0 && v[1] >= -90.0 && v[1] <= 90.0);
}

static int tags_valid(const uint8_t *tags, uint64_t tags_bytes, uint64_t places) {
    const uint64_t table = 8 * (places + 1);
    uint64_t previous = 0;
    if (tags_bytes < table || tatvpr_read_u64(tags) != 0) {
        return 0;
    }
    for (uint64_t i = 1; i <= places; i++) {
        const uint64_t end = tatvpr_read_u64(tags + 8 * i);
        if (end < previous) {
            return 0;
        }
        previous = end;
    }
    return previous == tags_bytes - table;
}

static int sections_valid(const uint8_t *p) {
    const uint64_t file_bytes = tatvpr_read_u64(p + AT_FILE_BYTES);
    const uint64_t places = tatvpr_read_u64(p + AT_PLACES);
    const uint32_t bands = tatvpr_read_u32(p + AT_BANDS);
    const uint64_t poses = tatvpr_read_u64(p + AT_POSES);
    const uint64_t moments = tatvpr_read_u64(p + AT_MOMENTS);
    const uint64_t tags = tatvpr_read_u64(p + AT_TAGS);
    const uint64_t tags_bytes = tatvpr_read_u64(p + AT_TAGS_BYTES);
    uint64_t end = HEADER + (uint64_t)BAND * bands;
    if (!features_announced(p, bands)) {
        return 0;
    }
    for (uint32_t b = 0; b < bands; b++) {
        if (!band_valid(p, band_at(p, b), &end)) {
            return 0;
        }
    }
    if (!section(p, &end, poses, places * 56, file_bytes) ||
        !section(p, &end, moments, places * sizeof(tatvpr_moment), file_bytes) ||
        !section(p, &end, tags, tags_bytes, file_bytes) || end != file_bytes) {
        return 0;
    }
    const uint32_t geographic = tatvpr_read_u32(p + AT_POSE_FRAME) == GEOGRAPHIC;
    for (uint64_t i = 0; i < places; i++) {
        if (!tatvpr_map_place_valid(p + poses + 56 * i, p + moments + 16 * i, geographic)) {
            return 0;
        }
    }
    return tags_valid(p + tags, tags_bytes, places);
}

tatvpr_status tatvpr_map_tag(const tatvpr_map *map, uint64_t place, const char **tag,
                             size_t *bytes) {
    if (map == NULL || map->base == NULL || tag == NULL || bytes == NULL) {
        return TATVPR_ERR_NULL;
    }
    if (place >= map->places) {
        return TATVPR_ERR_ARGUMENT;
    }
    const uint8_t *ends = map->base + tatvpr_read_u64(map->base + AT_TAGS);
    const uint64_t first = tatvpr_read_u64(ends + 8 * place);
    *tag = (const char *)(ends + 8 * (map->places + 1) + first);
    *bytes = (size_t)(tatvpr_read_u64(ends + 8 * (place + 1)) - first);
    return TATVPR_OK;
}

static int of_model(const uint8_t *p, const tatvpr_program *program) {
    for (size_t i = 0; i < sizeof(program->model_hash); i++) {
        if (p[AT_MODEL_HASH + i] != program->model_hash[i]) {
            return 0;
        }
    }
    return tatvpr_read_u32(p + AT_DESCRIPTOR_SIZE) == (uint32_t)program->descriptor_size;
}

tatvpr_status tatvpr_map_open(tatvpr_map *map, const void *bytes, size_t size,
                              const tatvpr_model *model) {
    if (map == NULL || bytes == NULL) {
        return TATVPR_ERR_NULL;
    }
    if (!tatvpr_sized(map->size, sizeof(tatvpr_map))) {
        return TATVPR_ERR_ABI;
    }
    if (!tatvpr_aligned(bytes)) {
        return TATVPR_ERR_ALIGNMENT;
    }
    const uint8_t *p = (const uint8_t *)bytes;
    const tatvpr_status status = check_header(p, size);
    if (status != TATVPR_OK) {
        return status;
    }
    const uint32_t header_bytes = tatvpr_read_u32(p + AT_HEADER_BYTES);
    if (!fields_valid(p)) {
        return TATVPR_ERR_MAP_HEADER;
    }
    if (tatvpr_crc32(0, p + header_bytes, size - header_bytes) !=
        tatvpr_read_u32(p + AT_PAYLOAD_CRC)) {
        return TATVPR_ERR_MAP_CRC;
    }
    if (!sections_valid(p)) {
        return TATVPR_ERR_MAP_HEADER;
    }
    if (model != NULL && model->program != NULL && !of_model(p, model->program)) {
        return TATVPR_ERR_MAP_MODEL;
    }
    map->kind = tatvpr_read_u32(p + AT_KIND);
    map->dim = tatvpr_read_u32(p + AT_DIM);
    map->bands = tatvpr_read_u32(p + AT_BANDS);
    map->places = tatvpr_read_u64(p + AT_PLACES);
    map->base = p;
    map->bytes = size;
    return TATVPR_OK;
}

void tatvpr_map_band(const tatvpr_map *map, uint32_t index, tatvpr_band *band, tatvpr_rows *rows) {
    const uint8_t *p = band_at(map->base, index);
    const uint64_t mean = tatvpr_read_u64(p + BAND_MEAN);
    band->k = tatvpr_read_f32(p);
    band->tokens = tatvpr_read_f32(p + BAND_TOKENS);
    band->mean = mean == 0 ? NULL : (const float *)(const void *)(map->base + (size_t)mean);
    band->calibration = read_calibration(p);
    rows->data = map->base + (size_t)tatvpr_read_u64(p + BAND_ROWS);
    rows->norms =
        (const float *)(const void *)(map->base + (size_t)tatvpr_read_u64(p + BAND_NORMS));
}

/* What a dial at `value` counts in the log-odds; 0 where `least` is. */
static float of_dial(const uint8_t *weight, uint8_t least, float value) {
    const float lowest = (float)least / 100.0f;
    const float at = value > lowest ? value : lowest;
    return least == 0 ? 0.0f : tatvpr_read_f32(weight) * (1.0f / tatvpr_sqrt(at) - 1.0f);
}

static float with_dials(float first, const uint8_t *weights, const uint8_t *least, float k,
                        float tokens) {
    return (first + of_dial(weights, least[0], k)) + of_dial(weights + 4, least[1], tokens);
}

tatvpr_sequence tatvpr_map_judging(const tatvpr_map *map, uint32_t index, float k,
                                   float tokens, tatvpr_calibration *calibration) {
    const uint8_t *band = band_at(map->base, index);
    tatvpr_sequence sequence = read_sequence(band);
    *calibration = read_calibration(band);
    calibration->weights[0] = with_dials(calibration->weights[0], band + BAND_DIALS,
                                         band + BAND_LEAST, k, tokens);
    sequence.weights[0] = with_dials(sequence.weights[0], band + BAND_SEQUENCE_DIALS,
                                     band + BAND_SEQUENCE_LEAST, k, tokens);
    return sequence;
}

tatvpr_part tatvpr_map_part(const tatvpr_map *map, const tatvpr_rows *rows) {
    const uint8_t *p = map->base;
    tatvpr_part part;
    part.places = map->places;
    part.rows = rows;
    part.poses = (const double *)(const void *)(p + (size_t)tatvpr_read_u64(p + AT_POSES));
    part.moments =
        (const tatvpr_moment *)(const void *)(p + (size_t)tatvpr_read_u64(p + AT_MOMENTS));
    return part;
}

uint32_t tatvpr_map_geographic(const tatvpr_map *map) {
    return tatvpr_read_u32(map->base + AT_POSE_FRAME) == GEOGRAPHIC ? 1 : 0;
}

uint32_t tatvpr_map_descriptor_size(const tatvpr_map *map) {
    return tatvpr_read_u32(map->base + AT_DESCRIPTOR_SIZE);
}

void tatvpr_map_binding(const tatvpr_map *map, uint8_t *binding) {
    tatvpr_zero(binding, 48);
    tatvpr_copy(binding, map->base + AT_PAYLOAD_CRC, 4);
    tatvpr_copy(binding + 8, map->base + AT_FILE_BYTES, 8);
    tatvpr_copy(binding + 16, map->base + AT_MODEL_HASH, 32);
}
