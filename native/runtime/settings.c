// The file /etc/kyb/runtime.conf, or the one KYB_RUNTIME_CONF names: lines of `name = value`.
// Whoever may set our environment is root already: containerd starts us.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime.h"

#ifndef KYB_CONF
#define KYB_CONF "/etc/kyb/runtime.conf"
#endif
enum { MOST = 64 * 1024, WAIT_MOST = 100 };  // the kubelet gives up after 120 s by default

static char *trimmed(char *text) {
    text += strspn(text, " \t\r");
    size_t size = strlen(text);
    while (size && strchr(" \t\r", text[size - 1])) text[--size] = '\0';
    return text;
}

static void wrong(struct settings *set, const char *what, const char *value) {
    snprintf(set->wrong, sizeof set->wrong, "runtime.conf: %s '%.200s'", what, value);
}

static void wait_of(struct settings *set, double *wait, const char *value) {
    char *end;
    double seconds = strtod(value, &end);
    if (end == value || *end || !(seconds >= 0 && seconds <= WAIT_MOST))
        wrong(set, "agent-wait and wake-wait are seconds from 0 to 100, not", value);
    else
        *wait = seconds;
}

static void path_of(struct settings *set, char out[PATH_ROOM], const char *value) {
    if (*value != '/' || strlen(value) >= PATH_ROOM)
        wrong(set, "not an absolute path:", value);
    else
        strcpy(out, value);
}

static void line_read(struct settings *set, char *line) {
    line = trimmed(line);
    if (!*line || *line == '#') return;
    char *equals = strchr(line, '=');
    if (!equals) return wrong(set, "not name = value:", line);
    *equals = '\0';
    const char *name = trimmed(line), *value = trimmed(equals + 1);
    if (strcmp(name, "runc") == 0)
        path_of(set, set->runc, value);
    else if (strcmp(name, "socket") == 0)
        path_of(set, set->socket, value);
    else if (strcmp(name, "agent-wait") == 0)
        wait_of(set, &set->agent_wait, value);
    else if (strcmp(name, "wake-wait") == 0)
        wait_of(set, &set->wake_wait, value);
    else
        wrong(set, "known are runc, socket, agent-wait, wake-wait, not", name);
}

struct settings settings_read(void) {
    struct settings set = {.runc = "runc", .socket = "/run/kyb/runtime.sock", .agent_wait = 60,
                           .wake_wait = 90};
    const char *path = getenv("KYB_RUNTIME_CONF");
    char *text, *next;
    size_t size;
    if (file_read(path ? path : KYB_CONF, MOST, &text, &size)) {
        for (char *line = strtok_r(text, "\n", &next); line; line = strtok_r(NULL, "\n", &next))
            line_read(&set, line);
        free(text);
    }
    strcpy(set.untold, set.socket);
    *strrchr(set.untold, '/') = '\0';
    if (!path_join(set.untold, set.untold, "untold")) wrong(&set, "too long:", set.socket);
    return set;
}
