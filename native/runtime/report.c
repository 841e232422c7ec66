// Errors in runc's form, so that containerd, and with it `kubectl describe pod`, shows their words.
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "runtime.h"

// Spells text as the inside of a JSON string; what does not fit is left out.
static void spelled(char *out, size_t room, const char *text) {
    size_t used = 0;
    for (; *text && used + 7 < room; text++) {
        unsigned char c = (unsigned char)*text;
        if (c == '"' || c == '\\')
            used += (size_t)snprintf(out + used, room - used, "\\%c", c);
        else if (c < 0x20)
            used += (size_t)snprintf(out + used, room - used, "\\u%04x", c);
        else
            out[used++] = (char)c;
    }
    out[used] = '\0';
}

void report(const struct arguments *asked, const char *format, ...) {
    char said[1400], json[2 * sizeof said], when[32], line[sizeof json + 100];
    va_list values;
    va_start(values, format);
    vsnprintf(said, sizeof said, format, values);
    va_end(values);
    dprintf(STDERR_FILENO, "kybernate-runc: %s\n", said);
    int log = asked->log ? open(asked->log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600) : -1;
    if (log < 0) return;
    time_t now = time(NULL);
    struct tm utc;
    strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &utc));
    spelled(json, sizeof json, said);
    bool structured = asked->log_format && strcmp(asked->log_format, "json") == 0;
    int size = snprintf(line, sizeof line,
                        structured ? "{\"level\":\"error\",\"msg\":\"kybernate: %s\",\"time\":\"%s\"}\n"
                                   : "level=error msg=\"kybernate: %s\" time=\"%s\"\n",
                        json, when);
    if (write(log, line, (size_t)size) != size) dprintf(STDERR_FILENO, "the log takes no more\n");
    close(log);
}
