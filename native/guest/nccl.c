// NCCL's calls that start work, through the gate of collectives.
//
// A program may be linked to NCCL, or have found it by dlsym (names.c); what is linked into a
// library of its own is seen where its calls can be interposed.
// Rule: a group is one call: its end starts all of it. Rule: what a graph's capture takes is not
// started; the graph's launch is (graphs.c). Rule: calls of a program that wants no agent, and of a
// second NCCL in one process, are passed on as they are; so is what NCCL calls of itself.
#include "nccl.h"

#include <string.h>

static struct call {
    const char *name;
    void *ours;
    _Atomic(void *) real;
} calls[NCCL_CALLS];

__thread struct grouped grouped;

nccl_call *nccl_found(enum nccl_id id) {
    void *real = atomic_load_explicit(&calls[id].real, memory_order_relaxed);
    if (real) return (nccl_call *)real;
    real = object_symbol_beyond(calls[id].ours, calls[id].name);
    atomic_store(&calls[id].real, real);
    return (nccl_call *)real;
}

void *nccl_real(const char *name) {
    for (int id = 0; id < NCCL_CALLS; id++)
        if (!strcmp(calls[id].name, name)) return (void *)nccl_found((enum nccl_id)id);
    return object_symbol("libnccl.so", name);
}

// The first NCCL in the loader's order, which is what linked programs call.
static void *home(void) {
    static _Atomic(void *) known;
    if (!atomic_load(&known))
        atomic_store(&known, object_base(object_symbol_beyond(calls[0].ours, "ncclCommInitRank")));
    return atomic_load(&known);
}

bool is_ncclish(const char *name) {
    return name && !strncmp(name, "nccl", 4);
}

void *nccl_instead(const char *name, void *real) {
    for (int id = 0; id < NCCL_CALLS; id++) {
        if (strcmp(calls[id].name, name)) continue;
        if (object_base(real) == home()) return calls[id].ours;
        left_note(SECOND_NCCL, 0);
        return NULL;
    }
    return NULL;
}

static int started(nccl_call *real, uint32_t line, CUstream stream, WORDS) {
    uint32_t one[] = {line};
    struct steps all = {one, 1, 1};
    if (line == NO_LINE || grouped.nested) return real(PASSED);
    if (is_captured(stream)) {
        captured_add(&all);
        return real(PASSED);
    }
    if (grouped.depth) {
        steps_add(&grouped.steps, line);
        return real(PASSED);
    }
    collective_enter(&all);
    grouped.nested = true;
    int result = real(PASSED);
    grouped.nested = false;
    collective_leave();
    return result;
}

#define COLLECTIVE(name, communicator, stream) \
    EXPORTED int name(WORDS); \
    int name(WORDS) { \
        NCCL_NEED(name); \
        return started(NCCL_REAL(name), line_of((void *)communicator), (CUstream)stream, PASSED); \
    }
static uint32_t between(bool sends, void *communicator, int peer) {
    uint32_t own = line_of(communicator);
    if (own == NO_LINE) return NO_LINE;
    int rank = (int)line_at(own).member;
    return sends ? line_between(communicator, rank, peer) : line_between(communicator, peer, rank);
}
#define BETWEEN(name, sends) \
    EXPORTED int name(WORDS); \
    int name(WORDS) { \
        NCCL_NEED(name); \
        return started(NCCL_REAL(name), between(sends, (void *)e, (int)d), (CUstream)f, PASSED); \
    }
#define OTHER(name) int name();
#include "nccl.def"

#define COLLECTIVE(name, communicator, stream) {#name, (void *)name, NULL},
#define BETWEEN(name, sends) {#name, (void *)name, NULL},
#define OTHER(name) {#name, (void *)name, NULL},
static struct call calls[NCCL_CALLS] = {
#include "nccl.def"
};

EXPORTED int ncclGroupStart(void);
int ncclGroupStart(void) {
    NCCL_NEED(ncclGroupStart);
    if (!grouped.nested) grouped.depth++;
    return NCCL_REAL(ncclGroupStart)();
}

// What it set up is not held: the others may be in the middle of it.
static int group_ended(void) {
    struct steps all = grouped.steps;
    bool sets_up = grouped.sets_up, starts = all.count > 0;
    grouped.steps = (struct steps){0};
    grouped.sets_up = false;
    if (sets_up) set_up_enter();
    if (starts) collective_enter(&all);
    grouped.nested = true;
    int result = NCCL_REAL(ncclGroupEnd)();
    grouped.nested = false;
    if (starts) collective_leave();
    if (sets_up) {
        communicators_made();
        set_up_leave();
    }
    steps_drop(&all);
    return result;
}

EXPORTED int ncclGroupEnd(void);
int ncclGroupEnd(void) {
    NCCL_NEED(ncclGroupEnd);
    if (!grouped.nested && grouped.depth > 0 && --grouped.depth == 0) return group_ended();
    return NCCL_REAL(ncclGroupEnd)();
}

EXPORTED int ncclGroupSimulateEnd(void *told);
int ncclGroupSimulateEnd(void *told) {
    NCCL_NEED(ncclGroupSimulateEnd);
    if (grouped.depth > 0 && --grouped.depth == 0) steps_drop(&grouped.steps);
    return NCCL_REAL(ncclGroupSimulateEnd)(told);
}
