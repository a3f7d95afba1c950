/* The host's side of the firmwares: the command line "JOBS RESULTS", and what goes there. */
#ifndef JOBS_H
#define JOBS_H

#include "semihosting.h"

enum { EXIT_JOB = 10, EXIT_ROOM = 11, EXIT_FILE = 12, WORDS = 16 };

/* Opens both files; 0: fine. */
static inline int32_t open_jobs(int32_t *jobs, int32_t *results)
{
    static char line[512];
    if (sh_command_line(line, sizeof(line)) != 0)
        return -1;
    char *second = line;
    while (*second != ' ' && *second != '\0')
        second++;
    if (*second == ' ')
        *second++ = '\0';
    *jobs = sh_open(line, SH_READ);
    *results = sh_open(second, SH_WRITE);
    return *jobs < 0 || *results < 0;
}

static inline void receive(int32_t jobs, uint8_t *to, size_t room, uint32_t count)
{
    if (count > room) {
        sh_text("payload too large\n");
        sh_exit(EXIT_ROOM);
    }
    if (count > 0 && sh_read(jobs, to, count) != 0)
        sh_exit(EXIT_JOB);
}

static inline float as_float(int32_t bits)
{
    union {
        int32_t i;
        float f;
    } v;
    v.i = bits;
    return v.f;
}

static inline void answer(int32_t results, const void *bytes, size_t count)
{
    const uint32_t header = (uint32_t)count;
    if (sh_write(results, &header, 4) != 0 || sh_write(results, bytes, count) != 0)
        sh_exit(EXIT_FILE);
}

#endif
