// Streams, events, copies and the kernels. Copies are made at once; `busy` only takes time.
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "fake.h"

enum { BUSY = 1, FINGERPRINT, PRESS, EXPAND, COLLECTIVE, KERNELS };
static const char *const kernels[KERNELS] = {
    [BUSY] = "busy", [FINGERPRINT] = "kyb_fingerprint", [PRESS] = "kyb_press",
    [EXPAND] = "kyb_expand", [COLLECTIVE] = "kyb_collective"};
enum { BLOCKS_OF_EXPAND = 4 };  // for each chunk
static struct stream usual;
static _Atomic double busy_until;
static atomic_int capturing;

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

bool is_busy(void) {
    return atomic_load(&card()->endless) || now() < busy_until || awaits_others();
}

void wait_for_all(void) {
    while (is_busy()) nanosleep(&(struct timespec){0, 1000000}, NULL);
}

struct stream *stream_of(void *handle) {
    return (uintptr_t)handle <= 2 ? &usual : handle;
}

API int cuCtxSynchronize(void) {
    if (capturing) return CAPTURING;
    if (!current_context()) return NO_CONTEXT;
    enter();
    wait_for_all();
    leave();
    return OK;
}
API int cuStreamCreate(void **stream, unsigned flags) {
    (void)flags;
    return *stream = calloc(1, sizeof(struct stream)), OK;
}
API int cuStreamCreateWithPriority(void **stream, unsigned flags, int priority) {
    return (void)priority, cuStreamCreate(stream, flags);
}
API int cuStreamDestroy_v2(void *stream) { return free(stream), OK; }
API int cuStreamSynchronize(void *stream) { return (void)stream, wait_for_all(), OK; }
API int cuStreamQuery(void *stream) { return (void)stream, is_busy() ? NOT_READY : OK; }
API int cuStreamWaitEvent(void *stream, void *event, unsigned flags) {
    (void)stream, (void)event, (void)flags;
    return OK;
}
API int cuEventCreate(void **event, unsigned flags) {
    (void)flags;
    return *event = calloc(1, sizeof(double)), OK;
}
API int cuEventRecord(void *event, void *stream) {
    (void)stream;
    return *(double *)event = is_busy() ? busy_until : 0, OK;
}
API int cuEventQuery(void *event) { return now() < *(double *)event ? NOT_READY : OK; }
API int cuEventSynchronize(void *event) {
    while (cuEventQuery(event)) nanosleep(&(struct timespec){0, 1000000}, NULL);
    return OK;
}
API int cuEventElapsedTime_v2(float *ms, void *from, void *to) {
    (void)from, (void)to;
    return *ms = 1, OK;
}
API int cuEventDestroy_v2(void *event) { return free(event), OK; }

API int cuStreamBeginCapture_v2(void *stream, int mode) {
    (void)mode;
    if (stream_of(stream)->capturing) return ILLEGAL;
    stream_of(stream)->capturing = true;
    stream_of(stream)->graph = capture_begin();
    capturing++;
    return OK;
}
API int cuStreamEndCapture(void *stream, void **graph) {
    if (!stream_of(stream)->capturing) return ILLEGAL;
    stream_of(stream)->capturing = false;
    *graph = stream_of(stream)->graph;
    capturing--;
    return OK;
}
API int cuStreamIsCapturing(void *stream, int *status) {
    return *status = stream_of(stream)->capturing, OK;
}

static int move(void *to, const void *from, size_t size) {
    enter();
    memmove(to, from, size);
    int flip = 1;
    if (size && atomic_compare_exchange_strong(&card()->flip, &flip, 0)) ((char *)to)[size / 2] ^= 1;
    leave();
    return OK;
}
static int read_out(void *to, address from, size_t size) {
    enter();
    memmove(to, (void *)from, size);
    leave();
    return OK;
}
API int cuMemcpyHtoD_v2(address to, const void *from, size_t size) {
    return move((void *)to, from, size);
}
API int cuMemcpyHtoDAsync_v2(address to, const void *from, size_t size, void *stream) {
    (void)stream;
    return move((void *)to, from, size);
}
API int cuMemcpyDtoH_v2(void *to, address from, size_t size) { return read_out(to, from, size); }
API int cuMemcpyDtoHAsync_v2(void *to, address from, size_t size, void *stream) {
    (void)stream;
    return read_out(to, from, size);
}
API int cuMemcpyDtoD_v2(address to, address from, size_t size) {
    return read_out((void *)to, from, size);
}
API int cuMemcpyDtoD_v2_ptds(address to, address from, size_t size) {
    return read_out((void *)to, from, size);
}
API int cuMemsetD8_v2(address at, uint8_t value, size_t count) {
    enter();
    memset((void *)at, value, count);
    leave();
    return OK;
}
API int cuMemsetD8Async(address at, uint8_t value, size_t count, void *stream) {
    (void)stream;
    return cuMemsetD8_v2(at, value, count);
}

API int cuModuleLoadData(void **module, const void *image) { return *module = (void *)image, OK; }
API int cuModuleUnload(void *module) { return (void)module, OK; }
API int cuModuleGetFunction(void **function, void *module, const char *name) {
    (void)module;
    uintptr_t which = KERNELS - 1;
    while (which && strcmp(name, kernels[which])) which--;
    return *function = (void *)which, which ? OK : NOT_FOUND;
}
// busy: its one argument is a double, the seconds it takes.
API int cuLaunchKernel(void *function, unsigned x, unsigned y, unsigned z, unsigned bx, unsigned by,
                       unsigned bz, unsigned shared, void *stream, void **arguments, void **extra) {
    (void)y, (void)z, (void)bx, (void)by, (void)bz, (void)shared, (void)extra;
    int wrong = OK;
    enter();
    if ((uintptr_t)function == FINGERPRINT)
        fingerprint(*(void **)arguments[0], *(uint64_t **)arguments[1], arguments[2], x);
    else if ((uintptr_t)function == PRESS)
        press_all(*(void **)arguments[0], *(void **)arguments[1], *(void **)arguments[2],
                 *(uint32_t **)arguments[3], *(uint32_t *)arguments[4], x);
    else if ((uintptr_t)function == EXPAND)
        expand_all(*(void **)arguments[0], *(void **)arguments[1], arguments[2],
                   x / BLOCKS_OF_EXPAND);
    else if ((uintptr_t)function == BUSY)
        busy_until = now() + *(double *)arguments[0];
    else if ((uintptr_t)function == COLLECTIVE && stream_of(stream)->capturing)
        capture_collective(stream_of(stream), *(struct collective **)arguments[0]);
    else if ((uintptr_t)function == COLLECTIVE)
        collective(*(struct collective **)arguments[0]);
    else
        wrong = INVALID;
    leave();
    return wrong;
}
