// What the cards are called: as they were when the driver started, and as they are now.
//
// The driver cannot be asked while it is locked, so it is asked once. A process that was made from
// an image may be on other cards than before. Its memory keeps the first names, by which the agent
// knows its parts; the agent says which cards they are now.
#include <stdio.h>
#include <string.h>

#include "guest.h"

static uint8_t names[CARDS][CARD_NAME], now[CARDS][CARD_NAME];
static int count;

void cards_know(void) {
    uint8_t name[CARD_NAME];
    for (int card = 0; card < CARDS && !driver.cuDeviceGetUuid(name, card); card++) {
        memcpy(names[card], name, CARD_NAME);
        memcpy(now[card], name, CARD_NAME);
        count = card + 1;
    }
}

const uint8_t *card_name(CUdevice card) {
    static const uint8_t none[CARD_NAME];
    return card >= 0 && card < count ? names[card] : none;
}

bool card_moved(const uint8_t name[CARD_NAME], const uint8_t to[CARD_NAME]) {
    bool any = false;
    for (int card = 0; card < count; card++) {
        if (memcmp(names[card], name, CARD_NAME)) continue;
        memcpy(now[card], to, CARD_NAME);
        any = true;
    }
    return any;
}

static char *hexadecimal(char *out, const uint8_t name[CARD_NAME]) {
    for (int i = 0; i < CARD_NAME; i++) out += sprintf(out, "%02x", name[i]);
    return out;
}

// A line for each card: its name, a space, what it is now.
size_t cards_text(char *out) {
    char *at = out;
    for (int card = 0; card < count; card++) {
        at = hexadecimal(at, names[card]);
        *at++ = ' ';
        at = hexadecimal(at, now[card]);
        *at++ = '\n';
    }
    return (size_t)(at - out);
}
