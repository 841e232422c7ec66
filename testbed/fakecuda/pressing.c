// nodeagent/gpuworker/pressing.cu in plain C: what its warps do, lane by lane.
#include <stdlib.h>
#include <string.h>

#include "fake.h"

enum { STREAMS = 32, LANES = 32, VALUES = GRAIN / 2 / STREAMS, AT_ONCE = 8, SYMBOLS = 256, BITS = 12,
       SCALE = 1 << BITS, LOW = 1 << 16, ROOM = 25600, LAST = GRAIN / 2 - 1 };

struct head {
    uint16_t often[SYMBOLS];
    uint32_t end[STREAMS];
};
enum { PLANE = sizeof(struct head), CODED = PLANE + GRAIN / 2 };

static uint32_t exponent(uint16_t value) { return value >> 7 & 0xff; }

// Which value of a stream a lane has in one step.
static size_t place(int step, int lane) {
    return (size_t)(step / AT_ONCE * LANES * AT_ONCE + lane * AT_ONCE + step % AT_ONCE);
}

static bool scaled(const uint32_t *counts, uint16_t *often) {
    uint32_t sum = 0, most = 0;
    for (uint32_t symbol = 0; symbol < SYMBOLS; symbol++) {
        uint32_t share = counts[symbol] >> 8;
        if (counts[symbol] && !share) share = 1;
        often[symbol] = (uint16_t)share;
        sum += share;
        if (share > often[most]) most = symbol;
    }
    if (often[most] + (uint32_t)SCALE <= sum) return false;
    often[most] = (uint16_t)(often[most] + SCALE - sum);
    return true;
}

// One stream into its room, from the end; the first half of it that is used.
static uint32_t coded(const uint16_t *from, uint8_t *plane, uint16_t *room, const uint32_t *table) {
    uint32_t states[LANES], at = ROOM;
    for (int lane = 0; lane < LANES; lane++) states[lane] = LOW;
    for (int step = VALUES / LANES - 1; step >= 0; step--)
        for (int lane = LANES - 1; lane >= 0; lane--) {
            uint16_t value = from[place(step, lane)];
            uint32_t entry = table[exponent(value)], often = entry >> 16, x = states[lane];
            plane[place(step, lane)] = (uint8_t)((value >> 8 & 0x80) | (value & 0x7f));
            if (x >> 20 >= often) {
                room[--at] = (uint16_t)x;
                x >>= 16;
            }
            states[lane] = (x / often << BITS) + x % often + (entry & 0xffff);
        }
    at -= 2 * LANES;
    memcpy(room + at, states, sizeof states);
    return at;
}

static uint32_t press(const uint16_t *from, uint8_t *to, uint16_t *rooms, uint32_t most) {
    uint32_t counts[SYMBOLS] = {0}, table[SYMBOLS], begins[STREAMS], end = 0;
    struct head head;
    for (size_t i = 0; i < GRAIN / 2; i++) counts[exponent(from[i])]++;
    if (!scaled(counts, head.often)) return 0;
    for (uint32_t symbol = 0, before = 0; symbol < SYMBOLS; before += head.often[symbol++])
        table[symbol] = (uint32_t)head.often[symbol] << 16 | before;
    for (size_t i = 0; i < STREAMS; i++) {
        begins[i] = coded(from + i * VALUES, to + PLANE + i * VALUES, rooms + i * ROOM, table);
        head.end[i] = end += ROOM - begins[i];
    }
    uint32_t size = (uint32_t)(CODED + 2 * end + 255) / 256 * 256;
    if (size > most) return 0;
    memcpy(to, &head, sizeof head);
    for (size_t i = 0; i < STREAMS; i++)
        memcpy(to + CODED + (i ? 2 * head.end[i - 1] : 0), rooms + i * ROOM + begins[i],
               2 * (ROOM - begins[i]));
    return size;
}

static void tabulate(const uint16_t *often, uint32_t *table) {
    memset(table, 0, SCALE * sizeof *table);
    for (uint32_t symbol = 0, first = 0; symbol < SYMBOLS; first += often[symbol++])
        for (uint32_t i = 0; i < often[symbol] && i < SCALE; i++)
            table[(first + i) % SCALE] = symbol << 24 | (often[symbol] - 1u) % SCALE << 12 | i;
}

static uint16_t half_at(const uint8_t *from, uint32_t at) {
    uint16_t half;
    memcpy(&half, from + 2 * (size_t)(at < LAST ? at : LAST), sizeof half);
    return half;
}

static void expand(uint16_t *to, const uint8_t *from) {
    uint32_t table[SCALE];
    struct head head;
    memcpy(&head, from, sizeof head);
    tabulate(head.often, table);
    for (int stream = 0; stream < STREAMS; stream++) {
        const uint8_t *plane = from + PLANE + stream * VALUES;
        uint16_t *out = to + stream * VALUES;
        uint32_t states[LANES], at = CODED / 2 + (stream ? head.end[stream - 1] % GRAIN : 0);
        for (int lane = 0; lane < LANES; lane++, at += 2)
            states[lane] = half_at(from, at) | (uint32_t)half_at(from, at + 1) << 16;
        for (int step = 0; step < VALUES / LANES; step++)
            for (int lane = 0; lane < LANES; lane++) {
                uint32_t x = states[lane], entry = table[x % SCALE];
                uint8_t others = plane[place(step, lane)];
                x = ((entry >> 12) % SCALE + 1) * (x >> BITS) + entry % SCALE;
                if (x < LOW) x = x << 16 | half_at(from, at++);
                states[lane] = x;
                out[place(step, lane)] =
                    (uint16_t)((others & 0x80) << 8 | (entry >> 24) << 7 | (others & 0x7f));
            }
    }
}

void press_all(const void *from, void *to, void *rooms, uint32_t *sizes, uint32_t most, unsigned chunks) {
    for (size_t i = 0; i < chunks; i++)
        sizes[i] = press((const uint16_t *)((const uint8_t *)from + i * GRAIN),
                        (uint8_t *)to + i * GRAIN, (uint16_t *)rooms + i * ROOM * STREAMS, most);
}

void expand_all(void *to, const void *from, const void *places, unsigned chunks) {
    for (unsigned i = 0; i < chunks; i++) {
        uint32_t one[2];  // the chunk, and where it is pressed
        memcpy(one, (const uint8_t *)places + i * sizeof one, sizeof one);
        expand((uint16_t *)((uint8_t *)to + (size_t)one[0] * GRAIN),
               (const uint8_t *)from + (size_t)one[1] * 256);
    }
}
