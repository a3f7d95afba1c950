/* Place maps: opening one checks every number before it is used. Layout: docs and
 * tatvpr_edge/spec/placemap.py; both readers give the same verdict on the same bytes. */
#include "core.h"
#include "map.h"

#define HEADER 128u
#define BAND 64u
#define MOST_BANDS 16u
#define MOST_DIM 65536u
#define MOST_PLACES 0x7FFFFFFFu
#define NO_HEADER_CRC 4u /* the header's checksum, its last field, counts as zero */

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

static uint32_t header_crc(const uint8_t *p, uint32_t header_bytes) {
    static const uint8_t zero[NO_HEADER_CRC] = {0};
    uint32_t crc = tatvpr_crc32(0, p, HEADER - NO_HEADER_CRC);
    crc = tatvpr_crc32(crc, zero, NO_HEADER_CRC);
    return tatvpr_crc32(crc, p + HEADER, header_bytes - HEADER);
}

/* Magic, version, sizes, header checksum, features. */
static tatvpr_status check_header(const uint8_t *p, size_t size) {
    static const uint8_t magic[8] = {'T', 'V', 'P', 'R', 'M', 'A', 'P', '1'};
    if (size < HEADER) {
        return TATVPR_ERR_MAP_TRUNCATED;
    }
    for (size_t i = 0; i < sizeof(magic); i++) {
        if (p[i] != magic[i]) {
            return TATVPR_ERR_MAP_MAGIC;
        }
    }
    if (tatvpr_read_u32(p + 8) != 1) {
        return TATVPR_ERR_MAP_VERSION;
    }
    const uint32_t bands = tatvpr_read_u32(p + 88);
    const uint32_t header_bytes = tatvpr_read_u32(p + 12);
    if (bands < 1 || bands > MOST_BANDS || header_bytes != HEADER + BAND * bands) {
        return TATVPR_ERR_MAP_HEADER;
    }
    if (size < header_bytes) {
        return TATVPR_ERR_MAP_TRUNCATED;
    }
    if (header_crc(p, header_bytes) != tatvpr_read_u32(p + 124)) {
        return TATVPR_ERR_MAP_CRC;
    }
    if (tatvpr_read_u32(p + 24) != 0) {
        return TATVPR_ERR_MAP_FEATURE;
    }
    const uint64_t file_bytes = tatvpr_read_u64(p + 16);
    if (size < file_bytes) {
        return TATVPR_ERR_MAP_TRUNCATED;
    }
    return size > file_bytes ? TATVPR_ERR_MAP_HEADER : TATVPR_OK;
}

static int fields_valid(const uint8_t *p) {
    const uint32_t kind = tatvpr_read_u32(p + 64);
    const uint32_t dim = tatvpr_read_u32(p + 68);
    return (kind == TATVPR_MAP_INT8 || kind == TATVPR_MAP_BINARY) && dim >= 1 && dim <= MOST_DIM &&
           (kind == TATVPR_MAP_INT8 || dim % 8 == 0) && tatvpr_read_u32(p + 72) == kind &&
           tatvpr_read_u32(p + 76) == (kind == TATVPR_MAP_INT8 ? 1u : 0u) &&
           tatvpr_read_u64(p + 80) <= MOST_PLACES && tatvpr_read_u32(p + 92) <= 1;
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
    const uint64_t file_bytes = tatvpr_read_u64(p + 16);
    const uint32_t kind = tatvpr_read_u32(p + 64);
    const uint32_t dim = tatvpr_read_u32(p + 68);
    const uint64_t places = tatvpr_read_u64(p + 80);
    const uint32_t bands = tatvpr_read_u32(p + 88);
    const uint64_t row = kind == TATVPR_MAP_INT8 ? dim : dim / 8;
    uint64_t end = HEADER + (uint64_t)BAND * bands;
    for (uint32_t b = 0; b < bands; b++) {
        const uint8_t *band = p + HEADER + (size_t)BAND * b;
        const uint64_t norms = tatvpr_read_u64(band + 24);
        if (!fraction(tatvpr_read_f32(band)) || !fraction(tatvpr_read_f32(band + 4)) ||
            tatvpr_read_u32(band + 12) != 0 || !all_zero(band, 32, BAND) ||
            !section(p, &end, tatvpr_read_u64(band + 16), places * row, file_bytes)) {
            return 0;
        }
        if (kind == TATVPR_MAP_INT8 ? !section(p, &end, norms, places * 4, file_bytes)
                                    : norms != 0) {
            return 0;
        }
    }
    const uint64_t tags_offset = tatvpr_read_u64(p + 104);
    const uint64_t tags_bytes = tatvpr_read_u64(p + 112);
    return section(p, &end, tatvpr_read_u64(p + 96), places * 56, file_bytes) &&
           section(p, &end, tags_offset, tags_bytes, file_bytes) && end == file_bytes &&
           tags_valid(p + tags_offset, tags_bytes, places);
}

tatvpr_status tatvpr_map_open(tatvpr_map *map, const void *bytes, size_t size,
                              const tatvpr_model *model) {
    if (map == NULL || bytes == NULL) {
        return TATVPR_ERR_NULL;
    }
    if (map->size < sizeof(tatvpr_map)) {
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
    if (!fields_valid(p) || !sections_valid(p)) {
        return TATVPR_ERR_MAP_HEADER;
    }
    const uint32_t header_bytes = tatvpr_read_u32(p + 12);
    if (tatvpr_crc32(0, p + header_bytes, size - header_bytes) != tatvpr_read_u32(p + 120)) {
        return TATVPR_ERR_MAP_CRC;
    }
    if (model != NULL && model->program != NULL) {
        for (size_t i = 0; i < sizeof(model->program->model_hash); i++) {
            if (p[32 + i] != model->program->model_hash[i]) {
                return TATVPR_ERR_MAP_MODEL;
            }
        }
    }
    map->kind = tatvpr_read_u32(p + 64);
    map->dim = tatvpr_read_u32(p + 68);
    map->bands = tatvpr_read_u32(p + 88);
    map->places = tatvpr_read_u64(p + 80);
    map->base = p;
    map->bytes = size;
    return TATVPR_OK;
}

/* What a query at (k, tokens) loses in a band, as far as bands can be ordered by it: the ratio of
 * tokens, times the ratio of k, squared where the band was made at the lower k: places described
 * at a lower k than the query's lose more than those at a higher one. */
static double band_cost(const uint8_t *band, float k, float tokens) {
    const double bk = (double)tatvpr_read_f32(band);
    const double bt = (double)tatvpr_read_f32(band + 4);
    const double below = (double)k / bk;
    const double of_k = bk >= (double)k ? bk / (double)k : below * below;
    const double of_tokens = bt > (double)tokens ? bt / (double)tokens : (double)tokens / bt;
    return of_k * of_tokens;
}

tatvpr_map_band tatvpr_map_nearest(const tatvpr_map *map, float k, float tokens) {
    tatvpr_map_band nearest = {0, 0.0f, NULL, NULL};
    double least = 0.0;
    for (uint32_t b = 0; b < map->bands; b++) {
        const uint8_t *band = map->base + HEADER + (size_t)BAND * b;
        const double cost = band_cost(band, k, tokens);
        if (b == 0 || cost < least) {
            least = cost;
            nearest.index = b;
            nearest.threshold = tatvpr_read_f32(band + 8);
            nearest.rows = map->base + (size_t)tatvpr_read_u64(band + 16);
            nearest.norms = (const float *)(const void *)(map->base +
                                                          (size_t)tatvpr_read_u64(band + 24));
        }
    }
    return nearest;
}

void tatvpr_map_pose(const tatvpr_map *map, uint64_t place, double pose[7]) {
    const uint8_t *p = map->base + (size_t)tatvpr_read_u64(map->base + 96) + (size_t)place * 56;
    for (int i = 0; i < 7; i++) {
        pose[i] = tatvpr_read_f64(p + 8 * i);
    }
}
