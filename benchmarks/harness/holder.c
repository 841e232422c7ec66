// Holds so many MiB that no two pages are alike, and counts on standard output.
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

int main(int count, char **all) {
    size_t words = (count > 1 ? (size_t)atol(all[1]) : 1) * 1024 * 1024 / sizeof(uint64_t);
    uint64_t *held = malloc(words * sizeof *held), state = 88172645463325252u;
    if (!held) return 1;
    for (size_t i = 0; i < words; i++) {
        state ^= state << 13, state ^= state >> 7, state ^= state << 17;
        held[i] = state;
    }
    for (unsigned long i = 0;; i++) {
        printf("%lu\n", i);
        fflush(stdout);
        usleep(2000);
    }
}
