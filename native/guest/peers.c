// Which cards may reach the memory of which.
//
// cuCtxEnablePeerAccess opens memory of cuMemAlloc; memory with a stable address has to be opened
// piece by piece, that of later allocations too.
#include "guest.h"

static uint32_t reachable[CARDS];  // by the card reached: who may

void peers_allow(CUdevice reaching, CUdevice reached) {
    if (reaching < 0 || reached < 0 || reaching >= CARDS || reached >= CARDS) return;
    lock_take(&table_lock);
    reachable[reached] |= 1u << reaching;
    for (size_t i = 0; i < segment_count; i++)
        if (segments[i]->owner && segments[i]->made.where.id == reached)
            segment_allow(segments[i], reaching);
    lock_give(&table_lock);
}

uint32_t peers_of(CUdevice device) {
    return device >= 0 && device < CARDS ? reachable[device] : 0;
}
