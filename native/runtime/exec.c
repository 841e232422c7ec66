// `exec` into a container on a seat. One without its GPU would hang; probes ask us instead.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runtime.h"

static const double ASK_S = 0.4;  // what a person's command is kept for an agent that is silent
enum { STANDING_MOST = 4096, REFUSED_CODE = 126, FAILED = 1 };

// Has a child of ours be what containerd waits for: its number in the pid file, its exit code.
static int refuse(const struct arguments *asked, const char *said) {
    if (asked->console) {  // a terminal would have to be handed over: the error itself is the answer
        report(asked, "%s", said);
        return FAILED;
    }
    pid_t child = asked->pid_file ? fork() : 0;
    if (child == 0) {
        dprintf(STDERR_FILENO, "%s\n", said);
        _exit(REFUSED_CODE);
    }
    if (child > 0 && pid_write(asked->pid_file, child)) return 0;
    report(asked, "cannot answer: no process, or no pid file");
    return FAILED;
}

bool pid_write(const char *path, pid_t pid) {
    FILE *file = fopen(path, "we");
    bool fine = file && fprintf(file, "%d", (int)pid) > 0;
    if (file && fclose(file) != 0) fine = false;
    return fine;
}

// What the agent wrote down last of it: 1 for held or parked, 0 for neither, -1 for no word.
static int by_the_note(const struct settings *set, const struct seated *found,
                       char say[SAY_ROOM]) {
    char path[PATH_ROOM], name[NAME_ROOM + 32], held[8], *text;
    size_t size;
    struct json value;
    strcpy(path, set->socket);
    *strrchr(path, '/') = '\0';
    snprintf(name, sizeof name, "standing/%s.json", found->id);
    if (!path_join(path, path, name) || !file_read(path, STANDING_MOST, &text, &size)) return -1;
    struct json note = {text, size};
    bool fine = json_valid(note) && json_member(note, "held", &value) &&
                json_string(value, held, sizeof held);
    if (fine && json_member(note, "say", &value)) json_string(value, say, SAY_ROOM);
    free(text);
    return fine ? strcmp(held, "yes") == 0 : -1;
}

bool last_without_gpu(const struct settings *set, const struct seated *found,
                      char say[SAY_ROOM]) {
    snprintf(say, SAY_ROOM, "%s/%s is waiting for its GPU", found->space, found->pod);
    if (is_held(found)) return true;
    snprintf(say, SAY_ROOM, "%s/%s is parked: it does not have its GPU now", found->space,
             found->pod);
    int noted = by_the_note(set, found, say);
    return noted < 0 ? is_stopped(found) : noted;
}

// Whether it is held or parked: by runc's word, the agent's, and without it what was last.
bool without_gpu(const struct settings *set, const struct seated *found, double seconds,
                 char say[SAY_ROOM]) {
    struct answer standing;
    if (is_held(found)) return last_without_gpu(set, found, say);
    if (agent_ask(set, "state", found, seconds, &standing) != HEARD)
        return last_without_gpu(set, found, say);
    snprintf(say, SAY_ROOM, "%s/%s is parked: it does not have its GPU now", found->space,
             found->pod);
    if (*standing.say) snprintf(say, SAY_ROOM, "%s", standing.say);
    return standing.held;
}

int exec_seated(const struct arguments *asked, const struct settings *set,
                const struct seated *found) {
    struct probe probe;
    char say[SAY_ROOM], said[SAY_ROOM + 64];
    if (probe_found(asked, &probe)) return probe_seated(asked, set, found, &probe);
    if (!without_gpu(set, found, ASK_S, say)) runc_become(asked, set, asked->all);
    snprintf(said, sizeof said, "%s; nothing can be run in it until it has", say);
    return refuse(asked, said);
}
