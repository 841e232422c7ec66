// The agent's side of our life: one request line, one reply line (docs/reference/runtime.md).
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "runtime.h"

// Adds `,"name":"text"`; false where there is no room, or the text is not one of names and paths.
static bool add(char line[LINE_ROOM], size_t *used, const char *name, const char *text) {
    int size = snprintf(line + *used, LINE_ROOM - *used, "%c\"%s\":\"", *used ? ',' : '{', name);
    *used += (size_t)size;
    for (; *text; text++) {
        if ((unsigned char)*text < 0x20 || *used + 8 > LINE_ROOM) return false;
        if (*text == '"' || *text == '\\') line[(*used)++] = '\\';
        line[(*used)++] = *text;
    }
    line[(*used)++] = '"';
    return *used + NAME_ROOM < LINE_ROOM;
}

static bool add_number(char line[LINE_ROOM], size_t *used, const char *name,
                       unsigned long long number) {
    char text[24];
    snprintf(text, sizeof text, "%llu", number);
    return add(line, used, name, text);
}

size_t request_line(char line[LINE_ROOM], const char *op, const struct seated *about) {
    size_t used = 0;
    bool fine = add(line, &used, "op", op) && add(line, &used, "namespace", about->space) &&
                add(line, &used, "pod", about->pod) && add(line, &used, "uid", about->uid) &&
                add(line, &used, "container", about->container) &&
                add(line, &used, "id", about->id);
    if (fine && strcmp(op, "held") == 0)
        fine = add_number(line, &used, "pid", about->pid) &&
               add_number(line, &used, "started", about->started) &&
               add(line, &used, "fifo", about->fifo) &&
               (!about->restored || add(line, &used, "restored", "yes"));
    if (fine && strcmp(op, "creating") == 0) fine = add(line, &used, "bundle", about->bundle);
    if (fine && *about->failed) fine = add(line, &used, "failed", about->failed);
    if (!fine) return 0;
    line[used++] = '}';
    line[used++] = '\n';
    return used;
}

static bool reach(const char *path, double seconds, int *line) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof address.sun_path) return false;
    strcpy(address.sun_path, path);
    *line = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (*line < 0) return false;
    struct timeval limit = {(time_t)seconds, (suseconds_t)((seconds - (time_t)seconds) * 1e6)};
    setsockopt(*line, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);  // of connect, too
    setsockopt(*line, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    if (connect(*line, (struct sockaddr *)&address, sizeof address) == 0) return true;
    close(*line);
    return false;
}

static size_t reply_of(int line, char *text, size_t room) {
    size_t used = 0;
    while (used < room) {
        ssize_t got = recv(line, text + used, room - used, 0);
        if (got <= 0) return 0;
        used += (size_t)got;
        if (text[used - 1] == '\n') return used;
    }
    return 0;
}

static bool says(struct json reply, const char *name, const char *text) {
    struct json value;
    char said[16];
    return json_member(reply, name, &value) && json_string(value, said, sizeof said) &&
           strcmp(said, text) == 0;
}

static bool path_of(struct json reply, const char *name, char path[PATH_ROOM]) {
    struct json value;
    return json_member(reply, name, &value) && json_string(value, path, PATH_ROOM) && *path == '/';
}

static enum heard understood(struct json reply, struct answer *answer) {
    struct json value;
    if (!json_valid(reply)) return NOT_HEARD;
    bool fine = json_member(reply, "ok", &value);
    answer->coming = !fine && says(reply, "coming", "yes");
    if (!fine && says(reply, "again", "yes")) return NOT_HEARD;
    answer->held = says(reply, "held", "yes");
    answer->restore = fine && says(reply, "ok", "restore");
    if (answer->restore && !(path_of(reply, "image", answer->image) &&
                             path_of(reply, "work", answer->work))) {
        snprintf(answer->say, sizeof answer->say, "it names no image to restore from");
        return REFUSED;
    }
    answer->passed = says(reply, "passed", "yes");
    answer->run = says(reply, "ok", "run");
    if (!json_member(reply, fine ? "say" : "error", &value) ||
        !json_string(value, answer->say, sizeof answer->say))
        snprintf(answer->say, sizeof answer->say, "%s", fine ? "" : "refused without a word");
    return fine ? HEARD : REFUSED;
}

// Says the line that stands in `text` and reads the reply.
static enum heard converse(const struct settings *set, char text[LINE_ROOM], size_t size,
                       double seconds, struct answer *answer) {
    int line;
    *answer = (struct answer){0};
    if (!size) {
        snprintf(answer->say, sizeof answer->say, "a name or path of it is too long");
        return REFUSED;
    }
    if (!reach(set->socket, seconds, &line)) return NOT_HEARD;
    bool sent = send(line, text, size, MSG_NOSIGNAL) == (ssize_t)size;
    size = sent ? reply_of(line, text, LINE_ROOM) : 0;
    close(line);
    return size ? understood((struct json){text, size}, answer) : NOT_HEARD;
}

enum heard agent_ask(const struct settings *set, const char *op, const struct seated *about,
                     double seconds, struct answer *answer) {
    char text[LINE_ROOM];
    return converse(set, text, request_line(text, op, about), seconds, answer);
}

enum heard agent_probe(const struct settings *set, const struct seated *about,
                       const struct asking *asking, double seconds, struct answer *answer) {
    char text[LINE_ROOM];
    size_t used = request_line(text, "probe", about);
    if (used) used -= 2;  // the closing bracket and the line feed come later
    bool fine = used && add(text, &used, "kind", asking->kind) &&
                (!asking->ended || add(text, &used, "ended", asking->ended));
    if (fine && asking->spec.size) {  // a JSON string already, and goes on as it came
        fine = used + asking->spec.size + 16 < LINE_ROOM;
        if (fine)
            used += (size_t)snprintf(text + used, LINE_ROOM - used, ",\"spec\":%.*s",
                                     (int)asking->spec.size, asking->spec.at);
    }
    if (fine) {
        text[used++] = '}';
        text[used++] = '\n';
    }
    return converse(set, text, fine ? used : 0, seconds, answer);
}

static void put_name(char name[NAME_ROOM + 8], const struct seated *about) {
    snprintf(name, NAME_ROOM + 8, "%s.json", about->id);
}

bool agent_put_down(const struct settings *set, const struct seated *about) {
    char line[LINE_ROOM], name[NAME_ROOM + 8];
    size_t size = request_line(line, "held", about);
    put_name(name, about);
    if (mkdir(set->untold, 0700) < 0 && errno == ENOENT) {
        char above[PATH_ROOM];
        strcpy(above, set->untold);
        *strrchr(above, '/') = '\0';
        mkdir(above, 0755);
        mkdir(set->untold, 0700);
    }
    return size && file_write(set->untold, name, line, size);
}

void agent_take_back(const struct settings *set, const struct seated *about) {
    char name[NAME_ROOM + 8], path[PATH_ROOM];
    put_name(name, about);
    if (path_join(path, set->untold, name)) unlink(path);
}
