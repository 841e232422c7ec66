// The real driver's functions, found once it is loaded; and whether anybody wants us to be here.
#include <stdlib.h>

#include "guest.h"

struct driver driver;
static atomic_int loaded;

bool driver_load(void) {
    if (atomic_load(&loaded)) return true;
#define X(name, parameters) \
    *(void **)&driver.name = object_symbol("libcuda.so", #name);
    DRIVER_CALLS(X)
#undef X
    if (!driver.cuDeviceGetUuid)
        *(void **)&driver.cuDeviceGetUuid = object_symbol("libcuda.so", "cuDeviceGetUuid_v2");
    if (!driver.cuMemCreate || !driver.cuMemMap || !driver.cuCtxGetDevice) return false;
    atomic_store(&loaded, 1);
    return true;
}

const char *agent_socket(void) {
    return secure_getenv("KYB_GUEST_SOCKET");  // a setuid program's caller names no agent to it
}

// Asked once: a program that changes its environment later has not changed its mind about us.
bool wanted(void) {
    static atomic_int known;  // 1 no, 2 yes
    int answer = atomic_load(&known);
    if (!answer) {
        const char *path = agent_socket();
        answer = path && *path ? 2 : 1;
        atomic_store(&known, answer);
    }
    return answer == 2;
}
