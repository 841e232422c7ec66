// What is carried out for a container, but not in it, ends when the container's first process does.
// containerd tells of a container's end only when all that it had run in it has ended; in the
// container the kernel sees to that, and out here nobody would.
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runtime.h"

static int opened(unsigned long long pid) { return (int)syscall(SYS_pidfd_open, (pid_t)pid, 0); }

// Waits for the worker, or ends it together with the container; its exit code as a shell has it.
int ends_with(const struct seated *found, pid_t worker) {
    int status = 0;
    struct pollfd ends[] = {{opened((unsigned long long)worker), POLLIN, 0},
                            {opened(found->pid), POLLIN, 0}};
    bool gone = ends[1].fd < 0 && errno == ESRCH;
    if (!gone && ends[0].fd >= 0)
        while (poll(ends, 2, -1) < 0 && errno == EINTR) continue;
    if (gone || (ends[1].revents && !ends[0].revents)) kill(worker, SIGKILL);
    while (waitpid(worker, &status, 0) < 0 && errno == EINTR) continue;
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}
