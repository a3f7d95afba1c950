/* Which of the measured settings are worth having: the frontier of what they find by what they
 * cost. Points are few (a profile has a dozen), so that sorting by insertion is fast enough. */
#include "tatvpr_governor_observer.h"

#define STEP 0.98 /* a level costs at most this share of the next, or it is not worth a switch */

typedef enum cost_kind { COST_NOTHING, COST_TIME, COST_ENERGY } cost_kind;

static double cost_of(const tatvpr_level *p, cost_kind kind)
{
    return kind == COST_ENERGY ? p->energy_mj : kind == COST_TIME ? p->p50_ms : UNKNOWN;
}

/* Energy where every point that was measured at all has one: never energies beside times. */
static cost_kind kind_of(const tatvpr_level *points, int32_t n, tatvpr_budget_kind budget)
{
    int32_t times = 0;
    int32_t energies = 0;
    for (int32_t i = 0; i < n; i++) {
        times += known(points[i].p50_ms);
        energies += known(points[i].energy_mj);
    }
    if (energies > 0 && energies >= times && budget != TATVPR_BUDGET_LATENCY) {
        return COST_ENERGY;
    }
    return times > 0 ? COST_TIME : COST_NOTHING;
}

static int recall_known(const tatvpr_level *points, int32_t n)
{
    for (int32_t i = 0; i < n; i++) {
        if (!known(points[i].recall) || points[i].recall <= 0.0) {
            return 0;
        }
    }
    return 1;
}

/* Whether `a` finds better than `b`, as far as one can tell; at equal recall, what costs less. */
static int finds_better(const tatvpr_level *a, const tatvpr_level *b, int by_recall, cost_kind kind)
{
    if (by_recall && a->recall != b->recall) {
        return a->recall > b->recall;
    }
    if (by_recall && cost_of(a, kind) != cost_of(b, kind)) {
        return cost_of(a, kind) < cost_of(b, kind);
    }
    if (a->tokens != b->tokens) {
        return a->tokens > b->tokens;
    }
    return a->k > b->k;
}

static void sort_best_first(tatvpr_level *points, int32_t n, int by_recall, cost_kind kind)
{
    for (int32_t i = 1; i < n; i++) {
        tatvpr_level moved = points[i];
        int32_t at = i;
        for (; at > 0 && finds_better(&moved, &points[at - 1], by_recall, kind); at--) {
            points[at] = points[at - 1];
        }
        points[at] = moved;
    }
}

/* Whether a point is worth having below those that were kept: `last` is the worst of them, `above` the
 * least that one of them is known to cost. */
static int stays(const tatvpr_level *p, const tatvpr_level *last, double above, int by_recall,
                 cost_kind kind)
{
    if (p->k == last->k && p->tokens == last->tokens) {
        return 0;
    }
    if (!by_recall && (p->k > last->k || p->tokens > last->tokens)) {
        return 0;
    }
    double cost = cost_of(p, kind);
    return !known(cost) || !known(above) || cost <= STEP * above;
}

/* At most TATVPR_GOVERNOR_MAX_LEVELS, evenly taken, both ends kept. */
static int32_t thin(tatvpr_level *levels, int32_t n)
{
    const int32_t most = TATVPR_GOVERNOR_MAX_LEVELS;
    if (n <= most) {
        return n;
    }
    for (int32_t i = 0; i < most; i++) {
        levels[i] = levels[(2 * i * (n - 1) + (most - 1)) / (2 * (most - 1))]; /* rounded */
    }
    return most;
}

int32_t tatvpr_governor_frontier(tatvpr_level *points, int32_t n, tatvpr_budget_kind kind)
{
    if (points == NULL || n < 1) {
        return 0;
    }
    for (int32_t i = 0; i < n; i++) {
        if (!is_level(&points[i])) {
            return 0;
        }
    }
    cost_kind cost = kind_of(points, n, kind);
    int by_recall = recall_known(points, n) && cost != COST_NOTHING;
    sort_best_first(points, n, by_recall, cost);
    int32_t kept = 1;
    double above = cost_of(&points[0], cost);
    for (int32_t i = 1; i < n; i++) {
        if (stays(&points[i], &points[kept - 1], above, by_recall, cost)) {
            double own = cost_of(&points[i], cost);
            above = known(own) ? own : above;
            points[kept++] = points[i];
        }
    }
    for (int32_t i = 0; i < kept / 2; i++) { /* best first so far; levels ascend */
        tatvpr_level swapped = points[i];
        points[i] = points[kept - 1 - i];
        points[kept - 1 - i] = swapped;
    }
    return thin(points, kept);
}
