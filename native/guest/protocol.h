// What agent and guest say to each other: docs/reference/guest.md has it in words.
//
// The guest connects (unix, SOCK_SEQPACKET: a message is a packet) and says hello; from then on the
// agent asks and the guest answers, one at a time. All numbers are little-endian.
#ifndef KYB_GUEST_PROTOCOL_H
#define KYB_GUEST_PROTOCOL_H

#include <stdint.h>

enum { PROTOCOL = 1, BATCH = 128, CARD_ID = 16, NONCE = 16, WHY = 64 };

enum verb {
    HELLO = 1,    // guest -> agent, first: `why` names our version
    CLOSE = 2,    // the gate, within `milliseconds`; work that was submitted has ended
    OPEN = 3,     // refused while memory is missing or not filled
    LIST = 4,     // entries from `first`, of all cards
    EXPORT = 5,   // entries and descriptors of a card's segments
    RELEASE = 6,  // give their memory back to the card
    BACK = 7,     // as EXPORT, made anew where released
    FILLED = 8,   // their contents are right
    LEFT = 9,     // text: what stays on the card
    WHERE = 10,   // text: a line for each card, its name and which card it is now
    MOVED = 11,   // `struct moved`: a card is another one now
    HOLD = 12,    // collectives, where they are, for `milliseconds` unless CLOSE comes; OPEN ends it
    COUNTS = 13,  // `struct standing`, then `struct counted` from `first`
    UPTO = 14,    // after the request `count` times `struct upto`: how far they may go
    SETTLE = 15,  // wait for submitted work, gate open, within `milliseconds`
};

enum status {  // above zero: the driver's own error
    DONE = 0,
    NOT_UNDERSTOOD = -1,
    STILL_BUSY = -2,
    GATE_OPEN = -3,
    NOT_WHOLE = -4,
};

struct request {
    uint32_t verb, first, count, milliseconds;
    uint8_t card[CARD_ID];
};

struct moved {
    struct request asked;  // `card`: its name
    uint8_t to[CARD_ID];
};

struct answer {
    uint32_t verb;
    int32_t status;
    uint32_t count;   // entries that follow, or bytes of text; done before a driver's error
    uint32_t total;   // segments in all (LIST), or of the card
    uint64_t epoch;   // how often the gate was closed
    uint32_t closed, protocol;
    uint8_t nonce[NONCE];  // this process's
    char why[WHY];  // LEFT: `%llu calls, %llu inside` of the driver, by which work is seen
};

struct entry {
    uint64_t id, address, size;
    uint32_t state, touched;
    uint8_t card[CARD_ID];
};

struct standing {
    uint32_t inside;      // calls that started and have not returned
    uint32_t setting_up;  // calls that make or end communicators
    uint32_t waiting;     // threads that are held
    uint32_t holding;
};

struct counted {  // collectives.h: struct line
    uint64_t key, started, wanted;
    uint32_t member, members, ended, between;
};

struct upto {
    uint64_t key, target;
};

_Static_assert(sizeof(struct standing) == 16, "no padding");
_Static_assert(sizeof(struct counted) == 40, "no padding");
_Static_assert(sizeof(struct upto) == 16, "no padding");
_Static_assert(sizeof(struct request) == 32, "no padding");
_Static_assert(sizeof(struct moved) == 48, "no padding");
_Static_assert(sizeof(struct answer) == 112, "no padding");
_Static_assert(sizeof(struct entry) == 48, "no padding");
#endif
