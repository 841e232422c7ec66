// What the agent asks about collectives; called by control.c.
#ifndef KYB_GUEST_HOLDING_H
#define KYB_GUEST_HOLDING_H

#include <stdbool.h>
#include <stddef.h>

#include "protocol.h"

enum { COUNTS_ROOM = sizeof(struct standing) + BATCH * sizeof(struct counted) };
size_t holding_counts(const struct request *asked, struct answer *head, void *out);
bool holding_upto(const void *packet, size_t size);  // false: not understood
#endif
