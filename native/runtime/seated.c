// Which containers are ours: those on a seat. Their mark is a file in runc's own folder of the
// container, so it is there exactly as long as runc knows the container.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runtime.h"

enum { CONFIG_MOST = 16 * 1024 * 1024 };
static const char SEAT[] = "KYB_GPU_SEAT=";
static const char MARK[] = "kyb-seat.json";
static const char FIFO[] = "exec.fifo";  // runc's

struct field {
    const char *name;
    char *place;
    size_t room;
};

static bool fill(struct json object, const struct field *fields, size_t count) {
    for (size_t i = 0; i < count; i++) {
        struct json value;
        if (!json_member(object, fields[i].name, &value)) return false;
        if (!json_string(value, fields[i].place, fields[i].room) || !*fields[i].place) return false;
    }
    return true;
}

static bool has_seat(struct json config) {
    struct json process, env, one;
    size_t from = 0;
    if (!json_member(config, "process", &process) || !json_member(process, "env", &env))
        return false;
    while (json_next(env, &from, &one))
        if (json_begins(one, SEAT)) return true;
    return false;
}

static const char CRIU_CONFIG[] = "org.criu.config";
static const char RESTORE_FROM[] = "kyb.ai/restore-from";
static const char ON_DELETE[] = "kyb.ai/on-delete";

// Of a pod that names checkpoints, or may take the place of one that is being sealed.
static bool is_to_wake(struct json annotations) {
    struct json value;
    char text[32];
    if (json_member(annotations, RESTORE_FROM, &value)) return true;
    return json_member(annotations, ON_DELETE, &value) && json_string(value, text, sizeof text) &&
           strcmp(text, "checkpoint") == 0;
}

static enum ours look(struct json config, struct seated *found) {
    struct json annotations, kind, chosen;
    char text[32];
    bool awaits = false;
    if (!json_valid(config)) return UNREADABLE;
    if (!json_member(config, "annotations", &annotations)) return NOT_OURS;
    if (!json_member(annotations, "io.kubernetes.cri.container-type", &kind)) return NOT_OURS;
    if (!json_string(kind, text, sizeof text)) return NOT_OURS;
    if (strcmp(text, "sandbox") == 0) awaits = is_to_wake(annotations);
    if (!awaits && (strcmp(text, "container") != 0 || !has_seat(config))) return NOT_OURS;
    found->chooses_criu = json_member(annotations, CRIU_CONFIG, &chosen);
    const struct field fields[] = {
        {"io.kubernetes.cri.sandbox-namespace", found->space, sizeof found->space},
        {"io.kubernetes.cri.sandbox-name", found->pod, sizeof found->pod},
        {"io.kubernetes.cri.sandbox-uid", found->uid, sizeof found->uid},
        {"io.kubernetes.cri.container-name", found->container, sizeof found->container},
    };
    size_t count = sizeof fields / sizeof *fields - awaits;  // a sandbox is no container of the pod
    if (!fill(annotations, fields, count)) return awaits ? NOT_OURS : UNREADABLE;
    return awaits ? AWAITS : OURS;
}

enum ours seated_find(const struct arguments *asked, struct seated *found) {
    char path[PATH_ROOM], *text;
    size_t size;
    memset(found, 0, sizeof *found);
    if (!asked->id || strlen(asked->id) >= sizeof found->id) return NOT_OURS;
    if (!path_join(path, asked->bundle, "config.json")) return NOT_OURS;
    // Where there is none, runc has the words for it.
    if (!file_read(path, CONFIG_MOST, &text, &size)) return NOT_OURS;
    strcpy(found->id, asked->id);
    if (!realpath(asked->bundle, found->bundle)) return NOT_OURS;
    enum ours answer = look((struct json){text, size}, found);
    free(text);
    return answer;
}

static bool folder_of(const struct arguments *asked, char out[PATH_ROOM]) {
    return asked->id && path_join(out, asked->root, asked->id);
}

bool seated_complete(const struct arguments *asked, struct seated *made) {
    char folder[PATH_ROOM], path[PATH_ROOM], *text;
    size_t size;
    if (!folder_of(asked, folder) || !path_join(made->fifo, folder, FIFO)) return false;
    if (!path_join(path, folder, "state.json")) return false;
    if (!file_read(path, CONFIG_MOST, &text, &size)) return false;
    struct json state = {text, size}, pid, started;
    bool fine = json_valid(state) && json_member(state, "init_process_pid", &pid) &&
                json_number(pid, &made->pid) && made->pid > 0 &&
                json_member(state, "init_process_start", &started) &&
                json_number(started, &made->started);
    free(text);
    return fine;
}

bool mark_write(const struct arguments *asked, const struct seated *made) {
    char folder[PATH_ROOM], line[LINE_ROOM];
    size_t size = request_line(line, "held", made);
    return size && folder_of(asked, folder) && file_write(folder, MARK, line, size);
}

static bool number_of(struct json object, const char *name, unsigned long long *number) {
    struct json value;
    char text[24];
    if (!json_member(object, name, &value) || !json_string(value, text, sizeof text)) return false;
    return json_number((struct json){text, strlen(text)}, number);
}

bool mark_read(const struct arguments *asked, struct seated *found) {
    char folder[PATH_ROOM], path[PATH_ROOM], *text;
    size_t size;
    if (!folder_of(asked, folder) || !path_join(path, folder, MARK)) return false;
    if (!file_read(path, LINE_ROOM, &text, &size)) return false;
    const struct field fields[] = {
        {"namespace", found->space, sizeof found->space},
        {"pod", found->pod, sizeof found->pod},
        {"uid", found->uid, sizeof found->uid},
        {"container", found->container, sizeof found->container},
        {"id", found->id, sizeof found->id},
        {"fifo", found->fifo, sizeof found->fifo},
    };
    struct json mark = {text, size}, restored;
    bool fine = json_valid(mark) && fill(mark, fields, sizeof fields / sizeof *fields) &&
                number_of(mark, "pid", &found->pid) && number_of(mark, "started", &found->started);
    found->failed[0] = found->bundle[0] = '\0';
    found->restored = fine && json_member(mark, "restored", &restored);
    free(text);
    return fine;
}

bool is_held(const struct seated *found) { return access(found->fifo, F_OK) == 0; }

bool is_stopped(const struct seated *found) {
    char path[64], text[1024];
    snprintf(path, sizeof path, "/proc/%llu/stat", found->pid);
    FILE *stat = fopen(path, "re");
    if (!stat) return false;
    size_t size = fread(text, 1, sizeof text - 1, stat);
    fclose(stat);
    text[size] = '\0';
    const char *name_end = strrchr(text, ')');  // the name may hold anything
    bool signalled = name_end && strlen(name_end) > 2 && name_end[2] == 'T';
    return signalled || is_frozen(found->pid);
}
