/* Refuses compilers that are told to take floats for real numbers: bytes would differ from board to
 * board, and no NaN would be found, which a map may hold and a governor takes for "not known". */
#ifndef TATVPR_EXACT_H
#define TATVPR_EXACT_H

#if defined(__FAST_MATH__) || (defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__) || \
    defined(__ASSOCIATIVE_MATH__) || defined(__RECIPROCAL_MATH__) /* by themselves: GCC tells */
#error "compiled with -Ofast or a part of -ffast-math: add -fno-fast-math after it, here alone"
#endif

#endif
