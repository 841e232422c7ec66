// Probes and hooks, which the webhook turned into commands: the marker, the kind, what they were
// (a JSON text), "--", and the user's own command where they had one (docs/reference/probes.md).
//
// Rule: the agent judges. What it says becomes the exit code and the words of a child of ours, for
// which containerd waits. Rule: a user's own command runs in the container as a child of that
// child, so what becomes of it can be judged, too: one caught by a park has not failed.
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "runtime.h"

static const char MARKER[] = "kyb-probe";
// The kubelet gives a rewritten probe 30 s beyond its own timeout: see kybernate/api/probes.py.
static const double BEYOND_S = 4.0;
enum { PROCESS_MOST = 16 * 1024 * 1024, FAILED = 1, KILLED_MS = 500 };
enum { AGAIN = 50, BETWEEN_NS = 200 * 1000 * 1000 };  // ten seconds in all

static void of_file(const struct arguments *asked, struct probe *found) {
    struct json args, one;
    size_t at = 0;
    char word[32] = "";
    if (!file_read(asked->process, PROCESS_MOST, &found->text, &found->size)) return;
    struct json whole = {found->text, found->size};
    if (!json_valid(whole) || !json_member(whole, "args", &args)) return;
    if (!json_next(args, &at, &one) || !json_string(one, word, sizeof word)) return;
    found->marked = strcmp(word, MARKER) == 0;
    found->from = one.at;
    for (int place = 1; found->marked && json_next(args, &at, &one); place++) {
        found->to = one.at;
        if (found->behind) {
            found->original = true;
            return;
        }
        bool text = json_string(one, word, sizeof word);
        found->behind = text && strcmp(word, "--") == 0;
        if (place == 1 && text) memcpy(found->kind, word, sizeof word);
        if (place == 2 && !found->behind) found->spec = one;
    }
}

static void of_argv(const struct arguments *asked, struct probe *found) {
    found->marked = asked->rest < asked->count && strcmp(asked->all[asked->rest], MARKER) == 0;
    for (int i = asked->rest; found->marked && i + 1 < asked->count; i++)
        if (strcmp(asked->all[i], "--") == 0) {
            found->original = true;
            found->after = i + 1;
            return;
        }
}

// What of it is ours to know: the user's own timeout in seconds (0 for none, as of hooks), and
// whether it is to be sealed.
static void learn(struct probe *probe) {
    char *text = malloc(probe->spec.size + 1);
    struct json value;
    if (text && probe->spec.size && json_string(probe->spec, text, probe->spec.size + 1)) {
        struct json spec = {text, strlen(text)};
        bool fine = json_valid(spec);
        if (fine && json_member(spec, "timeout", &value)) json_number(value, &probe->timeout);
        if (fine && json_member(spec, "seal", &value)) probe->seal = *value.at == 't';
    }
    free(text);
}

bool probe_found(const struct arguments *asked, struct probe *found) {
    memset(found, 0, sizeof *found);
    if (asked->process)
        of_file(asked, found);
    else
        of_argv(asked, found);
    if (found->marked) learn(found);
    return found->marked;
}

static bool is_hook(const struct probe *probe) { return strcmp(probe->kind, "prestop") == 0; }

static bool write_original(const struct arguments *asked, const struct probe *probe) {
    int file = open(asked->process, O_WRONLY | O_TRUNC | O_CLOEXEC);
    size_t before = (size_t)(probe->from - probe->text);
    size_t after = probe->size - (size_t)(probe->to - probe->text);
    bool fine = file >= 0 && write(file, probe->text, before) == (ssize_t)before &&
                write(file, probe->to, after) == (ssize_t)after;
    if (file >= 0 && close(file) != 0) fine = false;
    if (!fine) report(asked, "the probe's own command cannot be written down");
    return fine;
}

// runc's call with another pid file.
static bool with_pid_file(const struct arguments *asked, char path[PATH_ROOM], char **argv) {
    static char joined[PATH_ROOM + 16];
    if (snprintf(path, PATH_ROOM, "%s.kyb", asked->pid_file) >= PATH_ROOM) return false;
    for (int i = 0; i <= asked->count; i++) {
        char *one = asked->all[i];
        argv[i] = one;
        if (one == asked->pid_file) argv[i] = path;
        if (one && one < asked->pid_file && asked->pid_file <= one + strlen(one)) {
            snprintf(joined, sizeof joined, "--pid-file=%s", path);
            argv[i] = joined;
        }
    }
    return true;
}

static pid_t pid_read(const char *path) {
    char *text;
    size_t size;
    unsigned long long number = 0;
    if (!file_read(path, 64, &text, &size)) return 0;
    json_number((struct json){text, size}, &number);
    free(text);
    unlink(path);
    return (pid_t)number;
}

// Starts the user's command; its process, a child of ours, or 0 with runc's exit status.
static pid_t start_original(const struct arguments *asked, const struct settings *set,
                            const struct probe *probe, int *status) {
    char path[PATH_ROOM], **argv = calloc((size_t)asked->count + 1, sizeof *argv);
    *status = FAILED;
    prctl(PR_SET_CHILD_SUBREAPER, 1);  // its process is orphaned to us when runc has gone
    if (!argv || !with_pid_file(asked, path, argv) || !write_original(asked, probe)) return 0;
    *status = runc_run(asked, set, argv);
    return *status ? 0 : pid_read(path);
}

static bool ends_within(pid_t child, int milliseconds, int *status) {
    int descriptor = (int)syscall(SYS_pidfd_open, child, 0);
    struct pollfd ending = {.fd = descriptor, .events = POLLIN};
    bool ended = descriptor < 0 || poll(&ending, 1, milliseconds) != 0;
    if (descriptor >= 0) close(descriptor);
    return ended && waitpid(child, status, 0) == child;
}

// Waits for it, at most the user's own timeout; in words how it ended, and its exit code.
static int await_original(pid_t child, double timeout, char ended[32]) {
    int status = 0;
    if (!ends_within(child, timeout > 0 ? (int)(timeout * 1000) : -1, &status)) {
        kill(child, SIGKILL);
        ends_within(child, KILLED_MS, &status);  // one that is frozen ends later
        strcpy(ended, "timeout");
        return FAILED;
    }
    if (WIFSIGNALED(status)) {
        snprintf(ended, 32, "signal %d", WTERMSIG(status));
        return 128 + WTERMSIG(status);
    }
    snprintf(ended, 32, "exit %d", WEXITSTATUS(status));
    return WEXITSTATUS(status);
}

// Without the agent: what was last written down, and then the user's own command's word.
static int without_agent(const struct settings *set, const struct seated *found,
                         const struct probe *probe, const char *ended) {
    char say[SAY_ROOM];
    bool absent = last_without_gpu(set, found, say);
    bool unready = is_held(found) && strcmp(probe->kind, "readiness") == 0;
    if (!absent && ended) return -1;
    if (absent)
        printf("%s: %s\n", unready ? "not ready" : "alive", say);
    else
        printf("alive\n");
    return unready;
}

// One that is to be sealed is worth waiting for an agent that is being started again.
static enum heard ask(const struct settings *set, const struct seated *found,
                      const struct probe *probe, const char *ended, struct answer *answer) {
    struct asking asking = {probe->kind, probe->spec, ended};
    double within = is_hook(probe) ? 0 : (double)probe->timeout + BEYOND_S;
    if (probe->original && !ended) within = BEYOND_S;
    for (int tries = probe->seal && is_hook(probe) ? AGAIN : 0;; tries--) {
        enum heard heard = agent_probe(set, found, &asking, within, answer);
        if (heard != NOT_HEARD || tries <= 0) return heard;
        nanosleep(&(struct timespec){0, BETWEEN_NS}, NULL);
    }
}

// Asks the agent; an exit code, or -1 where the user's own command decides.
static int asked_of_agent(const struct settings *set, const struct seated *found,
                          const struct probe *probe, const char *ended) {
    struct answer answer;
    switch (ask(set, found, probe, ended, &answer)) {
        case HEARD: break;
        case REFUSED: printf("alive: the node agent refuses: %s\n", answer.say); return 0;
        case NOT_HEARD:
            if (probe->original && !ended && !last_without_gpu(set, found, answer.say)) return -1;
            return without_agent(set, found, probe, ended);
    }
    if (answer.run && !probe->original && !ended)  // there is nothing to run
        return asked_of_agent(set, found, probe, "exit 0");
    if (answer.run && is_held(found)) return without_agent(set, found, probe, ended);
    if (answer.run) return -1;
    if (*answer.say) printf("%s\n", answer.say);
    return answer.passed ? 0 : ended ? -1 : FAILED;
}

// All of it, in the process that containerd waits for. `started` is told runc's status, or closed.
static int carry_out(const struct arguments *asked, const struct settings *set,
                     const struct seated *found, const struct probe *probe, int started) {
    char ended[32];
    int status, timeout_code;
    if (!probe->original) close(started);
    int code = asked_of_agent(set, found, probe, NULL);
    if (code >= 0) return code;
    pid_t child = start_original(asked, set, probe, &status);
    bool told = write(started, &status, sizeof status) == sizeof status;
    close(started);
    if (status || !told) return status ? status : FAILED;
    timeout_code = child ? await_original(child, (double)probe->timeout, ended) : FAILED;
    if (!child) strcpy(ended, "unknown");
    code = asked_of_agent(set, found, probe, ended);
    return code >= 0 ? code : timeout_code;
}

// What runc says of the user's own command; 0 where it was not started, and need not be.
static int started_status(int from) {
    int status = 0;
    return read(from, &status, sizeof status) == sizeof status ? status : 0;
}

static int by_hand(const struct arguments *asked, const struct settings *set,
                   const struct seated *found, const struct probe *probe) {
    if (!probe->original) return carry_out(asked, set, found, probe, -1);
    int code = asked_of_agent(set, found, probe, NULL);
    if (code >= 0) return code;
    char **argv = asked->all;
    int count = asked->count - probe->after;
    if (asked->process) {
        if (!write_original(asked, probe)) return FAILED;
    } else {
        memmove(argv + asked->rest, argv + probe->after, (size_t)(count + 1) * sizeof *argv);
    }
    runc_become(asked, set, argv);
}

int probe_seated(const struct arguments *asked, const struct settings *set,
                 const struct seated *found, const struct probe *probe) {
    int line[2];
    if (!asked->pid_file) return by_hand(asked, set, found, probe);
    pid_t child = pipe(line) == 0 ? fork() : -1;
    if (child == 0) {
        close(line[0]);
        fcntl(line[1], F_SETFD, FD_CLOEXEC);
        pid_t worker = fork();
        if (worker) {
            close(line[1]);
            _exit(worker < 0 ? FAILED : ends_with(found, worker));
        }
        prctl(PR_SET_PDEATHSIG, SIGKILL);  // containerd ends what it waits for when it has enough
        int code = carry_out(asked, set, found, probe, line[1]);
        fflush(stdout);
        _exit(code);
    }
    if (child < 0) {
        report(asked, "cannot answer: no process can be made");
        return FAILED;
    }
    close(line[1]);
    int status = started_status(line[0]);
    if (status) return status;
    if (pid_write(asked->pid_file, child)) return 0;
    report(asked, "cannot answer: no pid file");
    return FAILED;
}
