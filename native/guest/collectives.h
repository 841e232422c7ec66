// What the parts share that know of collectives: calls that end on the card only when other ranks
// make them too, so all ranks have to be stopped after the same ones.
#ifndef KYB_GUEST_COLLECTIVES_H
#define KYB_GUEST_COLLECTIVES_H

#include "guest.h"

// A sequence that goes on only with the other members: a communicator, or one direction between
// two of its ranks. `key` is the same in all processes that have a part in it.
struct line {
    uint64_t key;
    uint32_t member, members;  // which one we are, of how many; 0 members: not known yet
    uint64_t started;          // calls that went on, in all
    uint64_t target;           // how far they may go while held
    uint64_t wanted;           // how far one that is held would go; 0: none is held
    void *of;                  // the communicator
    uint32_t splits;
    bool ended, between;
};
struct steps {  // what one call starts; a line may be there several times
    uint32_t *lines;
    size_t count, room;
};

// collectives.c
uint32_t line_new(uint64_t key, uint32_t member, uint32_t members, void *of);
uint32_t line_between(void *communicator, int from, int to);  // for our end, whichever it is
uint32_t line_of(void *communicator);  // NO_LINE: not one that we saw made
enum { NO_LINE = UINT32_MAX };
struct line line_at(uint32_t number);
void line_become(uint32_t number, void *of, uint32_t member, uint32_t members);
uint32_t line_split(uint32_t number);  // how many times it was, before this
void lines_end(void *communicator);
void line_end(uint32_t number);  // it was never made
bool steps_add(struct steps *all, uint32_t line);
bool steps_join(struct steps *all, const struct steps *more);
void steps_drop(struct steps *all);

void collective_enter(const struct steps *all);  // waits while that is further than all may go
void collective_leave(void);
void set_up_enter(void);  // making and ending communicators is not held, but waited for
void set_up_leave(void);

bool hold_begin(double until);  // false: there are no collectives to hold
void hold_raise(uint64_t key, uint64_t target);
bool hold_keep(void);  // until it is released; false: it was let go meanwhile
void hold_release(void);
struct standing;
struct counted;
uint32_t hold_counts(uint32_t first, uint32_t most, struct standing *all, struct counted *some,
                     uint32_t *total);
void collectives_forked(void);

// clock.c: the steady clock of C++ stands still while collectives are held.
void clock_freeze(double until);  // 0: until it is thawed; asked again, only that changes
void clock_thaw(void);

// graphs.c: which graphs hold collectives.
bool is_captured(CUstream stream);
void captured_add(const struct steps *all);
void graphs_captured(void *graph);  // what was captured is in this one
void graphs_forked(void);

// nccl.c
void *nccl_real(const char *name);  // NULL: there is none
void *nccl_instead(const char *name, void *real);  // our function for theirs; NULL: we have none
bool is_ncclish(const char *name);
enum { NCCL_SUCCESS = 0, NCCL_SYSTEM_ERROR = 2, NCCL_IN_PROGRESS = 7 };
struct grouped {
    int depth;
    bool nested;  // in the middle of one of NCCL's own
    bool sets_up;
    struct steps steps;
};
extern __thread struct grouped grouped;
void communicators_made(void);  // after a group: those that it made are known now
#endif
