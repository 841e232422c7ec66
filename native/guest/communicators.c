// Communicators of NCCL: what is made, and what all ranks call it.
//
// A communicator's key is made of what its ranks have in common: the unique id it was made with; or
// the communicator it comes from, and how many came from that one before.
// Rule: making and ending one is never held, since others may be in the middle of it; it is waited
// for. Rule: to register memory with a communicator is declined: others would keep it mapped.
#include "nccl.h"

#include <string.h>
#include <unistd.h>

struct unique_id {
    char bytes[128];
};
enum { NO_COLOR = -1, PENDING = 64 };

static __thread struct pending {  // of a group: made when it ends
    void **place;
    uint32_t line;
} pending[PENDING];
static __thread int pending_count;

static uint64_t hashed(const void *bytes, size_t size, uint64_t from) {
    const uint8_t *at = bytes;
    for (size_t i = 0; i < size; i++) from = (from ^ at[i]) * 0x100000001b3u;
    return (from ^ (from >> 29)) * 0xbf58476d1ce4e5b9u;
}

static const uint64_t SEED = 0xcbf29ce484222325u;

// A child's key, of its parent's and what tells it from its siblings.
static uint64_t child_key(uint32_t parent, int64_t which) {
    uint64_t from[] = {line_at(parent).key, line_split(parent), (uint64_t)which};
    return hashed(from, sizeof from, SEED);
}

static void now_known(void *communicator, uint32_t line) {
    int (*ranks)(void *, int *), (*rank)(void *, int *), count = 0, own = 0;
    struct line one = line_at(line);
    *(void **)&ranks = nccl_real("ncclCommCount");
    *(void **)&rank = nccl_real("ncclCommUserRank");
    bool told = !one.members && ranks && rank && !ranks(communicator, &count) &&
                !rank(communicator, &own);
    line_become(line, communicator, told ? (uint32_t)own : one.member,
                told ? (uint32_t)count : one.members);
    left_note(COMMUNICATORS, 0);
}

void communicators_made(void) {
    for (int i = 0; i < pending_count; i++)
        if (*pending[i].place) now_known(*pending[i].place, pending[i].line);
    pending_count = 0;
}

// After the call: known at once, or when its group ends.
static int made(int result, void **place, uint32_t line) {
    if (result && result != NCCL_IN_PROGRESS) {
        line_end(line);
        return result;
    }
    if (grouped.depth && pending_count < PENDING) {
        pending[pending_count++] = (struct pending){place, line};
        grouped.sets_up = true;
    } else if (*place) {
        now_known(*place, line);
    }
    return result;
}

// A line before the call, so that others see that it has begun.
#define MADE(place, key, member, members, call) \
    do { \
        if (!wanted() || grouped.nested) return call; \
        uint32_t line = line_new(key, (uint32_t)(member), (uint32_t)(members), NULL); \
        set_up_enter(); \
        int result = made(call, place, line); \
        set_up_leave(); \
        return result; \
    } while (0)

EXPORTED int ncclCommInitRank(void **one, int ranks, struct unique_id id, int rank);
int ncclCommInitRank(void **one, int ranks, struct unique_id id, int rank) {
    NCCL_NEED(ncclCommInitRank);
    MADE(one, hashed(&id, sizeof id, SEED), rank, ranks,
         NCCL_REAL(ncclCommInitRank)(one, ranks, id, rank));
}

EXPORTED int ncclCommInitRankConfig(void **, int, struct unique_id, int, void *);
int ncclCommInitRankConfig(void **one, int ranks, struct unique_id id, int rank, void *how) {
    NCCL_NEED(ncclCommInitRankConfig);
    MADE(one, hashed(&id, sizeof id, SEED), rank, ranks,
         NCCL_REAL(ncclCommInitRankConfig)(one, ranks, id, rank, how));
}

EXPORTED int ncclCommInitRankScalable(void **, int, int, int, struct unique_id *, void *);
int ncclCommInitRankScalable(void **one, int ranks, int rank, int count, struct unique_id *ids,
                             void *how) {
    NCCL_NEED(ncclCommInitRankScalable);
    size_t size = ids && count > 0 ? (size_t)count * sizeof *ids : 0;
    MADE(one, hashed(ids, size, SEED), rank, ranks,
         NCCL_REAL(ncclCommInitRankScalable)(one, ranks, rank, count, ids, how));
}

// All ranks are in this process, and nobody else knows of it.
EXPORTED int ncclCommInitAll(void **all, int count, const int *devices);
int ncclCommInitAll(void **all, int count, const int *devices) {
    NCCL_NEED(ncclCommInitAll);
    set_up_enter();
    int result = NCCL_REAL(ncclCommInitAll)(all, count, devices);
    double own[] = {seconds_now(), (double)getpid()};
    for (int i = 0; !result && wanted() && !grouped.nested && i < count; i++) {
        uint32_t line = line_new(hashed(own, sizeof own, SEED), (uint32_t)i, (uint32_t)count, NULL);
        now_known(all[i], line);
    }
    set_up_leave();
    return result;
}

EXPORTED int ncclCommSplit(void *of, int color, int key, void **one, void *how);
int ncclCommSplit(void *of, int color, int key, void **one, void *how) {
    NCCL_NEED(ncclCommSplit);
    uint32_t parent = line_of(of);
    if (parent == NO_LINE) return NCCL_REAL(ncclCommSplit)(of, color, key, one, how);
    uint64_t child = child_key(parent, color);
    if (color == NO_COLOR) return NCCL_REAL(ncclCommSplit)(of, color, key, one, how);
    MADE(one, child, UINT32_MAX, 0, NCCL_REAL(ncclCommSplit)(of, color, key, one, how));
}

EXPORTED int ncclCommShrink(void *, int *, int, void **, void *, int);
int ncclCommShrink(void *of, int *without, int count, void **one, void *how, int flags) {
    NCCL_NEED(ncclCommShrink);
    uint32_t parent = line_of(of);
    if (parent == NO_LINE) return NCCL_REAL(ncclCommShrink)(of, without, count, one, how, flags);
    MADE(one, child_key(parent, -2), UINT32_MAX, 0,
         NCCL_REAL(ncclCommShrink)(of, without, count, one, how, flags));
}

// Those that join know it by the id, the others by what they come from: nobody can compare them.
EXPORTED int ncclCommGrow(void *, int, const struct unique_id *, int, void **, void *);
int ncclCommGrow(void *of, int ranks, const struct unique_id *id, int rank, void **one,
                 void *how) {
    NCCL_NEED(ncclCommGrow);
    double own[] = {seconds_now(), (double)getpid()};
    MADE(one, hashed(own, sizeof own, SEED), rank < 0 ? UINT32_MAX : (uint32_t)rank, ranks,
         NCCL_REAL(ncclCommGrow)(of, ranks, id, rank, one, how));
}

#define ENDING(name, ends) \
    EXPORTED int name(void *one); \
    int name(void *one) { \
        NCCL_NEED(name); \
        if (ends) lines_end(one); \
        set_up_enter(); \
        int result = NCCL_REAL(name)(one); \
        set_up_leave(); \
        return result; \
    }
ENDING(ncclCommFinalize, false)
ENDING(ncclCommDestroy, true)
ENDING(ncclCommAbort, true)

EXPORTED int ncclCommRegister(void *one, void *at, size_t size, void **handle);
int ncclCommRegister(void *one, void *at, size_t size, void **handle) {
    NCCL_NEED(ncclCommRegister);
    if (!wanted() || !handle) return NCCL_REAL(ncclCommRegister)(one, at, size, handle);
    *handle = NULL;
    return NCCL_SUCCESS;
}

EXPORTED int ncclCommDeregister(void *one, void *handle);
int ncclCommDeregister(void *one, void *handle) {
    NCCL_NEED(ncclCommDeregister);
    return handle ? NCCL_REAL(ncclCommDeregister)(one, handle) : NCCL_SUCCESS;
}

// Kernels of the program's own reach others' memory through these: nobody can hold them.
EXPORTED int ncclCommWindowRegister(void *, void *, size_t, void **, int);
int ncclCommWindowRegister(void *one, void *at, size_t size, void **window, int flags) {
    NCCL_NEED(ncclCommWindowRegister);
    int result = NCCL_REAL(ncclCommWindowRegister)(one, at, size, window, flags);
    if (!result && wanted() && window && *window) left_note(NCCL_WINDOWS, size);
    return result;
}

EXPORTED int ncclDevCommCreate(void *one, const void *asked, void *made_one);
int ncclDevCommCreate(void *one, const void *asked, void *made_one) {
    NCCL_NEED(ncclDevCommCreate);
    int result = NCCL_REAL(ncclDevCommCreate)(one, asked, made_one);
    if (!result && wanted()) left_note(NCCL_WINDOWS, 0);
    return result;
}
