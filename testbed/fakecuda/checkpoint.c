// Locking, checkpointing and restoring a process from another one, by the states of CUprocessState.
//
// As the real driver: the process itself does the work in a thread of the driver's, so what was
// begun goes on when the one who asked dies, and a process that stands still answers nobody. What
// is checkpointed has its memory in the process's own, and nothing of the card.
// As measured: a process that has imported memory of another one is checkpointed with success, and
// cannot be restored. A restore without room ends it for good.
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "fake.h"

enum step { LOCK = 1, CHECKPOINT = 2, RESTORE = 3, UNLOCK = 4, DONE = 5 };
static const struct timespec MOMENT = {0, 1000000};
static const uint8_t NOWHERE[UUID_SIZE];

static atomic_int own_pid, state, inside;  // ours; the card has a copy for others to look at
static uint8_t known[UUID_SIZE];           // the card we are on, as of the last restore
static bool has_context, is_lost;
static int device = -1;

void enter(void) {
    for (;;) {
        atomic_fetch_add(&inside, 1);
        if (atomic_load(&state) == RUNNING) return;
        atomic_fetch_sub(&inside, 1);
        nanosleep(&MOMENT, NULL);
    }
}

void leave(void) { atomic_fetch_sub(&inside, 1); }

static bool lives(int pid) {
    char path[32], line[512], *after;
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) return false;
    ssize_t size = read(file, line, sizeof line - 1);
    close(file);
    line[size > 0 ? size : 0] = 0;
    after = strrchr(line, ')');
    return after && after[1] && after[2] != 'Z' && after[2] != 'X';
}

// A process is known by its pid namespace and its number there: those in containers are all 1. Who
// asks has another number for it, as with the real driver.
static uint64_t space_of(int pid) {
    char path[32];
    struct stat about;
    snprintf(path, sizeof path, "/proc/%d/ns/pid", pid);
    return stat(path, &about) ? 0 : (uint64_t)about.st_ino;
}

static int inner_of(int pid) {
    char path[32], line[256];
    int inner = pid;
    snprintf(path, sizeof path, "/proc/%d/status", pid);
    FILE *status = fopen(path, "re");
    while (status && fgets(line, sizeof line, status))
        if (!strncmp(line, "NSpid:", 6)) inner = atoi(strrchr(line, '\t') + 1);
    if (status) fclose(status);
    return inner;
}

static struct process *entry_of(int pid) {
    uint64_t space = space_of(pid);
    int inner = pid == own_pid && pid == getpid() ? pid : inner_of(pid);
    for (int i = 0; i < PROCESSES; i++) {
        struct process *one = &card()->processes[i];
        if (atomic_load(&one->pid) == inner && atomic_load(&one->space) == space) return one;
    }
    return NULL;
}

// What those had who are gone is free again. Of other namespaces nothing is seen: the fake NVML,
// which is asked from the node's, does it for them.
static void reap(void) {
    uint64_t space = space_of(getpid());
    for (int i = 0; i < PROCESSES; i++) {
        struct process *one = &card()->processes[i];
        int pid = atomic_load(&one->pid);
        if (pid <= 0 || atomic_load(&one->space) != space) continue;
        if (lives(pid) || !atomic_compare_exchange_strong(&one->pid, &pid, -1)) continue;
        atomic_fetch_sub(&card()->used, atomic_exchange(&one->held, 0));
        atomic_store(&one->asked, 0);
        atomic_store(&one->pid, 0);
    }
}

static struct process *own(void) {
    struct process *found = entry_of(own_pid);
    for (int i = 0; !found && i < PROCESSES; i++) {
        int nobody = 0;
        if (!atomic_compare_exchange_strong(&card()->processes[i].pid, &nobody, -1)) continue;
        found = &card()->processes[i];
        atomic_store(&found->asked, 0);
        atomic_store(&found->held, 0);
        atomic_store(&found->state, state);
        atomic_store(&found->space, space_of(own_pid));
        atomic_store(&found->pid, own_pid);
    }
    if (!found) abort();
    return found;
}

static bool take(size_t size) {
    uint64_t used = atomic_load(&card()->used);
    do {
        if (used + size > atomic_load(&card()->size)) return false;
    } while (!atomic_compare_exchange_weak(&card()->used, &used, used + size));
    return true;
}

bool use(size_t size) {
    if (!take(size)) {
        reap();
        if (!take(size)) return false;
    }
    if (atomic_load(&own_pid) == getpid()) atomic_fetch_add(&own()->held, size);
    return true;
}

void unuse(size_t size) {
    if (atomic_load(&own_pid) != getpid()) return;  // a child's copy of what the parent has
    atomic_fetch_sub(&card()->used, size);
    atomic_fetch_sub(&own()->held, size);
}

void context_use(void) {
    if (!has_context) has_context = use(CONTEXT_SIZE);
}

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static int lock(unsigned milliseconds) {
    double until = now() + milliseconds / 1e3;
    int running = RUNNING;
    if (!atomic_compare_exchange_strong(&state, &running, LOCKED)) return ILLEGAL;
    while (atomic_load(&inside) || is_busy()) {
        if (milliseconds && now() >= until) {
            atomic_store(&state, RUNNING);
            return NOT_READY;
        }
        nanosleep(&MOMENT, NULL);
    }
    return OK;
}

static int checkpoint(void) {
    if (atomic_load(&state) != LOCKED) return ILLEGAL;
    is_lost = !memory_leave();
    if (has_context) unuse(CONTEXT_SIZE);
    if (device >= 0) close(device);
    device = -1;
    atomic_store(&state, CHECKPOINTED);
    return OK;
}

static void open_device(void) {
    const char *path = getenv("KYB_FAKE_DEVICE");
    if (path) device = open(path, O_RDONLY | O_CLOEXEC);
}

static int restore(const uint8_t *from, const uint8_t *to) {
    if (atomic_load(&state) != CHECKPOINTED) return ILLEGAL;
    bool moves = memcmp(from, NOWHERE, UUID_SIZE) != 0;
    if (moves && memcmp(from, known, UUID_SIZE)) return INVALID;
    if (memcmp(moves ? to : known, card()->uuid, UUID_SIZE)) return INVALID;
    if (is_lost) return NOT_SUPPORTED;
    if (has_context && !use(CONTEXT_SIZE)) return atomic_store(&state, FAILED), NO_MEMORY;
    if (memory_return()) return atomic_store(&state, FAILED), NO_MEMORY;
    memcpy(known, card()->uuid, UUID_SIZE);
    open_device();
    atomic_store(&state, LOCKED);
    return OK;
}

static int unlock(void) {
    int locked = LOCKED;
    return atomic_compare_exchange_strong(&state, &locked, RUNNING) ? OK : ILLEGAL;
}

static int do_step(struct process *me, int step) {
    int failing = step;
    if (atomic_compare_exchange_strong(&card()->fails, &failing, 0)) {
        if (step == RESTORE) atomic_store(&state, FAILED);
        return UNKNOWN;
    }
    return step == LOCK         ? lock(atomic_load(&me->milliseconds))
           : step == CHECKPOINT ? checkpoint()
           : step == RESTORE    ? restore(me->from, me->to)
                                : unlock();
}

static void *serve(void *unused) {
    (void)unused;
    for (;;) {
        struct process *me = own();  // anew: after a restore elsewhere the card is another one
        int step = atomic_load(&me->asked);
        if (step >= LOCK && step <= UNLOCK) {
            int result = do_step(me, step);
            atomic_store(&me->state, state);
            atomic_store(&me->result, result);
            atomic_store(&me->asked, DONE);
        }
        nanosleep(&MOMENT, NULL);
    }
    return NULL;
}

void checkpoint_begin(void) {
    if (atomic_load(&own_pid) == getpid()) return;
    bool forked = atomic_exchange(&own_pid, getpid()) != 0;
    if (forked) {
        atomic_store(&state, RUNNING);
        atomic_store(&inside, 0);
        has_context = false;
    }
    reap();
    memcpy(known, card()->uuid, UUID_SIZE);
    own();
    open_device();
    pthread_t thread;
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    if (pthread_create(&thread, NULL, serve, NULL)) abort();
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

static int ask(int pid, enum step step) {
    struct process *one = entry_of(pid);
    int free_for_us = 0;
    if (pid <= 0 || !one || !lives(pid)) return INVALID;
    while (!atomic_compare_exchange_strong(&one->asked, &free_for_us, step)) {
        if (!lives(pid)) return INVALID;
        if (free_for_us != DONE) free_for_us = 0;  // another one's question comes first
        nanosleep(&MOMENT, NULL);
    }
    while (atomic_load(&one->asked) != DONE) {
        if (!lives(pid)) return INVALID;
        nanosleep(&MOMENT, NULL);
    }
    return atomic_load(&one->result);
}

struct lock_arguments {
    unsigned milliseconds;
};
API int cuCheckpointProcessLock(int pid, const struct lock_arguments *how) {
    struct process *one = entry_of(pid);
    if (one) atomic_store(&one->milliseconds, how ? how->milliseconds : 0);
    return ask(pid, LOCK);
}
API int cuCheckpointProcessUnlock(int pid, void *how) { return (void)how, ask(pid, UNLOCK); }
API int cuCheckpointProcessCheckpoint(int pid, void *how) { return (void)how, ask(pid, CHECKPOINT); }

struct restore_arguments {
    struct {
        uint8_t from[UUID_SIZE], to[UUID_SIZE];
    } *pairs;
    unsigned count;
};
API int cuCheckpointProcessRestore(int pid, const struct restore_arguments *how) {
    struct process *one = entry_of(pid);
    if (!one) return INVALID;
    bool moves = how && how->count;
    memcpy(one->from, moves ? how->pairs[0].from : NOWHERE, UUID_SIZE);
    memcpy(one->to, moves ? how->pairs[0].to : NOWHERE, UUID_SIZE);
    return ask(pid, RESTORE);
}
API int cuCheckpointProcessGetState(int pid, int *found) {
    struct process *one = entry_of(pid);
    if (!one || !lives(pid)) return INVALID;
    return *found = atomic_load(&one->state), OK;
}
API int cuCheckpointProcessGetRestoreThreadId(int pid, int *thread) {
    return *thread = pid, entry_of(pid) ? OK : INVALID;
}
