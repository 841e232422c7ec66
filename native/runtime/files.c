// Whole small files: read at once, or there complete or not at all.
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runtime.h"

bool path_join(char out[PATH_ROOM], const char *folder, const char *name) {
    char joined[PATH_ROOM * 2];
    int size = snprintf(joined, sizeof joined, "%s/%s", folder, name);
    if (size < 0 || size >= PATH_ROOM) return false;
    memcpy(out, joined, (size_t)size + 1);
    return true;
}

static bool all_of(int file, char *text, size_t size) {
    while (size) {
        ssize_t got = read(file, text, size);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) return false;
        text += got;
        size -= (size_t)got;
    }
    return true;
}

bool file_read(const char *path, size_t most, char **text, size_t *size) {
    struct stat seen;
    int file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (file < 0) return false;
    bool fine = fstat(file, &seen) == 0 && S_ISREG(seen.st_mode) && (size_t)seen.st_size <= most;
    *size = fine ? (size_t)seen.st_size : 0;
    *text = fine ? malloc(*size + 1) : NULL;
    fine = *text && all_of(file, *text, *size);
    if (fine)
        (*text)[*size] = '\0';
    else
        free(*text);
    close(file);
    return fine;
}

bool file_write(const char *folder, const char *name, const char *text, size_t size) {
    char draft[PATH_ROOM], path[PATH_ROOM], drafted[PATH_ROOM];
    if (snprintf(drafted, sizeof drafted, ".%s.draft", name) >= (int)sizeof drafted) return false;
    if (!path_join(draft, folder, drafted) || !path_join(path, folder, name)) return false;
    int file = open(draft, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (file < 0) return false;
    bool fine = write(file, text, size) == (ssize_t)size;
    fine = close(file) == 0 && fine && rename(draft, path) == 0;
    if (!fine) unlink(draft);
    return fine;
}
