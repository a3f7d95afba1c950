/* The governor on a board whose program has a tatvpr_options: callback in, k and tokens out. */
#include "../include/tatvpr.h"
#include "tatvpr_governor_observer.h"

#include <stddef.h>

int32_t tatvpr_governor_apply(tatvpr_governor *g, struct tatvpr_options *options, double now_s,
                              double queries, double busy_ms, double search_ms)
{
    if (g == NULL || options == NULL) {
        return tatvpr_governor_step(g, NULL);
    }
    tatvpr_governor_inputs x = {now_s, UNKNOWN, 0.0, UNKNOWN, 0.0,
                                UNKNOWN, 0.0, queries, busy_ms, search_ms};
    tatvpr_power power = {sizeof power, 0, 0, 0};
    if (options->read_power != NULL && options->read_power(options->user, &power) == TATVPR_OK) {
        x.power_mw = (double)power.millivolt * (double)power.milliampere / 1000.0;
        x.power_age_s = (double)power.age_ms / 1000.0;
    }
    int32_t level = tatvpr_governor_step(g, &x);
    options->k = (float)g->levels[level].k;
    options->tokens = (float)g->levels[level].tokens;
    return level;
}
