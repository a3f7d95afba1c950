/* Refuses compilers that are told to take floats for real numbers: bytes would differ from board to
 * board, and no NaN would be found, which a map may hold and a governor takes for "not known". */
#ifndef TATVPR_EXACT_H
#define TATVPR_EXACT_H

#if defined(__FAST_MATH__) || (defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__)
#error "compiled with -Ofast or -ffast-math: add -fno-fast-math after it, for these files alone"
#endif

#endif
