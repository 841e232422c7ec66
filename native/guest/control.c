// The thread that speaks with the agent, and what it answers.
//
// Rule: memory is only touched behind a closed gate, so the table stands still.
// Rule: the gate never opens over memory that is missing or not filled, whoever asks; an agent that
// goes away leaves it as it is.
// Rule: descriptors exist while they are sent, under the lock that a fork waits for: no child keeps
// one, or its memory would never come free.
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include "collectives.h"
#include "guest.h"
#include "holding.h"
#include "packets.h"
#include "protocol.h"

#define VERSION "libkybguest 0.1"
static const struct timespec AGAIN = {0, 200 * 1000 * 1000};  // an agent that is away costs this
static const struct timespec SOON = {0, 2 * 1000 * 1000};  // after it hung up, or we were an image:
enum { SOON_TIMES = 500 };                                  // somebody may wait for us
static const uint32_t LONGEST_MS = 600 * 1000;

static uint64_t epoch;
static uint8_t nonce[NONCE];
static atomic_int running;

static struct answer answer_to(uint32_t verb, int32_t status) {
    struct answer one = {.verb = verb, .status = status, .epoch = epoch, .protocol = PROTOCOL,
                         .closed = gate_is_closed()};
    memcpy(one.nonce, nonce, NONCE);
    return one;
}

static bool send_answer(int to, struct answer *head, const void *more, size_t size) {
    struct iovec parts[] = {{head, sizeof *head}, {(void *)more, size}};
    return packet_send(to, parts, size ? 2 : 1, NULL, 0);
}

// Without the driver: it may be locked.
static void card_of(const struct segment *one, uint8_t card[CARD_ID]) {
    memcpy(card, card_name(one->made.where.id), CARD_ID);
}

static struct entry entry_of(const struct segment *one) {
    struct entry made = {.id = one->id, .address = one->at, .size = one->size,
                         .state = one->state, .touched = one->touched};
    card_of(one, made.card);
    return made;
}

// The segments that may leave; those of one card where one is given. `first` and `count` choose
// among them; `total` is how many there are.
static uint32_t choose(const struct request *asked, bool of_card, struct segment **chosen,
                       uint32_t *total) {
    uint32_t seen = 0, taken = 0;
    for (size_t i = 0; i < segment_count; i++) {
        struct segment *one = segments[i];
        if (one->in_place) continue;
        if (of_card && memcmp(card_name(one->made.where.id), asked->card, CARD_ID)) continue;
        if (seen >= asked->first && taken < asked->count && taken < BATCH) chosen[taken++] = one;
        seen++;
    }
    *total = seen;
    return taken;
}

static void use_context(const struct segment *one, bool on) {
    static bool pushed;
    CUcontext before;
    if (on) pushed = one->owner && !driver.cuCtxPushCurrent_v2(one->owner);
    else if (pushed) driver.cuCtxPopCurrent_v2(&before);
}

static CUresult apply(struct segment *one, CUresult (*change)(struct segment *)) {
    use_context(one, true);
    CUresult wrong = change(one);
    use_context(one, false);
    return wrong;
}

static CUresult filled(struct segment *one) {
    if (one->state == EMPTY) one->state = BACKED;
    return one->state == BACKED ? CUDA_SUCCESS : CUDA_INVALID_VALUE;
}

static bool answer_list(int to, const struct request *asked) {
    struct segment *chosen[BATCH];
    struct entry entries[BATCH];
    struct answer head = answer_to(LIST, DONE);
    lock_take(&table_lock);
    head.count = choose(asked, false, chosen, &head.total);
    for (uint32_t i = 0; i < head.count; i++) entries[i] = entry_of(chosen[i]);
    lock_give(&table_lock);
    return send_answer(to, &head, entries, head.count * sizeof *entries);
}

static bool answer_change(int to, const struct request *asked,
                          CUresult (*change)(struct segment *)) {
    struct segment *chosen[BATCH];
    struct answer head = answer_to(asked->verb, gate_is_closed() ? DONE : GATE_OPEN);
    lock_take(&table_lock);
    uint32_t count = head.status ? 0 : choose(asked, true, chosen, &head.total);
    while (head.count < count && !head.status) {
        head.status = apply(chosen[head.count], change);
        if (!head.status) head.count++;
    }
    lock_give(&table_lock);
    return send_answer(to, &head, NULL, 0);
}

static CUresult export_one(struct segment *one, bool anew, int *fd) {
    CUresult wrong = anew ? apply(one, segment_back) : CUDA_SUCCESS;
    if (!wrong && one->state == RELEASED) wrong = CUDA_INVALID_VALUE;
    if (!wrong)
        wrong = driver.cuMemExportToShareableHandle(fd, one->real, POSIX_DESCRIPTOR, 0);
    if (!wrong) fcntl(*fd, F_SETFD, FD_CLOEXEC);
    return wrong;
}

static bool answer_export(int to, const struct request *asked, bool anew) {
    struct segment *chosen[BATCH];
    struct entry entries[BATCH];
    int fds[BATCH];
    struct answer head = answer_to(asked->verb, gate_is_closed() ? DONE : GATE_OPEN);
    lock_take(&table_lock);
    uint32_t count = head.status ? 0 : choose(asked, true, chosen, &head.total);
    while (head.count < count && !head.status) {
        head.status = export_one(chosen[head.count], anew, &fds[head.count]);
        if (head.status) break;
        entries[head.count] = entry_of(chosen[head.count]);
        head.count++;
    }
    struct iovec parts[] = {{&head, sizeof head}, {entries, head.count * sizeof *entries}};
    bool sent = packet_send(to, parts, 2, fds, head.count);
    for (uint32_t i = 0; i < head.count; i++) close(fds[i]);
    lock_give(&table_lock);
    return sent;
}

static double until(const struct request *asked) {
    uint32_t limit = asked->milliseconds < LONGEST_MS ? asked->milliseconds : LONGEST_MS;
    return seconds_now() + limit / 1000.0;
}

static bool answer_close(int to, const struct request *asked) {
    double end = until(asked);
    bool was_closed = gate_is_closed();
    struct answer head = answer_to(CLOSE, DONE);
    const char *why = "";
    if (!hold_keep()) why = "its collectives were let go meanwhile";
    else if (!gate_close(end)) why = "calls into the driver, or a graph's capture, did not end";
    else if (!drain(end)) why = "submitted work did not end";
    if (*why) {
        if (!was_closed) gate_open();
        head = answer_to(CLOSE, STILL_BUSY);
        strncpy(head.why, why, WHY - 1);
    } else {
        if (!was_closed) epoch++;
        head = answer_to(CLOSE, DONE);
    }
    return send_answer(to, &head, NULL, 0);
}

static bool is_whole(void) {
    for (size_t i = 0; i < segment_count; i++)
        if (segments[i]->state != BACKED) return false;
    return true;
}

static bool answer_open(int to) {
    lock_take(&table_lock);
    bool whole = is_whole();
    for (size_t i = 0; whole && i < segment_count; i++) segments[i]->touched = false;
    lock_give(&table_lock);
    if (whole) gate_open();
    if (whole) hold_release();
    struct answer head = answer_to(OPEN, whole ? DONE : NOT_WHOLE);
    return send_answer(to, &head, NULL, 0);
}

static bool answer_left(int to) {
    char text[2048];
    struct answer head = answer_to(LEFT, DONE);
    head.count = (uint32_t)left_text(text, sizeof text);
    uint64_t calls, inside;
    gate_count(&calls, &inside);
    snprintf(head.why, sizeof head.why, "%llu calls, %llu inside", (unsigned long long)calls,
             (unsigned long long)inside);
    return send_answer(to, &head, text, head.count);
}

static bool answer_where(int to) {
    char text[CARDS_TEXT];
    struct answer head = answer_to(WHERE, DONE);
    head.count = (uint32_t)cards_text(text);
    return send_answer(to, &head, text, head.count);
}

static bool answer_moved(int to, const struct moved *asked) {
    struct answer head = answer_to(MOVED, gate_is_closed() ? DONE : GATE_OPEN);
    if (!head.status && !card_moved(asked->asked.card, asked->to)) head.status = NOT_UNDERSTOOD;
    return send_answer(to, &head, NULL, 0);
}

// The gate of collectives is let go by itself when the time is over; the other gate is not touched.
static bool answer_hold(int to, const struct request *asked) {
    struct answer head = answer_to(HOLD, DONE);
    head.count = hold_begin(until(asked));
    return send_answer(to, &head, NULL, 0);
}

static bool answer_counts(int to, const struct request *asked) {
    uint8_t counted[COUNTS_ROOM];
    struct answer head = answer_to(COUNTS, DONE);
    size_t size = holding_counts(asked, &head, counted);
    return send_answer(to, &head, counted, size);
}

static bool answer_upto(int to, const void *packet, size_t size) {
    struct answer head = answer_to(UPTO, holding_upto(packet, size) ? DONE : NOT_UNDERSTOOD);
    return send_answer(to, &head, NULL, 0);
}

static bool answer_settle(int to, const struct request *asked) {
    struct answer head = answer_to(SETTLE, drain(until(asked)) ? DONE : STILL_BUSY);
    return send_answer(to, &head, NULL, 0);
}

// One request. Zero: the connection is of no use any more.
int control_answer(int to, const void *packet, size_t size) {
    struct moved moved = {0};
    uint32_t verb = 0;
    if (size >= sizeof verb) memcpy(&verb, packet, sizeof verb);
    if (verb == UPTO) return answer_upto(to, packet, size);
    if (size == sizeof moved.asked || size == sizeof moved) memcpy(&moved, packet, size);
    struct request asked = moved.asked;
    if (size == sizeof moved) asked.verb = asked.verb == MOVED ? MOVED : 0;
    else if (asked.verb == MOVED) asked.verb = 0;
    switch (asked.verb) {
        case CLOSE: return answer_close(to, &asked);
        case OPEN: return answer_open(to);
        case LIST: return answer_list(to, &asked);
        case EXPORT: return answer_export(to, &asked, false);
        case RELEASE: return answer_change(to, &asked, segment_release);
        case BACK: return answer_export(to, &asked, true);
        case FILLED: return answer_change(to, &asked, filled);
        case LEFT: return answer_left(to);
        case WHERE: return answer_where(to);
        case MOVED: return answer_moved(to, &moved);
        case HOLD: return answer_hold(to, &asked);
        case COUNTS: return answer_counts(to, &asked);
        case SETTLE: return answer_settle(to, &asked);
        default: {
            struct answer head = answer_to(asked.verb, NOT_UNDERSTOOD);
            return send_answer(to, &head, NULL, 0);
        }
    }
}

static void serve(int agent) {
    char packet[sizeof(struct request) + BATCH * sizeof(struct upto) + 1];
    struct answer hello = answer_to(HELLO, DONE);
    memcpy(hello.why, VERSION, sizeof VERSION);
    bool goes_on = send_answer(agent, &hello, NULL, 0);
    while (goes_on) {
        long size = packet_receive(agent, packet, sizeof packet, NULL);
        goes_on = size > 0 && control_answer(agent, packet, (size_t)size);
    }
    if (!gate_is_closed()) hold_release();
}

// The agent knows by the name who has called cuInit, and will say hello: a forked child has not this
// thread, nor has a process that only loaded the driver.
static void *control(void *unused) {
    (void)unused;
    prctl(PR_SET_NAME, "kyb-guest");
    for (int soon = 0;; soon -= soon > 0) {
        int agent = packet_socket(agent_socket(), strlen(agent_socket()), false);
        if (agent >= 0) {
            serve(agent);
            close(agent);
            soon = SOON_TIMES;
        }
        nanosleep(soon ? &SOON : &AGAIN, NULL);
    }
    return NULL;
}

static void choose_nonce(void) {
    int random = open("/dev/urandom", O_RDONLY | O_CLOEXEC);
    if (random < 0) return;
    if (read(random, nonce, sizeof nonce) != sizeof nonce) memset(nonce, 0, sizeof nonce);
    close(random);
}

void control_start(void) {
    if (atomic_exchange(&running, 1)) return;
    choose_nonce();
    if (!thread_start(control)) atomic_store(&running, 0);
}

void control_forked(void) {
    atomic_store(&running, 0);
    epoch = 0;
}
