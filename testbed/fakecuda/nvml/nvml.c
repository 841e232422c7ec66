// A libnvidia-ml.so.1 over the fake card of ../: what the agent's inventory asks of the real one.
//
// Faithful: who is on the card by the numbers of whoever asks, bytes by process, and bytes that come
// free when a process ends. It has to be asked from a pid namespace that sees all of them (a
// node's), since it also clears up after those that are gone. No links: there is one card.
// Errors of the card, for tests: KYB_FAKE_CARD with ".events" holds lines `xid N` or `ecc`, each told
// once to every event set; with ".rows" it needs a reset.
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../fake.h"

enum { SUCCESS = 0, INVALID_ARGUMENT = 2, UNSUPPORTED = 3, TOO_SMALL = 7, TIMED_OUT = 10,
       XID = 8, DOUBLE_BIT = 2 };
static int the_card;

struct memory {
    unsigned version;
    unsigned long long total, reserved, free, used;
};
struct running {
    unsigned pid;
    unsigned long long used;
    unsigned instance, compute;
};
struct event {
    void *card;
    unsigned long long kind, value;
    unsigned instance, compute;
};
struct place {
    char legacy[16];
    unsigned domain, bus, device, ids, more;
    char id[32];
};
struct listening {
    long at;  // in the file of events
};

struct card *card(void) {
    static struct card *shared;
    const char *path = getenv("KYB_FAKE_CARD");
    if (shared || !path) return shared;
    int file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (file < 0 || ftruncate(file, sizeof *shared)) return NULL;
    struct card *found = mmap(NULL, sizeof *found, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    uint64_t none = 0;
    if (found == MAP_FAILED) return NULL;
    if (atomic_compare_exchange_strong(&found->size, &none, CARD_SIZE_DEFAULT) && !found->uuid[0])
        memcpy(found->uuid, "\xfa\xce\x00\x00\x11\x11\x22\x22\x33\x33\x44\x44\x44\x44\x44\x44",
               UUID_SIZE);
    return shared = found;
}

static FILE *beside(const char *what) {
    char path[4096];
    const char *base = getenv("KYB_FAKE_CARD");
    snprintf(path, sizeof path, "%s.%s", base ? base : "", what);
    return base ? fopen(path, "re") : NULL;
}

// By namespace and inner number to the number here; 0: it is gone.
static int number_here(uint64_t space, int inner) {
    DIR *all = opendir("/proc");
    int found = 0;
    for (struct dirent *one; all && !found && (one = readdir(all));) {
        char path[300], line[256];
        struct stat about;
        int pid = atoi(one->d_name), last = pid;
        snprintf(path, sizeof path, "/proc/%d/ns/pid", pid);
        if (pid <= 0 || stat(path, &about) || about.st_ino != space) continue;
        snprintf(path, sizeof path, "/proc/%d/status", pid);
        FILE *status = fopen(path, "re");
        bool ended = false;
        while (status && fgets(line, sizeof line, status)) {
            if (!strncmp(line, "State:", 6)) ended = strchr("ZX", line[7]) != NULL;
            if (!strncmp(line, "NSpid:", 6)) last = atoi(strrchr(line, '\t') + 1);
        }
        if (status) fclose(status);
        if (last == inner && !ended) found = pid;
    }
    if (all) closedir(all);
    return found;
}

static unsigned all_running(struct running *out, unsigned room) {
    unsigned count = 0;
    for (int i = 0; i < PROCESSES; i++) {
        struct process *one = &card()->processes[i];
        int inner = atomic_load(&one->pid);
        if (inner <= 0) continue;
        int pid = number_here(atomic_load(&one->space), inner);
        if (pid) {
            uint64_t held = atomic_load(&one->held);
            if (held && count++ < room) out[count - 1] = (struct running){(unsigned)pid, held, ~0u, ~0u};
        } else if (atomic_compare_exchange_strong(&one->pid, &inner, -1)) {
            atomic_fetch_sub(&card()->used, atomic_exchange(&one->held, 0));
            atomic_store(&one->asked, 0);
            atomic_store(&one->pid, 0);
        }
    }
    return count;
}

static int text(char *out, unsigned room, const char *what) {
    snprintf(out, room, "%s", what);
    return SUCCESS;
}

API int nvmlInitWithFlags(unsigned flags) { return (void)flags, card() ? SUCCESS : 9; }
API int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
API int nvmlShutdown(void) { return SUCCESS; }
API const char *nvmlErrorString(int error) {
    return error == 9 ? "the fake has no card: KYB_FAKE_CARD" : "an error of the fake";
}
API int nvmlSystemGetDriverVersion(char *out, unsigned room) {
    return text(out, room, atomic_load(&card()->old) ? "550.90.07" : "580.0.0");
}
API int nvmlDeviceGetCount_v2(unsigned *count) { return *count = 1, SUCCESS; }
API int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **handle) {
    return *handle = &the_card, index ? INVALID_ARGUMENT : SUCCESS;
}
API int nvmlDeviceGetUUID(void *handle, char *out, unsigned room) {
    const uint8_t *u = card()->uuid;
    (void)handle;
    snprintf(out, room,
             "GPU-%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", u[0], u[1],
             u[2], u[3], u[4], u[5], u[6], u[7], u[8], u[9], u[10], u[11], u[12], u[13], u[14], u[15]);
    return SUCCESS;
}
API int nvmlDeviceGetName(void *handle, char *out, unsigned room) {
    return (void)handle, text(out, room, "Fake GPU");
}
API int nvmlDeviceGetPciInfo_v3(void *handle, struct place *out) {
    (void)handle;
    *out = (struct place){.bus = 1};
    return text(out->id, sizeof out->id, "00000000:01:00.0");
}
API int nvmlDeviceGetMemoryInfo_v2(void *handle, struct memory *out) {
    struct running unused[1];
    (void)handle;
    all_running(unused, 0);
    unsigned long long size = atomic_load(&card()->size), used = atomic_load(&card()->used);
    *out = (struct memory){out->version, size, 0, size - used, used};
    return SUCCESS;
}
API int nvmlDeviceGetComputeRunningProcesses_v3(void *handle, unsigned *count, struct running *out) {
    unsigned room = out ? *count : 0;
    (void)handle;
    *count = all_running(out, room);
    return *count > room ? TOO_SMALL : SUCCESS;
}
API int nvmlDeviceGetComputeMode(void *handle, unsigned *mode) {
    return (void)handle, *mode = 0, SUCCESS;
}
API int nvmlDeviceGetMigMode(void *handle, unsigned *now, unsigned *pending) {
    return (void)handle, (void)now, (void)pending, UNSUPPORTED;
}
API int nvmlDeviceGetRemappedRows(void *handle, unsigned *corrected, unsigned *uncorrected,
                                  unsigned *pending, unsigned *failed) {
    FILE *rows = beside("rows");
    (void)handle;
    *corrected = *failed = 0;
    *uncorrected = *pending = rows != NULL;
    if (rows) fclose(rows);
    return SUCCESS;
}

API int nvmlEventSetCreate(struct listening **set) {
    FILE *events = beside("events");
    *set = calloc(1, sizeof **set);
    if (events && !fseek(events, 0, SEEK_END)) (*set)->at = ftell(events);
    if (events) fclose(events);
    return SUCCESS;
}
API int nvmlDeviceRegisterEvents(void *handle, unsigned long long kinds, void *set) {
    return (void)handle, (void)kinds, (void)set, SUCCESS;
}
API int nvmlEventSetWait_v2(struct listening *set, struct event *out, unsigned milliseconds) {
    char line[64];
    FILE *events = beside("events");
    (void)milliseconds;
    bool any = events && !fseek(events, set->at, SEEK_SET) && fgets(line, sizeof line, events);
    if (any) {
        set->at = ftell(events);
        bool xid = !strncmp(line, "xid ", 4);
        *out = (struct event){&the_card, xid ? XID : DOUBLE_BIT,
                              xid ? strtoull(line + 4, NULL, 10) : 0, ~0u, ~0u};
    }
    if (events) fclose(events);
    return any ? SUCCESS : TIMED_OUT;
}
API int nvmlEventSetFree(struct listening *set) { return free(set), SUCCESS; }
