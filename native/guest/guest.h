// What the parts of libkybguest.so share.
//
// Rule: nothing beyond libc, and of libc only what glibc 2.17 had. What needs the loader (dlsym) or
// the thread library is found at run time (objects.c).
// Rule: `table_lock` is held by whoever reads or changes segments; it is taken inside the gate.
#ifndef KYB_GUEST_H
#define KYB_GUEST_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "cuda.h"

#define EXPORTED __attribute__((visibility("default")))
enum { CARDS = 16, MIB = 1 << 20, GRAIN = 2 * MIB };  // GRAIN: the driver's own granularity

// objects.c: functions of loaded libraries, found without the loader's calls.
void *object_symbol(const char *library, const char *name);
void *object_symbol_beyond(const void *ours, const char *name);  // of those loaded after us
void *object_base(const void *address);  // where the object begins that holds it; NULL: none
bool object_holds(const char *library, const void *address);

// lock.c: a mutex that a fork may reset and that needs no thread library.
struct lock {
    atomic_int state;
};
void lock_take(struct lock *one);
void lock_give(struct lock *one);
void wait_while(atomic_int *word, int value);
void wake_all(atomic_int *word);
double seconds_now(void);
void pause_briefly(void);

// gate.c: every call of the program that submits, allocates or waits passes here.
extern atomic_int gate_closed;
void gate_enter(void);
void gate_leave(void);
bool gate_close(double until);  // false: opened again, since calls did not end
void gate_open(void);
bool gate_is_closed(void);
void gate_count(uint64_t *calls, uint64_t *inside);  // let through ever, and not back yet
void gate_forked(void);
extern atomic_int captures;  // graphs being captured now

// driver.c: the real driver, and whether we are wanted at all.
extern struct driver driver;
bool driver_load(void);
bool wanted(void);  // KYB_GUEST_SOCKET is set
const char *agent_socket(void);

// cards.c
enum { CARD_NAME = 16, CARDS_TEXT = CARDS * (4 * CARD_NAME + 2) + 1 };
void cards_know(void);
const uint8_t *card_name(CUdevice card);  // without asking the driver
bool card_moved(const uint8_t name[CARD_NAME], const uint8_t to[CARD_NAME]);
size_t cards_text(char *out);  // CARDS_TEXT bytes at most

// drain.c: wait for the work that was submitted, with a limit the driver does not have.
void drain_know(CUcontext context);
void drain_forget(CUcontext context);
bool drain(double until);
void drain_forked(void);

// segments.c: physical memory with a stable address.
enum segment_state { BACKED = 0, RELEASED = 1, EMPTY = 2 };  // EMPTY: backed, not yet filled
struct segment {
    uint64_t id;
    CUdeviceptr at;  // 0 while the program has not mapped it
    size_t size;
    CUhandle real;
    CUcontext owner;  // whose end is its end too; NULL: the program's own physical memory
    struct properties made;
    uint8_t access[CARDS];
    uint8_t state;
    bool touched;   // released or made anew since the gate was closed
    bool in_place;  // stays on the card: shared with somebody we cannot stop
    int references; // the program's handles
    struct slab *slab;
};
extern struct lock table_lock;
extern struct segment **segments;  // sorted by address, those without one first
extern size_t segment_count;
CUresult segment_new(size_t size, CUdevice device, CUcontext owner, struct segment **made);
void segment_add(struct segment *one);
void segment_drop(struct segment *one);  // forgets it; the memory is the caller's affair
CUresult segment_end(struct segment *one);  // unmaps, releases, frees the address, forgets
struct segment *segment_at(CUdeviceptr address);
struct segment *segment_of(CUhandle token);
CUhandle segment_token(const struct segment *one);
void segment_move(struct segment *one, CUdeviceptr at);
CUresult segment_release(struct segment *one);
CUresult segment_back(struct segment *one);
CUresult segment_allow(struct segment *one, CUdevice device);
void segments_end_of(CUcontext owner);
void segments_forked(void);

// peers.c: which cards may reach the memory of which.
void peers_allow(CUdevice reaching, CUdevice reached);
uint32_t peers_of(CUdevice device);

// small.c: allocations that share segments. CUDA_NOT_SUPPORTED: this one has its own.
enum { SMALL = MIB, MEDIUM = 20 * MIB };  // below SMALL always, up to MEDIUM where there are many
struct slab;
CUresult small_new(size_t size, CUdevice device, CUcontext owner, CUdeviceptr *at);
bool small_free(struct segment *one, CUdeviceptr at);
bool small_range(const struct segment *one, CUdeviceptr at, CUdeviceptr *base, size_t *size);
void small_forget(struct slab *one);

// allocations.c, what other parts need of it.
CUresult allocate(size_t size, CUdeviceptr *at);  // CUDA_NOT_SUPPORTED: not for us
CUresult give_back(struct segment *one, CUdeviceptr at);  // under table_lock, its work has ended
CUresult free_ours(CUdeviceptr at, CUcontext owner);
bool returned_to(const void *caller);  // whether the caller's memory has to stay in place

// ordered.c: what was freed in the order of a stream, or while a graph was captured.
CUresult ordered_keep(CUdeviceptr at, CUcontext owner);
void ordered_tidy(void);   // gives back what nobody uses any more
bool ordered_flush(void);  // waits for all of it; false: there was nothing
void ordered_forget(CUcontext owner);
void ordered_forked(void);

// sharing.c: the old calls to share memory between processes.
void sharing_forked(void);

// threads.c
bool thread_start(void *(*body)(void *));

// left.c: what stays on the card when everything else leaves, by name.
enum left_kind { MANAGED, ARRAY, GRAPH_MEMORY, EXPORTED_MEMORY, IMPORTED_MEMORY, POOL_MEMORY,
                 NCCL_MEMORY, NO_VMM, MAPPED_IN_PIECES, NCCL_IMPORTED, COMMUNICATORS, NCCL_WINDOWS,
                 SECOND_NCCL, LEFT_KINDS };
void left_note(enum left_kind kind, size_t bytes);
size_t left_text(char *out, size_t room);
void left_forked(void);

// control.c: the thread that speaks with the agent.
void control_start(void);
int control_answer(int connection, const void *request, size_t size);
void control_forked(void);

// hooks.c: our function in the place of a driver's; NULL: we have none.
void *hook_for_symbol(const char *name, void *real);
void *hook_for_base(const char *base, int version, uint64_t flags, void *real);
#endif
