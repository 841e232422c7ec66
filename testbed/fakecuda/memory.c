// Physical memory (a memfd), addresses (reserved, without access), and copies.
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fake.h"

struct properties {
    int type, handles, where, device;
    void *windows;
    uint8_t rest[8];
};
struct physical {
    int file, references;
    size_t size;
    bool imported;
    struct properties made;
    void *away;  // its contents while this process is checkpointed
};
static struct mapping {
    struct mapping *next;
    address at;
    size_t size, offset;
    struct physical *of;
    int access;
} *mappings;
static struct plain {
    struct plain *next;
    size_t size;
    address at;
} *plains;
static atomic_flag busy = ATOMIC_FLAG_INIT;

static void take(void) {
    while (atomic_flag_test_and_set(&busy)) {
    }
}
static void give(void) { atomic_flag_clear(&busy); }

static void unreference(struct physical *one) {
    if (--one->references) return;
    if (one->file >= 0) close(one->file);
    if (!one->imported) unuse(one->size);
    free(one);
}

API int cuMemGetAllocationGranularity(size_t *size, const void *made, int which) {
    (void)made, (void)which;
    return *size = GRAIN, OK;
}
static int made_file(size_t size) {
    int file = memfd_create("vram", MFD_CLOEXEC);
    if (file < 0 || ftruncate(file, (off_t)size)) abort();
    return file;
}
API int cuMemCreate(struct physical **handle, size_t size, const struct properties *made,
                    unsigned long long flags) {
    if (!size || size % GRAIN || flags) return INVALID;
    enter();
    bool room = use(size);
    if (room) {
        *handle = calloc(1, sizeof **handle);
        **handle = (struct physical){made_file(size), 1, size, false, *made, NULL};
    }
    leave();
    return room ? OK : NO_MEMORY;
}
API int cuMemRelease(struct physical *one) {
    if (!one) return INVALID;
    enter();
    take();
    unreference(one);
    give();
    leave();
    return OK;
}
API int cuMemExportToShareableHandle(int *shared, struct physical *one, int type,
                                     unsigned long long flags) {
    if (type != 1 || flags || !(one->made.handles & 1)) return INVALID;
    enter();
    *shared = dup(one->file);
    leave();
    return *shared < 0 ? NO_MEMORY : OK;
}
API int cuMemImportFromShareableHandle(struct physical **handle, void *shared, int type) {
    struct stat about;
    int file = type == 1 ? dup((int)(uintptr_t)shared) : -1;
    if (file < 0 || fstat(file, &about)) return INVALID;
    struct physical *one = calloc(1, sizeof *one);
    *one = (struct physical){file, 1, (size_t)about.st_size, true, {.handles = 1}, NULL};
    return *handle = one, OK;
}
API int cuMemGetAllocationPropertiesFromHandle(struct properties *made, struct physical *one) {
    return *made = one->made, OK;
}

API int cuMemAddressReserve(address *at, size_t size, size_t align, address hint,
                            unsigned long long flags) {
    (void)align, (void)hint, (void)flags;
    if (!size || size % GRAIN) return INVALID;
    char *room = mmap(NULL, size + GRAIN, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                      -1, 0);
    if (room == MAP_FAILED) return NO_MEMORY;
    char *begin = (char *)(((uintptr_t)room + GRAIN - 1) & ~(uintptr_t)(GRAIN - 1));
    if (begin > room) munmap(room, (size_t)(begin - room));
    munmap(begin + size, (size_t)(room + GRAIN - begin));
    return *at = (address)(uintptr_t)begin, OK;
}
API int cuMemAddressFree(address at, size_t size) {
    return munmap((void *)at, size) ? INVALID : OK;
}
API int cuMemMap(address at, size_t size, size_t offset, struct physical *of,
                 unsigned long long flags) {
    if (flags || offset + size > of->size) return INVALID;
    enter();
    void *there = mmap((void *)at, size, PROT_NONE, MAP_SHARED | MAP_FIXED, of->file,
                       (off_t)offset);
    if (there != MAP_FAILED) {
        struct mapping *one = malloc(sizeof *one);
        take();
        *one = (struct mapping){mappings, at, size, offset, of, PROT_NONE};
        mappings = one;
        of->references++;
        give();
    }
    leave();
    return there == MAP_FAILED ? INVALID : OK;
}
API int cuMemUnmap(address at, size_t size) {
    bool any = false;
    enter();
    take();
    for (struct mapping **next = &mappings; *next;) {
        struct mapping *one = *next;
        if (one->at < at || one->at >= at + size) {
            next = &one->next;
            continue;
        }
        mmap((void *)one->at, one->size, PROT_NONE,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0);
        *next = one->next;
        unreference(one->of);
        free(one);
        any = true;
    }
    give();
    leave();
    return any ? OK : INVALID;
}
API int cuMemSetAccess(address at, size_t size, const int *all, size_t count) {
    if (count != 1 || all[0] != 1) return INVALID;
    int how = all[2] == 3 ? PROT_READ | PROT_WRITE : all[2] == 1 ? PROT_READ : PROT_NONE;
    enter();
    int wrong = mprotect((void *)at, size, how) ? INVALID : OK;
    take();
    for (struct mapping *one = mappings; one && !wrong; one = one->next)
        if (one->at >= at && one->at < at + size) one->access = how;
    give();
    leave();
    return wrong;
}
API int cuMemRetainAllocationHandle(struct physical **handle, void *at) {
    int wrong = INVALID;
    take();
    for (struct mapping *one = mappings; one; one = one->next)
        if (one->at <= (address)at && (address)at < one->at + one->size) {
            one->of->references++;
            *handle = one->of;
            wrong = OK;
        }
    give();
    return wrong;
}

// The old way: memory that cannot leave.
API int cuMemAlloc_v2(address *at, size_t size) {
    if (!size) return INVALID;
    if (!current_context()) return NO_CONTEXT;
    enter();
    bool room = use(size);
    if (room) {
        struct plain *one = malloc(sizeof *one);
        *one = (struct plain){plains, size, (address)(uintptr_t)calloc(1, size)};
        take();
        plains = one;
        give();
        *at = one->at;
    }
    leave();
    return room ? OK : NO_MEMORY;
}
API int cuMemAllocPitch_v2(address *at, size_t *pitch, size_t width, size_t height, unsigned each) {
    (void)each;
    return cuMemAlloc_v2(at, (*pitch = (width + 511) / 512 * 512) * height);
}
API int cuMemFree_v2(address at) {
    int wrong = at ? INVALID : OK;
    enter();
    wait_for_all();
    take();
    for (struct plain **next = &plains; *next; next = &(*next)->next)
        if ((*next)->at == at) {
            struct plain *one = *next;
            *next = one->next;
            unuse(one->size);
            free((void *)at);
            free(one);
            wrong = OK;
            break;
        }
    give();
    leave();
    return wrong;
}
API int cuMemAllocManaged(address *at, size_t size, unsigned flags) {
    (void)flags;
    return cuMemAlloc_v2(at, size);
}
API int cuMemAllocAsync(address *at, size_t size, void *stream) {
    (void)stream;
    return cuMemAlloc_v2(at, size);
}
API int cuMemFreeAsync(address at, void *stream) { return (void)stream, cuMemFree_v2(at); }
API int cuMemAllocFromPoolAsync(address *at, size_t size, void *pool, void *stream) {
    (void)pool, (void)stream;
    return cuMemAlloc_v2(at, size);
}
API int cuDeviceGetDefaultMemPool(void **pool, int device) {
    static int the_pool;
    (void)device;
    return *pool = &the_pool, OK;
}
API int cuMemGetAddressRange_v2(address *base, size_t *size, address at) {
    int wrong = INVALID;
    take();
    for (struct mapping *one = mappings; one; one = one->next)
        if (one->at <= at && at < one->at + one->size)
            *base = one->at, *size = one->size, wrong = OK;
    for (struct plain *one = plains; one; one = one->next)
        if (one->at <= at && at < one->at + one->size)
            *base = one->at, *size = one->size, wrong = OK;
    give();
    return wrong;
}
API int cuIpcGetMemHandle(void *handle, address at) {
    struct plain *one = plains;
    while (one && one->at != at) one = one->next;
    if (one) memset(handle, 1, 64);
    return one ? OK : INVALID;
}

struct sixty_four {
    uint8_t bytes[64];
};
API int cuIpcOpenMemHandle_v2(address *at, struct sixty_four handle, unsigned flags) {
    (void)at, (void)handle, (void)flags;
    return NOT_SUPPORTED;
}
API int cuIpcCloseMemHandle(address at) { return (void)at, INVALID; }

API int cuMemAllocHost_v2(void **at, size_t size) {
    return (*at = malloc(size)) ? OK : NO_MEMORY;
}
API int cuMemFreeHost(void *at) { return free(at), OK; }
API int cuMemHostRegister_v2(void *at, size_t size, unsigned flags) {
    (void)flags;
    return at && size ? OK : INVALID;
}
API int cuMemHostUnregister(void *at) { return at ? OK : INVALID; }

// What a checkpoint does with it, and a restore. The memory of cuMemAlloc is host memory here
// already, and cannot be touched meanwhile; that of cuMemCreate keeps its addresses.
static void *nothing_at(const struct mapping *one) {
    return mmap((void *)one->at, one->size, PROT_NONE,
                MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0);
}

static void move_away(struct physical *one) {
    if (one->away || one->imported) return;
    one->away = malloc(one->size);
    if (pread(one->file, one->away, one->size, 0) != (ssize_t)one->size) abort();
    close(one->file);
    one->file = -1;
    unuse(one->size);
}

bool memory_leave(void) {
    bool all_ours = true;
    take();
    for (struct mapping *one = mappings; one; one = one->next) {
        all_ours &= !one->of->imported;
        move_away(one->of);
        nothing_at(one);
    }
    for (struct plain *one = plains; one; one = one->next) unuse(one->size);
    give();
    return all_ours;
}

static bool move_back(struct physical *one) {
    if (!one->away) return true;
    if (!use(one->size)) return false;
    one->file = made_file(one->size);
    if (pwrite(one->file, one->away, one->size, 0) != (ssize_t)one->size) abort();
    free(one->away);
    one->away = NULL;
    return true;
}

int memory_return(void) {
    bool room = true;
    take();
    for (struct plain *one = plains; one && room; one = one->next) room = use(one->size);
    for (struct mapping *one = mappings; one && room; one = one->next) {
        room = move_back(one->of);
        if (room && mmap((void *)one->at, one->size, one->access, MAP_SHARED | MAP_FIXED,
                         one->of->file, (off_t)one->offset) == MAP_FAILED)
            abort();
    }
    give();
    return room ? OK : NO_MEMORY;
}
