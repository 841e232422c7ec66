// A libnccl.so.2 over the fake driver: ranks of one machine, kernels that wait for each other.
//
// Faithful where the guest depends on it: calls only put kernels on the card, which end when all
// ranks have put theirs; making a communicator waits on the host for the others; a group starts at
// its end; what is captured is started by the graph. No bytes are moved.
//
// KYB_FAKE_NCCL: the folder in which ranks meet.
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "../fakecuda/fake.h"

enum { RANKS = 16, SPLITS = 16, QUEUED = 64, NO_COLOR = -1, ARGUMENT_WRONG = 4 };
int cuLaunchKernel(void *, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned,
                   void *, void **, void **);
int cuModuleLoadData(void **module, const void *image);
int cuModuleGetFunction(void **function, void *module, const char *name);
int cuMemAlloc_v2(address *at, size_t size);

struct id {
    char bytes[128];
};
struct shared {
    atomic_int joined;
    _Atomic uint64_t launched[RANKS];
    _Atomic uint64_t between[RANKS][RANKS][2];
    atomic_int colors[SPLITS][RANKS], keys[SPLITS][RANKS];  // colors: 0 is not said yet
};
struct comm {
    int rank, ranks, splits;
    char name[160];
    struct shared *shared;
    struct collective *all, *between[RANKS][2];
};
static __thread int depth, queued, joining;
static __thread struct {
    struct collective *kernel;
    void *stream;
} queue[QUEUED];
static __thread struct comm *joiners[RANKS];

API int ncclGetVersion(int *version) { return *version = 23200, 0; }
API const char *ncclGetErrorString(int error) { return error ? "the fake's error" : "no error"; }
API int ncclGetUniqueId(struct id *made) {
    int random = open("/dev/urandom", O_RDONLY | O_CLOEXEC);
    bool read_all = read(random, made, sizeof *made) == sizeof *made;
    return close(random), read_all ? 0 : 2;
}

static struct shared *meet(const char *name) {
    char path[400];
    const char *folder = getenv("KYB_FAKE_NCCL");
    snprintf(path, sizeof path, "%s/%s", folder ? folder : "/tmp", name);
    int file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (file < 0 || ftruncate(file, sizeof(struct shared))) abort();
    void *at = mmap(NULL, sizeof(struct shared), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    return at;
}

static void wait_a_moment(void) { nanosleep(&(struct timespec){0, 1000000}, NULL); }

static struct collective *kernel(int others) {
    return calloc(1, sizeof(struct collective) + (size_t)others * sizeof(void *));
}

static void join(struct comm *one) {
    one->shared = meet(one->name);
    one->all = kernel(one->ranks);
    one->all->mine = &one->shared->launched[one->rank];
    for (int i = 0; i < one->ranks; i++)
        if (i != one->rank) one->all->theirs[one->all->others++] = &one->shared->launched[i];
    atomic_fetch_add(&one->shared->joined, 1);
}

static int joined(struct comm *one) {
    address buffers;
    while (atomic_load(&one->shared->joined) < one->ranks) wait_a_moment();
    return cuMemAlloc_v2(&buffers, 1 << 20) ? 1 : 0;
}

static int begin(struct comm **made, int ranks, int rank, const char *name) {
    if (ranks < 1 || ranks > RANKS || rank < 0 || rank >= ranks) return ARGUMENT_WRONG;
    struct comm *one = *made = calloc(1, sizeof *one);
    one->rank = rank;
    one->ranks = ranks;
    snprintf(one->name, sizeof one->name, "%s", name);
    if (depth) return joiners[joining++] = one, 0;
    return join(one), joined(one);
}

API int ncclCommInitRank(struct comm **made, int ranks, struct id id, int rank) {
    char name[64] = "nccl-";
    for (int i = 0; i < 16; i++) sprintf(name + 5 + 2 * i, "%02x", (unsigned char)id.bytes[i]);
    return begin(made, ranks, rank, name);
}

// Its place among those of its color: by key, then by rank.
static int place_in(struct comm *of, int turn, int color, int *ranks) {
    int place = 0, own = of->shared->keys[turn][of->rank];
    *ranks = 0;
    for (int i = 0; i < of->ranks; i++) {
        int said, key;
        while (!(said = atomic_load(&of->shared->colors[turn][i]))) wait_a_moment();
        key = of->shared->keys[turn][i];
        if (said != color + 2) continue;
        ++*ranks;
        place += key < own || (key == own && i < of->rank);
    }
    return place;
}

API int ncclCommSplit(struct comm *of, int color, int key, struct comm **made, void *how) {
    int turn = of->splits++, ranks;
    char name[200];
    (void)how;
    if (turn >= SPLITS) return ARGUMENT_WRONG;
    of->shared->keys[turn][of->rank] = key;
    atomic_store(&of->shared->colors[turn][of->rank], color + 2);
    int place = place_in(of, turn, color, &ranks);
    *made = NULL;
    snprintf(name, sizeof name, "%s-%d-%d", of->name, turn, color);
    return color == NO_COLOR ? 0 : begin(made, ranks, place, name);
}

API int ncclCommCount(struct comm *one, int *count) { return *count = one->ranks, 0; }
API int ncclCommUserRank(struct comm *one, int *rank) { return *rank = one->rank, 0; }
API int ncclCommDestroy(struct comm *one) { return free(one), 0; }
API int ncclCommAbort(struct comm *one) { return free(one), 0; }
API int ncclCommRegister(struct comm *one, void *at, size_t size, void **handle) {
    (void)one, (void)size;
    return *handle = at, 0;
}
API int ncclCommDeregister(struct comm *one, void *handle) { return (void)one, handle ? 0 : 4; }

static int launch(struct collective *what, void *stream) {
    static void *module, *function;
    void *arguments[] = {&what};
    if (!function && (cuModuleLoadData(&module, "") ||
                      cuModuleGetFunction(&function, module, "kyb_collective")))
        return 1;
    return cuLaunchKernel(function, 1, 1, 1, 1, 1, 1, 0, stream, arguments, NULL) ? 1 : 0;
}

static int start(struct collective *what, void *stream) {
    if (!depth) return launch(what, stream);
    if (queued == QUEUED) return 3;
    queue[queued].kernel = what;
    queue[queued++].stream = stream;
    return 0;
}

API int ncclGroupStart(void) { return depth++, 0; }
API int ncclGroupEnd(void) {
    int wrong = 0;
    if (--depth) return 0;
    for (int i = 0; i < joining; i++) join(joiners[i]);
    for (int i = 0; i < joining; i++) wrong |= joined(joiners[i]);
    for (int i = 0; i < queued; i++) wrong |= launch(queue[i].kernel, queue[i].stream);
    return joining = queued = 0, wrong;
}

API int ncclAllReduce(const void *from, void *to, size_t count, int type, int how, struct comm *one,
                      void *stream) {
    (void)from, (void)to, (void)count, (void)type, (void)how;
    return start(one->all, stream);
}
API int ncclAllGather(const void *from, void *to, size_t count, int type, struct comm *one,
                      void *stream) {
    return ncclAllReduce(from, to, count, type, 0, one, stream);
}

static int between(struct comm *one, int peer, bool sends, void *stream) {
    int from = sends ? one->rank : peer, to = sends ? peer : one->rank;
    if (!one->between[peer][sends]) {
        struct collective *made = kernel(1);
        made->mine = &one->shared->between[from][to][sends];
        made->theirs[made->others++] = &one->shared->between[from][to][!sends];
        one->between[peer][sends] = made;
    }
    return start(one->between[peer][sends], stream);
}
API int ncclSend(const void *from, size_t count, int type, int peer, struct comm *one,
                 void *stream) {
    (void)from, (void)count, (void)type;
    return between(one, peer, true, stream);
}
API int ncclRecv(void *to, size_t count, int type, int peer, struct comm *one, void *stream) {
    (void)to, (void)count, (void)type;
    return between(one, peer, false, stream);
}
