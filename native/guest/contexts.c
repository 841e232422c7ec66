// The driver's start, and contexts: what belongs to one ends with it.
#include "hooks.h"

static CUcontext primary[CARDS];

EXPORTED CUresult cuInit(unsigned flags);
CUresult cuInit(unsigned flags) {
    NEED(cuInit);
    CUresult wrong = REAL(cuInit)(flags);
    if (!wrong && wanted() && driver_load()) {
        cards_know();
        control_start();
    }
    return wrong;
}

// Before the context goes: its memory would outlive it, having addresses of its own.
static void end_all_of(CUcontext context) {
    CUcontext before;
    if (!context || !wanted() || !driver_load()) return;
    if (!driver.cuCtxPushCurrent_v2(context)) {
        driver.cuCtxSynchronize();
        driver.cuCtxPopCurrent_v2(&before);
    }
    drain_forget(context);
    ordered_forget(context);
    lock_take(&table_lock);
    segments_end_of(context);
    lock_give(&table_lock);
}

EXPORTED CUresult cuCtxDestroy_v2(CUcontext context);
CUresult cuCtxDestroy_v2(CUcontext context) {
    NEED(cuCtxDestroy_v2);
    gate_enter();
    end_all_of(context);
    CUresult wrong = REAL(cuCtxDestroy_v2)(context);
    gate_leave();
    return wrong;
}

EXPORTED CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device);
CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device) {
    NEED(cuDevicePrimaryCtxRetain);
    gate_enter();
    CUresult wrong = REAL(cuDevicePrimaryCtxRetain)(context, device);
    if (!wrong && wanted() && device >= 0 && device < CARDS) {
        primary[device] = *context;
        drain_know(*context);
    }
    gate_leave();
    return wrong;
}

static CUcontext primary_of(CUdevice device) {
    return device >= 0 && device < CARDS ? primary[device] : NULL;
}

// The last release ends the context: only the driver knows which one is the last.
static void end_if_inactive(CUdevice device) {
    unsigned flags;
    int active = 1;
    if (!primary_of(device) || !driver_load() || !driver.cuDevicePrimaryCtxGetState) return;
    if (!driver.cuDevicePrimaryCtxGetState(device, &flags, &active) && !active)
        end_all_of(primary[device]);
}

EXPORTED CUresult cuDevicePrimaryCtxRelease_v2(CUdevice device);
CUresult cuDevicePrimaryCtxRelease_v2(CUdevice device) {
    NEED(cuDevicePrimaryCtxRelease_v2);
    gate_enter();
    CUresult wrong = REAL(cuDevicePrimaryCtxRelease_v2)(device);
    if (!wrong && wanted()) end_if_inactive(device);
    gate_leave();
    return wrong;
}

EXPORTED CUresult cuDevicePrimaryCtxReset_v2(CUdevice device);
CUresult cuDevicePrimaryCtxReset_v2(CUdevice device) {
    NEED(cuDevicePrimaryCtxReset_v2);
    gate_enter();
    end_all_of(primary_of(device));
    CUresult wrong = REAL(cuDevicePrimaryCtxReset_v2)(device);
    gate_leave();
    return wrong;
}

static bool device_of(CUcontext context, CUdevice *device) {
    CUcontext before;
    if (driver.cuCtxPushCurrent_v2(context)) return false;
    bool known = !driver.cuCtxGetDevice(device);
    driver.cuCtxPopCurrent_v2(&before);
    return known;
}

EXPORTED CUresult cuCtxEnablePeerAccess(CUcontext peer, unsigned flags);
CUresult cuCtxEnablePeerAccess(CUcontext peer, unsigned flags) {
    CUdevice reaching, reached;
    NEED(cuCtxEnablePeerAccess);
    gate_enter();
    CUresult wrong = REAL(cuCtxEnablePeerAccess)(peer, flags);
    if (!wrong && wanted() && driver_load() && !driver.cuCtxGetDevice(&reaching) &&
        device_of(peer, &reached))
        peers_allow(reaching, reached);
    gate_leave();
    return wrong;
}
