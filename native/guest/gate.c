// The gate. Closed, it holds every thread of the program before its next call into the driver.
//
// Rule: a call counts as inside from before it looks at the gate until it has returned, so nobody
// is inside once the gate is closed and the count is zero.
// Rule: a call made inside another one (a driver's callback) passes, or the two would wait for
// each other.
// The count has lanes, so that threads do not fight for one cache line: a few nanoseconds a call.
// In the same word is how many calls there ever were, by which the agent sees that a program works.
#include "guest.h"

enum { LANES = 64 };
#define ONE_INSIDE ((uint64_t)1)
#define ONE_CALL ((uint64_t)1 << 16)  // above it: calls, ever; below: threads inside

static struct {
    _Alignas(64) _Atomic uint64_t calls;
} lanes[LANES];
static atomic_uint next_lane;
static __thread unsigned own_lane, depth;

atomic_int gate_closed;
atomic_int captures;

void gate_enter(void) {
    if (depth++) return;
    if (!own_lane) own_lane = 1 + atomic_fetch_add(&next_lane, 1) % LANES;
    for (;;) {
        atomic_fetch_add(&lanes[own_lane - 1].calls, ONE_CALL | ONE_INSIDE);
        if (!atomic_load(&gate_closed)) return;
        atomic_fetch_sub(&lanes[own_lane - 1].calls, ONE_CALL | ONE_INSIDE);
        wait_while(&gate_closed, 1);
    }
}

void gate_leave(void) {
    if (--depth) return;
    atomic_fetch_sub_explicit(&lanes[own_lane - 1].calls, ONE_INSIDE, memory_order_release);
}

void gate_count(uint64_t *calls, uint64_t *inside) {
    *calls = *inside = 0;
    for (int i = 0; i < LANES; i++) {
        uint64_t of_lane = atomic_load(&lanes[i].calls);
        *calls += of_lane / ONE_CALL;
        *inside += of_lane % ONE_CALL;
    }
}

static bool is_empty(void) {
    for (int i = 0; i < LANES; i++)
        if (atomic_load(&lanes[i].calls) % ONE_CALL) return false;
    return true;
}

static bool shut(double until) {
    atomic_store(&gate_closed, 1);
    while (!is_empty()) {
        if (seconds_now() >= until) return false;
        pause_briefly();
    }
    return true;
}

// A graph being captured needs its calls to go on: the gate closes between captures only.
bool gate_close(double until) {
    if (gate_is_closed()) return true;
    do {
        if (!atomic_load(&captures)) {
            if (shut(until) && !atomic_load(&captures)) return true;
            gate_open();
        }
        pause_briefly();
    } while (seconds_now() < until);
    return false;
}

void gate_open(void) {
    atomic_store(&gate_closed, 0);
    wake_all(&gate_closed);
}

bool gate_is_closed(void) {
    return atomic_load(&gate_closed);
}

// Only the forking thread lives on, and it is inside no call of its own making.
void gate_forked(void) {
    for (int i = 0; i < LANES; i++) atomic_store(&lanes[i].calls, 0);
    atomic_store(&gate_closed, 0);
    atomic_store(&captures, 0);
    depth = 0;
}
