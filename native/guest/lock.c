// Waiting, on the kernel's futex alone.
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "guest.h"

enum { FREE = 0, TAKEN = 1, AWAITED = 2 };

void wait_while(atomic_int *word, int value) {
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}

void wake_all(atomic_int *word) {
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, 0x7fffffff, NULL, NULL, 0);
}

void lock_take(struct lock *one) {
    int seen = FREE;
    if (atomic_compare_exchange_strong(&one->state, &seen, TAKEN)) return;
    while (atomic_exchange(&one->state, AWAITED) != FREE) wait_while(&one->state, AWAITED);
}

void lock_give(struct lock *one) {
    if (atomic_exchange(&one->state, FREE) == AWAITED) wake_all(&one->state);
}

double seconds_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

void pause_briefly(void) {
    nanosleep(&(struct timespec){0, 50 * 1000}, NULL);
}
