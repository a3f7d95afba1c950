/* What a byte of base 3 holds: four ternary weights. Entry e: digits (e / 3^i) % 3 - 1, each a word, so that
 * two outputs' weights become low + 65536 * high by one addition. */
#include "mcu.h"

#define FIRST(b, c, d) {-1, b, c, d}, {0, b, c, d}, {1, b, c, d}
#define SECOND(c, d) FIRST(-1, c, d), FIRST(0, c, d), FIRST(1, c, d)
#define THIRD(d) SECOND(-1, d), SECOND(0, d), SECOND(1, d)

const int32_t tatvpr_trit_words[81][4] = {THIRD(-1), THIRD(0), THIRD(1)};
