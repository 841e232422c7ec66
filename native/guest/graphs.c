// Graphs that hold collectives: to launch one is to start all of them.
//
// Whatever is captured while a collective is, counts as if it held it: a launch too many that is
// counted alike by all ranks does no harm.
#include <stdlib.h>
#include <string.h>

#include "collectives.h"
#include "hooks.h"

static struct graph {  // a graph, or what was made of it to be launched
    void *handle;
    struct steps steps;
} *graphs;
static size_t graph_count, graph_room;
static atomic_size_t known;  // as graph_count, for those who only ask whether there are any
static struct lock graphs_lock;
static struct steps captured;

bool is_captured(CUstream stream) {
    int status = 0;
    return atomic_load(&captures) && driver.cuStreamIsCapturing &&
           !driver.cuStreamIsCapturing(stream, &status) && status;
}

void captured_add(const struct steps *all) {
    lock_take(&graphs_lock);
    steps_join(&captured, all);
    lock_give(&graphs_lock);
}

static struct graph *find(const void *handle) {
    for (size_t i = 0; i < graph_count; i++)
        if (graphs[i].handle == handle) return &graphs[i];
    return NULL;
}

static struct graph *find_or_make(void *handle) {
    struct graph *one = find(handle);
    if (one) return one;
    if (graph_count == graph_room) {
        size_t room = graph_room ? 2 * graph_room : 16;
        struct graph *more = realloc(graphs, room * sizeof *more);
        if (!more) abort();
        graphs = more;
        graph_room = room;
    }
    graphs[graph_count] = (struct graph){.handle = handle};
    atomic_store(&known, graph_count + 1);
    return &graphs[graph_count++];
}

static void add(void *handle, const struct steps *all) {
    if (!all->count) return;
    struct steps copy = {0};  // `all` may be in the table, which may move
    steps_join(&copy, all);
    steps_join(&find_or_make(handle)->steps, &copy);
    steps_drop(&copy);
}

// While others are captured still, what they hold is unknown: it may be the same.
void graphs_captured(void *graph) {
    lock_take(&graphs_lock);
    if (graph) add(graph, &captured);
    if (!atomic_load(&captures)) steps_drop(&captured);
    lock_give(&graphs_lock);
}

static void has_what(void *handle, const void *from, bool anew) {
    if (!atomic_load(&known)) return;
    lock_take(&graphs_lock);
    struct graph *old = anew ? find(handle) : NULL;
    if (old) old->steps.count = 0;
    struct graph *one = find(from);
    if (one) add(handle, &one->steps);
    lock_give(&graphs_lock);
}

static void forget(const void *handle) {
    if (!atomic_load(&known)) return;
    lock_take(&graphs_lock);
    struct graph *one = find(handle);
    if (one) {
        steps_drop(&one->steps);
        *one = graphs[--graph_count];
        atomic_store(&known, graph_count);
    }
    lock_give(&graphs_lock);
}

static struct steps of(const void *handle) {
    struct steps copy = {0};
    if (!atomic_load(&known)) return copy;
    lock_take(&graphs_lock);
    struct graph *one = find(handle);
    if (one) steps_join(&copy, &one->steps);
    lock_give(&graphs_lock);
    return copy;
}

#define LAUNCH(name) \
    EXPORTED CUresult name(WORDS); \
    CUresult name(WORDS) { \
        NEED(name); \
        struct steps all = of((void *)a); \
        if (all.count) collective_enter(&all); \
        gate_enter(); \
        CUresult wrong = REAL(name)(PASSED); \
        gate_leave(); \
        if (all.count) collective_leave(); \
        steps_drop(&all); \
        return wrong; \
    }
LAUNCH(cuGraphLaunch)
LAUNCH(cuGraphLaunch_ptsz)

#define AFTERWARDS(name, what) \
    EXPORTED CUresult name(WORDS); \
    CUresult name(WORDS) { \
        NEED(name); \
        gate_enter(); \
        CUresult wrong = REAL(name)(PASSED); \
        if (!wrong && wanted()) what; \
        gate_leave(); \
        return wrong; \
    }
#define MADE(name) AFTERWARDS(name, has_what(*(void **)a, (void *)b, true))
MADE(cuGraphInstantiate)
MADE(cuGraphInstantiate_v2)
MADE(cuGraphInstantiateWithFlags)
MADE(cuGraphInstantiateWithParams)
MADE(cuGraphInstantiateWithParams_ptsz)
MADE(cuGraphClone)
AFTERWARDS(cuGraphExecUpdate, has_what((void *)a, (void *)b, true))
AFTERWARDS(cuGraphExecUpdate_v2, has_what((void *)a, (void *)b, true))
AFTERWARDS(cuGraphAddChildGraphNode, has_what((void *)b, (void *)e, false))
AFTERWARDS(cuGraphDestroy, forget((void *)a))
AFTERWARDS(cuGraphExecDestroy, forget((void *)a))

void graphs_forked(void) {
    graphs_lock.state = 0;
    graph_count = captured.count = 0;
    atomic_store(&known, 0);
}
