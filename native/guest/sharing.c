// cuIpcGetMemHandle and cuIpcOpenMemHandle for memory with a stable address, which the driver's own
// calls refuse: the handle is a ticket, and whoever has it asks us for a descriptor.
//
// Rule: a ticket is worth something only with this process's nonce, which is random.
// Rule: what was given out stays on the card: another process maps it.
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "hooks.h"
#include "packets.h"

enum { TICKET_NONCE = 16, NAME_SIZE = 1 + 10 + 2 * TICKET_NONCE, OPENED = 1024 };
static const uint8_t MAGIC[8] = "KYBSHARE";

struct ticket {
    uint8_t magic[8], nonce[TICKET_NONCE];
    uint64_t id, offset, size;
};
_Static_assert(sizeof(struct ticket) <= sizeof(struct ipc_handle), "a ticket fits a handle");

static uint8_t own_nonce[TICKET_NONCE];
static int listening = -1;
static struct {
    CUdeviceptr at, given;
    size_t size;
} opened[OPENED];

// "\0kyb-share-" and the nonce: a name of no file.
static void name_of(const uint8_t nonce[TICKET_NONCE], char name[NAME_SIZE]) {
    memcpy(name, "\0kyb-share-", 11);
    for (int i = 0; i < TICKET_NONCE; i++) {
        name[11 + 2 * i] = "0123456789abcdef"[nonce[i] >> 4];
        name[12 + 2 * i] = "0123456789abcdef"[nonce[i] & 15];
    }
}

static CUresult export_of(uint64_t id, int *fd) {
    CUresult wrong = CUDA_INVALID_VALUE;
    for (size_t i = 0; i < segment_count; i++)
        if (segments[i]->id == id && segments[i]->in_place)
            wrong = driver.cuMemExportToShareableHandle(fd, segments[i]->real, POSIX_DESCRIPTOR, 0);
    return wrong;
}

static void give(int to) {
    struct ticket asked;
    int fd = -1;
    char found = 0;
    if (packet_receive(to, &asked, sizeof asked, NULL) != sizeof asked) return;
    if (memcmp(asked.nonce, own_nonce, TICKET_NONCE)) return;
    lock_take(&table_lock);
    found = !export_of(asked.id, &fd);
    packet_send(to, &(struct iovec){&found, 1}, 1, &fd, found ? 1 : 0);
    if (found) close(fd);
    lock_give(&table_lock);
}

static void *giver(void *unused) {
    (void)unused;
    for (;;) {
        int one = accept(listening, NULL, NULL);
        if (one < 0) continue;
        fcntl(one, F_SETFD, FD_CLOEXEC);
        give(one);
        close(one);
    }
    return NULL;
}

// Under the table's lock.
static bool can_give(void) {
    char name[NAME_SIZE];
    if (listening >= 0) return true;
    int random = open("/dev/urandom", O_RDONLY | O_CLOEXEC);
    bool known = random >= 0 && read(random, own_nonce, TICKET_NONCE) == TICKET_NONCE;
    if (random >= 0) close(random);
    name_of(own_nonce, name);
    if (known) listening = packet_socket(name, NAME_SIZE, true);
    return listening >= 0 && thread_start(giver);
}

static CUresult ticket_for(struct segment *one, CUdeviceptr at, struct ipc_handle *handle) {
    if (!can_give()) return CUDA_NOT_SUPPORTED;
    struct ticket made = {.id = one->id, .offset = at - one->at, .size = one->size};
    memcpy(made.magic, MAGIC, sizeof MAGIC);
    memcpy(made.nonce, own_nonce, TICKET_NONCE);
    memset(handle, 0, sizeof *handle);
    memcpy(handle, &made, sizeof made);
    if (!one->in_place) left_note(EXPORTED_MEMORY, one->size);
    one->in_place = true;
    return CUDA_SUCCESS;
}

EXPORTED CUresult cuIpcGetMemHandle(struct ipc_handle *handle, CUdeviceptr at);
CUresult cuIpcGetMemHandle(struct ipc_handle *handle, CUdeviceptr at) {
    NEED(cuIpcGetMemHandle);
    gate_enter();
    lock_take(&table_lock);
    struct segment *one = segment_at(at);
    bool ours = one && one->owner && handle;
    CUresult wrong = ours ? ticket_for(one, at, handle) : CUDA_SUCCESS;
    lock_give(&table_lock);
    if (!ours) wrong = REAL(cuIpcGetMemHandle)(handle, at);
    gate_leave();
    return wrong;
}

static int ask(const struct ticket *shown) {
    char name[NAME_SIZE], found = 0;
    int fd = -1;
    name_of(shown->nonce, name);
    int to = packet_socket(name, NAME_SIZE, false);
    if (to < 0) return -1;
    if (packet_send(to, &(struct iovec){(void *)shown, sizeof *shown}, 1, NULL, 0))
        packet_receive(to, &found, 1, &fd);
    close(to);
    return fd;
}

static CUresult map(const struct ticket *shown, CUhandle shared, CUdeviceptr *at) {
    struct access who = {{ON_DEVICE, 0}, READ_WRITE};
    CUresult wrong = driver.cuCtxGetDevice(&who.where.id);
    if (!wrong) wrong = driver.cuMemAddressReserve(at, shown->size, 0, 0, 0);
    if (wrong) return wrong;
    wrong = driver.cuMemMap(*at, shown->size, 0, shared, 0);
    if (!wrong && (wrong = driver.cuMemSetAccess(*at, shown->size, &who, 1)))
        driver.cuMemUnmap(*at, shown->size);
    if (wrong) driver.cuMemAddressFree(*at, shown->size);
    return wrong;
}

static bool remember(CUdeviceptr at, const struct ticket *shown) {
    for (int i = 0; i < OPENED; i++)
        if (!opened[i].at) {
            opened[i].at = at;
            opened[i].given = at + shown->offset;
            opened[i].size = shown->size;
            return true;
        }
    return false;
}

static CUresult open_ticket(CUdeviceptr *given, const struct ticket *shown, bool theirs) {
    CUhandle shared;
    CUdeviceptr at;
    if (!given || !driver_load() || !shown->size || shown->offset >= shown->size)
        return CUDA_INVALID_VALUE;
    int fd = ask(shown);
    if (fd < 0) return CUDA_INVALID_VALUE;
    CUresult wrong = driver.cuMemImportFromShareableHandle(&shared, (void *)(uintptr_t)fd,
                                                           POSIX_DESCRIPTOR);
    close(fd);
    if (wrong) return wrong;
    wrong = map(shown, shared, &at);
    driver.cuMemRelease(shared);  // the mapping keeps it
    if (wrong) return wrong;
    lock_take(&table_lock);
    bool noted = remember(at, shown);
    lock_give(&table_lock);
    *given = at + shown->offset;
    if (noted) left_note(theirs ? NCCL_IMPORTED : IMPORTED_MEMORY, shown->size);
    return CUDA_SUCCESS;
}

EXPORTED CUresult cuIpcOpenMemHandle_v2(CUdeviceptr *at, struct ipc_handle handle, unsigned flags);
CUresult cuIpcOpenMemHandle_v2(CUdeviceptr *at, struct ipc_handle handle, unsigned flags) {
    NEED(cuIpcOpenMemHandle_v2);
    struct ticket shown;
    memcpy(&shown, &handle, sizeof shown);
    bool ours = wanted() && !memcmp(shown.magic, MAGIC, sizeof MAGIC);
    bool theirs = wanted() && returned_to(__builtin_return_address(0));
    gate_enter();
    CUresult wrong = ours ? open_ticket(at, &shown, theirs)
                          : REAL(cuIpcOpenMemHandle_v2)(at, handle, flags);
    if (!ours && !wrong && wanted()) left_note(theirs ? NCCL_IMPORTED : IMPORTED_MEMORY, 0);
    gate_leave();
    return wrong;
}

// Under the lock. Zero: not one that we opened.
static size_t forget(CUdeviceptr given, CUdeviceptr *at) {
    for (int i = 0; i < OPENED; i++)
        if (opened[i].at && opened[i].given == given) {
            *at = opened[i].at;
            opened[i].at = 0;
            return opened[i].size;
        }
    return 0;
}

EXPORTED CUresult cuIpcCloseMemHandle(CUdeviceptr given);
CUresult cuIpcCloseMemHandle(CUdeviceptr given) {
    NEED(cuIpcCloseMemHandle);
    CUdeviceptr at;
    gate_enter();
    lock_take(&table_lock);
    size_t size = forget(given, &at);
    lock_give(&table_lock);
    CUresult wrong;
    if (size) {
        driver.cuCtxSynchronize();
        wrong = driver.cuMemUnmap(at, size);
        if (!wrong) wrong = driver.cuMemAddressFree(at, size);
    } else {
        wrong = REAL(cuIpcCloseMemHandle)(given);
    }
    gate_leave();
    return wrong;
}

void sharing_forked(void) {
    if (listening >= 0) close(listening);
    listening = -1;
    memset(opened, 0, sizeof opened);
}
