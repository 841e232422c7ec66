// `exec` into a container on a seat. One without its GPU would hang; probes ask us instead.
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runtime.h"

// A probe is the marker, words of its own, "--", and the command that was the user's probe.
static const char MARKER[] = "kyb-probe";
static const double ASK_S = 0.4;  // a probe's timeout is a second by default
enum { PROCESS_MOST = 16 * 1024 * 1024, REFUSED_CODE = 126, FAILED = 1 };

struct command {
    bool probe;
    bool original;        // something stands behind the "--"
    char *text;           // the process file, when there is one
    size_t size;
    const char *from, *to;  // what of it is the marker's
    int after;            // the place in argv of the original
};

static void of_file(const struct arguments *asked, struct command *found) {
    struct json args, one;
    size_t at = 0;
    char word[NAME_ROOM];
    if (!file_read(asked->process, PROCESS_MOST, &found->text, &found->size)) return;
    struct json whole = {found->text, found->size};
    if (!json_valid(whole) || !json_member(whole, "args", &args)) return;
    if (!json_next(args, &at, &one)) return;
    found->probe = json_string(one, word, sizeof word) && strcmp(word, MARKER) == 0;
    found->from = one.at;
    bool behind = false;
    while (found->probe && !found->original && json_next(args, &at, &one)) {
        found->original = behind;
        found->to = one.at;
        behind = json_string(one, word, sizeof word) && strcmp(word, "--") == 0;
    }
}

static void of_argv(const struct arguments *asked, struct command *found) {
    found->probe = asked->rest < asked->count && strcmp(asked->all[asked->rest], MARKER) == 0;
    for (int i = asked->rest; found->probe && i + 1 < asked->count; i++)
        if (strcmp(asked->all[i], "--") == 0) {
            found->original = true;
            found->after = i + 1;
            return;
        }
}

// Has a child of ours be what containerd waits for: its number in the pid file, its exit code.
static int answer(const struct arguments *asked, int descriptor, int code, const char *said) {
    if (asked->console) {  // a terminal would have to be handed over: the error itself is the answer
        report(asked, "%s", said);
        return FAILED;
    }
    pid_t child = asked->pid_file ? fork() : 0;
    if (child == 0) {
        dprintf(descriptor, "%s\n", said);
        _exit(code);
    }
    FILE *file = child > 0 ? fopen(asked->pid_file, "we") : NULL;
    bool fine = file && fprintf(file, "%d", (int)child) > 0;
    if (file && fclose(file) != 0) fine = false;
    if (!fine) report(asked, "cannot answer: no process, or no pid file");
    return fine ? 0 : FAILED;
}

static int run_original(const struct arguments *asked, const struct settings *set,
                        const struct command *probe) {
    if (!asked->process) {
        char **argv = asked->all;
        int count = asked->count - probe->after;
        memmove(argv + asked->rest, argv + probe->after, (size_t)(count + 1) * sizeof *argv);
        runc_become(asked, set, argv);
    }
    int file = open(asked->process, O_WRONLY | O_TRUNC | O_CLOEXEC);
    size_t before = (size_t)(probe->from - probe->text);
    size_t after = probe->size - (size_t)(probe->to - probe->text);
    bool fine = file >= 0 && write(file, probe->text, before) == (ssize_t)before &&
                write(file, probe->to, after) == (ssize_t)after;
    if (file >= 0 && close(file) != 0) fine = false;
    if (fine) runc_become(asked, set, asked->all);
    report(asked, "the probe's own command cannot be written down");
    return FAILED;
}

// Whether it is held or parked: by runc's word, the agent's, and without it the kernel's.
static bool without_gpu(const struct settings *set, const struct seated *found, char say[1024]) {
    struct answer standing;
    snprintf(say, 1024, "%s/%s is waiting for its GPU", found->space, found->pod);
    if (is_held(found)) return true;
    if (agent_ask(set, "state", found, ASK_S, &standing) == HEARD) {
        if (*standing.say) snprintf(say, 1024, "%s", standing.say);
        return standing.held;
    }
    snprintf(say, 1024, "%s/%s is parked: it does not have its GPU now", found->space, found->pod);
    return is_stopped(found);
}

int exec_seated(const struct arguments *asked, const struct settings *set,
                const struct seated *found) {
    struct command command = {0};
    char say[1024], said[1100];
    if (asked->process)
        of_file(asked, &command);
    else
        of_argv(asked, &command);
    bool absent = without_gpu(set, found, say);
    if (absent && command.probe) {
        snprintf(said, sizeof said, "alive: %s", say);
        return answer(asked, STDOUT_FILENO, 0, said);
    }
    if (absent) {
        snprintf(said, sizeof said, "%s; nothing can be run in it until it has", say);
        return answer(asked, STDERR_FILENO, REFUSED_CODE, said);
    }
    if (!command.probe) runc_become(asked, set, asked->all);
    if (command.original) return run_original(asked, set, &command);
    return answer(asked, STDOUT_FILENO, 0, "alive");
}
