/* The two words with which an emulated MPS2 AN500 starts: stack, and newlib's entry. */
extern char __stack;
extern void _start(void);
extern const void *const mps2_vectors[2];

__attribute__((section(".vectors"), used)) const void *const mps2_vectors[2] = {
    &__stack, (const void *)_start};
