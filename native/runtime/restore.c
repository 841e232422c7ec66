// A container from a checkpoint: `runc restore` in place of `runc create`.
//
// It comes back stopped (the image's CRIU options see to that), so no instruction of it runs before
// the agent wants it to; `start` has nothing to start.
// Rule: which options CRIU gets is the agent's to say, in a file of its own. Ours are those that a
// dump was made with (nodeagent/images/runc.py).
#include <stdlib.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "runtime.h"

enum { MORE = 24, LOG_MOST = 64 * 1024 * 1024 };
static const char ERROR[] = "Error (";

// Said on the way, and not why: the end, and a limit it cannot raise without CAP_SYS_RESOURCE.
static bool is_why(const char *said) {
    return strncmp(said, "Restoring FAILED.", 17) != 0 && strncmp(said, "rlimit: ", 8) != 0;
}

// The first error in CRIU's log; those after it follow from it.
static void cause(const struct answer *from, char words[WORDS_ROOM]) {
    char path[PATH_ROOM], *text;
    size_t size;
    snprintf(words, WORDS_ROOM, "CRIU left no word about it");
    if (!path_join(path, from->work, "restore.log") || !file_read(path, LOG_MOST, &text, &size))
        return;
    for (const char *at = strstr(text, ERROR); at; at = strstr(at + 1, ERROR)) {
        const char *said = strstr(at, "): ");
        if (!said || !is_why(said + 3)) continue;
        snprintf(words, WORDS_ROOM, "%.*s", (int)strcspn(said + 3, "\n"), said + 3);
        break;
    }
    free(text);
}

// The words become a field of a request, which takes no control characters.
static void flatten(char *words) {
    for (; *words; words++)
        if ((unsigned char)*words < 0x20) *words = ' ';
}

static void add_pair(char **argv, int *used, const char *flag, const char *value) {
    if (!value) return;
    argv[(*used)++] = (char *)flag;
    argv[(*used)++] = (char *)value;
}

static char **arguments_of(const struct arguments *asked, const struct answer *from) {
    static char *const flags[] = {"restore", "--detach", "--no-subreaper", "--tcp-established",
                                  "--ext-unix-sk", "--file-locks"};
    char **argv = calloc((size_t)asked->verb + MORE, sizeof *argv);
    int used = asked->verb;
    if (!argv) return NULL;
    memcpy(argv, asked->all, (size_t)used * sizeof *argv);
    memcpy(argv + used, flags, sizeof flags);
    used += (int)(sizeof flags / sizeof *flags);
    add_pair(argv, &used, "--bundle", asked->bundle);
    add_pair(argv, &used, "--pid-file", asked->pid_file);
    add_pair(argv, &used, "--console-socket", asked->console);
    add_pair(argv, &used, "--image-path", from->image);
    add_pair(argv, &used, "--work-path", from->work);
    if (asked->no_pivot) argv[used++] = "--no-pivot";
    argv[used] = (char *)asked->id;
    return argv;
}

bool is_touched(const struct seated *made) {
    char path[PATH_ROOM];
    return path_join(path, made->bundle, "kyb-wake/touched") && access(path, F_OK) == 0;
}

int restore(const struct arguments *asked, const struct settings *set, const struct answer *from,
            struct seated *made) {
    char **argv = arguments_of(asked, from);
    int status = argv ? runc_run(asked, set, argv) : 1;
    free(argv);
    made->restored = status == 0;
    if (status == 0) return 0;
    cause(from, made->failed);
    flatten(made->failed);
    report(asked, "its checkpoint cannot be restored: %s", made->failed);
    return status;
}
