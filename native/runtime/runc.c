// The real runc.
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runtime.h"

enum { FAILED = 1 };

void runc_become(const struct arguments *asked, const struct settings *set, char **argv) {
    char *name = argv[0];
    argv[0] = (char *)set->runc;
    execvp(set->runc, argv);
    int why = errno;
    argv[0] = name;
    report(asked, "cannot run %s: %s", set->runc, strerror(why));
    exit(FAILED);
}

int runc_run(const struct arguments *asked, const struct settings *set, char **argv) {
    pid_t child = fork();
    if (child == 0) runc_become(asked, set, argv);
    int status = 0;
    if (child < 0) {
        report(asked, "cannot run %s: %s", set->runc, strerror(errno));
        return FAILED;
    }
    while (waitpid(child, &status, 0) < 0)
        if (errno != EINTR) return FAILED;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
