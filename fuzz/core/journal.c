/* A map and its journal: 4 bytes say how long the map is, which is made whole; the journal follows,
 * as it is and with its checksums made right. What opens is copied into room of exactly the size that
 * was asked for, read to its last byte and searched. */
#include "fuzz.h"

enum { JOURNAL_HEADER = 64, HEAD = 16, TAIL = 8, AT_CRC = 12, AT_BINDING = 16, AT_DESCRIPTOR = 72 };

static void reseal(uint8_t *p, size_t size) {
    if (size < JOURNAL_HEADER) {
        return;
    }
    fuzz_put_u32(p + AT_CRC, tatvpr_crc32(0, p + AT_BINDING, JOURNAL_HEADER - AT_BINDING));
    for (size_t at = JOURNAL_HEADER; size - at >= HEAD + TAIL;) {
        const size_t length = tatvpr_read_u32(p + at + 4);
        if (length < HEAD + TAIL || length > size - at) {
            return;
        }
        fuzz_put_u32(p + at + length - TAIL, tatvpr_crc32(0, p + at, length - TAIL));
        fuzz_put_u32(p + at + length - 4, (uint32_t)length);
        at += length;
    }
}

static void use(const tatvpr_map *map, const tatvpr_journal *journal) {
    volatile char last = 0;
    for (uint64_t i = 0; i < journal->places; i++) {
        const char *tag = NULL;
        size_t bytes = 0;
        MUST(tatvpr_journal_tag(journal, journal->first + i, &tag, &bytes) == TATVPR_OK);
        for (size_t j = 0; j < bytes; j++) {
            last = tag[j];
        }
    }
    (void)last;
    const uint32_t elements = tatvpr_read_u32(map->base + AT_DESCRIPTOR);
    float *descriptor = (float *)(void *)fuzz_memory(4 * (size_t)elements);
    for (uint32_t i = 0; i < elements; i++) {
        descriptor[i] = i % 3 == 0 ? 1.0f : -0.5f;
    }
    tatvpr_match match;
    memset(&match, 0, sizeof(match));
    match.size = sizeof(match);
    int32_t found = 0;
    const tatvpr_status status =
        tatvpr_journal_search(map, journal, NULL, descriptor, 0.4f, 1.0f, &match, 1, &found);
    MUST(status == TATVPR_OK || status == TATVPR_ERR_MAP_EMPTY || status == TATVPR_ERR_ARGUMENT);
    MUST(status != TATVPR_OK || found == 0 || match.place < map->places + journal->places);
    free(descriptor);
}

static void open(const tatvpr_map *map, const uint8_t *data, size_t size) {
    size_t room_bytes = 0;
    const tatvpr_status asked = tatvpr_journal_bytes(map, data, size, &room_bytes);
    if (asked != TATVPR_OK) {
        return;
    }
    uint8_t *room = fuzz_memory(room_bytes);
    tatvpr_journal journal;
    memset(&journal, 0, sizeof(journal));
    journal.size = sizeof(journal);
    const tatvpr_status status =
        tatvpr_journal_open(&journal, map, data, size, room, room_bytes);
    MUST(status == TATVPR_OK || status == TATVPR_ERR_MAP_JOURNAL);
    if (status == TATVPR_OK) {
        use(map, &journal);
        MUST(tatvpr_journal_open(&journal, map, data, size, room, room_bytes - 1) ==
             TATVPR_ERR_ARENA);
    }
    free(room);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 4) {
        return 0;
    }
    const size_t stated = tatvpr_read_u32(data);
    const size_t map_bytes = stated < size - 4 ? stated : size - 4;
    uint8_t *base = fuzz_copy(data + 4, map_bytes);
    fuzz_reseal_map(base, map_bytes);
    tatvpr_map map;
    memset(&map, 0, sizeof(map));
    map.size = sizeof(map);
    if (tatvpr_map_open(&map, base, map_bytes, NULL) == TATVPR_OK) {
        const size_t rest = size - 4 - map_bytes;
        uint8_t *journal = fuzz_copy(data + 4 + map_bytes, rest);
        open(&map, journal, rest);
        reseal(journal, rest);
        open(&map, journal, rest);
        free(journal);
    }
    free(base);
    return 0;
}
