/* The variants of aarch64, best first where nothing was measured: name, and compiler flags. Flags
 * are empty: files that hold more than ARMv8-A ask for it themselves, because compilers differ in
 * how they spell it (neon_dot_dotprod.c). See x86/variants.h. */
TATVPR_ROW(i8mm, "")
TATVPR_ROW(dotprod, "")
TATVPR_ROW(neon, "")
