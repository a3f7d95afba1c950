/* The core's CRC-32, as fast as a fuzzer wants it: reading eight bytes a step, of memory that
 * AddressSanitizer was asked about as a whole. The core's own, four bits a step under a check for each
 * byte, would take most of the time of an execution. */
#include <sanitizer/asan_interface.h>

#include "../fuzz.h"

static uint32_t table[8][256];

static void fill(void) {
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t crc = i;
        for (int bit = 0; bit < 8; bit++) {
            crc = crc >> 1 ^ (crc & 1 ? 0xEDB88320u : 0u);
        }
        table[0][i] = crc;
    }
    for (uint32_t i = 0; i < 256; i++) {
        for (int step = 1; step < 8; step++) {
            const uint32_t before = table[step - 1][i];
            table[step][i] = before >> 8 ^ table[0][before & 255];
        }
    }
}

uint32_t tatvpr_crc32(uint32_t crc, const uint8_t *bytes, size_t count) {
    if (table[0][1] == 0) {
        fill();
        static const uint8_t text[] = "123456789";
        MUST(tatvpr_crc32(0, text, 9) == fuzz_core_crc32(0, text, 9));
    }
    MUST(__asan_region_is_poisoned((void *)(uintptr_t)bytes, count) == NULL);
    crc = ~crc;
    for (; count >= 8; count -= 8, bytes += 8) {
        uint32_t low, high;
        memcpy(&low, bytes, 4);
        memcpy(&high, bytes + 4, 4);
        low ^= crc;
        crc = table[7][low & 255] ^ table[6][low >> 8 & 255] ^ table[5][low >> 16 & 255] ^
              table[4][low >> 24] ^ table[3][high & 255] ^ table[2][high >> 8 & 255] ^
              table[1][high >> 16 & 255] ^ table[0][high >> 24];
    }
    for (; count > 0; count--, bytes++) {
        crc = crc >> 8 ^ table[0][(crc ^ *bytes) & 255];
    }
    return ~crc;
}
