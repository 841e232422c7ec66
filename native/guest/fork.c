// A fork: the child has none of our threads and none of the parent's memory on the card.
//
// The fork waits for the table's lock, so that it falls between exports: the child gets no
// descriptor of the card's memory. The child's first cuInit makes it a guest of its own.
#include <pthread.h>

#include "collectives.h"
#include "guest.h"

static void before(void) {
    lock_take(&table_lock);
}

static void in_parent(void) {
    lock_give(&table_lock);
}

static void in_child(void) {
    gate_forked();
    drain_forked();
    ordered_forked();
    left_forked();
    sharing_forked();
    collectives_forked();
    graphs_forked();
    control_forked();
    segments_forked();  // the table's lock last: the others are ours already
}

__attribute__((constructor)) static void watch_forks(void) {
    pthread_atfork(before, in_parent, in_child);
}
