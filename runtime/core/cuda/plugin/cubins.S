/* The cubins of one GPU architecture inside the library; found by -Wa,-I,FOLDER. */
    .section .rodata
    .macro cubin name
    .global tatvpr_cubin_\name
    .hidden tatvpr_cubin_\name
    .balign 64
tatvpr_cubin_\name:
    .incbin "\name\().cubin"
    .byte 0
    .endm
    cubin gate_token
    cubin gate_image
    cubin ternary_mma
    cubin ternary_dp4a
    cubin attention
    .section .note.GNU-stack, "", %progbits
