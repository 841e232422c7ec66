// Threads of our own. The thread library is found at run time: where it lives depends on glibc's
// age, and a process that uses the driver has it loaded.
#include <pthread.h>
#include <signal.h>

#include "guest.h"

// All signals are for the program's threads.
bool thread_start(void *(*body)(void *)) {
    int (*create)(pthread_t *, const void *, void *(*)(void *), void *);
    int (*mask)(int, const sigset_t *, sigset_t *);
    pthread_t thread;
    sigset_t all, before;
    void *found = object_symbol("libc.so", "pthread_create");
    if (!found) found = object_symbol("libpthread.so", "pthread_create");
    void *masking = object_symbol("libc.so", "pthread_sigmask");
    if (!masking) masking = object_symbol("libpthread.so", "pthread_sigmask");
    if (!found || !masking) return false;
    *(void **)&create = found;
    *(void **)&mask = masking;
    sigfillset(&all);
    mask(SIG_SETMASK, &all, &before);
    bool started = !create(&thread, NULL, body, NULL);
    mask(SIG_SETMASK, &before, NULL);
    return started;
}
