// The steady clock of C++ stands still while collectives are held, and goes on from there.
//
// What waits at the gate of collectives has taken its start already, and PyTorch's watchdog ends a
// job whose collectives took longer than its process group's time-out: to it a park takes no time.
// Deadlines of that clock are moved to the kernel's before anybody waits for one.
// Not moved: clock_gettime itself (Python's clocks), and waits that C++20's semaphores and atomics
// make in the program's own code.
#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <time.h>

#include "collectives.h"

// One word, so that it is read whole. Even: nanoseconds that the clock is behind, times two. Odd:
// what it shows while it stands, times two, and one. BUSY: being changed.
static const int64_t BUSY = INT64_MIN;
static _Atomic int64_t state;
static _Atomic int64_t stands_until;  // the kernel's nanoseconds; 0: until it is told

static int64_t kernel_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

static int64_t take_state(void) {
    int64_t was;
    while ((was = atomic_exchange(&state, BUSY)) == BUSY) pause_briefly();
    return was;
}

void clock_freeze(double until) {
    atomic_store(&stands_until, (int64_t)(until * 1e9));
    int64_t was = take_state();
    atomic_store(&state, was & 1 ? was : (kernel_now() - was / 2) * 2 + 1);
}

void clock_thaw(void) {
    int64_t was = take_state();
    atomic_store(&state, was & 1 ? (kernel_now() - (was - 1) / 2) * 2 : was);
}

// How far the clock is behind the kernel's now, and the kernel's own.
static int64_t behind(int64_t *now) {
    for (;;) {
        int64_t before = atomic_load(&state);
        *now = kernel_now();
        if (before == BUSY || atomic_load(&state) != before) continue;
        if (!(before & 1)) return before / 2;
        int64_t until = atomic_load(&stands_until);
        if (!until || *now < until) return *now - (before - 1) / 2;
        clock_thaw();  // the agent is late
    }
}

#define STEADY_NOW _ZNSt6chrono3_V212steady_clock3nowEv  // std::chrono::steady_clock::now()
EXPORTED int64_t STEADY_NOW(void);
int64_t STEADY_NOW(void) {
    int64_t now, late = behind(&now);
    return now - late;
}

static struct timespec moved(const struct timespec *at) {
    int64_t now, late = behind(&now);
    int64_t there = at->tv_sec * 1000000000LL + at->tv_nsec + late;
    return (struct timespec){there / 1000000000LL, there % 1000000000LL};
}

static bool is_moved(clockid_t clock) {
    return clock == CLOCK_MONOTONIC && atomic_load(&state);
}

static void *real(_Atomic(void *) *known, const char *name) {
    void *found = atomic_load(known);
    if (found) return found;
    found = object_symbol("libc.so", name);
    if (!found) found = object_symbol("libpthread.so", name);
    atomic_store(known, found);
    return found;
}

EXPORTED int pthread_cond_clockwait(pthread_cond_t *, pthread_mutex_t *, clockid_t,
                                    const struct timespec *);
int pthread_cond_clockwait(pthread_cond_t *one, pthread_mutex_t *mutex, clockid_t clock,
                           const struct timespec *until) {
    static _Atomic(void *) known;
    __typeof__(&pthread_cond_clockwait) wait = real(&known, "pthread_cond_clockwait");
    if (!wait) return EINVAL;
    if (!is_moved(clock)) return wait(one, mutex, clock, until);
    struct timespec there = moved(until);
    return wait(one, mutex, clock, &there);
}

EXPORTED int pthread_mutex_clocklock(pthread_mutex_t *, clockid_t, const struct timespec *);
int pthread_mutex_clocklock(pthread_mutex_t *one, clockid_t clock, const struct timespec *until) {
    static _Atomic(void *) known;
    __typeof__(&pthread_mutex_clocklock) take = real(&known, "pthread_mutex_clocklock");
    if (!take) return EINVAL;
    if (!is_moved(clock)) return take(one, clock, until);
    struct timespec there = moved(until);
    return take(one, clock, &there);
}

// std::future and std::promise: libstdc++ waits for the kernel's clock itself.
#define FUTEX_WAIT_STEADY \
    _ZNSt28__atomic_futex_unsigned_base26_M_futex_wait_until_steadyEPjjbNSt6chrono8durationIlSt5ratioILl1ELl1EEEENS2_IlS3_ILl1ELl1000000000EEEE
#define NAME_OF(symbol) #symbol
#define NAMED(symbol) NAME_OF(symbol)
EXPORTED bool FUTEX_WAIT_STEADY(void *, unsigned *, unsigned, bool, int64_t, int64_t);
bool FUTEX_WAIT_STEADY(void *self, unsigned *word, unsigned value, bool limited, int64_t seconds,
                       int64_t nanoseconds) {
    static _Atomic(void *) known;
    if (!atomic_load(&known))
        atomic_store(&known, object_symbol("libstdc++.so", NAMED(FUTEX_WAIT_STEADY)));
    __typeof__(&FUTEX_WAIT_STEADY) wait = atomic_load(&known);
    if (!wait) return false;
    struct timespec until = {seconds, nanoseconds};
    if (limited && is_moved(CLOCK_MONOTONIC)) until = moved(&until);
    return wait(self, word, value, limited, until.tv_sec, until.tv_nsec);
}
