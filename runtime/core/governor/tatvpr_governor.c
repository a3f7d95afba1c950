/* What the governor decides; tatvpr_governor_observer.c holds what it knows.
 *
 * Compile with -ffp-contract=off: every decision is to be the same on every processor. */
#include "tatvpr_governor_observer.h"

#define URGENT_SWITCHES (MAX_SWITCHES - 1) /* the last one is kept for the safe level */
#define UP_SWITCHES (MAX_SWITCHES - 2)

static double limit_now(const governor *g)
{
    return g->kind == TATVPR_BUDGET_BATTERY ? g->limit : g->budget;
}

/* A level that was tried and had to be left is barred, each time for twice as long. */
static void note_failure(governor *g, double now_s, double window_s)
{
    double held_s = now_s - g->raised_s;
    if (g->level != g->raised_to) {
        return;
    }
    if (held_s > window_s) {
        g->fails = 0;
        return;
    }
    double settled_s = g->raised_s + g->t.settle_s + 3.0;
    if (governs_power(g) && g->costs_known && g->moved_s > settled_s) {
        return; /* another load came: the move itself was right */
    }
    if (g->fails < 20) {
        g->fails++;
    }
    double bar_s = g->t.block_s;
    for (int32_t i = 1; i < g->fails; i++) {
        bar_s *= 2.0;
    }
    if (bar_s > g->t.block_cap_s) {
        bar_s = g->t.block_cap_s;
    }
    g->block_level = g->level;
    g->block_until_s = now_s + bar_s;
}

static int32_t not_barred(const governor *g, double now_s, int32_t level)
{
    return now_s < g->block_until_s && level >= g->block_level ? g->block_level - 1 : level;
}

/* ---- switching ---- */

static int switch_to(governor *g, int32_t level, double now_s, int32_t most)
{
    if (level == g->level) {
        return 1;
    }
    if (tatvpr_observer_switches(g, now_s) >= most) {
        return 0;
    }
    int calm = now_s - g->moved_s > g->t.slow_tau_s && g->slow_s > 2.0 * g->stretch;
    g->learning = calm && g->costs_known;
    if (g->learning) {
        g->before_mw = g->slow;
        g->before_query_mw = tatvpr_observer_rate_at(g, g->level) * g->levels[g->level].energy_mj;
    }
    g->level = level;
    g->switches[g->switch_at] = now_s;
    g->switch_at = (g->switch_at + 1) % MAX_SWITCHES;
    g->settle_until_s = now_s + g->t.settle_s;
    g->up_since_s = UNKNOWN;
    g->quick_sum = g->quick_s = 0.0;
    g->fast_sum = g->fast_s = g->slow_sum = g->slow_s = 0.0;
    g->moved_s = LONG_AGO;
    if (!g->latencies_known) { /* the old level's latencies say nothing about the new one */
        g->sum_seen_ms = g->sum_search_ms = g->sum_seen = 0.0;
    }
    return 1;
}

static void go(governor *g, int32_t level, double now_s, int32_t reason, int urgent)
{
    int rising = level > g->level;
    int32_t most = urgent ? URGENT_SWITCHES : UP_SWITCHES;
    if (!rising && tatvpr_observer_switches(g, now_s) == most - 1) {
        level = 0; /* the last switch down that this minute allows has to be enough */
    }
    if (!switch_to(g, level, now_s, most)) {
        g->reason = TATVPR_GOVERNOR_SWITCH_LIMIT;
        return;
    }
    g->reason = reason;
    if (rising) {
        g->raised_s = now_s;
        g->raised_to = g->level;
    }
}

static void rise(governor *g, int32_t best, double now_s, double wait_s)
{
    if (!known(g->up_since_s)) {
        g->up_since_s = now_s;
    }
    if (now_s - g->up_since_s < wait_s) {
        g->reason = TATVPR_GOVERNOR_WAITING;
        return;
    }
    go(g, best, now_s, TATVPR_GOVERNOR_ROOM, 0);
}

static void stay(governor *g, double load)
{
    if (g->level == g->n - 1) {
        g->reason = TATVPR_GOVERNOR_BEST;
    } else if (g->level == 0 && tatvpr_observer_predicted(g, 0, load) > limit_now(g)) {
        g->reason = TATVPR_GOVERNOR_IMPOSSIBLE;
    } else {
        g->reason = TATVPR_GOVERNOR_WITHIN;
    }
}

/* Goes to the level that the prediction names, by the rules of switching. */
static void choose(governor *g, double now_s, int over, double load, double down_target,
                   double up_target, int may_rise)
{
    if (g->fresh) {
        g->fresh = 0;
        int32_t best = not_barred(g, now_s, tatvpr_observer_highest(g, load, up_target));
        if (best != g->level) {
            go(g, best, now_s, best > g->level ? TATVPR_GOVERNOR_ROOM : TATVPR_GOVERNOR_OVER, 1);
            return;
        }
    }
    if (over) {
        g->up_since_s = UNKNOWN;
        if (g->level == 0) {
            g->reason = TATVPR_GOVERNOR_IMPOSSIBLE;
            return;
        }
        int32_t best = tatvpr_observer_highest(g, load, down_target);
        if (best > g->level - 1) {
            best = g->level - 1;
        }
        note_failure(g, now_s, g->t.fail_window_s);
        go(g, best, now_s, TATVPR_GOVERNOR_OVER, 1);
        return;
    }
    int32_t best = tatvpr_observer_highest(g, tatvpr_observer_peak(g), up_target);
    best = not_barred(g, now_s, best);
    if (best <= g->level || !may_rise) {
        g->up_since_s = UNKNOWN;
        stay(g, load);
        return;
    }
    rise(g, best, now_s, g->t.up_wait_s);
}

/* One level at a time, where the effect of a level is not known beforehand. */
static void step_by_step(governor *g, double now_s, int over, int room)
{
    g->fresh = 0;
    if (over) {
        g->up_since_s = UNKNOWN;
        if (g->level == 0) {
            g->reason = TATVPR_GOVERNOR_IMPOSSIBLE;
            return;
        }
        note_failure(g, now_s, g->t.step_fail_window_s);
        go(g, g->level - 1, now_s, TATVPR_GOVERNOR_OVER, 1);
        return;
    }
    int32_t best = g->level + 1;
    if (best >= g->n || !room || not_barred(g, now_s, best) != best) {
        g->up_since_s = UNKNOWN;
        g->reason = best >= g->n ? TATVPR_GOVERNOR_BEST : TATVPR_GOVERNOR_WITHIN;
        return;
    }
    rise(g, best, now_s, g->t.step_wait_s);
}

/* ---- holding each kind of budget ---- */

static void hold_power(governor *g, double now_s)
{
    if (g->fast_s < 0.9 * g->stretch || (g->fresh && g->sum_s < 1.5)) {
        g->reason = g->fresh ? TATVPR_GOVERNOR_START : TATVPR_GOVERNOR_SETTLING;
        return;
    }
    /* A single query may exceed the budget while it runs: that alone is no debt. */
    double allowed = g->t.debt_down_s * g->limit;
    double single = g->costs_known ? g->levels[g->level].energy_mj : 0.0;
    int over = g->filtered > g->t.fast_over * g->limit || g->debt > allowed + single;
    int may_rise = g->debt <= 0.3 * allowed + single;
    if (!g->costs_known) {
        step_by_step(g, now_s, over, g->filtered < 0.88 * g->limit && may_rise);
        return;
    }
    if (g->learning && (over || g->slow_s >= 3.0 * g->stretch)) {
        tatvpr_observer_learn(g);
    }
    double load = g->filtered - tatvpr_observer_query_mw(g, g->level);
    if (load < 0.0) {
        load = 0.0;
    }
    tatvpr_observer_note_peak(g, now_s, load);
    if (over && g->quick - tatvpr_observer_query_mw(g, g->level) > load) {
        load = g->quick - tatvpr_observer_query_mw(g, g->level); /* the filter lags behind a new load */
    }
    double repay = g->debt / g->t.debt_repay_s;
    if (repay > 0.1 * g->limit) {
        repay = 0.1 * g->limit;
    }
    double target = g->limit * (1.0 - g->t.margin);
    choose(g, now_s, over, load, target - repay, target, may_rise);
}

static void hold_latency(governor *g, double now_s)
{
    if (g->sum_seen < 3.0) {
        g->reason = TATVPR_GOVERNOR_START;
        return;
    }
    double target = g->budget * (1.0 - g->t.margin);
    if (!g->latencies_known) {
        double mean_ms = g->sum_seen_ms / g->sum_seen + tatvpr_observer_search_ms(g);
        step_by_step(g, now_s, mean_ms > g->budget, mean_ms < 0.6 * g->budget);
        return;
    }
    tatvpr_observer_note_peak(g, now_s, g->ratio);
    int over = tatvpr_observer_predicted(g, g->level, g->ratio) > g->budget;
    choose(g, now_s, over, g->ratio, target, target, 1);
}

static void hold_energy(governor *g, double now_s)
{
    if (g->learning && g->slow_s >= 3.0 * g->stretch) {
        tatvpr_observer_learn(g);
    }
    tatvpr_observer_note_peak(g, now_s, g->gain);
    double target = g->budget * (1.0 - g->t.margin);
    int over = g->gain * g->levels[g->level].energy_mj > g->budget;
    choose(g, now_s, over, g->gain, target, target, 1);
}

static void hold_temperature(governor *g, double now_s)
{
    int over = g->ahead_c > g->budget;
    double last_s = now_s - g->switches[(g->switch_at + MAX_SWITCHES - 1) % MAX_SWITCHES];
    if (over && last_s < g->t.cool_wait_s) {
        g->reason = TATVPR_GOVERNOR_SETTLING;
        return;
    }
    step_by_step(g, now_s, over, g->ahead_c < g->budget - g->t.hysteresis_c);
}

static int lost(const governor *g, double now_s)
{
    if (g->kind == TATVPR_BUDGET_TEMPERATURE) {
        return now_s - g->temperature_seen_s > g->t.stale_s;
    }
    if (g->kind == TATVPR_BUDGET_BATTERY &&
        now_s - g->battery_seen_s > g->t.battery_stale_s) {
        return 1;
    }
    if (governs_power(g)) {
        return now_s - g->seen_s > g->t.stale_s;
    }
    return 0;
}

/* ---- interface ---- */

int32_t tatvpr_governor_step(governor *g, const inputs *x)
{
    if (g == NULL || x == NULL || !known(x->now_s)) {
        return g == NULL ? 0 : g->level;
    }
    double now_s = x->now_s;
    tatvpr_observer_take(g, x);
    if (g->kind == TATVPR_BUDGET_NONE) {
        g->level = g->preset;
        g->reason = TATVPR_GOVERNOR_PRESET;
    } else if (lost(g, now_s)) {
        tatvpr_observer_forget(g, now_s);
        g->debt = 0.0;
        g->reason = switch_to(g, g->safe, now_s, MAX_SWITCHES) ? TATVPR_GOVERNOR_NO_TELEMETRY
                                                               : TATVPR_GOVERNOR_SWITCH_LIMIT;
    } else if (g->kind == TATVPR_BUDGET_ENERGY && !g->costs_known) {
        (void)switch_to(g, g->safe, now_s, MAX_SWITCHES);
        g->reason = TATVPR_GOVERNOR_NO_COST;
    } else if (now_s < g->settle_until_s) {
        g->reason = TATVPR_GOVERNOR_SETTLING;
    } else if (g->kind == TATVPR_BUDGET_TEMPERATURE) {
        hold_temperature(g, now_s);
    } else if (g->kind == TATVPR_BUDGET_LATENCY) {
        hold_latency(g, now_s);
    } else if (g->kind == TATVPR_BUDGET_ENERGY) {
        hold_energy(g, now_s);
    } else {
        hold_power(g, now_s);
    }
    return g->level;
}

const char *tatvpr_governor_why(int32_t reason)
{
    switch (reason) {
    case TATVPR_GOVERNOR_START:
        return "starting: not enough has been measured yet";
    case TATVPR_GOVERNOR_WITHIN:
        return "within budget, and the next higher setting would not fit";
    case TATVPR_GOVERNOR_BEST:
        return "within budget at the highest setting";
    case TATVPR_GOVERNOR_ROOM:
        return "raised, because the budget has room";
    case TATVPR_GOVERNOR_OVER:
        return "lowered, because the budget was exceeded";
    case TATVPR_GOVERNOR_IMPOSSIBLE:
        return "the budget cannot be held: even the smallest setting exceeds it";
    case TATVPR_GOVERNOR_NO_TELEMETRY:
        return "no telemetry: this is the stated safe setting";
    case TATVPR_GOVERNOR_SWITCH_LIMIT:
        return "another setting would be better, but the last minute had its switches";
    case TATVPR_GOVERNOR_SETTLING:
        return "just switched: waiting for the sensors to see it";
    case TATVPR_GOVERNOR_WAITING:
        return "a higher setting would fit: waiting until that is sure";
    case TATVPR_GOVERNOR_PRESET:
        return "by preset, without a budget";
    case TATVPR_GOVERNOR_NO_COST:
        return "an energy budget needs measured energies, which the profile lacks: this is the "
               "stated safe setting";
    default:
        return "unknown reason";
    }
}
