// Finding the subcommand behind runc's global flags, and of it what concerns us.
#include <string.h>

#include "runtime.h"

// Flags that take a value in the next argument, of runc 1.1 to 1.4.
static const char *const GLOBAL[] = {"root", "log", "log-format", "criu", "rootless", NULL};
static const char *const CREATE[] = {"bundle",   "b",            "console-socket", "pidfd-socket",
                                     "pid-file", "preserve-fds", NULL};
static const char *const EXEC[] = {
    "console-socket", "pidfd-socket", "cwd",  "env",           "e",        "user", "u",
    "additional-gids", "g",           "process", "p",          "pid-file", "process-label",
    "apparmor",       "cap",          "c",    "preserve-fds",  "cgroup",   NULL};
static const char *const NONE[] = {NULL};

static const char *const *flags_of(const char *verb) {
    if (strcmp(verb, "create") == 0) return CREATE;
    if (strcmp(verb, "exec") == 0) return EXEC;
    return NONE;
}

static bool named(const char *flag, size_t size, const char *name) {
    return strlen(name) == size && memcmp(flag, name, size) == 0;
}

static void keep(struct arguments *found, const char *flag, size_t size, const char *value) {
    struct {
        const char *name;
        const char **place;
    } wanted[] = {
        {"root", &found->root},         {"log", &found->log},
        {"log-format", &found->log_format}, {"bundle", &found->bundle},
        {"b", &found->bundle},          {"process", &found->process},
        {"p", &found->process},         {"pid-file", &found->pid_file},
        {"console-socket", &found->console},
    };
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++)
        if (named(flag, size, wanted[i].name)) *wanted[i].place = value;
}

// Reads flags from `at` on; answers the place of the first argument that is none.
static int flags(struct arguments *found, int at, const char *const *valued) {
    while (at < found->count && found->all[at][0] == '-' && found->all[at][1]) {
        const char *flag = found->all[at++];
        if (strcmp(flag, "--") == 0) break;
        flag += flag[1] == '-' ? 2 : 1;
        if (strcmp(flag, "no-pivot") == 0) found->no_pivot = true;
        const char *equals = strchr(flag, '=');
        if (equals) {
            keep(found, flag, (size_t)(equals - flag), equals + 1);
            continue;
        }
        for (const char *const *name = valued; *name; name++)
            if (strcmp(flag, *name) == 0 && at < found->count) {
                keep(found, flag, strlen(flag), found->all[at++]);
                break;
            }
    }
    return at;
}

struct arguments arguments_read(int count, char **all) {
    struct arguments found = {.count = count, .all = all};
    int at = flags(&found, 1, GLOBAL);
    if (at >= count) return found;
    found.verb = at;
    at = flags(&found, at + 1, flags_of(all[at]));
    if (at < count) found.id = all[at++];
    found.rest = at;
    if (!found.root) found.root = "/run/runc";
    if (!found.bundle) found.bundle = ".";
    // runc takes no other ids; this one becomes part of a path.
    if (found.id && (!*found.id || strchr(found.id, '/') || found.id[0] == '.')) found.id = NULL;
    return found;
}

bool is_verb(const struct arguments *asked, const char *verb) {
    return asked->verb && strcmp(asked->all[asked->verb], verb) == 0;
}
