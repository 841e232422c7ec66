// Stream-ordered allocations (cuMemAllocAsync), made of the same memory as all others.
//
// Memory is there at once, which is early enough for any stream. Freed memory is kept with an event
// and used again where the driver would: on the same stream, or once its work has ended.
// Rule: inside a graph's capture they are the driver's, since they become part of the graph.
// All that is kept stands under `table_lock`.
#include "collectives.h"
#include "hooks.h"

#include <stdlib.h>
#include <string.h>

static struct kept {
    CUdeviceptr at;
    size_t size;  // of the segment; 0: it shares one
    CUcontext owner;
    CUstream stream;
    CUevent event;  // NULL: freed while a graph was captured
} *kept;
static size_t kept_count, kept_room, kept_bytes;
static const size_t KEEP = 256u * MIB;  // kept for the next one though its work has ended

static CUresult keep(struct kept one) {
    lock_take(&table_lock);
    if (kept_count == kept_room) {
        size_t room = kept_room ? 2 * kept_room : 64;
        struct kept *more = realloc(kept, room * sizeof *more);
        if (!more) abort();
        kept = more;
        kept_room = room;
    }
    kept[kept_count++] = one;
    kept_bytes += one.size;
    lock_give(&table_lock);
    return CUDA_SUCCESS;
}

// Under the lock.
static struct kept take(size_t place) {
    struct kept one = kept[place];
    memmove(kept + place, kept + place + 1, (--kept_count - place) * sizeof *kept);
    kept_bytes -= one.size;
    if (one.event) driver.cuEventDestroy_v2(one.event);
    return one;
}

CUresult ordered_keep(CUdeviceptr at, CUcontext owner) {
    return keep((struct kept){.at = at, .owner = owner});
}

static bool has_ended(const struct kept *one) {
    return one->event && driver.cuEventQuery(one->event) == CUDA_SUCCESS;
}

static void end(size_t place) {
    struct kept one = take(place);
    struct segment *under = segment_at(one.at);
    if (under) give_back(under, one.at);
}

static bool synchronize(CUcontext owner) {
    CUcontext before;
    if (driver.cuCtxPushCurrent_v2(owner)) return false;
    bool ended = !driver.cuCtxSynchronize();
    driver.cuCtxPopCurrent_v2(&before);
    return ended;
}

void ordered_tidy(void) {
    if (!kept_count) return;
    lock_take(&table_lock);
    for (size_t i = 0; i < kept_count;) {
        bool surplus = !kept[i].size || kept_bytes > KEEP;
        bool captured = !kept[i].event && !atomic_load(&captures) && synchronize(kept[i].owner);
        if (captured || (surplus && has_ended(&kept[i]))) end(i);
        else i++;
    }
    lock_give(&table_lock);
}

bool ordered_flush(void) {
    bool any = false;
    lock_take(&table_lock);
    for (size_t i = kept_count; i-- > 0;) {
        bool ended = kept[i].event ? !driver.cuEventSynchronize(kept[i].event)
                                   : !atomic_load(&captures) && synchronize(kept[i].owner);
        if (!ended) continue;
        end(i);
        any = true;
    }
    lock_give(&table_lock);
    return any;
}

void ordered_forget(CUcontext owner) {
    lock_take(&table_lock);
    for (size_t i = kept_count; i-- > 0;)
        if (kept[i].owner == owner) take(i);
    lock_give(&table_lock);
}

void ordered_forked(void) {
    kept_count = kept_bytes = 0;
}

static bool reuse(size_t size, CUstream stream, CUdeviceptr *at) {
    CUcontext owner;
    size_t whole = (size + GRAIN - 1) / GRAIN * GRAIN;
    bool found = false;
    if (size < SMALL || driver.cuCtxGetCurrent(&owner)) return false;
    lock_take(&table_lock);
    for (size_t i = 0; i < kept_count && !found; i++) {
        if (kept[i].size != whole || kept[i].owner != owner || !kept[i].event) continue;
        if (kept[i].stream != stream && !has_ended(&kept[i])) continue;
        *at = take(i).at;
        found = true;
    }
    lock_give(&table_lock);
    return found;
}

// CUDA_NOT_SUPPORTED: it is for the driver.
static CUresult ordered_new(CUdeviceptr *at, size_t size, CUstream stream) {
    if (!wanted() || !size || !at || !driver_load()) return CUDA_NOT_SUPPORTED;
    if (is_captured(stream)) {
        left_note(GRAPH_MEMORY, size);
        return CUDA_NOT_SUPPORTED;
    }
    return reuse(size, stream, at) ? CUDA_SUCCESS : allocate(size, at);
}

static bool is_default_pool(CUmemoryPool pool) {
    CUdevice device;
    CUmemoryPool usual;
    return driver_load() && driver.cuDeviceGetDefaultMemPool && !driver.cuCtxGetDevice(&device) &&
           !driver.cuDeviceGetDefaultMemPool(&usual, device) && usual == pool;
}

static CUresult ordered_from(CUdeviceptr *at, size_t size, CUmemoryPool pool, CUstream stream) {
    if (wanted() && is_default_pool(pool)) return ordered_new(at, size, stream);
    if (wanted()) left_note(POOL_MEMORY, size);
    return CUDA_NOT_SUPPORTED;
}

static bool find(CUdeviceptr at, struct kept *one) {
    CUdeviceptr begin = at;
    size_t size = 0;
    lock_take(&table_lock);
    struct segment *under = segment_at(at);
    bool yes = under && under->owner;
    if (yes && under->slab) yes = small_range(under, at, &begin, &size) && begin == at;
    else if (yes) yes = under->at == at;
    if (yes) *one = (struct kept){.at = at, .size = under->slab ? 0 : under->size,
                                  .owner = under->owner};
    lock_give(&table_lock);
    return yes;
}

// CUDA_NOT_SUPPORTED: it is not ours.
static CUresult ordered_free(CUdeviceptr at, CUstream stream) {
    struct kept one;
    if (!at || is_captured(stream) || !find(at, &one)) return CUDA_NOT_SUPPORTED;
    one.stream = stream;
    if (driver.cuEventCreate(&one.event, 2)) return free_ours(at, one.owner);  // 2: without a time
    if (driver.cuEventRecord(one.event, stream)) {
        driver.cuEventDestroy_v2(one.event);
        return free_ours(at, one.owner);
    }
    keep(one);
    ordered_tidy();
    return CUDA_SUCCESS;
}

static CUstream own(CUstream stream) {
    return stream ? stream : (CUstream)PER_THREAD_STREAM;
}

#define ORDERED(name, form) \
    EXPORTED CUresult cuMemAllocAsync##name(CUdeviceptr *, size_t, CUstream); \
    CUresult cuMemAllocAsync##name(CUdeviceptr *at, size_t size, CUstream stream) { \
        NEED(cuMemAllocAsync##name); \
        gate_enter(); \
        CUresult wrong = ordered_new(at, size, form(stream)); \
        if (wrong == CUDA_NOT_SUPPORTED) wrong = REAL(cuMemAllocAsync##name)(at, size, stream); \
        gate_leave(); \
        return wrong; \
    } \
    EXPORTED CUresult cuMemAllocFromPoolAsync##name(CUdeviceptr *, size_t, CUmemoryPool, CUstream); \
    CUresult cuMemAllocFromPoolAsync##name(CUdeviceptr *at, size_t size, CUmemoryPool pool, \
                                           CUstream stream) { \
        NEED(cuMemAllocFromPoolAsync##name); \
        gate_enter(); \
        CUresult wrong = ordered_from(at, size, pool, form(stream)); \
        if (wrong == CUDA_NOT_SUPPORTED) \
            wrong = REAL(cuMemAllocFromPoolAsync##name)(at, size, pool, stream); \
        gate_leave(); \
        return wrong; \
    } \
    EXPORTED CUresult cuMemFreeAsync##name(CUdeviceptr, CUstream); \
    CUresult cuMemFreeAsync##name(CUdeviceptr at, CUstream stream) { \
        NEED(cuMemFreeAsync##name); \
        gate_enter(); \
        CUresult wrong = ordered_free(at, form(stream)); \
        if (wrong == CUDA_NOT_SUPPORTED) wrong = REAL(cuMemFreeAsync##name)(at, stream); \
        gate_leave(); \
        return wrong; \
    }
ORDERED(, )
ORDERED(_ptsz, own)
