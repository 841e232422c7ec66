// nodeagent/gpuworker/fingerprint.cu in plain C: what its threads do, one after the other.
#include <string.h>

#include "fake.h"

enum { THREADS = 512, GROUPS = 16, VECTORS = 16, WORDS = 4 };
static const uint64_t PRIME = (1ull << 61) - 1;

struct key {
    uint32_t nh[68];
    uint64_t along[2], across[2];
};

static uint64_t times(uint64_t a, uint64_t b) {
    unsigned __int128 both = (unsigned __int128)a * b;
    uint64_t sum = (uint64_t)(both & PRIME) + (uint64_t)(both >> 61);
    return (sum & PRIME) + (sum >> 61);
}

static uint64_t fold(uint64_t value) { return (value & PRIME) + (value >> 61); }

static uint64_t nh(const uint32_t *words, const uint32_t *key) {
    uint64_t sum = 0;
    for (int j = 0; j < VECTORS; j++) {
        const uint32_t *v = words + (size_t)j * THREADS * WORDS, *k = key + 4 * j;
        sum += (uint64_t)(uint32_t)(v[0] + k[0]) * (uint32_t)(v[1] + k[1]);
        sum += (uint64_t)(uint32_t)(v[2] + k[2]) * (uint32_t)(v[3] + k[3]);
    }
    return sum;
}

static uint64_t one_of(const uint32_t *chunk, const struct key *key, int which) {
    uint64_t sum = 0, weight = 1;
    for (int thread = 0; thread < THREADS; thread++) {
        uint64_t value = 0;
        for (int group = 0; group < GROUPS; group++) {
            const uint32_t *at = chunk + (size_t)(group * VECTORS * THREADS + thread) * WORDS;
            value = fold(times(value, key->along[which]) + fold(nh(at, key->nh + 2 * which)));
        }
        weight = times(weight, key->across[which]);
        sum = fold(sum + times(value, weight));
    }
    return sum % PRIME;
}

void fingerprint(const void *base, uint64_t *out, const void *given, unsigned chunks) {
    struct key key;
    memcpy(&key, given, sizeof key);
    for (unsigned i = 0; i < chunks; i++)
        for (int which = 0; which < 2; which++)
            out[2 * i + (unsigned)which] =
                one_of((const uint32_t *)base + (size_t)i * (GRAIN / 4), &key, which);
}
