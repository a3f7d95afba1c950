/* The variant of a microcontroller build: one, named by the builder from the features in the board's
 * file (compilers/mcu/variants.py). */
#if defined(TATVPR_MCU_HELIUM)
TATVPR_ROW(helium, "")
#elif defined(TATVPR_MCU_DSP)
TATVPR_ROW(dsp, "")
#else
TATVPR_ROW(tables, "")
#endif
