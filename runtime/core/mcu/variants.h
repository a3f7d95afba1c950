/* The variant of a microcontroller build: one, chosen by the compiler's target (kernels_list.c). */
#if defined(__ARM_FEATURE_MVE)
TATVPR_ROW(helium, "")
#elif defined(__ARM_FEATURE_DSP)
TATVPR_ROW(dsp, "")
#else
TATVPR_ROW(tables, "")
#endif
