/* Replays on this processor what another one decided: usage: governor_table TABLE. Prints every
 * difference, and at the end how many steps agreed; exit status 1 if any did not. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tatvpr_governor.h"

#define CELLS 16

static int split(char *line, char **cells)
{
    int n = 0;
    line[strcspn(line, "\r\n")] = '\0';
    for (char *at = line; n < CELLS; at++) {
        cells[n++] = at;
        at = strchr(at, ',');
        if (at == NULL) {
            break;
        }
        *at = '\0';
    }
    return n;
}

int main(int count, char **arguments)
{
    static char line[512];
    static tatvpr_governor governor;
    tatvpr_level levels[TATVPR_GOVERNOR_MAX_LEVELS];
    char name[128] = "";
    char *cells[CELLS];
    long steps = 0, wrong = 0, number = 0;
    int kind = 0, safe = 0, preference = 0, have = 0, want = 0;
    double limit = 0.0;
    FILE *table = count > 1 ? fopen(arguments[1], "r") : NULL;
    if (table == NULL) {
        printf("usage: governor_table TABLE\n");
        return 2;
    }
    while (fgets(line, sizeof line, table) != NULL) {
        int n = split(line, cells);
        number++;
        if (n == 7 && strcmp(cells[0], "G") == 0) {
            (void)snprintf(name, sizeof name, "%s", cells[1]);
            kind = atoi(cells[2]);
            limit = atof(cells[3]);
            safe = atoi(cells[4]);
            preference = atoi(cells[5]);
            want = atoi(cells[6]);
            have = 0;
        } else if (n == 7 && strcmp(cells[0], "L") == 0 && have < want) {
            double v[6];
            for (int i = 0; i < 6; i++) {
                v[i] = atof(cells[1 + i]);
            }
            levels[have++] = (tatvpr_level){v[0], v[1], v[2], v[3], v[4], v[5]};
            if (have < want) {
                continue;
            }
            if (tatvpr_governor_init(&governor, levels, want, (tatvpr_budget_kind)kind, limit,
                                     safe, 0, NULL) != 0) {
                printf("line %ld: %s: init refused\n", number, name);
                return 1;
            }
            tatvpr_governor_prefer(&governor, (tatvpr_governor_preference)preference);
        } else if (n == 13 && strcmp(cells[0], "S") == 0) {
            double v[10];
            for (int i = 0; i < 10; i++) {
                v[i] = strtod(cells[1 + i], NULL);
            }
            tatvpr_governor_inputs x = {v[0], v[1], v[2], v[3], v[4],
                                        v[5], v[6], v[7], v[8], v[9]};
            int32_t level = tatvpr_governor_step(&governor, &x);
            steps++;
            if (level != atoi(cells[11]) || governor.reason != atoi(cells[12])) {
                wrong++;
                printf("line %ld: %s: level %d (%s), table says %s, %s\n", number, name,
                       (int)level, tatvpr_governor_why(governor.reason), cells[11], cells[12]);
            }
        } else if (cells[0][0] != '#') {
            printf("line %ld: not understood\n", number);
            return 1;
        }
    }
    (void)fclose(table);
    printf("%ld steps, %ld differ\n", steps, wrong);
    return steps == 0 || wrong != 0;
}
