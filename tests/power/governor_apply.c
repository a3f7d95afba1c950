/* A board whose supply is a callback: tatvpr_governor_apply() reads it and sets k and tokens. */
#include <stdio.h>

#include "tatvpr.h"
#include "tatvpr_governor.h"

typedef struct supply {
    int32_t milliampere;
    uint32_t age_ms;
    tatvpr_status status;
    int asked;
} supply;

static tatvpr_status read_supply(void *user, tatvpr_power *power)
{
    supply *s = user;
    s->asked++;
    power->millivolt = 5000;
    power->milliampere = s->milliampere;
    power->age_ms = s->age_ms;
    return s->status;
}

static int wrong;

static void expect(const char *what, double seen, double wanted)
{
    if (seen < wanted - 1e-6 || seen > wanted + 1e-6) {
        printf("%s is %g, expected %g\n", what, seen, wanted);
        wrong = 1;
    }
}

int main(void)
{
    const tatvpr_level levels[2] = {{0.2, 0.5, 20.0, 22.0, 100.0, 0.0},
                                    {1.0, 1.0, 60.0, 66.0, 400.0, 0.0}};
    tatvpr_governor g;
    supply s = {600, 10, TATVPR_OK, 0};
    tatvpr_options options = {0};
    options.size = sizeof options;
    options.read_power = read_supply;
    options.user = &s;
    if (tatvpr_governor_init(&g, levels, 2, TATVPR_BUDGET_POWER, 6000.0, 0, 0, NULL) != 0) {
        return 2;
    }
    double now_s = 0.0;
    for (int i = 0; i < 40; i++, now_s += 0.25) {
        (void)tatvpr_governor_apply(&g, &options, now_s, 1.0, 20.0, 0.0);
    }
    expect("k with room", (double)options.k, 1.0);
    expect("tokens with room", (double)options.tokens, 1.0);
    expect("readings", s.asked, 40.0);
    expect("power in mW", g.filtered, 3000.0);
    expect("when it was read", g.seen_s, now_s - 0.25 - 0.010);
    s.milliampere = 1600; /* 8 W of 6 */
    for (int i = 0; i < 40; i++, now_s += 0.25) {
        (void)tatvpr_governor_apply(&g, &options, now_s, 1.0, 60.0, 0.0);
    }
    expect("k over budget", (double)options.k, 0.2f);
    expect("tokens over budget", (double)options.tokens, 0.5);
    s.milliampere = 200;
    for (int i = 0; i < 400; i++, now_s += 0.25) {
        (void)tatvpr_governor_apply(&g, &options, now_s, 1.0, 20.0, 0.0);
    }
    expect("k with room again", (double)options.k, 1.0);
    s.status = TATVPR_ERR_ARGUMENT; /* the sensor fails: no telemetry, and no invented zero */
    for (int i = 0; i < 12; i++, now_s += 0.25) {
        (void)tatvpr_governor_apply(&g, &options, now_s, 1.0, 60.0, 0.0);
    }
    expect("reason without telemetry", g.reason, TATVPR_GOVERNOR_NO_TELEMETRY);
    expect("k without telemetry", (double)options.k, 0.2f);
    s.status = TATVPR_OK;
    s.age_ms = 60000; /* a minute old: no telemetry either */
    (void)tatvpr_governor_apply(&g, &options, now_s, 1.0, 20.0, 0.0);
    expect("reason with an old reading", g.reason, TATVPR_GOVERNOR_NO_TELEMETRY);
    options.read_power = NULL;
    (void)tatvpr_governor_apply(&g, &options, now_s + 0.25, 1.0, 20.0, 0.0);
    expect("reason without a callback", g.reason, TATVPR_GOVERNOR_NO_TELEMETRY);
    if (!wrong) {
        printf("all as expected\n");
    }
    return wrong;
}
