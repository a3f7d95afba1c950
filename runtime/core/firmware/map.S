/* The place map as a constant in flash: CMake's TATVPR_MAP. */
    .section .rodata.tatvpr_map,"a"
    .balign 64
    .globl place_map
place_map:
    .incbin TATVPR_MAP_FILE
place_map_end:
    .balign 4
    .globl place_map_bytes
place_map_bytes:
    .long place_map_end - place_map
