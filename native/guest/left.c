// What stays on the card when everything else leaves, by name: said, never broken.
#include <stdio.h>

#include "guest.h"

static const char *const names[LEFT_KINDS] = {
    [MANAGED] = "managed memory",
    [ARRAY] = "arrays",
    [GRAPH_MEMORY] = "memory allocated by graphs",
    [EXPORTED_MEMORY] = "memory shared with other processes",
    [IMPORTED_MEMORY] = "memory of other processes",
    [POOL_MEMORY] = "memory of shareable pools",
    [NCCL_MEMORY] = "memory of NCCL",
    [NCCL_IMPORTED] = "memory that NCCL has of other processes",
    [COMMUNICATORS] = "communicators of NCCL",
    [NCCL_WINDOWS] = "windows of NCCL",
    [SECOND_NCCL] = "functions of a second NCCL",
    [MAPPED_IN_PIECES] = "memory mapped in pieces or for the host",
    [NO_VMM] = "memory of a card without virtual memory management",
};
static atomic_ullong bytes_of[LEFT_KINDS], count_of[LEFT_KINDS];

void left_note(enum left_kind kind, size_t bytes) {
    atomic_fetch_add(&bytes_of[kind], bytes);
    atomic_fetch_add(&count_of[kind], 1);
}

// A line for each kind: pieces, bytes (as allocated; what was freed since counts too), name.
size_t left_text(char *out, size_t room) {
    size_t used = 0;
    for (int kind = 0; kind < LEFT_KINDS && used < room; kind++) {
        unsigned long long count = atomic_load(&count_of[kind]);
        if (!count) continue;
        int more = snprintf(out + used, room - used, "%llu %llu %s\n", count,
                            (unsigned long long)atomic_load(&bytes_of[kind]), names[kind]);
        if (more < 0 || (size_t)more >= room - used) break;
        used += (size_t)more;
    }
    return used;
}

void left_forked(void) {
    for (int kind = 0; kind < LEFT_KINDS; kind++) {
        atomic_store(&bytes_of[kind], 0);
        atomic_store(&count_of[kind], 0);
    }
}
