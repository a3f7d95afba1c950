/* tatvpr-edge: chooses k at run time so that a budget of power, time or heat is held.
 *
 * The same logic as tatvpr_edge/runtime/governor/policy.py, operation by operation in IEEE double;
 * one table of inputs and decisions tests both. Call tatvpr_governor_step() a few times a second
 * (it costs a few thousand cycles on a core without double precision), and run the next queries at
 * levels[g.level].
 *
 * Nothing is allocated, nothing is global: the caller owns a tatvpr_governor. "Not known" is NaN.
 */
#ifndef TATVPR_GOVERNOR_H
#define TATVPR_GOVERNOR_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define TATVPR_GOVERNOR_MAX_LEVELS 16
#define TATVPR_GOVERNOR_PEAKS 6
#define TATVPR_GOVERNOR_SWITCHES 6 /* at most this many in a minute, for any reason */

typedef enum tatvpr_budget_kind {
    TATVPR_BUDGET_NONE = 0,
    TATVPR_BUDGET_POWER = 1,       /* mW */
    TATVPR_BUDGET_ENERGY = 2,      /* mJ a query */
    TATVPR_BUDGET_LATENCY = 3,     /* ms */
    TATVPR_BUDGET_TEMPERATURE = 4, /* degrees Celsius */
    TATVPR_BUDGET_BATTERY = 5      /* seconds from the first step */
} tatvpr_budget_kind;

typedef enum tatvpr_governor_reason {
    TATVPR_GOVERNOR_START = 0,
    TATVPR_GOVERNOR_WITHIN = 1,
    TATVPR_GOVERNOR_BEST = 2,
    TATVPR_GOVERNOR_ROOM = 3,
    TATVPR_GOVERNOR_OVER = 4,
    TATVPR_GOVERNOR_IMPOSSIBLE = 5,
    TATVPR_GOVERNOR_NO_TELEMETRY = 6,
    TATVPR_GOVERNOR_SWITCH_LIMIT = 7,
    TATVPR_GOVERNOR_SETTLING = 8,
    TATVPR_GOVERNOR_WAITING = 9,
    TATVPR_GOVERNOR_PRESET = 10,
    TATVPR_GOVERNOR_NO_COST = 11
} tatvpr_governor_reason;

/* One setting of the model, as the artifact's profile measured it; NaN where it did not. */
typedef struct tatvpr_level {
    double k;
    double tokens;
    double p50_ms;
    double p95_ms;
    double energy_mj;
} tatvpr_level;

/* Every constant of the logic; see Tuning in observer.py for what each means. */
typedef struct tatvpr_governor_tuning {
    double margin;
    double fast_over;
    double stale_s;
    double battery_stale_s;
    double settle_s;
    double up_wait_s;
    double step_wait_s;
    double peak_hold_s;
    double quick_tau_s;
    double power_tau_s;
    double slow_tau_s;
    double most_stretch;
    double rate_tau_s;
    double debt_down_s;
    double debt_cap_s;
    double debt_repay_s;
    double fail_window_s;
    double step_fail_window_s;
    double block_s;
    double block_cap_s;
    double lead_s;
    double hysteresis_c;
    double cool_wait_s;
    double gap_s;
    double battery_floor_s;
} tatvpr_governor_tuning;

/* What was measured since the last step. */
typedef struct tatvpr_governor_inputs {
    double now_s; /* any monotonic clock */
    double power_mw;
    double power_age_s;
    double temperature_c;
    double temperature_age_s;
    double battery_mj;
    double battery_age_s;
    double queries; /* made since the last step */
    double busy_ms; /* that they took, all together */
} tatvpr_governor_inputs;

/* State; read level and reason, leave the rest to the functions. */
typedef struct tatvpr_governor {
    int32_t level;
    int32_t reason; /* tatvpr_governor_reason */

    tatvpr_governor_tuning t;
    int32_t n;
    int32_t kind;
    int32_t safe;
    int32_t preset;
    int32_t costs_known;
    int32_t latencies_known;
    double budget;
    tatvpr_level levels[TATVPR_GOVERNOR_MAX_LEVELS];

    int32_t started;
    double start_s, last_s, limit;
    double sum_queries, sum_busy_ms, sum_s;
    double sum_seen_ms, sum_expected_ms, sum_seen, ratio;
    double seen_s, temperature_seen_s, battery_seen_s, battery_mj;
    double stretch, quick_sum, quick_s, fast_sum, fast_s, slow_sum, slow_s, quick, filtered, slow;
    double debt, gain, moved_s;
    double heat_fast, heat_slow, ahead_c;
    double peaks[TATVPR_GOVERNOR_PEAKS], peak_until_s;
    double switches[TATVPR_GOVERNOR_SWITCHES], settle_until_s, up_since_s;
    double raised_s, block_until_s, before_mw, before_query_mw;
    int32_t peak_at, switch_at, fresh, raised_to, fails, block_level, learning;
} tatvpr_governor;

/* The constants that the Python side uses too. */
void tatvpr_governor_defaults(tatvpr_governor_tuning *tuning);

/* Prepares a governor; `levels` (1 to 16, ascending cost) are copied, `tuning` may be null.
 * 0 when ready, -1 when an argument is null or outside its range (nothing is written then). */
int tatvpr_governor_init(tatvpr_governor *g, const tatvpr_level *levels, int32_t n,
                         tatvpr_budget_kind kind, double limit, int32_t safe, int32_t preset,
                         const tatvpr_governor_tuning *tuning);

/* Takes in what was measured; returns the level from now on, 0 to n - 1. */
int32_t tatvpr_governor_step(tatvpr_governor *g, const tatvpr_governor_inputs *inputs);

/* The same with the board's own callback: reads the supply through options->read_power (null or
 * failing: no telemetry), steps, and sets options->k and options->tokens for the next queries.
 * Returns the level. `queries` and `busy_ms` are those since the last call. */
struct tatvpr_options;
int32_t tatvpr_governor_apply(tatvpr_governor *g, struct tatvpr_options *options, double now_s,
                              double queries, double busy_ms);

/* One line of English for a reason; never null. */
const char *tatvpr_governor_why(int32_t reason);

#ifdef __cplusplus
}
#endif
#endif
