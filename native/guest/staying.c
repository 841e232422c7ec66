// Allocations that stay on the card when the workload is parked: passed on, and noted by name.
#include "hooks.h"

EXPORTED CUresult cuMemAllocManaged(CUdeviceptr *at, size_t size, unsigned flags);
CUresult cuMemAllocManaged(CUdeviceptr *at, size_t size, unsigned flags) {
    NEED(cuMemAllocManaged);
    gate_enter();
    CUresult wrong = REAL(cuMemAllocManaged)(at, size, flags);
    if (!wrong) left_note(MANAGED, size);
    gate_leave();
    return wrong;
}

EXPORTED CUresult cuArrayCreate_v2(void **array, const size_t *made);
CUresult cuArrayCreate_v2(void **array, const size_t *made) {
    NEED(cuArrayCreate_v2);
    gate_enter();
    CUresult wrong = REAL(cuArrayCreate_v2)(array, made);
    if (!wrong) left_note(ARRAY, 0);
    gate_leave();
    return wrong;
}

EXPORTED CUresult cuArray3DCreate_v2(void **array, const size_t *made);
CUresult cuArray3DCreate_v2(void **array, const size_t *made) {
    NEED(cuArray3DCreate_v2);
    gate_enter();
    CUresult wrong = REAL(cuArray3DCreate_v2)(array, made);
    if (!wrong) left_note(ARRAY, 0);
    gate_leave();
    return wrong;
}
