/* The governor of observer.py and policy.py in C99; keep them in step, or the shared table fails.
 *
 * Compile with -ffp-contract=off, and without -ffast-math: NaN means "not known" here, and every
 * decision is to be the same as Python's to the last bit. */
#include "tatvpr_governor.h"

#include <float.h>
#include <stddef.h>

#define SWITCH_WINDOW_S 60.0
#define MAX_SWITCHES TATVPR_GOVERNOR_SWITCHES
#define URGENT_SWITCHES (MAX_SWITCHES - 1) /* the last one is kept for the safe level */
#define UP_SWITCHES (MAX_SWITCHES - 2)
#define LONG_AGO (-DBL_MAX)
#define UNKNOWN (0.0 / 0.0)

typedef tatvpr_governor governor;
typedef tatvpr_governor_inputs inputs;

/* Whether a number is finite; <math.h> is not there on every bare compiler. */
static int known(double x)
{
    return x - x == 0.0;
}

static int governs_power(const governor *g)
{
    return g->kind == TATVPR_BUDGET_POWER || g->kind == TATVPR_BUDGET_BATTERY;
}

/* ---- predictions ---- */

static double rate_hz(const governor *g)
{
    return g->sum_s > 0.0 ? g->sum_queries / g->sum_s : 0.0;
}

/* Queries a second if the level were another: a saturated board is limited by latency. */
static double rate_at(const governor *g, int32_t level)
{
    double rate = rate_hz(g);
    if (!g->latencies_known || g->sum_s <= 0.0) {
        return rate;
    }
    double busy = g->sum_busy_ms / (1000.0 * g->sum_s);
    if (busy > 0.9) {
        return rate * g->levels[g->level].p50_ms / g->levels[level].p50_ms;
    }
    double most = 1000.0 / (g->levels[level].p50_ms * g->ratio);
    return rate > most ? most : rate;
}

static double query_mw(const governor *g, int32_t level)
{
    return g->gain * rate_at(g, level) * g->levels[level].energy_mj;
}

static double predicted(const governor *g, int32_t level, double load)
{
    if (g->kind == TATVPR_BUDGET_LATENCY) {
        return load * g->levels[level].p95_ms;
    }
    if (g->kind == TATVPR_BUDGET_ENERGY) {
        return load * g->levels[level].energy_mj;
    }
    return load + query_mw(g, level);
}

static int32_t highest(const governor *g, double load, double target)
{
    for (int32_t level = g->n - 1; level > 0; level--) {
        if (predicted(g, level, load) <= target) {
            return level;
        }
    }
    return 0;
}

static double limit_now(const governor *g)
{
    return g->kind == TATVPR_BUDGET_BATTERY ? g->limit : g->budget;
}

/* ---- memory ---- */

static void forget(governor *g, double now_s)
{
    g->quick_sum = g->quick_s = 0.0;
    g->fast_sum = g->fast_s = g->slow_sum = g->slow_s = 0.0;
    g->quick = g->filtered = g->slow = UNKNOWN;
    g->heat_fast = g->heat_slow = UNKNOWN;
    g->up_since_s = UNKNOWN;
    g->learning = 0;
    g->fresh = 1;
    for (int i = 0; i < TATVPR_GOVERNOR_PEAKS; i++) {
        g->peaks[i] = LONG_AGO;
    }
    g->peak_until_s = now_s;
}

static void note_peak(governor *g, double now_s, double load)
{
    if (now_s >= g->peak_until_s) {
        g->peak_at = (g->peak_at + 1) % TATVPR_GOVERNOR_PEAKS;
        g->peaks[g->peak_at] = LONG_AGO;
        g->peak_until_s = now_s + g->t.peak_hold_s / TATVPR_GOVERNOR_PEAKS;
    }
    if (load > g->peaks[g->peak_at]) {
        g->peaks[g->peak_at] = load;
    }
}

static double peak(const governor *g)
{
    double most = g->peaks[0];
    for (int i = 1; i < TATVPR_GOVERNOR_PEAKS; i++) {
        if (g->peaks[i] > most) {
            most = g->peaks[i];
        }
    }
    return most;
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

/* The gain from a switch that nothing else disturbed: measured over expected change. */
static void learn(governor *g)
{
    g->learning = 0;
    double expected =
        rate_at(g, g->level) * g->levels[g->level].energy_mj - g->before_query_mw;
    double size = expected < 0.0 ? -expected : expected;
    if (size < 0.05 * g->slow) {
        return;
    }
    double seen = (g->slow - g->before_mw) / expected;
    if (seen < 0.5) {
        seen = 0.5;
    }
    if (seen > 2.0) {
        seen = 2.0;
    }
    g->gain += 0.5 * (seen - g->gain);
}

/* ---- switching ---- */

static int32_t recent_switches(const governor *g, double now_s)
{
    int32_t count = 0;
    for (int i = 0; i < MAX_SWITCHES; i++) {
        if (now_s - g->switches[i] < SWITCH_WINDOW_S) {
            count++;
        }
    }
    return count;
}

static int switch_to(governor *g, int32_t level, double now_s, int32_t most)
{
    if (level == g->level) {
        return 1;
    }
    if (recent_switches(g, now_s) >= most) {
        return 0;
    }
    int calm = now_s - g->moved_s > g->t.slow_tau_s && g->slow_s > 2.0 * g->stretch;
    g->learning = calm && g->costs_known;
    if (g->learning) {
        g->before_mw = g->slow;
        g->before_query_mw = rate_at(g, g->level) * g->levels[g->level].energy_mj;
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
        g->sum_seen_ms = g->sum_seen = 0.0;
    }
    return 1;
}

static void go(governor *g, int32_t level, double now_s, int32_t reason, int urgent)
{
    int rising = level > g->level;
    int32_t most = urgent ? URGENT_SWITCHES : UP_SWITCHES;
    if (!rising && recent_switches(g, now_s) == most - 1) {
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
    } else if (g->level == 0 && predicted(g, 0, load) > limit_now(g)) {
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
        int32_t best = highest(g, load, up_target);
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
        int32_t best = highest(g, load, down_target);
        if (best > g->level - 1) {
            best = g->level - 1;
        }
        note_failure(g, now_s, g->t.fail_window_s);
        go(g, best, now_s, TATVPR_GOVERNOR_OVER, 1);
        return;
    }
    int32_t best = highest(g, peak(g), up_target);
    if (now_s < g->block_until_s && best >= g->block_level) {
        best = g->block_level - 1;
    }
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
    int blocked = now_s < g->block_until_s && best >= g->block_level;
    if (best >= g->n || !room || blocked) {
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
        learn(g);
    }
    double load = g->filtered - query_mw(g, g->level);
    if (load < 0.0) {
        load = 0.0;
    }
    note_peak(g, now_s, load);
    if (over && g->quick - query_mw(g, g->level) > load) {
        load = g->quick - query_mw(g, g->level); /* the filter lags behind a new load */
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
        double mean_ms = g->sum_seen_ms / g->sum_seen;
        step_by_step(g, now_s, mean_ms > g->budget, mean_ms < 0.6 * g->budget);
        return;
    }
    note_peak(g, now_s, g->ratio);
    int over = g->ratio * g->levels[g->level].p95_ms > g->budget;
    choose(g, now_s, over, g->ratio, target, target, 1);
}

static void hold_energy(governor *g, double now_s)
{
    if (g->learning && g->slow_s >= 3.0 * g->stretch) {
        learn(g);
    }
    note_peak(g, now_s, g->gain);
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

/* ---- taking in ---- */

static double advance(governor *g, double now_s)
{
    if (!g->started) {
        g->started = 1;
        g->start_s = now_s;
        g->last_s = now_s;
        return 0.0;
    }
    double dt = now_s - g->last_s;
    g->last_s = now_s;
    if (dt < 0.0) {
        /* The clock went back: every remembered time is worthless. Switches of the last minute
         * count as made just now, so that their bound holds whatever the clock does. */
        for (int i = 0; i < MAX_SWITCHES; i++) {
            if (g->switches[i] > LONG_AGO) {
                g->switches[i] = now_s;
            }
        }
        g->start_s += dt;
        g->settle_until_s = LONG_AGO;
        g->raised_s = LONG_AGO;
        g->block_until_s = now_s;
        g->seen_s = LONG_AGO;
        g->temperature_seen_s = LONG_AGO;
        g->battery_seen_s = LONG_AGO;
        forget(g, now_s);
        return 0.0;
    }
    if (dt > g->t.gap_s) {
        forget(g, now_s);
        return 0.0;
    }
    return dt;
}

static void take_demand(governor *g, const inputs *x, double dt)
{
    double keep = g->t.rate_tau_s / (g->t.rate_tau_s + dt);
    g->sum_queries = g->sum_queries * keep + x->queries;
    g->sum_busy_ms = g->sum_busy_ms * keep + x->busy_ms;
    g->sum_s = g->sum_s * keep + dt;
    if (x->queries > 0.0) {
        /* Latency decays by queries, not by time: three queries are three queries. */
        keep = 1.0 / (1.0 + x->queries / 8.0);
        g->sum_seen_ms = g->sum_seen_ms * keep + x->busy_ms;
        g->sum_seen = g->sum_seen * keep + x->queries;
        if (g->latencies_known) {
            g->sum_expected_ms =
                g->sum_expected_ms * keep + x->queries * g->levels[g->level].p50_ms;
            g->ratio = g->sum_seen_ms / g->sum_expected_ms;
        }
    }
}

static void take_battery(governor *g, const inputs *x)
{
    if (g->kind != TATVPR_BUDGET_BATTERY) {
        return;
    }
    if (known(x->battery_mj) && x->battery_mj >= 0.0) {
        g->battery_seen_s = x->now_s - x->battery_age_s;
        g->battery_mj = x->battery_mj;
    }
    double left_s = g->start_s + g->budget - x->now_s;
    if (left_s > 0.0) { /* afterwards, the last limit stays */
        double floor_s = g->t.battery_floor_s;
        g->limit = g->battery_mj / (left_s > floor_s ? left_s : floor_s);
    }
}

static void take_power(governor *g, const inputs *x, double dt)
{
    if (!known(x->power_mw) || x->power_mw < 0.0 || x->power_age_s > g->t.stale_s) {
        return;
    }
    if (governs_power(g)) {
        g->debt += (x->power_mw - g->limit) * dt;
        double cap = g->t.debt_cap_s * g->limit;
        if (g->debt < 0.0) {
            g->debt = 0.0;
        }
        if (g->debt > cap) {
            g->debt = cap;
        }
    }
    g->seen_s = x->now_s - x->power_age_s;
    if (x->now_s < g->settle_until_s) {
        return;
    }
    /* Where queries are rare, the filters have to be long enough to even them out. */
    double rate = rate_hz(g);
    double stretch = 1.0;
    if (rate > 0.0 && 2.0 / rate > g->t.power_tau_s) {
        stretch = 2.0 / (rate * g->t.power_tau_s);
        if (stretch > g->t.most_stretch) {
            stretch = g->t.most_stretch;
        }
    }
    g->stretch = stretch;
    double tau_s = g->t.quick_tau_s * stretch;
    double keep = tau_s / (tau_s + dt);
    g->quick_sum = g->quick_sum * keep + x->power_mw * dt;
    g->quick_s = g->quick_s * keep + dt;
    tau_s = g->t.power_tau_s * stretch;
    keep = tau_s / (tau_s + dt);
    g->fast_sum = g->fast_sum * keep + x->power_mw * dt;
    g->fast_s = g->fast_s * keep + dt;
    tau_s = g->t.slow_tau_s * stretch;
    keep = tau_s / (tau_s + dt);
    g->slow_sum = g->slow_sum * keep + x->power_mw * dt;
    g->slow_s = g->slow_s * keep + dt;
    if (g->fast_s > 0.0) {
        g->quick = g->quick_sum / g->quick_s;
        g->filtered = g->fast_sum / g->fast_s;
        g->slow = g->slow_sum / g->slow_s;
        double apart = g->filtered - g->slow;
        if ((apart < 0.0 ? -apart : apart) > 0.05 * g->slow) {
            g->moved_s = x->now_s;
        }
    }
}

static void take_temperature(governor *g, const inputs *x, double dt)
{
    if (!known(x->temperature_c) || x->temperature_age_s > g->t.stale_s) {
        return;
    }
    g->temperature_seen_s = x->now_s - x->temperature_age_s;
    if (!known(g->heat_fast)) {
        g->heat_fast = g->heat_slow = x->temperature_c;
    }
    g->heat_fast += (x->temperature_c - g->heat_fast) * (dt / (3.0 + dt));
    g->heat_slow += (x->temperature_c - g->heat_slow) * (dt / (12.0 + dt));
    /* A mean with time constant tau lags a ramp by tau times its slope. */
    double slope = (g->heat_fast - g->heat_slow) / 9.0;
    g->ahead_c = g->heat_fast + slope * (3.0 + g->t.lead_s);
}

/* ---- interface ---- */

void tatvpr_governor_defaults(tatvpr_governor_tuning *t)
{
    t->margin = 0.03;
    t->fast_over = 1.08;
    t->stale_s = 2.0;
    t->battery_stale_s = 90.0;
    t->settle_s = 2.0;
    t->up_wait_s = 5.0;
    t->step_wait_s = 15.0;
    t->peak_hold_s = 30.0;
    t->quick_tau_s = 0.5;
    t->power_tau_s = 1.5;
    t->slow_tau_s = 6.0;
    t->most_stretch = 6.0;
    t->rate_tau_s = 8.0;
    t->debt_down_s = 0.6;
    t->debt_cap_s = 3.0;
    t->debt_repay_s = 30.0;
    t->fail_window_s = 90.0;
    t->step_fail_window_s = 600.0;
    t->block_s = 30.0;
    t->block_cap_s = 3600.0;
    t->lead_s = 10.0;
    t->hysteresis_c = 3.0;
    t->cool_wait_s = 8.0;
    t->gap_s = 10.0;
    t->battery_floor_s = 60.0;
}

int tatvpr_governor_init(governor *g, const tatvpr_level *levels, int32_t n,
                         tatvpr_budget_kind kind, double limit, int32_t safe, int32_t preset,
                         const tatvpr_governor_tuning *tuning)
{
    if (g == NULL || levels == NULL || n < 1 || n > TATVPR_GOVERNOR_MAX_LEVELS || safe < 0 ||
        safe >= n || preset < 0 || preset >= n || kind > TATVPR_BUDGET_BATTERY ||
        (kind != TATVPR_BUDGET_NONE && !(known(limit) && limit > 0.0))) {
        return -1;
    }
    *g = (governor){0};
    if (tuning != NULL) {
        g->t = *tuning;
    } else {
        tatvpr_governor_defaults(&g->t);
    }
    g->n = n;
    g->kind = (int32_t)kind;
    g->safe = safe;
    g->preset = preset;
    g->level = safe;
    g->reason = TATVPR_GOVERNOR_START;
    g->budget = limit;
    g->limit = kind == TATVPR_BUDGET_BATTERY ? 0.0 : limit;
    g->costs_known = 1;
    g->latencies_known = 1;
    for (int32_t i = 0; i < n; i++) {
        g->levels[i] = levels[i];
        g->costs_known = g->costs_known && known(levels[i].energy_mj);
        g->latencies_known =
            g->latencies_known && known(levels[i].p50_ms) && known(levels[i].p95_ms);
    }
    g->ratio = 1.0;
    g->gain = 1.0;
    g->stretch = 1.0;
    g->seen_s = g->temperature_seen_s = g->battery_seen_s = LONG_AGO;
    g->moved_s = g->settle_until_s = g->raised_s = g->block_until_s = LONG_AGO;
    g->ahead_c = UNKNOWN;
    for (int i = 0; i < MAX_SWITCHES; i++) {
        g->switches[i] = LONG_AGO;
    }
    g->raised_to = -1;
    g->block_level = n;
    forget(g, 0.0);
    return 0;
}

int32_t tatvpr_governor_step(governor *g, const inputs *x)
{
    double now_s = x->now_s;
    double dt = advance(g, now_s);
    take_demand(g, x, dt);
    take_battery(g, x);
    take_power(g, x, dt);
    take_temperature(g, x, dt);
    if (g->kind == TATVPR_BUDGET_NONE) {
        g->level = g->preset;
        g->reason = TATVPR_GOVERNOR_PRESET;
    } else if (lost(g, now_s)) {
        forget(g, now_s);
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
