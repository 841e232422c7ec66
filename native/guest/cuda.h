// What we need of the driver's interface: its own header is not there where we are compiled.
// Facts from CUDA's documentation; the layouts are those of every driver since 11.0.
#ifndef KYB_GUEST_CUDA_H
#define KYB_GUEST_CUDA_H

#include <stddef.h>
#include <stdint.h>

typedef int CUresult;
typedef int CUdevice;
typedef uint64_t CUdeviceptr;
typedef uint64_t CUhandle;  // CUmemGenericAllocationHandle
typedef void *CUcontext, *CUstream, *CUevent, *CUmemoryPool;

enum {
    CUDA_SUCCESS = 0,
    CUDA_INVALID_VALUE = 1,
    CUDA_OUT_OF_MEMORY = 2,
    CUDA_NO_DEVICE = 100,
    CUDA_INVALID_HANDLE = 400,
    CUDA_ILLEGAL_STATE = 401,
    CUDA_NOT_READY = 600,
    CUDA_NOT_SUPPORTED = 801,
};

enum {
    PINNED = 1,          // CUmemAllocationProp.type
    ON_DEVICE = 1,       // CUmemLocation.type
    POSIX_DESCRIPTOR = 1,
    READ_WRITE = 3,
    HAS_VMM = 102,       // CUdevice_attribute
    HAS_DESCRIPTORS = 103,
    HAS_RDMA = 110,
    PER_THREAD_STREAM = 2,  // as a CUstream, and as a flag of cuGetProcAddress
};

struct location {
    int type, id;
};

struct properties {  // CUmemAllocationProp
    int type, handles;
    struct location where;
    void *windows;
    uint8_t compression, rdma;
    uint16_t usage;
    uint8_t reserved[4];
};
_Static_assert(sizeof(struct properties) == 32, "CUmemAllocationProp has 32 bytes");

struct access {  // CUmemAccessDesc
    struct location where;
    int flags;
};
_Static_assert(sizeof(struct access) == 12, "CUmemAccessDesc has 12 bytes");

struct pool_properties {  // CUmemPoolProps, as far as we look
    int type, handles;
    struct location where;
};

struct ipc_handle {  // CUipcMemHandle
    uint8_t bytes[64];
};

// The driver's functions that we call ourselves: X(name, parameters).
#define DRIVER_CALLS(X) \
    X(cuDeviceGetAttribute, (int *value, int attribute, CUdevice device)) \
    X(cuDeviceGetUuid, (void *uuid, CUdevice device)) \
    X(cuCtxGetCurrent, (CUcontext *context)) \
    X(cuCtxGetDevice, (CUdevice *device)) \
    X(cuCtxPushCurrent_v2, (CUcontext context)) \
    X(cuCtxPopCurrent_v2, (CUcontext *context)) \
    X(cuCtxSynchronize, (void)) \
    X(cuDevicePrimaryCtxGetState, (CUdevice device, unsigned *flags, int *active)) \
    X(cuMemAddressReserve, (CUdeviceptr *at, size_t size, size_t align, CUdeviceptr hint, \
                            unsigned long long flags)) \
    X(cuMemAddressFree, (CUdeviceptr at, size_t size)) \
    X(cuMemCreate, (CUhandle *handle, size_t size, const struct properties *made, \
                    unsigned long long flags)) \
    X(cuMemRelease, (CUhandle handle)) \
    X(cuMemMap, (CUdeviceptr at, size_t size, size_t offset, CUhandle handle, \
                 unsigned long long flags)) \
    X(cuMemUnmap, (CUdeviceptr at, size_t size)) \
    X(cuMemSetAccess, (CUdeviceptr at, size_t size, const struct access *all, size_t count)) \
    X(cuMemExportToShareableHandle, (void *shared, CUhandle handle, int type, \
                                     unsigned long long flags)) \
    X(cuMemImportFromShareableHandle, (CUhandle *handle, void *shared, int type)) \
    X(cuEventCreate, (CUevent *event, unsigned flags)) \
    X(cuEventRecord, (CUevent event, CUstream stream)) \
    X(cuEventQuery, (CUevent event)) \
    X(cuEventSynchronize, (CUevent event)) \
    X(cuEventDestroy_v2, (CUevent event)) \
    X(cuDeviceGetDefaultMemPool, (CUmemoryPool *pool, CUdevice device)) \
    X(cuStreamIsCapturing, (CUstream stream, int *status))

struct driver {
#define X(name, parameters) CUresult(*name) parameters;
    DRIVER_CALLS(X)
#undef X
};
#endif
