// A libcuda.so.1 for machines without a GPU: one card whose memory is host memory.
//
// Faithful where the guest and the worker depend on it: physical memory is separate from addresses
// and can be given to another process by descriptor; touching an address without memory is a crash;
// the card's size is shared by all processes; work takes time where a test asks for it.
// Not there: arithmetic. Two kernels are known by name, `kyb_fingerprint` and `busy`.
//
// KYB_FAKE_CARD: a file of this struct; all processes that name it share the card.
#ifndef FAKE_CUDA_H
#define FAKE_CUDA_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define API __attribute__((visibility("default")))
enum { OK = 0, INVALID = 1, NO_MEMORY = 2, NO_CONTEXT = 201, NOT_FOUND = 500, NOT_READY = 600,
       CAPTURING = 900, NOT_SUPPORTED = 801, ILLEGAL = 401 };
enum { CARD_SIZE_DEFAULT = 1 << 30, GRAIN = 2 << 20, PROCESSES = 64 };

struct card {
    _Atomic uint64_t size, used;
    atomic_int endless;      // work of `busy` without end goes on while this is set
    atomic_int flip;         // the next copy to the card changes a byte
    atomic_int locked[PROCESSES];  // process ids under the driver's lock
};
struct card *card(void);

typedef uint64_t address;
struct physical;  // memory.c
struct stream {
    _Atomic double busy_until;
    bool capturing;
};
struct stream *stream_of(void *handle);
void *current_context(void);
void wait_for_all(void);
void under_lock(void);  // waits while this process is locked
void fingerprint(const void *base, uint64_t *out, const void *key, unsigned chunks);
#endif
