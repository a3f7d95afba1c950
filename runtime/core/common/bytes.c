/* Little-endian reads, CRC-32 and the counting rule. */
#include "core.h"

uint32_t tatvpr_read_u32(const uint8_t *p) {
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

uint64_t tatvpr_read_u64(const uint8_t *p) {
    return (uint64_t)tatvpr_read_u32(p) | (uint64_t)tatvpr_read_u32(p + 4) << 32;
}

float tatvpr_read_f32(const uint8_t *p) {
    union { float f; uint32_t u; } v;
    v.u = tatvpr_read_u32(p);
    return v.f;
}

double tatvpr_read_f64(const uint8_t *p) {
    union { double f; uint64_t u; } v;
    v.u = tatvpr_read_u64(p);
    return v.f;
}

/* CRC-32 as zlib computes it, four bits at a time: 64 bytes of table. */
uint32_t tatvpr_crc32(uint32_t crc, const uint8_t *bytes, size_t count) {
    static const uint32_t table[16] = {
        0x00000000u, 0x1DB71064u, 0x3B6E20C8u, 0x26D930ACu, 0x76DC4190u, 0x6B6B51F4u,
        0x4DB26158u, 0x5005713Cu, 0xEDB88320u, 0xF00F9344u, 0xD6D6A3E8u, 0xCB61B38Cu,
        0x9B64C2B0u, 0x86D3D2D4u, 0xA00AE278u, 0xBDBDF21Cu};
    crc = ~crc;
    for (size_t i = 0; i < count; i++) {
        crc ^= bytes[i];
        crc = crc >> 4 ^ table[crc & 15u];
        crc = crc >> 4 ^ table[crc & 15u];
    }
    return ~crc;
}

int32_t tatvpr_kept(float fraction, int32_t total) {
    const int32_t n = (int32_t)((double)fraction * (double)total + 0.5);
    return tatvpr_max_i32(1, tatvpr_min_i32(n, total));
}
