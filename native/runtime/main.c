// kybernate-runc: stands in for runc in pods of the RuntimeClass kybernate.
//
// A container on a seat is made by the real runc, and then stays at its exec FIFO until the node
// agent lets it go; see docs/reference/runtime.md. Everything else goes straight to the real runc.
// Rule: every invocation is one short life; nothing is kept but the mark (seated.c).
// Rule: what we cannot do is said in words where the kubelet shows them (report.c).
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "runtime.h"

static const double TELL_S = 2.0;    // an agent that is there answers within milliseconds
static const double BETWEEN_S = 0.1;  // tries while it is away
enum { FAILED = 1 };

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

// The agent says how it is to be made; an agent that stays away means: cold, and held. Where it
// has a checkpoint on its way, cold would be wrong, also when it dies meanwhile: then the kubelet
// tries again.
static bool may_be_made(const struct arguments *asked, const struct settings *set,
                        const struct seated *made, struct answer *answer) {
    double began = now();
    bool coming = false;
    for (;;) {
        switch (agent_ask(set, "creating", made, TELL_S, answer)) {
            case HEARD: return true;
            case REFUSED: report(asked, "the node agent refuses: %s", answer->say); return false;
            case NOT_HEARD: coming = coming || answer->coming; break;
        }
        if (now() - began >= (coming ? set->wake_wait : set->agent_wait)) break;
        nanosleep(&(struct timespec){0, (long)(BETWEEN_S * 1e9)}, NULL);
    }
    if (coming)
        report(asked, "its checkpoint is not here yet after %.0f s", set->wake_wait);
    return !coming;
}

// A pod that is to wake gets its sandbox when the checkpoint is here: the kubelet tries a sandbox
// again, whatever the pod's restart policy is, and a container not always. Who says no says it again
// when the container is made, and so does an agent that is away.
static bool has_arrived(const struct arguments *asked, const struct settings *set,
                        const struct seated *made) {
    struct answer answer;
    double began = now();
    bool coming = false;
    while (agent_ask(set, "arriving", made, TELL_S, &answer) == NOT_HEARD) {
        coming = coming || answer.coming;
        if (now() - began >= (coming ? set->wake_wait : TELL_S)) {
            if (coming)
                report(asked, "its checkpoint is not here yet after %.0f s", set->wake_wait);
            return !coming;
        }
        nanosleep(&(struct timespec){0, (long)(BETWEEN_S * 1e9)}, NULL);
    }
    return true;
}

static int make(const struct arguments *asked, const struct settings *set,
                const struct answer *how, struct seated *made) {
    if (!how->restore && is_touched(made)) {
        report(asked, "its files are those of a checkpoint that could not be restored;"
                      " a new container is needed");
        return FAILED;
    }
    if (!how->restore) return runc_run(asked, set, asked->all);
    int status = restore(asked, set, how, made);
    struct answer answer;
    if (status) agent_ask(set, "ended", made, TELL_S, &answer);
    return status;
}

static void undo(const struct arguments *asked, const struct settings *set) {
    char *argv[] = {asked->all[0], "--root", (char *)asked->root, "delete", "--force",
                    (char *)asked->id, NULL};
    runc_run(asked, set, argv);
}

static int create(const struct arguments *asked, const struct settings *set) {
    struct seated made;
    struct answer how;
    switch (seated_find(asked, &made)) {
        case AWAITS:
            if (!*set->wrong && !has_arrived(asked, set, &made)) return FAILED;
            // fall through
        case NOT_OURS: runc_become(asked, set, asked->all);
        case UNREADABLE:
            report(asked, "config.json is not what containerd writes; whether it is for a seat"
                          " cannot be told");
            return FAILED;
        case OURS: break;
    }
    if (*set->wrong) {
        report(asked, "%s", set->wrong);
        return FAILED;
    }
    if (made.chooses_criu) {
        report(asked, "the annotation org.criu.config is not for users: CRIU runs as root");
        return FAILED;
    }
    if (!may_be_made(asked, set, &made, &how)) return FAILED;
    int status = make(asked, set, &how, &made);
    if (status) return status;
    if (seated_complete(asked, &made) && mark_write(asked, &made)) return 0;
    report(asked, "the container cannot be marked as one on a seat in %s", asked->root);
    undo(asked, set);
    return FAILED;
}

static int start(const struct arguments *asked, const struct settings *set,
                 const struct seated *found) {
    struct answer answer;
    if (!is_held(found) && !found->restored)
        runc_become(asked, set, asked->all);  // it runs: runc has the words
    switch (agent_ask(set, "held", found, TELL_S, &answer)) {
        case HEARD: return 0;
        case REFUSED: report(asked, "the node agent refuses: %s", answer.say); return FAILED;
        case NOT_HEARD: break;
    }
    if (agent_put_down(set, found)) return 0;
    report(asked, "the node agent is away, and %s takes no note for it", set->untold);
    return FAILED;
}

static int forget(const struct arguments *asked, const struct settings *set,
                  const struct seated *found) {
    struct answer answer;
    int status = runc_run(asked, set, asked->all);
    if (status) return status;
    agent_take_back(set, found);
    agent_ask(set, "ended", found, BETWEEN_S, &answer);  // unheard: it watches the process as well
    return 0;
}

int main(int count, char **all) {
    struct arguments asked = arguments_read(count, all);
    struct settings set = settings_read();
    struct seated found;
    if (is_verb(&asked, "create")) return create(&asked, &set);
    if (asked.verb && mark_read(&asked, &found)) {
        if (is_verb(&asked, "start")) return start(&asked, &set, &found);
        if (is_verb(&asked, "exec")) return exec_seated(&asked, &set, &found);
        if (is_verb(&asked, "kill")) return kill_seated(&asked, &set, &found);
        if (is_verb(&asked, "delete")) return forget(&asked, &set, &found);
    }
    runc_become(&asked, &set, all);
}
