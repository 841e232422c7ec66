// A program with the guest in it and some memory, for an agent that says what it likes.
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "guest.h"

int cuDevicePrimaryCtxRetain(void **context, int device);
int cuCtxSetCurrent(void *context);
int cuInit(unsigned flags);
int cuMemAlloc_v2(CUdeviceptr *at, size_t size);

// names.c stays out: the address sanitizer has a dlsym of its own.
CUresult cuGetProcAddress(const char *base, void **found, int version, uint64_t flags);
CUresult cuGetProcAddress(const char *base, void **found, int version, uint64_t flags) {
    (void)base, (void)found, (void)version, (void)flags;
    return CUDA_NOT_SUPPORTED;
}
CUresult cuGetProcAddress_v2(const char *base, void **found, int version, uint64_t flags, int *s);
CUresult cuGetProcAddress_v2(const char *base, void **found, int version, uint64_t flags, int *s) {
    (void)s;
    return cuGetProcAddress(base, found, version, flags);
}

int main(void) {
    void *context;
    CUdeviceptr at;
    char byte;
    if (cuInit(0) || cuDevicePrimaryCtxRetain(&context, 0) || cuCtxSetCurrent(context)) return 2;
    for (int i = 1; i < 40; i++)
        if (cuMemAlloc_v2(&at, (size_t)i * (i % 3 ? 100 : GRAIN))) return 3;
    while (read(0, &byte, 1) > 0) {
    }
    _exit(0);  // the control thread still looks for its agent
}
