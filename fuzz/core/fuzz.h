/* What the targets share. Each is one LLVMFuzzerTestOneInput; a broken property aborts, and
 * sanitizers say the rest. Memory is of exactly the size that the caller of the interface owes, so
 * that one byte beyond it is found. */
#ifndef FUZZ_H
#define FUZZ_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sanitizer/asan_interface.h>

#include "../../runtime/core/common/core.h"

#define MUST(what)                                          \
    do {                                                    \
        if (!(what)) {                                      \
            fprintf(stderr, "broken property: %s\n", #what); \
            abort();                                        \
        }                                                   \
    } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The core's own, under other names: see shared/. */
uint32_t fuzz_core_crc32(uint32_t crc, const uint8_t *bytes, size_t count);
int32_t fuzz_core_cpu_avx2(void);
int32_t fuzz_core_cpu_avx_vnni(void);
int32_t fuzz_core_cpu_avx512_vnni(void);
const tatvpr_costs *fuzz_core_cpu_costs(const tatvpr_costs *rows, int32_t count);

static inline uint8_t *fuzz_memory(size_t bytes) {
    void *p = NULL;
    MUST(posix_memalign(&p, TATVPR_ARENA_ALIGN, bytes == 0 ? 1 : bytes) == 0);
    return (uint8_t *)p;
}

/* The same for what is large, one at a time and returned with fuzz_large_free(): a sanitizer's
 * allocator would ask the operating system for it and give it back in each execution, which takes
 * longer than the execution. */
enum { FUZZ_LARGE = 1 << 20 };

static inline uint8_t *fuzz_large(size_t bytes) {
    static uint8_t *area;
    if (area == NULL) {
        area = fuzz_memory(FUZZ_LARGE);
        ASAN_POISON_MEMORY_REGION(area, FUZZ_LARGE);
    }
    MUST(bytes <= FUZZ_LARGE && __asan_address_is_poisoned(area));
    ASAN_UNPOISON_MEMORY_REGION(area, bytes == 0 ? 1 : bytes);
    return area;
}

static inline void fuzz_large_free(uint8_t *area, size_t bytes) {
    ASAN_POISON_MEMORY_REGION(area, bytes == 0 ? 1 : bytes);
}

static inline uint8_t *fuzz_copy(const uint8_t *data, size_t bytes) {
    uint8_t *copy = fuzz_memory(bytes);
    if (bytes > 0) {
        memcpy(copy, data, bytes);
    }
    return copy;
}

static inline void fuzz_put_u32(uint8_t *at, uint32_t value) {
    for (int i = 0; i < 4; i++) {
        at[i] = (uint8_t)(value >> 8 * i);
    }
}

/* Makes both checksums of a map right. */
static inline void fuzz_reseal_map(uint8_t *map, size_t size) {
    enum { HEADER = 192, AT_HEADER_BYTES = 12, AT_PAYLOAD_CRC = 184, AT_HEADER_CRC = 188 };
    if (size < HEADER) {
        return;
    }
    const uint32_t stated = tatvpr_read_u32(map + AT_HEADER_BYTES);
    const size_t header_bytes = stated < size ? stated : size;
    fuzz_put_u32(map + AT_PAYLOAD_CRC,
                 tatvpr_crc32(0, map + header_bytes, size - header_bytes));
    fuzz_put_u32(map + AT_HEADER_CRC, 0);
    fuzz_put_u32(map + AT_HEADER_CRC, tatvpr_crc32(0, map, header_bytes));
}

/* `bytes` of memory that the input fills over and over; zeros where it is empty. */
static inline uint8_t *fuzz_pattern(const uint8_t *data, size_t size, size_t bytes) {
    uint8_t *memory = fuzz_memory(bytes);
    if (size == 0) {
        memset(memory, 0, bytes);
        return memory;
    }
    size_t filled = size < bytes ? size : bytes;
    memcpy(memory, data, filled);
    while (filled < bytes) { /* what is there, once more: as fast as memcpy */
        const size_t more = filled < bytes - filled ? filled : bytes - filled;
        memcpy(memory + filled, memory, more);
        filled += more;
    }
    return memory;
}

/* The kernels that this CPU runs, by number; NULL beyond the last. The CPU is asked once: a virtual
 * machine takes microseconds to answer. */
static inline const tatvpr_kernels *fuzz_usable(size_t index) {
    enum { MOST = 16 };
    static const tatvpr_kernels *usable[MOST];
    static size_t count;
    if (count == 0) {
        for (int32_t i = 0; tatvpr_kernels_list[i] != NULL; i++) {
            MUST(count < MOST);
            if (tatvpr_kernels_list[i]->usable()) {
                usable[count++] = tatvpr_kernels_list[i];
            }
        }
    }
    MUST(count > 0);
    return index < count ? usable[index] : NULL;
}

/* One of them, by a byte of the input. */
static inline const tatvpr_kernels *fuzz_kernels(uint8_t choice) {
    size_t count = 1;
    while (fuzz_usable(count) != NULL) {
        count++;
    }
    return fuzz_usable(choice % count);
}

#endif
