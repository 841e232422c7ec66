// The program's own physical memory (PyTorch's expandable segments, JAX, NCCL's buffers).
//
// What it maps whole, once, leaves and comes back like any other. What it shares, or maps in a way
// we do not follow, stays in place and is named.
#include "hooks.h"

#include <stdlib.h>

// Virtual memory made to be drawn on (usage), compressed or of another kind is the driver's.
static bool can_leave(const struct properties *made, unsigned long long flags) {
    return wanted() && made && !flags && made->type == PINNED && made->where.type == ON_DEVICE &&
           made->where.id >= 0 && made->where.id < CARDS && !made->usage && !made->compression &&
           !made->windows && !(made->handles & ~POSIX_DESCRIPTOR) && driver_load();
}

EXPORTED CUresult cuMemCreate(CUhandle *, size_t, const struct properties *, unsigned long long);
CUresult cuMemCreate(CUhandle *handle, size_t size, const struct properties *made,
                     unsigned long long flags) {
    NEED(cuMemCreate);
    gate_enter();
    struct segment *one = can_leave(made, flags) ? calloc(1, sizeof *one) : NULL;
    struct properties ours;
    if (one) {
        ours = *made;
        ours.handles |= POSIX_DESCRIPTOR;
    }
    CUresult wrong = REAL(cuMemCreate)(one ? &one->real : handle, size, one ? &ours : made, flags);
    if (wrong || !one) {
        free(one);
    } else {
        one->size = size;
        one->made = ours;
        one->references = 1;
        lock_take(&table_lock);
        segment_add(one);
        *handle = segment_token(one);
        lock_give(&table_lock);
    }
    gate_leave();
    return wrong;
}

static void stays(struct segment *one, enum left_kind why) {
    if (!one->in_place) left_note(why, one->size);
    one->in_place = true;
}

// Under the lock.
static CUresult end_if_unused(struct segment *one) {
    if (one->references || one->at) return CUDA_SUCCESS;
    CUresult wrong = driver.cuMemRelease(one->real);
    segment_drop(one);
    return wrong;
}

// What a token means; NULL: the handle is the driver's own.
static struct segment *known(CUhandle token) {
    return wanted() ? segment_of(token) : NULL;
}

EXPORTED CUresult cuMemRelease(CUhandle handle);
CUresult cuMemRelease(CUhandle handle) {
    NEED(cuMemRelease);
    gate_enter();
    lock_take(&table_lock);
    struct segment *one = known(handle);
    CUresult wrong = CUDA_INVALID_VALUE;
    if (one && one->references) {
        one->references--;
        wrong = end_if_unused(one);
    }
    lock_give(&table_lock);
    if (!one) wrong = REAL(cuMemRelease)(handle);
    gate_leave();
    return wrong;
}

EXPORTED CUresult cuMemMap(CUdeviceptr, size_t, size_t, CUhandle, unsigned long long);
CUresult cuMemMap(CUdeviceptr at, size_t size, size_t offset, CUhandle handle,
                  unsigned long long flags) {
    NEED(cuMemMap);
    gate_enter();
    lock_take(&table_lock);
    struct segment *one = known(handle);
    CUresult wrong = REAL(cuMemMap)(at, size, offset, one ? one->real : handle, flags);
    if (one && !wrong) {
        if (offset || size != one->size || one->at) stays(one, MAPPED_IN_PIECES);
        else segment_move(one, at);
    }
    lock_give(&table_lock);
    gate_leave();
    return wrong;
}

static bool is_within(const struct segment *one, CUdeviceptr at, size_t size) {
    return one->at && !one->owner && one->at >= at && one->at - at < size;
}

EXPORTED CUresult cuMemUnmap(CUdeviceptr at, size_t size);
CUresult cuMemUnmap(CUdeviceptr at, size_t size) {
    NEED(cuMemUnmap);
    gate_enter();
    lock_take(&table_lock);
    CUresult wrong = REAL(cuMemUnmap)(at, size);
    for (size_t i = segment_count; !wrong && i-- > 0;) {
        struct segment *one = segments[i];
        if (!is_within(one, at, size)) continue;
        for (int card = 0; card < CARDS; card++) one->access[card] = 0;
        segment_move(one, 0);
        wrong = end_if_unused(one);
        i = segment_count;  // the order is another now
    }
    lock_give(&table_lock);
    gate_leave();
    return wrong;
}

static void allowed(struct segment *one, const struct access *who) {
    bool known_card = who->where.type == ON_DEVICE && who->where.id >= 0 && who->where.id < CARDS;
    if (known_card) one->access[who->where.id] = (uint8_t)who->flags;
    else stays(one, MAPPED_IN_PIECES);
}

EXPORTED CUresult cuMemSetAccess(CUdeviceptr, size_t, const struct access *, size_t);
CUresult cuMemSetAccess(CUdeviceptr at, size_t size, const struct access *all, size_t count) {
    NEED(cuMemSetAccess);
    gate_enter();
    lock_take(&table_lock);
    CUresult wrong = REAL(cuMemSetAccess)(at, size, all, count);
    for (size_t i = 0; !wrong && i < segment_count; i++)
        for (size_t j = 0; j < count && is_within(segments[i], at, size); j++)
            allowed(segments[i], &all[j]);
    lock_give(&table_lock);
    gate_leave();
    return wrong;
}

EXPORTED CUresult cuMemExportToShareableHandle(void *, CUhandle, int, unsigned long long);
CUresult cuMemExportToShareableHandle(void *shared, CUhandle handle, int type,
                                      unsigned long long flags) {
    NEED(cuMemExportToShareableHandle);
    gate_enter();
    lock_take(&table_lock);
    struct segment *one = known(handle);
    CUresult wrong =
        REAL(cuMemExportToShareableHandle)(shared, one ? one->real : handle, type, flags);
    if (one && !wrong) stays(one, EXPORTED_MEMORY);
    lock_give(&table_lock);
    gate_leave();
    return wrong;
}

EXPORTED CUresult cuMemImportFromShareableHandle(CUhandle *, void *, int);
CUresult cuMemImportFromShareableHandle(CUhandle *handle, void *shared, int type) {
    NEED(cuMemImportFromShareableHandle);
    bool theirs = wanted() && returned_to(__builtin_return_address(0));
    gate_enter();
    CUresult wrong = REAL(cuMemImportFromShareableHandle)(handle, shared, type);
    if (!wrong && wanted()) left_note(theirs ? NCCL_IMPORTED : IMPORTED_MEMORY, 0);
    gate_leave();
    return wrong;
}

EXPORTED CUresult cuMemGetAllocationPropertiesFromHandle(struct properties *, CUhandle);
CUresult cuMemGetAllocationPropertiesFromHandle(struct properties *made, CUhandle handle) {
    NEED(cuMemGetAllocationPropertiesFromHandle);
    gate_enter();
    lock_take(&table_lock);
    struct segment *one = known(handle);
    CUresult wrong =
        REAL(cuMemGetAllocationPropertiesFromHandle)(made, one ? one->real : handle);
    lock_give(&table_lock);
    gate_leave();
    return wrong;
}

// Of memory of cuMemAlloc the driver gives no handle, so neither do we.
EXPORTED CUresult cuMemRetainAllocationHandle(CUhandle *handle, void *at);
CUresult cuMemRetainAllocationHandle(CUhandle *handle, void *at) {
    NEED(cuMemRetainAllocationHandle);
    gate_enter();
    lock_take(&table_lock);
    struct segment *one = wanted() ? segment_at((CUdeviceptr)(uintptr_t)at) : NULL;
    CUresult wrong = one && !one->owner ? CUDA_SUCCESS : CUDA_INVALID_VALUE;
    if (!one) {
        wrong = REAL(cuMemRetainAllocationHandle)(handle, at);
    } else if (!wrong) {
        one->references++;
        *handle = segment_token(one);
    }
    lock_give(&table_lock);
    gate_leave();
    return wrong;
}

EXPORTED CUresult cuMulticastBindMem(CUhandle, size_t, CUhandle, size_t, size_t,
                                     unsigned long long);
CUresult cuMulticastBindMem(CUhandle cast, size_t at, CUhandle handle, size_t offset, size_t size,
                            unsigned long long flags) {
    NEED(cuMulticastBindMem);
    gate_enter();
    lock_take(&table_lock);
    struct segment *one = known(handle);
    CUresult wrong =
        REAL(cuMulticastBindMem)(cast, at, one ? one->real : handle, offset, size, flags);
    if (one && !wrong) stays(one, EXPORTED_MEMORY);
    lock_give(&table_lock);
    gate_leave();
    return wrong;
}

EXPORTED CUresult cuMulticastBindAddr(CUhandle, size_t, CUdeviceptr, size_t, unsigned long long);
CUresult cuMulticastBindAddr(CUhandle cast, size_t offset, CUdeviceptr at, size_t size,
                             unsigned long long flags) {
    NEED(cuMulticastBindAddr);
    gate_enter();
    lock_take(&table_lock);
    CUresult wrong = REAL(cuMulticastBindAddr)(cast, offset, at, size, flags);
    for (size_t i = 0; !wrong && wanted() && i < segment_count; i++)
        if (segments[i]->at && segments[i]->at < at + size &&
            at < segments[i]->at + segments[i]->size)
            stays(segments[i], EXPORTED_MEMORY);
    lock_give(&table_lock);
    gate_leave();
    return wrong;
}
