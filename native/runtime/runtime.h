// What the parts of kybernate-runc share.
#ifndef KYB_RUNTIME_H
#define KYB_RUNTIME_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "json.h"

enum { PATH_ROOM = 4096, NAME_ROOM = 256, LINE_ROOM = 16 * 1024, SAY_ROOM = 1024 };
enum { WORDS_ROOM = 512 };
// LINE_ROOM: the protocol's

// How we were called. Everything points into argv; NULL is what was not said.
struct arguments {
    int count;
    char **all;
    int verb;  // its place in `all`; 0 without one
    int rest;  // the first place behind the container's id
    const char *root, *log, *log_format;
    const char *bundle, *process, *pid_file, *console;
    bool no_pivot;
    const char *id;
};

struct settings {
    char runc[PATH_ROOM];    // a name on PATH, or a path
    char socket[PATH_ROOM];  // the agent's for us
    char untold[PATH_ROOM];  // the folder for what it does not hear
    double agent_wait;       // seconds that `create` waits for an agent that is away
    double wake_wait;        // seconds that `create` waits for a checkpoint on its way
    char wrong[PATH_ROOM];   // what cannot be used; empty when all is well
};

// A container on a seat, as its mark has it.
struct seated {
    char pod[NAME_ROOM], space[NAME_ROOM], uid[NAME_ROOM];
    char container[NAME_ROOM], id[NAME_ROOM];
    unsigned long long pid, started;
    char fifo[PATH_ROOM];
    char bundle[PATH_ROOM];  // while it is created
    bool chooses_criu;  // its annotations would choose CRIU's options, programs to run among them
    bool restored;  // from a checkpoint: it never was at the FIFO, and is stopped instead
    char failed[WORDS_ROOM];  // why the restore before did not work; empty without one
};

// arguments.c
struct arguments arguments_read(int count, char **all);
bool is_verb(const struct arguments *asked, const char *verb);

// settings.c
struct settings settings_read(void);

// files.c: whole small files. `file_read` allocates; a file larger than `most` is not read.
bool file_read(const char *path, size_t most, char **text, size_t *size);
bool file_write(const char *folder, const char *name, const char *text, size_t size);
bool path_join(char out[PATH_ROOM], const char *folder, const char *name);

// report.c: an error as runc reports it: to the log that was asked for, and to standard error.
void report(const struct arguments *asked, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

// runc.c: the real one, instead of us, or as a child whose exit status is answered.
void runc_become(const struct arguments *asked, const struct settings *set, char **argv)
    __attribute__((noreturn));
int runc_run(const struct arguments *asked, const struct settings *set, char **argv);

// seated.c: which containers are ours, and the mark that says so for as long as runc has them.
// AWAITS: the sandbox of a pod that is to wake; it is not ours, but may have to wait.
enum ours { NOT_OURS, OURS, AWAITS, UNREADABLE };
enum ours seated_find(const struct arguments *asked, struct seated *found);
bool seated_complete(const struct arguments *asked, struct seated *made);
bool mark_write(const struct arguments *asked, const struct seated *made);
bool mark_read(const struct arguments *asked, struct seated *found);
bool is_held(const struct seated *found);     // its first process has not been let go
bool is_stopped(const struct seated *found);  // by the kernel's word

// frozen.c: by its cgroup.
bool is_frozen(unsigned long long pid);

// agent.c
enum heard { HEARD, NOT_HEARD, REFUSED };
struct answer {
    bool held;
    bool passed, run;  // of a probe: what to say of it, or to run its own command
    bool restore;      // of `creating`: from the image below
    bool coming;       // not heard, because the checkpoint is on its way
    char say[SAY_ROOM];  // for people: why it is held, or why it was refused
    char image[PATH_ROOM];  // for runc's --image-path
    char work[PATH_ROOM];   // where CRIU leaves its log
};
enum heard agent_ask(const struct settings *set, const char *op, const struct seated *about,
                     double seconds, struct answer *answer);
// A probe or hook, as the marker command has it (docs/reference/probes.md).
struct asking {
    const char *kind;
    struct json spec;   // a JSON string with its quotes; empty where there is none
    const char *ended;  // how its own command ended; NULL before
};
enum heard agent_probe(const struct settings *set, const struct seated *about,
                       const struct asking *asking, double seconds, struct answer *answer);
bool agent_put_down(const struct settings *set, const struct seated *about);
void agent_take_back(const struct settings *set, const struct seated *about);
size_t request_line(char line[LINE_ROOM], const char *op, const struct seated *about);

// restore.c: instead of making it. 0, or runc's exit code with `made->failed` filled.
bool is_touched(const struct seated *made);  // whether its files are a checkpoint's already
int restore(const struct arguments *asked, const struct settings *set, const struct answer *from,
            struct seated *made);

// exec.c, kill.c
int exec_seated(const struct arguments *asked, const struct settings *set,
                const struct seated *found);
// Whether it is held or parked, and in words why; the second one asks nobody.
bool without_gpu(const struct settings *set, const struct seated *found, double seconds,
                 char say[SAY_ROOM]);
bool last_without_gpu(const struct settings *set, const struct seated *found, char say[SAY_ROOM]);
bool pid_write(const char *path, pid_t pid);

// probe.c: probes and hooks, asked of the agent; a user's own command runs in the container.
struct probe {
    char kind[32];
    struct json spec;
    unsigned long long timeout;  // the user's own, in seconds; 0 for none
    bool seal;                   // the hook of one that is to be sealed
    bool marked, behind;    // it is one; its "--" was seen
    bool original;          // something stands behind that
    char *text;             // the process file, when there is one
    size_t size;
    const char *from, *to;  // what of it is the marker's
    int after;              // the place in argv of the original
};
bool probe_found(const struct arguments *asked, struct probe *found);
int probe_seated(const struct arguments *asked, const struct settings *set,
                 const struct seated *found, const struct probe *probe);
int kill_seated(const struct arguments *asked, const struct settings *set,
                const struct seated *found);

// ending.c
int ends_with(const struct seated *found, pid_t worker);

#endif
