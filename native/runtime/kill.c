// Signals to a container on a seat. One that has not begun, or is parked, cannot do what a polite
// signal asks of it, and the kubelet would wait out the whole grace period.
#include <stdlib.h>
#include <string.h>

#include "runtime.h"

static const double ASK_S = 0.5;

static bool asks_to_end(const char *number) {
    static const char *const not_these[] = {"0", "9", "KILL", "SIGKILL", "18", "CONT", "SIGCONT",
                                            "19", "STOP", "SIGSTOP"};
    for (size_t i = 0; i < sizeof not_these / sizeof *not_these; i++)
        if (strcmp(number, not_these[i]) == 0) return false;
    return true;
}

int kill_seated(const struct arguments *asked, const struct settings *set,
                const struct seated *found) {
    char say[SAY_ROOM];
    const char *asked_for = asked->rest < asked->count ? asked->all[asked->rest] : "TERM";
    bool held = is_held(found);
    if (asks_to_end(asked_for) && !held)
        held = without_gpu(set, found, ASK_S, say);
    if (!held || !asks_to_end(asked_for)) runc_become(asked, set, asked->all);
    char **argv = calloc((size_t)asked->count + 2, sizeof *argv);
    if (!argv) runc_become(asked, set, asked->all);
    memcpy(argv, asked->all, (size_t)asked->rest * sizeof *argv);
    argv[asked->rest] = "KILL";
    runc_become(asked, set, argv);
}
