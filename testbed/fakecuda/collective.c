// A kernel of a collective: it ends once all others have launched theirs, like NCCL's. And graphs,
// of such kernels alone.
#include <stdlib.h>
#include <string.h>

#include "fake.h"

enum { PENDING = 4096 };
static struct {
    _Atomic uint64_t *theirs;
    uint64_t until;
} pending[PENDING];
static int pending_count;
static atomic_flag busy = ATOMIC_FLAG_INIT;

static void take(void) {
    while (atomic_flag_test_and_set(&busy)) {
    }
}
static void give(void) { atomic_flag_clear(&busy); }

void collective(const struct collective *one) {
    uint64_t count = atomic_fetch_add(one->mine, 1) + 1;
    take();
    for (int i = 0; i < one->others && pending_count < PENDING; i++) {
        pending[pending_count].theirs = one->theirs[i];
        pending[pending_count++].until = count;
    }
    give();
}

bool awaits_others(void) {
    take();
    for (int i = 0; i < pending_count;)
        if (atomic_load(pending[i].theirs) >= pending[i].until) pending[i] = pending[--pending_count];
        else i++;
    bool any = pending_count > 0;
    give();
    return any;
}

struct graph {
    int count;
    const struct collective *kernels[64];
};

void capture_collective(struct stream *stream, const struct collective *one) {
    struct graph *graph = stream->graph;
    if (graph->count < 64) graph->kernels[graph->count++] = one;
}

void *capture_begin(void) { return calloc(1, sizeof(struct graph)); }

API int cuGraphInstantiateWithFlags(struct graph **made, struct graph *of, uint64_t flags) {
    (void)flags;
    if (!of) return INVALID;
    *made = malloc(sizeof **made);
    memcpy(*made, of, sizeof **made);
    return OK;
}
API int cuGraphLaunch(struct graph *one, void *stream) {
    (void)stream;
    enter();
    for (int i = 0; i < one->count; i++) collective(one->kernels[i]);
    leave();
    return OK;
}
API int cuGraphDestroy(struct graph *one) { return free(one), OK; }
API int cuGraphExecDestroy(struct graph *one) { return free(one), OK; }
