// How far each sequence of collectives has come, and the gate before the next one.
//
// A kernel of a collective spins until all its ranks have launched theirs. So the driver's gate is
// closed only after this one has stopped all ranks at the same place: each says how far it came,
// those behind may go on to where the first one is, and then nothing in flight waits for a launch
// that will not come. The agent does the comparing (nodeagent/mechanisms/collectives.py).
// Rule: what is held is let go by itself when the agent goes away, or its time is over, unless the
// driver's gate was closed meanwhile: the job goes on, or it is parked, and nothing between.
#include "collectives.h"

#include <linux/futex.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "protocol.h"

enum { ENDED_KEPT = 64 };  // so that others may still come as far as they did

static struct lock lines_lock;
static struct line *lines;
static uint32_t line_count, line_room, ended_count;
static uint32_t inside, setting_up, waiting;
static bool holding;
static double let_go_at;  // 0: not by itself
static atomic_int turn;   // changes with every target

static uint32_t place_for_one(void) {
    for (uint32_t i = 0; ended_count > ENDED_KEPT && i < line_count; i++)
        if (lines[i].ended) {
            ended_count--;
            return i;
        }
    if (line_count == line_room) {
        uint32_t room = line_room ? 2 * line_room : 16;
        struct line *more = realloc(lines, room * sizeof *more);
        if (!more) abort();  // a few bytes
        lines = more;
        line_room = room;
    }
    return line_count++;
}

static uint32_t new_line(uint64_t key, uint32_t member, uint32_t members, void *of) {
    uint32_t place = place_for_one();
    lines[place] = (struct line){.key = key, .member = member, .members = members, .of = of};
    return place;
}

uint32_t line_new(uint64_t key, uint32_t member, uint32_t members, void *of) {
    lock_take(&lines_lock);
    uint32_t place = new_line(key, member, members, of);
    lock_give(&lines_lock);
    return place;
}

// The first line of a communicator is its own; those after it are between two ranks.
static uint32_t own_line(const void *of) {
    for (uint32_t i = 0; of && i < line_count; i++)
        if (lines[i].of == of && !lines[i].ended) return i;
    return NO_LINE;
}

uint32_t line_of(void *of) {
    lock_take(&lines_lock);
    uint32_t found = own_line(of);
    lock_give(&lines_lock);
    return found;
}

static uint64_t mixed(uint64_t key, uint64_t from, uint64_t to) {
    key = (key ^ (from + 1)) * 0x9e3779b97f4a7c15u;
    key = (key ^ (key >> 29) ^ (to + 0x10001)) * 0xbf58476d1ce4e5b9u;
    return key ^ (key >> 32);
}

uint32_t line_between(void *of, int from, int to) {
    lock_take(&lines_lock);
    uint32_t own = own_line(of), found = NO_LINE;
    if (own != NO_LINE) {
        bool sends = (uint32_t)from == lines[own].member;
        uint64_t key = mixed(lines[own].key, (uint64_t)from, (uint64_t)to);
        for (uint32_t i = 0; i < line_count && found == NO_LINE; i++)
            if (lines[i].key == key && lines[i].member == !sends && lines[i].of == of) found = i;
        if (found == NO_LINE) lines[found = new_line(key, !sends, 2, of)].between = true;
    }
    lock_give(&lines_lock);
    return found;
}

struct line line_at(uint32_t number) {
    lock_take(&lines_lock);
    struct line one = lines[number];
    lock_give(&lines_lock);
    return one;
}

void line_become(uint32_t number, void *of, uint32_t member, uint32_t members) {
    lock_take(&lines_lock);
    lines[number].of = of;
    lines[number].member = member;
    lines[number].members = members;
    lock_give(&lines_lock);
}

uint32_t line_split(uint32_t number) {
    lock_take(&lines_lock);
    uint32_t before = lines[number].splits++;
    lock_give(&lines_lock);
    return before;
}

static void end(struct line *one) {
    one->ended = true;
    one->of = NULL;
    ended_count++;
}

void lines_end(void *of) {
    lock_take(&lines_lock);
    for (uint32_t i = 0; i < line_count; i++)
        if (lines[i].of == of && !lines[i].ended) end(&lines[i]);
    lock_give(&lines_lock);
}

void line_end(uint32_t number) {
    lock_take(&lines_lock);
    end(&lines[number]);
    lock_give(&lines_lock);
}

bool steps_add(struct steps *all, uint32_t line) {
    if (all->count == all->room) {
        size_t room = all->room ? 2 * all->room : 8;
        uint32_t *more = realloc(all->lines, room * sizeof *more);
        if (!more) return false;
        all->lines = more;
        all->room = room;
    }
    all->lines[all->count++] = line;
    return true;
}

bool steps_join(struct steps *all, const struct steps *more) {
    for (size_t i = 0; i < more->count; i++)
        if (!steps_add(all, more->lines[i])) return false;
    return true;
}

void steps_drop(struct steps *all) {
    free(all->lines);
    *all = (struct steps){0};
}

static uint64_t reached(const struct steps *all, uint32_t line) {
    uint64_t far = lines[line].started;
    for (size_t i = 0; i < all->count; i++) far += all->lines[i] == line;
    return far;
}

static void let_go(void) {
    holding = false;
    for (uint32_t i = 0; i < line_count; i++) lines[i].wanted = 0;
    clock_thaw();
    atomic_fetch_add(&turn, 1);
    wake_all(&turn);
}

// Under the lock. What keeps it is noted, for the agent to see.
static bool may_start(const struct steps *all) {
    bool may = true;
    if (holding && let_go_at > 0 && seconds_now() >= let_go_at) let_go();
    if (!holding) return true;
    for (size_t i = 0; i < all->count; i++) {
        struct line *one = &lines[all->lines[i]];
        uint64_t far = reached(all, all->lines[i]);
        if (far <= one->target) continue;
        may = false;
        if (far > one->wanted) one->wanted = far;
    }
    return may;
}

static void wait_for_turn(int seen, double until) {
    double left = until - seconds_now();
    struct timespec most = {(time_t)left, (long)((left - (double)(time_t)left) * 1e9)};
    if (until <= 0) wait_while(&turn, seen);
    else if (left > 0) syscall(SYS_futex, &turn, FUTEX_WAIT_PRIVATE, seen, &most, NULL, 0);
}

void collective_enter(const struct steps *all) {
    lock_take(&lines_lock);
    while (!may_start(all)) {
        int seen = atomic_load(&turn);
        double until = let_go_at;
        waiting++;
        lock_give(&lines_lock);
        wait_for_turn(seen, until);
        lock_take(&lines_lock);
        waiting--;
    }
    for (size_t i = 0; i < all->count; i++) lines[all->lines[i]].started++;
    inside++;
    lock_give(&lines_lock);
}

static void count(uint32_t *one, int32_t change) {
    lock_take(&lines_lock);
    *one += (uint32_t)change;
    lock_give(&lines_lock);
}

void collective_leave(void) { count(&inside, -1); }
void set_up_enter(void) { count(&setting_up, 1); }
void set_up_leave(void) { count(&setting_up, -1); }

bool hold_begin(double until) {
    lock_take(&lines_lock);
    bool any = line_count || setting_up;
    if (any && !holding) {
        for (uint32_t i = 0; i < line_count; i++) {
            lines[i].target = lines[i].started;
            lines[i].wanted = 0;
        }
        holding = true;
    }
    if (any && (let_go_at > 0 || !gate_is_closed())) clock_freeze(let_go_at = until);
    lock_give(&lines_lock);
    return any;
}

void hold_raise(uint64_t key, uint64_t target) {
    lock_take(&lines_lock);
    for (uint32_t i = 0; i < line_count; i++)
        if (lines[i].key == key && target > lines[i].target) {
            lines[i].target = target;
            lines[i].wanted = 0;  // who is still held says so again
        }
    atomic_fetch_add(&turn, 1);
    wake_all(&turn);
    lock_give(&lines_lock);
}

bool hold_keep(void) {
    lock_take(&lines_lock);
    bool stands = !let_go_at || (holding && seconds_now() < let_go_at);
    if (stands) let_go_at = 0;
    if (stands && holding) clock_freeze(0);
    atomic_fetch_add(&turn, 1);  // they wait without a limit now
    wake_all(&turn);
    lock_give(&lines_lock);
    return stands;
}

void hold_release(void) {
    lock_take(&lines_lock);
    if (holding) let_go();
    let_go_at = 0;
    lock_give(&lines_lock);
}

static struct counted counted_of(const struct line *one) {
    return (struct counted){.key = one->key, .started = one->started, .wanted = one->wanted,
                            .member = one->member, .members = one->members, .ended = one->ended,
                            .between = one->between};
}

uint32_t hold_counts(uint32_t first, uint32_t most, struct standing *all, struct counted *some,
                     uint32_t *total) {
    uint32_t taken = 0;
    lock_take(&lines_lock);
    *all = (struct standing){.inside = inside, .setting_up = setting_up, .waiting = waiting,
                             .holding = holding};
    for (uint32_t i = first; i < line_count && taken < most; i++)
        some[taken++] = counted_of(&lines[i]);
    *total = line_count;
    lock_give(&lines_lock);
    return taken;
}

void collectives_forked(void) {
    lines_lock.state = 0;
    line_count = ended_count = inside = setting_up = waiting = 0;
    if (holding) clock_thaw();
    holding = false;
    let_go_at = 0;
    grouped = (struct grouped){0};
}
