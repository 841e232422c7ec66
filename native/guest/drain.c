// Waiting for the work that was submitted. The driver's own wait has no limit, so it is made by a
// thread of its own: work that never ends costs this thread, and the gate is opened again.
#include "guest.h"

enum { CONTEXTS = 64 };

static struct lock contexts_lock;
static CUcontext contexts[CONTEXTS];
static size_t context_count;
static atomic_int asked, answered;  // rounds
static atomic_int running;

void drain_know(CUcontext context) {
    lock_take(&contexts_lock);
    size_t i = 0;
    while (i < context_count && contexts[i] != context) i++;
    if (i == context_count && i < CONTEXTS && context) contexts[context_count++] = context;
    lock_give(&contexts_lock);
}

void drain_forget(CUcontext context) {
    lock_take(&contexts_lock);
    for (size_t i = 0; i < context_count; i++)
        if (contexts[i] == context) contexts[i--] = contexts[--context_count];
    lock_give(&contexts_lock);
}

static size_t known(CUcontext *all) {
    lock_take(&contexts_lock);
    size_t count = context_count;
    for (size_t i = 0; i < count; i++) all[i] = contexts[i];
    lock_give(&contexts_lock);
    return count;
}

static void synchronize(void) {
    CUcontext all[CONTEXTS], before;
    size_t count = known(all);
    for (size_t i = 0; i < count; i++) {
        if (driver.cuCtxPushCurrent_v2(all[i])) continue;
        driver.cuCtxSynchronize();  // an error there is the program's own, told by its next call
        driver.cuCtxPopCurrent_v2(&before);
    }
}

static void *drainer(void *unused) {
    (void)unused;
    for (;;) {
        int round = atomic_load(&asked);
        if (round == atomic_load(&answered)) {
            wait_while(&asked, round);
            continue;
        }
        synchronize();
        atomic_store(&answered, round);
        wake_all(&answered);
    }
    return NULL;
}

static bool start(void) {
    if (atomic_exchange(&running, 1)) return true;
    if (thread_start(drainer)) return true;
    atomic_store(&running, 0);
    return false;
}

bool drain(double until) {
    if (!start()) return false;
    int round = atomic_fetch_add(&asked, 1) + 1;
    wake_all(&asked);
    while (atomic_load(&answered) != round) {
        if (seconds_now() >= until) return false;
        pause_briefly();
    }
    return true;
}

void drain_forked(void) {
    atomic_store(&running, 0);
    atomic_store(&asked, 0);
    atomic_store(&answered, 0);
    contexts_lock.state = 0;
    context_count = 0;
}
