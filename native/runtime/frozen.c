// Whether a container is frozen, by the kernel's word: its cgroup, v1's freezer or v2.
#include <stdio.h>
#include <string.h>

#include "runtime.h"

static const char V1[] = ":freezer:", V2[] = "0::";

static bool says(const char *mount, const char *cgroup, const char *file, const char *word) {
    char path[PATH_ROOM * 2], line[128];
    bool found = false;
    if (snprintf(path, sizeof path, "%s%s/%s", mount, cgroup, file) >= (int)sizeof path)
        return false;
    FILE *told = fopen(path, "re");
    if (!told) return false;
    while (!found && fgets(line, sizeof line, told)) {
        line[strcspn(line, "\n")] = '\0';
        found = strcmp(line, word) == 0;
    }
    fclose(told);
    return found;
}

// One line of /proc/PID/cgroup. The mounts are where every distribution has them.
static bool line_says(char *line) {
    char *v1 = strstr(line, V1);
    line[strcspn(line, "\n")] = '\0';
    if (v1) return says("/sys/fs/cgroup/freezer", v1 + strlen(V1), "freezer.state", "FROZEN");
    if (strncmp(line, V2, strlen(V2)) != 0) return false;
    const char *cgroup = line + strlen(V2);
    return says("/sys/fs/cgroup", cgroup, "cgroup.events", "frozen 1") ||
           says("/sys/fs/cgroup/unified", cgroup, "cgroup.events", "frozen 1");
}

bool is_frozen(unsigned long long pid) {
    char path[64], line[PATH_ROOM];
    bool frozen = false;
    snprintf(path, sizeof path, "/proc/%llu/cgroup", pid);
    FILE *cgroups = fopen(path, "re");
    if (!cgroups) return false;
    while (!frozen && fgets(line, sizeof line, cgroups)) frozen = line_says(line);
    fclose(cgroups);
    return frozen;
}
