// A libcuda.so.1 for machines without a GPU: one card whose memory is host memory.
//
// Faithful where the guest and the worker depend on it: physical memory is separate from addresses
// and can be given to another process by descriptor; touching an address without memory is a crash;
// the card's size is shared by all processes; work takes time where a test asks for it.
// A process can be locked, checkpointed and restored from another one (checkpoint.c).
// Not there: arithmetic. Kernels are known by name: `kyb_fingerprint`, `kyb_press`, `kyb_expand`,
// which do in C what ours do, `busy`, and `kyb_collective` (collective.c), of which alone graphs can
// be made.
//
// KYB_FAKE_CARD: a file of this struct; all processes that name it share the card. Of several, with
// colons between, a process sees one: the one CUDA_VISIBLE_DEVICES names by number or UUID.
// KYB_FAKE_DEVICE: a device that a process keeps open while it is tied to the card, as the real
// driver does: no image can be made of it then.
#ifndef FAKE_CUDA_H
#define FAKE_CUDA_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define API __attribute__((visibility("default")))
enum { OK = 0, INVALID = 1, NO_MEMORY = 2, NO_CONTEXT = 201, NOT_FOUND = 500, NOT_READY = 600,
       CAPTURING = 900, NOT_SUPPORTED = 801, ILLEGAL = 401, UNKNOWN = 999 };
enum { CARD_SIZE_DEFAULT = 1 << 30, GRAIN = 2 << 20, PROCESSES = 64 };

enum { CONTEXT_SIZE = 4 << 20, UUID_SIZE = 16 };

enum process_state { RUNNING = 0, LOCKED = 1, CHECKPOINTED = 2, FAILED = 3 };  // CUprocessState

struct process {
    atomic_int pid;              // 0: nobody; in its own pid namespace, as the process knows it
    _Atomic uint64_t space;      // which pid namespace that is
    atomic_int state;
    atomic_int asked, result;    // of the process itself, by another one: checkpoint.c
    atomic_uint milliseconds;
    uint8_t from[UUID_SIZE], to[UUID_SIZE];  // of a restore; zero: onto the same card
    _Atomic uint64_t held;       // bytes of the card
};
struct card {
    _Atomic uint64_t size, used;
    atomic_int endless;      // work of `busy` without end goes on while this is set
    atomic_int flip;         // the next copy to the card changes a byte
    uint8_t uuid[UUID_SIZE];
    atomic_int fails;        // the next step of a checkpoint that has this number fails (enum step)
    atomic_int old;          // the driver is one without checkpoints
    struct process processes[PROCESSES];
};
struct card *card(void);
bool use(size_t size);    // false: the card has not so much left
void unuse(size_t size);

typedef uint64_t address;
struct physical;  // memory.c
struct stream {
    _Atomic double busy_until;
    bool capturing;
    void *graph;  // what is captured
};
struct stream *stream_of(void *handle);
void *current_context(void);
bool is_busy(void);
void wait_for_all(void);

struct collective {
    _Atomic uint64_t *mine;  // how often this rank launched it
    int others;
    _Atomic uint64_t *theirs[];
};
void collective(const struct collective *one);
bool awaits_others(void);
void *capture_begin(void);
void capture_collective(struct stream *stream, const struct collective *one);

// Every call into the driver is between these: a locked process waits in enter().
void enter(void);
void leave(void);
void checkpoint_begin(void);  // from cuInit on this process can be asked
void context_use(void);       // the first context of a process takes its part of the card
bool memory_leave(void);      // all of it into host memory, off the card; false: it was another's
int memory_return(void);
void fingerprint(const void *base, uint64_t *out, const void *key, unsigned chunks);
void press_all(const void *from, void *to, void *rooms, uint32_t *sizes, uint32_t most,
              unsigned chunks);
void expand_all(void *to, const void *from, const void *places, unsigned chunks);
#endif
