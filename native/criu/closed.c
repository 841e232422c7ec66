// A plugin of CRIU: unix sockets whose other end is outside the container.
//
// CRIU alone refuses to dump them. With this one they are in the image, and come back as what the
// program finds when the other side ends a connection: nothing more to read, and nobody to write
// to. That is what it finds of its connections over the network, too (nodeagent/images/refit.py).
// Rule: only the interface of CRIU's plugins is used, which it keeps by its version number.
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

// From here on, CRIU's names and numbers (its include/criu-plugin.h says them).
enum { DUMP_UNIX_SK, RESTORE_UNIX_SK, HOOKS };
enum { VERSION = 0 << 16 | 2 << 8 | 0 };
struct description {
    const char *name;
    int (*init)(int stage);
    void (*exit)(int stage, int result);
    unsigned version, hooks_count;
    void *hooks[HOOKS];
};
extern int criu_get_image_dir(void);

static void name_of(char name[NAME_MAX], int id) {
    snprintf(name, NAME_MAX, "kyb-closed-%x.img", (unsigned)id);
}

// The socket's type, for its return; 0 when it is written.
static int dump(int socket, int id) {
    char name[NAME_MAX];
    int type;
    socklen_t size = sizeof type;
    if (getsockopt(socket, SOL_SOCKET, SO_TYPE, &type, &size) < 0) return -1;
    name_of(name, id);
    int file = openat(criu_get_image_dir(), name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (file < 0) return -1;
    int written = dprintf(file, "%d\n", type);
    return close(file) == 0 && written > 0 ? 0 : -1;
}

static int type_of(int id) {
    char name[NAME_MAX], text[16] = "";
    int type = -1;
    name_of(name, id);
    int file = openat(criu_get_image_dir(), name, O_RDONLY | O_CLOEXEC);
    if (file < 0) return -1;
    if (read(file, text, sizeof text - 1) <= 0 || sscanf(text, "%d", &type) != 1) type = -1;
    close(file);
    return type;
}

// One end of a pair whose other end is closed.
static int restore(int id) {
    int ends[2], type = type_of(id);
    if (type < 0 || socketpair(AF_UNIX, type, 0, ends) < 0) return -1;
    close(ends[1]);
    return ends[0];
}

static int begin(int stage) {
    (void)stage;
    return 0;
}

static void end(int stage, int result) {
    (void)stage;
    (void)result;
}

struct description CR_PLUGIN_DESC = {
    .name = "kyb-closed",
    .init = begin,
    .exit = end,
    .version = VERSION,
    .hooks_count = HOOKS,
    .hooks = {[DUMP_UNIX_SK] = (void *)dump, [RESTORE_UNIX_SK] = (void *)restore},
};
