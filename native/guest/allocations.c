// cuMemAlloc and its kin: memory with a stable address, whichever way the program asks for it.
#include "hooks.h"

enum { PITCH = 512 };  // rows of textures and copies begin at multiples of this on every card

static size_t round_up(size_t size, size_t to) {
    return (size + to - 1) / to * to;
}

// Whether a card can give memory that leaves and comes back.
static bool can_leave(CUdevice device) {
    static atomic_int known[CARDS];  // 1 no, 2 yes
    if (device < 0 || device >= CARDS) return false;
    int answer = atomic_load(&known[device]);
    if (!answer) {
        int memory = 0, descriptors = 0;
        driver.cuDeviceGetAttribute(&memory, HAS_VMM, device);
        driver.cuDeviceGetAttribute(&descriptors, HAS_DESCRIPTORS, device);
        answer = memory && descriptors ? 2 : 1;
        atomic_store(&known[device], answer);
    }
    return answer == 2;
}

bool returned_to(const void *caller) {
    return object_holds("libnccl.so", caller);
}

// Of the calling thread. False: the real call shall say what is wrong, or give what it can.
static bool ours(CUcontext *context, CUdevice *device) {
    if (!wanted() || !driver_load()) return false;
    return !driver.cuCtxGetCurrent(context) && *context && !driver.cuCtxGetDevice(device);
}

static CUresult allocate_on(size_t size, CUdevice device, CUcontext owner, CUdeviceptr *at) {
    struct segment *made;
    lock_take(&table_lock);
    CUresult wrong = small_new(size, device, owner, at);
    if (wrong == CUDA_NOT_SUPPORTED) {
        wrong = segment_new(round_up(size, GRAIN), device, owner, &made);
        if (!wrong) *at = made->at;
    }
    lock_give(&table_lock);
    return wrong;
}

// CUDA_NOT_SUPPORTED: this is not for us.
CUresult allocate(size_t size, CUdeviceptr *at) {
    CUcontext owner;
    CUdevice device;
    if (!size || !at || !ours(&owner, &device)) return CUDA_NOT_SUPPORTED;
    if (!can_leave(device)) {
        left_note(NO_VMM, size);
        return CUDA_NOT_SUPPORTED;
    }
    drain_know(owner);
    ordered_tidy();
    CUresult wrong = allocate_on(size, device, owner, at);
    if (wrong == CUDA_OUT_OF_MEMORY && ordered_flush())
        wrong = allocate_on(size, device, owner, at);
    return wrong;
}

CUresult give_back(struct segment *one, CUdeviceptr at) {
    if (one->slab) return small_free(one, at) ? CUDA_SUCCESS : CUDA_INVALID_VALUE;
    return one->at == at ? segment_end(one) : CUDA_INVALID_VALUE;
}

// Whose memory it is; NULL: not ours to free.
static CUcontext owner_of(CUdeviceptr at) {
    lock_take(&table_lock);
    struct segment *one = segment_at(at);
    CUcontext owner = one ? one->owner : NULL;
    lock_give(&table_lock);
    return owner;
}

static CUresult synchronize(CUcontext owner) {
    CUcontext before;
    CUresult wrong = driver.cuCtxPushCurrent_v2(owner);
    if (wrong) return wrong;
    wrong = driver.cuCtxSynchronize();
    driver.cuCtxPopCurrent_v2(&before);
    return wrong;
}

// The real call waits for the card too. While a graph is captured nothing may wait: it is kept
// until that is over.
CUresult free_ours(CUdeviceptr at, CUcontext owner) {
    if (atomic_load(&captures)) return ordered_keep(at, owner);
    CUresult wrong = synchronize(owner);
    if (wrong) return wrong;
    lock_take(&table_lock);
    struct segment *one = segment_at(at);
    wrong = one ? give_back(one, at) : CUDA_INVALID_VALUE;
    lock_give(&table_lock);
    return wrong;
}

EXPORTED CUresult cuMemAlloc_v2(CUdeviceptr *at, size_t size);
CUresult cuMemAlloc_v2(CUdeviceptr *at, size_t size) {
    NEED(cuMemAlloc_v2);
    gate_enter();
    bool theirs = wanted() && returned_to(__builtin_return_address(0));
    if (theirs) left_note(NCCL_MEMORY, size);
    CUresult wrong = theirs ? CUDA_NOT_SUPPORTED : allocate(size, at);
    if (wrong == CUDA_NOT_SUPPORTED) wrong = REAL(cuMemAlloc_v2)(at, size);
    gate_leave();
    return wrong;
}

EXPORTED CUresult cuMemAllocPitch_v2(CUdeviceptr *at, size_t *pitch, size_t width, size_t height,
                                     unsigned element);
CUresult cuMemAllocPitch_v2(CUdeviceptr *at, size_t *pitch, size_t width, size_t height,
                            unsigned element) {
    NEED(cuMemAllocPitch_v2);
    gate_enter();
    size_t row = round_up(width, PITCH);
    bool fits = pitch && width && height && row >= width && row <= SIZE_MAX / height;
    CUresult wrong = fits ? allocate(row * height, at) : CUDA_NOT_SUPPORTED;
    if (!wrong) *pitch = row;
    if (wrong == CUDA_NOT_SUPPORTED)
        wrong = REAL(cuMemAllocPitch_v2)(at, pitch, width, height, element);
    gate_leave();
    return wrong;
}

EXPORTED CUresult cuMemFree_v2(CUdeviceptr at);
CUresult cuMemFree_v2(CUdeviceptr at) {
    NEED(cuMemFree_v2);
    gate_enter();
    CUcontext owner = at ? owner_of(at) : NULL;
    CUresult wrong = owner ? free_ours(at, owner) : REAL(cuMemFree_v2)(at);
    gate_leave();
    return wrong;
}

// Only for what shares a segment; the driver knows the others as well as we do.
static bool small_range_at(CUdeviceptr at, CUdeviceptr *base, size_t *size) {
    CUdeviceptr begin;
    size_t length;
    lock_take(&table_lock);
    struct segment *one = segment_at(at);
    bool yes = one && one->slab && small_range(one, at, &begin, &length);
    lock_give(&table_lock);
    if (yes && base) *base = begin;
    if (yes && size) *size = length;
    return yes;
}

EXPORTED CUresult cuMemGetAddressRange_v2(CUdeviceptr *base, size_t *size, CUdeviceptr at);
CUresult cuMemGetAddressRange_v2(CUdeviceptr *base, size_t *size, CUdeviceptr at) {
    NEED(cuMemGetAddressRange_v2);
    gate_enter();
    CUresult wrong = small_range_at(at, base, size)
                         ? CUDA_SUCCESS : REAL(cuMemGetAddressRange_v2)(base, size, at);
    gate_leave();
    return wrong;
}
