/* What a governor sees, for people and logs. */
#include "tatvpr_governor_observer.h"

/* What the next level up would take of the budget, by the highest load of late: none is noted where
 * levels cannot be predicted. */
static double next_needs(const governor *g, int32_t next)
{
    double load = tatvpr_observer_peak(g);
    if (next >= g->n || load <= LONG_AGO) {
        return UNKNOWN;
    }
    return tatvpr_observer_predicted(g, next, load);
}

void tatvpr_governor_look(const governor *g, double now_s, tatvpr_governor_figures *figures)
{
    if (g == NULL || figures == NULL) {
        return;
    }
    int32_t next = g->level + 1;
    int seen = g->sum_seen > 0.0;
    double search_ms = tatvpr_observer_search_ms(g);
    figures->level = g->level;
    figures->reason = g->reason;
    figures->switches = tatvpr_observer_switches(g, now_s);
    figures->measured = (g->costs_known ? 1 : 0) | (g->latencies_known ? 2 : 0);
    figures->limit = g->kind == TATVPR_BUDGET_NONE      ? UNKNOWN
                     : g->kind == TATVPR_BUDGET_BATTERY ? g->limit
                                                        : g->budget;
    figures->rate_hz = tatvpr_observer_rate(g);
    figures->query_ms = seen ? g->sum_seen_ms / g->sum_seen + search_ms : UNKNOWN;
    figures->search_ms = seen ? search_ms : UNKNOWN;
    figures->latency_ratio = seen && g->latencies_known ? g->ratio : UNKNOWN;
    figures->query_mw = tatvpr_observer_query_mw(g, g->level); /* NaN where no energy is known */
    figures->query_mj = g->gain * g->levels[g->level].energy_mj;
    figures->next_needs = next_needs(g, next);
    figures->next_barred_s = 0.0;
    if (next < g->n && next >= g->block_level && now_s < g->block_until_s) {
        figures->next_barred_s = g->block_until_s - now_s;
    }
}
