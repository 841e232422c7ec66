// NCCL's functions that we stand in for: nccl.def as a table.
#ifndef KYB_GUEST_NCCL_H
#define KYB_GUEST_NCCL_H

#include "collectives.h"
#include "words.h"

enum nccl_id {
#define COLLECTIVE(name, communicator, stream) NCCL_##name,
#define BETWEEN(name, sends) NCCL_##name,
#define OTHER(name) NCCL_##name,
#include "nccl.def"
    NCCL_CALLS
};
typedef int nccl_call(WORDS);
nccl_call *nccl_found(enum nccl_id id);  // NULL: there is no NCCL, or an older one

// The real function of one of ours; its caller gets an error where there is none.
#define NCCL_REAL(name) ((__typeof__(&name))(void *)nccl_found(NCCL_##name))
#define NCCL_NEED(name) \
    if (!nccl_found(NCCL_##name)) return NCCL_SYSTEM_ERROR
#endif
