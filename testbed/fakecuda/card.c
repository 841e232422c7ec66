// The card, its contexts, and the names of the driver's functions.
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "fake.h"

enum { CONTEXTS = 8 };
static struct card own;
static int contexts[CONTEXTS];  // a context is one of these places; the first is the primary one
static int primary_users;
static __thread void *stack[16];
static __thread int depth;

static struct card *card_in(const char *path) {
    int file = path ? open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600) : -1;
    struct card *found = &own;
    if (file >= 0 && !ftruncate(file, sizeof *found)) {
        found = mmap(NULL, sizeof *found, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
        if (found == MAP_FAILED) found = &own;
        close(file);
    }
    uint64_t none = 0;
    if (atomic_compare_exchange_strong(&found->size, &none, CARD_SIZE_DEFAULT) && !found->uuid[0])
        memcpy(found->uuid, "\xfa\xce\x00\x00\x11\x11\x22\x22\x33\x33\x44\x44\x44\x44\x44\x44",
               UUID_SIZE);
    return found;
}

static bool is_visible(const struct card *one, int number) {
    const char *asked = getenv("CUDA_VISIBLE_DEVICES");
    char uuid[16 + 2 * UUID_SIZE] = "GPU-";
    if (!asked) return true;
    if (strncmp(asked, uuid, 4)) return atoi(asked) == number;
    for (int i = 0; i < UUID_SIZE; i++)
        sprintf(uuid + strlen(uuid), "%s%02x", i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "",
                one->uuid[i]);
    return !strcmp(asked, uuid);
}

struct card *card(void) {
    static struct card *shared;
    char paths[1024] = "", *rest = NULL;
    const char *given = getenv("KYB_FAKE_CARD");
    if (shared) return shared;
    if (given) strncpy(paths, given, sizeof paths - 1);
    struct card *found = NULL, *first = NULL;
    int number = 0;
    for (char *one = strtok_r(paths, ":", &rest); one && !found;
         one = strtok_r(NULL, ":", &rest), number++) {
        struct card *there = card_in(one);
        if (!first) first = there;
        if (is_visible(there, number)) found = there;
    }
    return shared = found ? found : first ? first : card_in(NULL);
}

API int cuInit(unsigned flags) { return flags ? INVALID : (checkpoint_begin(), OK); }
API int cuDriverGetVersion(int *version) {
    return *version = atomic_load(&card()->old) ? 12040 : 13000, OK;
}
API int cuDeviceGetCount(int *count) { return *count = 1, OK; }
API int cuDeviceGet(int *device, int index) { return *device = index, index ? 101 : OK; }
API int cuDeviceGetName(char *name, int room, int device) {
    (void)device;
    strncpy(name, "Fake GPU", (size_t)room);
    return OK;
}
API int cuDeviceGetUuid(uint8_t *uuid, int device) {
    if (device) return 101;
    enter();
    memcpy(uuid, card()->uuid, UUID_SIZE);
    leave();
    return OK;
}
API int cuDeviceGetUuid_v2(uint8_t *uuid, int device) { return cuDeviceGetUuid(uuid, device); }
API int cuDeviceTotalMem_v2(size_t *size, int device) {
    (void)device;
    return *size = atomic_load(&card()->size), OK;
}
API int cuMemGetInfo_v2(size_t *left, size_t *size) {
    *size = atomic_load(&card()->size);
    return *left = *size - atomic_load(&card()->used), OK;
}
API int cuDeviceGetAttribute(int *value, int attribute, int device) {
    (void)device;
    *value = attribute == 102 || attribute == 103 || attribute == 110;
    if (attribute == 75) *value = 9;
    return OK;
}

void *current_context(void) { return depth ? stack[depth - 1] : NULL; }
API int cuCtxGetCurrent(void **context) { return *context = current_context(), OK; }
API int cuCtxSetCurrent(void *context) {
    if (!depth) depth = 1;
    return stack[depth - 1] = context, OK;
}
API int cuCtxPushCurrent_v2(void *context) {
    if (depth == 16 || !context) return INVALID;
    return stack[depth++] = context, OK;
}
API int cuCtxPopCurrent_v2(void **context) {
    if (!depth) return NO_CONTEXT;
    return *context = stack[--depth], OK;
}
API int cuCtxGetDevice(int *device) { return current_context() ? (*device = 0, OK) : NO_CONTEXT; }
API int cuDevicePrimaryCtxRetain(void **context, int device) {
    (void)device;
    enter();
    context_use();
    primary_users++;
    leave();
    return *context = &contexts[0], OK;
}
API int cuDevicePrimaryCtxRelease_v2(int device) {
    (void)device;
    return primary_users ? (primary_users--, OK) : 201;
}
API int cuDevicePrimaryCtxReset_v2(int device) { return (void)device, primary_users = 0, OK; }
API int cuDevicePrimaryCtxGetState(int device, unsigned *flags, int *active) {
    (void)device;
    return *flags = 0, *active = primary_users > 0, OK;
}
API int cuCtxCreate_v2(void **context, unsigned flags, int device) {
    (void)flags, (void)device;
    for (int i = 1; i < CONTEXTS; i++)
        if (!contexts[i]) {
            contexts[i] = 1;
            *context = &contexts[i];
            return cuCtxPushCurrent_v2(*context);
        }
    return NO_MEMORY;
}
API int cuCtxDestroy_v2(void *context) {
    if (current_context() == context) depth--;
    return *(int *)context = 0, OK;
}

API int cuGetErrorName(int error, const char **name) {
    *name = error == NO_MEMORY ? "CUDA_ERROR_OUT_OF_MEMORY" : "CUDA_ERROR_OF_THE_FAKE";
    return OK;
}
API int cuGetErrorString(int error, const char **text) { return cuGetErrorName(error, text); }

// As the driver: the newest form of the name.
API int cuGetProcAddress_v2(const char *base, void **found, int version, uint64_t flags,
                            int *status) {
    static const char *const forms[] = {"_v3_ptsz", "_v2_ptsz", "_ptsz", "_v2_ptds", "_ptds",
                                        "_v3", "_v2", ""};
    char name[128];
    (void)version;
    *found = NULL;
    if (atomic_load(&card()->old) && !strncmp(base, "cuCheckpoint", 12)) return NOT_FOUND;
    void *self = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_NOLOAD);
    for (int i = flags & 2 ? 0 : 5; i < 8 && !*found && strlen(base) < 100; i++) {
        strcpy(name, base);
        strcat(name, forms[i]);
        *found = dlsym(self, name);
    }
    if (status) *status = *found ? 0 : 1;
    return *found ? OK : NOT_FOUND;
}
API int cuGetProcAddress(const char *base, void **found, int version, uint64_t flags) {
    return cuGetProcAddress_v2(base, found, version, flags, NULL);
}
