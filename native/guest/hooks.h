// The table of calls.def, for those who answer one of its calls.
#ifndef KYB_GUEST_HOOKS_H
#define KYB_GUEST_HOOKS_H

#include "guest.h"
#include "words.h"

enum hook_id {
#define GATED(name) HOOK_##name,
#define OWN(name, base, since, own_stream) HOOK_##name,
#include "calls.def"
    HOOKS
};

void *hook_real(enum hook_id id);

// The driver's own function behind one of ours: REAL(cuMemFree_v2)(at). Ends the caller with
// "no device" where there is no driver: a program that is linked to it would not have started.
#define REAL(name) ((__typeof__(&name))hook_real(HOOK_##name))
#define NEED(name) \
    if (!hook_real(HOOK_##name)) return CUDA_NO_DEVICE
#endif
