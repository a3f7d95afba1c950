/* What the governor knows: its state, how measurements change it, and what they predict. */
#include "tatvpr_governor_observer.h"

#define SWITCH_WINDOW_S 60.0

/* ---- predictions ---- */

double tatvpr_observer_rate(const governor *g)
{
    return g->sum_s > 0.0 ? g->sum_queries / g->sum_s : 0.0;
}

double tatvpr_observer_search_ms(const governor *g)
{
    return g->sum_seen > 0.0 ? g->sum_search_ms / g->sum_seen : 0.0;
}

/* A whole query at a level, as long as this machine lately took for the profile's times. */
static double query_ms(const governor *g, int32_t level)
{
    return g->levels[level].p50_ms * g->ratio + tatvpr_observer_search_ms(g);
}

/* Queries a second if the level were another: a saturated board is limited by latency. */
double tatvpr_observer_rate_at(const governor *g, int32_t level)
{
    double rate = tatvpr_observer_rate(g);
    if (!g->latencies_known || g->sum_s <= 0.0) {
        return rate;
    }
    double busy = g->sum_busy_ms / (1000.0 * g->sum_s);
    if (busy > 0.9) {
        return rate * query_ms(g, g->level) / query_ms(g, level);
    }
    double most = 1000.0 / query_ms(g, level);
    return rate > most ? most : rate;
}

double tatvpr_observer_query_mw(const governor *g, int32_t level)
{
    return g->gain * tatvpr_observer_rate_at(g, level) * g->levels[level].energy_mj;
}

double tatvpr_observer_predicted(const governor *g, int32_t level, double load)
{
    if (g->kind == TATVPR_BUDGET_LATENCY) {
        /* A search varies as the profile saw the rest vary. */
        double search_ms = tatvpr_observer_search_ms(g);
        return load * g->levels[level].p95_ms +
               search_ms * g->levels[level].p95_ms / g->levels[level].p50_ms;
    }
    if (g->kind == TATVPR_BUDGET_ENERGY) {
        return load * g->levels[level].energy_mj;
    }
    return load + tatvpr_observer_query_mw(g, level);
}

int32_t tatvpr_observer_highest(const governor *g, double load, double target)
{
    for (int32_t level = g->n - 1; level > 0; level--) {
        if (tatvpr_observer_predicted(g, level, load) <= target) {
            return level;
        }
    }
    return 0;
}

/* ---- memory ---- */

void tatvpr_observer_forget(governor *g, double now_s)
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

void tatvpr_observer_note_peak(governor *g, double now_s, double load)
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

double tatvpr_observer_peak(const governor *g)
{
    double most = g->peaks[0];
    for (int i = 1; i < TATVPR_GOVERNOR_PEAKS; i++) {
        if (g->peaks[i] > most) {
            most = g->peaks[i];
        }
    }
    return most;
}

int32_t tatvpr_observer_switches(const governor *g, double now_s)
{
    int32_t count = 0;
    for (int i = 0; i < MAX_SWITCHES; i++) {
        if (now_s - g->switches[i] < SWITCH_WINDOW_S) {
            count++;
        }
    }
    return count;
}

/* The gain from a switch that nothing else disturbed: measured over expected change. */
void tatvpr_observer_learn(governor *g)
{
    g->learning = 0;
    double expected =
        tatvpr_observer_rate_at(g, g->level) * g->levels[g->level].energy_mj - g->before_query_mw;
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

/* ---- taking in ---- */

/* Seconds since the last step; below 0 where that says nothing of what was measured in between. */
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
        tatvpr_observer_forget(g, now_s);
        return -1.0;
    }
    if (dt > g->t.gap_s) {
        tatvpr_observer_forget(g, now_s);
        return -1.0;
    }
    return dt;
}

static void take_demand(governor *g, const inputs *x, double passed_s)
{
    double keep = g->t.rate_tau_s / (g->t.rate_tau_s + passed_s);
    if (passed_s >= 0.0) { /* queries of a gap would count as made in no time */
        g->sum_queries = g->sum_queries * keep + x->queries;
        g->sum_busy_ms = g->sum_busy_ms * keep + x->busy_ms + x->search_ms;
        g->sum_s = g->sum_s * keep + passed_s;
    }
    if (x->queries > 0.0) {
        /* Latency decays by queries, not by time: three queries are three queries. */
        keep = 1.0 / (1.0 + x->queries / 8.0);
        g->sum_seen_ms = g->sum_seen_ms * keep + x->busy_ms;
        g->sum_search_ms = g->sum_search_ms * keep + x->search_ms;
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
    if (known(x->battery_mj) && x->battery_mj >= 0.0 && known(x->battery_age_s)) {
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
    /* A board that runs this code draws something: a sensor that says 0 has failed. */
    if (!known(x->power_mw) || x->power_mw <= 0.0 || !(x->power_age_s <= g->t.stale_s)) {
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
    double rate = tatvpr_observer_rate(g);
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
    if (!known(x->temperature_c) || !(x->temperature_age_s <= g->t.stale_s)) {
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

void tatvpr_observer_take(governor *g, const inputs *x)
{
    double passed_s = advance(g, x->now_s);
    double dt = passed_s > 0.0 ? passed_s : 0.0;
    inputs made = *x;
    if (!(known(x->queries) && known(x->busy_ms) && known(x->search_ms))) {
        made.queries = made.busy_ms = made.search_ms = 0.0; /* a NaN would stay in every sum */
    }
    take_demand(g, &made, passed_s);
    take_battery(g, x);
    take_power(g, x, dt);
    take_temperature(g, x, dt);
}

/* ---- beginning ---- */

void tatvpr_governor_defaults(tatvpr_governor_tuning *t)
{
    if (t == NULL) {
        return;
    }
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
    for (int32_t i = 0; i < n; i++) {
        if (!is_level(&levels[i])) {
            return -1;
        }
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
    tatvpr_observer_forget(g, 0.0);
    return 0;
}

void tatvpr_governor_prefer(governor *g, tatvpr_governor_preference preference)
{
    if (g == NULL) {
        return;
    }
    if (preference == TATVPR_GOVERNOR_TURBO) {
        g->t.margin = 0.01;
        g->t.up_wait_s = 2.0;
        g->preset = g->n - 1;
    } else if (preference == TATVPR_GOVERNOR_SAVER) {
        g->t.margin = 0.2;
        g->t.up_wait_s = 15.0;
        g->preset = 0;
    }
}

size_t tatvpr_governor_bytes(uint32_t version)
{
    return version == TATVPR_GOVERNOR_VERSION ? sizeof(governor) : 0;
}
