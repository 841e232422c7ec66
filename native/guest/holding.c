// What the agent asks about collectives: how far they are, how far they may go.
#include "holding.h"

#include <string.h>

#include "collectives.h"

size_t holding_counts(const struct request *asked, struct answer *head, void *out) {
    struct standing all;
    struct counted some[BATCH];
    uint32_t most = asked->count < BATCH ? asked->count : BATCH;
    head->count = hold_counts(asked->first, most, &all, some, &head->total);
    memcpy(out, &all, sizeof all);
    memcpy((uint8_t *)out + sizeof all, some, head->count * sizeof *some);
    return sizeof all + head->count * sizeof *some;
}

bool holding_upto(const void *packet, size_t size) {
    struct request asked;
    struct upto one;
    if (size < sizeof asked) return false;
    memcpy(&asked, packet, sizeof asked);
    if (asked.count > BATCH || size != sizeof asked + asked.count * sizeof one) return false;
    for (uint32_t i = 0; i < asked.count; i++) {
        memcpy(&one, (const uint8_t *)packet + sizeof asked + i * sizeof one, sizeof one);
        hold_raise(one.key, one.target);
    }
    return true;
}
