/* What this CPU runs, asked once: CPUID ends in the hypervisor of a virtual machine, where each
 * question takes longer than most executions. */
#include "../fuzz.h"

#if defined(__x86_64__)
#include "../../../runtime/core/x86/cpu.h"

enum { UNKNOWN = -1, MOST = 8 };

#define ASKED_ONCE(name)                       \
    int32_t tatvpr_cpu_##name(void) {          \
        static int32_t answer = UNKNOWN;       \
        if (answer == UNKNOWN) {               \
            answer = fuzz_core_cpu_##name();   \
        }                                      \
        return answer;                         \
    }

ASKED_ONCE(avx2)
ASKED_ONCE(avx_vnni)
ASKED_ONCE(avx512_vnni)

const tatvpr_costs *tatvpr_cpu_costs(const tatvpr_costs *rows, int32_t count) {
    static struct {
        const tatvpr_costs *rows, *answer;
    } known[MOST];
    for (int i = 0; i < MOST; i++) {
        if (known[i].rows == NULL) {
            known[i].rows = rows;
            known[i].answer = fuzz_core_cpu_costs(rows, count);
        }
        if (known[i].rows == rows) {
            return known[i].answer;
        }
    }
    return fuzz_core_cpu_costs(rows, count);
}
#else
typedef int fuzz_cpu_is_asked_for_nothing;
#endif
