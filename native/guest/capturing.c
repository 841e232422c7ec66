// How many graphs are being captured: the gate closes between captures only, and memory is not
// given back inside one.
#include "collectives.h"
#include "hooks.h"

static CUresult begun(CUresult wrong) {
    if (!wrong) atomic_fetch_add(&captures, 1);
    return wrong;
}

#define CAPTURING(name) \
    EXPORTED CUresult name(CUstream stream, int mode); \
    CUresult name(CUstream stream, int mode) { \
        NEED(name); \
        gate_enter(); \
        CUresult wrong = begun(REAL(name)(stream, mode)); \
        gate_leave(); \
        return wrong; \
    }
CAPTURING(cuStreamBeginCapture)
CAPTURING(cuStreamBeginCapture_v2)
CAPTURING(cuStreamBeginCapture_v2_ptsz)

#define CAPTURING_INTO(name) \
    EXPORTED CUresult name(CUstream, void *, const void *, const void *, size_t, int); \
    CUresult name(CUstream stream, void *graph, const void *nodes, const void *edges, \
                  size_t count, int mode) { \
        NEED(name); \
        gate_enter(); \
        CUresult wrong = begun(REAL(name)(stream, graph, nodes, edges, count, mode)); \
        gate_leave(); \
        return wrong; \
    }
CAPTURING_INTO(cuStreamBeginCaptureToGraph)
CAPTURING_INTO(cuStreamBeginCaptureToGraph_ptsz)

// A capture that went wrong ends here too. One that was never begun does not count.
static CUresult ended(CUresult wrong, void **graph) {
    int now = atomic_load(&captures);
    if (wrong == CUDA_ILLEGAL_STATE) return wrong;
    while (now && !atomic_compare_exchange_weak(&captures, &now, now - 1)) {
    }
    graphs_captured(!wrong && graph ? *graph : NULL);
    return wrong;
}

#define CAPTURED(name) \
    EXPORTED CUresult name(CUstream stream, void **graph); \
    CUresult name(CUstream stream, void **graph) { \
        NEED(name); \
        gate_enter(); \
        CUresult wrong = ended(REAL(name)(stream, graph), graph); \
        gate_leave(); \
        return wrong; \
    }
CAPTURED(cuStreamEndCapture)
CAPTURED(cuStreamEndCapture_ptsz)
