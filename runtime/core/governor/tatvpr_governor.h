/* tatvpr-edge: chooses k and tokens at run time so that a budget of power, time or heat is held.
 *
 * It is a part of every library: Python binds it (runtime/governor/binding.py), a microcontroller
 * calls it. Let tatvpr_governor_frontier() order what was measured into levels, call
 * tatvpr_governor_step() a few times a second (it costs a few thousand cycles on a core without
 * double precision), and run the next queries at levels[g.level].
 *
 * How a power budget is held. With the profile's energy per query E(level), the measured rate of
 * queries r and the filtered power P, everything else that draws power is
 * base = P - gain * r * E(level), and a level's power is predicted as base + gain * r * E
 * (feed-forward). `base` follows the measurement and `gain` is learned from calm switches
 * (feedback). Going down is immediate and goes straight to the level that fits. Going up needs the
 * highest base of the last 30 s to fit, for several seconds; a level that was tried and failed is
 * barred for a time that doubles. Switches are counted: never more than six in a minute, of which
 * going up may use four. Energy beyond the budget is a debt that is paid back before going up.
 *
 * Temperature, and power without a profile, are held by single steps with the same rules.
 *
 * Nothing is allocated, nothing is global: the caller owns a tatvpr_governor. "Not known" is NaN.
 * A call with a null pointer, where none is allowed, does nothing; one that returns a level returns
 * the present one, 0 without a governor.
 */
#ifndef TATVPR_GOVERNOR_H
#define TATVPR_GOVERNOR_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#ifndef TATVPR_API /* as in tatvpr.h, which this file does not need */
#if defined(_WIN32)
#define TATVPR_API
#else
#define TATVPR_API __attribute__((visibility("default")))
#endif
#endif

#define TATVPR_GOVERNOR_VERSION 2u /* raised with every change of a structure below */
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
    double p50_ms;    /* frame to descriptor */
    double p95_ms;
    double energy_mj; /* one query, without the idle board */
    double recall;    /* any measure of how well it finds, more is better; NaN or 0: not known */
} tatvpr_level;

/* How a budget is used: as it is, to the last percent, or a fifth below it. */
typedef enum tatvpr_governor_preference {
    TATVPR_GOVERNOR_BALANCED = 0,
    TATVPR_GOVERNOR_TURBO = 1,
    TATVPR_GOVERNOR_SAVER = 2
} tatvpr_governor_preference;

/* Every constant of the logic. */
typedef struct tatvpr_governor_tuning {
    double margin;          /* aims this share below the limit */
    double fast_over;       /* filtered power above this multiple of the limit: down at once */
    double stale_s;         /* older power and temperature are no telemetry */
    double battery_stale_s; /* fuel gauges are slow */
    double settle_s;        /* sensors lag at most this long behind a switch */
    double up_wait_s;
    double step_wait_s;     /* the same where the effect cannot be predicted */
    double peak_hold_s;
    double quick_tau_s;
    double power_tau_s;     /* long enough to even out single queries */
    double slow_tau_s;
    double most_stretch;    /* the filters above are at most this much longer for rare queries */
    double rate_tau_s;
    double debt_down_s;     /* a debt of this many seconds of the budget: down */
    double debt_cap_s;
    double debt_repay_s;
    double fail_window_s;   /* an up-move undone within this was a mistake */
    double step_fail_window_s;
    double block_s;
    double block_cap_s;
    double lead_s;          /* temperature is judged this far ahead */
    double hysteresis_c;
    double cool_wait_s;     /* between two steps down for temperature */
    double gap_s;           /* a longer pause between steps forgets the filters */
    double battery_floor_s; /* the last minute is not divided by less than this */
} tatvpr_governor_tuning;

/* What was measured since the last step. A reading of unknown age counts as none, so do queries
 * whose number or time is not known, and a step at an unknown time does nothing. */
typedef struct tatvpr_governor_inputs {
    double now_s; /* any monotonic clock */
    double power_mw;
    double power_age_s;
    double temperature_c;
    double temperature_age_s;
    double battery_mj;
    double battery_age_s;
    double queries;   /* made since the last step */
    double busy_ms;   /* that they took from frame to descriptor, all together */
    double search_ms; /* and beyond it (a search in a map), which no level makes shorter */
} tatvpr_governor_inputs;

/* What a governor sees, for people and logs; NaN where it does not know. */
typedef struct tatvpr_governor_figures {
    int32_t level;
    int32_t reason;
    int32_t switches;     /* in the last minute */
    int32_t measured;     /* bit 0: energies, bit 1: latencies of all levels are known */
    double limit;         /* in force, in the unit of its kind (mW for a battery) */
    double rate_hz;       /* queries a second, over the last seconds */
    double query_ms;      /* mean of the last queries, the search included */
    double search_ms;     /* of which the search */
    double latency_ratio; /* seen over profiled, frame to descriptor */
    double query_mw;      /* power that queries draw at this level */
    double query_mj;      /* energy of one, by the profile and what switches taught */
    double next_needs;    /* what the next level up is predicted to take of the budget */
    double next_barred_s; /* how long it is barred, because it was tried and failed; else 0 */
} tatvpr_governor_figures;

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
    double sum_seen_ms, sum_expected_ms, sum_search_ms, sum_seen, ratio;
    double seen_s, temperature_seen_s, battery_seen_s, battery_mj;
    double stretch, quick_sum, quick_s, fast_sum, fast_s, slow_sum, slow_s, quick, filtered, slow;
    double debt, gain, moved_s;
    double heat_fast, heat_slow, ahead_c;
    double peaks[TATVPR_GOVERNOR_PEAKS], peak_until_s;
    double switches[TATVPR_GOVERNOR_SWITCHES], settle_until_s, up_since_s;
    double raised_s, block_until_s, before_mw, before_query_mw;
    int32_t peak_at, switch_at, fresh, raised_to, fails, block_level, learning;
} tatvpr_governor;

/* sizeof(tatvpr_governor) in this library; 0 where it was built with another version of this file
 * (pass TATVPR_GOVERNOR_VERSION). For callers in other languages, who hold it as bytes. */
TATVPR_API size_t tatvpr_governor_bytes(uint32_t version);

/* Orders what was measured into levels that are worth having, in place: ascending cost, at most 16.
 * The cost is energy where all n points have one, else (and for a latency budget) time. Where every
 * point's recall is known, a level stays if nothing cheaper finds as well. Else what finds better
 * is not known between more k and more tokens, so neither ever falls towards costlier levels. Each
 * level costs at least 2 % less than the next: a dial that does not pay on this board is not moved.
 * Returns how many levels stand at the front of `points`, at least 1; 0 for a null or empty list,
 * or a k or tokens outside (0, 1]. */
TATVPR_API int32_t tatvpr_governor_frontier(tatvpr_level *points, int32_t n,
                                            tatvpr_budget_kind kind);

TATVPR_API void tatvpr_governor_defaults(tatvpr_governor_tuning *tuning);

/* Prepares a governor; `levels` (1 to 16, ascending cost, k and tokens in (0, 1]) are copied, `tuning`
 * may be null.
 * `limit`: the budget, in the unit of its kind (NONE: not looked at). `safe`: the level at the start
 * and without telemetry. `preset`: the level without a budget. Both are 0 (the cheapest) to n - 1.
 * 0 when ready, -1 when an argument is null or outside its range (nothing is written then). */
TATVPR_API int tatvpr_governor_init(tatvpr_governor *g, const tatvpr_level *levels, int32_t n,
                                    tatvpr_budget_kind kind, double limit, int32_t safe,
                                    int32_t preset, const tatvpr_governor_tuning *tuning);

/* After init: how the budget is used. Without one, TURBO is the costliest and SAVER the cheapest
 * level. */
TATVPR_API void tatvpr_governor_prefer(tatvpr_governor *g, tatvpr_governor_preference preference);

/* Takes in what was measured; returns the level from now on, 0 to n - 1. */
TATVPR_API int32_t tatvpr_governor_step(tatvpr_governor *g, const tatvpr_governor_inputs *inputs);

/* The same with the board's own callback: reads the supply through options->read_power (null or
 * failing: no telemetry), steps, and sets options->k and options->tokens for the next queries.
 * Returns the level. `queries`, `busy_ms` and `search_ms` are those since the last call. */
struct tatvpr_options;
TATVPR_API int32_t tatvpr_governor_apply(tatvpr_governor *g, struct tatvpr_options *options,
                                         double now_s, double queries, double busy_ms,
                                         double search_ms);

/* What it sees at a time on the clock of the steps. */
TATVPR_API void tatvpr_governor_look(const tatvpr_governor *g, double now_s,
                                     tatvpr_governor_figures *figures);

/* One line of English for a reason; never null. */
TATVPR_API const char *tatvpr_governor_why(int32_t reason);

#ifdef __cplusplus
}
#endif
#endif
