/* Between the parts of the governor: what it knows and what it decides; not for callers. */
#ifndef TATVPR_GOVERNOR_OBSERVER_H
#define TATVPR_GOVERNOR_OBSERVER_H

#include "../common/exact.h"
#include "tatvpr_governor.h"

#include <float.h>

#define MAX_SWITCHES TATVPR_GOVERNOR_SWITCHES
#define LONG_AGO (-DBL_MAX)
#define UNKNOWN (0.0 / 0.0)

typedef tatvpr_governor governor;
typedef tatvpr_governor_inputs inputs;

/* Whether a number is finite; <math.h> is not there on every bare compiler. */
static inline int known(double x)
{
    return x - x == 0.0;
}

/* Whether k and tokens are shares of what there is. */
static inline int is_level(const tatvpr_level *p)
{
    return p->k > 0.0 && p->k <= 1.0 && p->tokens > 0.0 && p->tokens <= 1.0;
}

static inline int governs_power(const governor *g)
{
    return g->kind == TATVPR_BUDGET_POWER || g->kind == TATVPR_BUDGET_BATTERY;
}

/* Queries a second; the same if the level were another. */
double tatvpr_observer_rate(const governor *g);
double tatvpr_observer_rate_at(const governor *g, int32_t level);

/* Mean time of a query beyond frame to descriptor. */
double tatvpr_observer_search_ms(const governor *g);

/* What queries would add to the power at a level; what the budget would then see on top of a load
 * (mW, ms, mJ or their ratios, by kind); the highest level that keeps to a target. */
double tatvpr_observer_query_mw(const governor *g, int32_t level);
double tatvpr_observer_predicted(const governor *g, int32_t level, double load);
int32_t tatvpr_observer_highest(const governor *g, double load, double target);

/* Drops what was measured before a gap; remembers loads, and gives the highest of late. */
void tatvpr_observer_forget(governor *g, double now_s);
void tatvpr_observer_note_peak(governor *g, double now_s, double load);
double tatvpr_observer_peak(const governor *g);

/* Switches in the last minute. */
int32_t tatvpr_observer_switches(const governor *g, double now_s);

/* Corrects the gain by what a switch did. */
void tatvpr_observer_learn(governor *g);

/* Takes in what was measured since the last step. */
void tatvpr_observer_take(governor *g, const inputs *x);

#endif
