// The ways a program finds the driver's functions: dlsym, dlvsym and cuGetProcAddress.
//
// Rule: our answer replaces the driver's only where the real one found a function of the driver's:
// a lookup that would have failed fails, and nobody else's function is touched.
// NCCL's functions are found by dlsym too, or linked with.
// Rule: what is not ours goes on by a jump with the caller's own return address: the real dlsym
// looks at it to know what RTLD_NEXT means.
#include "collectives.h"
#include "hooks.h"

#define NEXT ((void *)-1)
#define ABSENT ((void *)1)  // what we answer where nothing shall be found
typedef void *find_call(void *, const char *);
typedef void *find_version_call(void *, const char *, const char *);

__attribute__((visibility("hidden"))) _Atomic(find_call *) kyb_real_dlsym;
__attribute__((visibility("hidden"))) _Atomic(find_version_call *) kyb_real_dlvsym;

static void *in_libc(const char *name) {
    void *found = object_symbol("libc.so", name);
    return found ? found : object_symbol("libdl.so", name);
}

__attribute__((constructor)) static void find_the_finders(void) {
    if (!kyb_real_dlsym) kyb_real_dlsym = (find_call *)in_libc("dlsym");
    if (!kyb_real_dlvsym) kyb_real_dlvsym = (find_version_call *)in_libc("dlvsym");
}

static bool is_drivers(const char *name) {
    return name && name[0] == 'c' && name[1] == 'u' && name[2] >= 'A' && name[2] <= 'Z';
}

static bool is_looked_for(void *handle, const char *name) {
    return handle != NEXT && (is_ncclish(name) || (is_drivers(name) && wanted()));
}

// Everybody's symbols hold ours, also where there is no NCCL: then there is none.
static void *instead_of_ncclish(const char *name, void *real) {
    bool ours = object_holds("libkybguest", real);
    if (ours && !nccl_real(name)) {
        kyb_real_dlsym(NULL, "ncclAbsent");  // so that dlerror has something to say
        return ABSENT;
    }
    if (ours) return NULL;
    return wanted() ? nccl_instead(name, real) : NULL;
}

static void *instead_of(const char *name, void *real) {
    if (real && is_ncclish(name)) return instead_of_ncclish(name, real);
    if (!real || !object_holds("libcuda.so", real)) return NULL;
    return hook_for_symbol(name, real);
}

// What dlsym answers in the real one's place; NULL: the real one shall answer.
__attribute__((visibility("hidden"))) void *kyb_instead(void *handle, const char *name) {
    if (!kyb_real_dlsym) find_the_finders();
    if (!is_looked_for(handle, name) || !kyb_real_dlsym) return NULL;
    return instead_of(name, kyb_real_dlsym(handle, name));
}

__attribute__((visibility("hidden"))) void *kyb_instead_version(void *handle, const char *name,
                                                                const char *version) {
    if (!kyb_real_dlvsym) find_the_finders();
    if (!is_looked_for(handle, name) || !kyb_real_dlvsym) return NULL;
    return instead_of(name, kyb_real_dlvsym(handle, name, version));
}

#ifndef __x86_64__
#error "the jump to the real dlsym is written for x86-64"
#endif
#define FINDER(name, choice, real) \
    ".globl " name "\n.type " name ",@function\n" name ":\n" \
    "endbr64\npush %rdi\npush %rsi\npush %rdx\n" \
    "call " choice "\n" \
    "pop %rdx\npop %rsi\npop %rdi\n" \
    "test %rax,%rax\njz 1f\ncmp $1,%rax\njz 3f\nret\n" \
    "1: mov " real "(%rip),%rax\ntest %rax,%rax\njz 2f\njmp *%rax\n2: ret\n" \
    "3: xor %eax,%eax\nret\n" \
    ".size " name ",.-" name "\n"
__asm__(".text\n" FINDER("dlsym", "kyb_instead", "kyb_real_dlsym")
            FINDER("dlvsym", "kyb_instead_version", "kyb_real_dlvsym"));

// Both forms answer with a pointer in *found; a driver that lacks the function leaves it NULL.
static void replace(const char *base, void **found, int version, uint64_t flags) {
    if (!wanted() || !base || !found || !*found) return;
    void *ours = hook_for_base(base, version, flags, *found);
    if (ours) *found = ours;
}

EXPORTED CUresult cuGetProcAddress(const char *base, void **found, int version, uint64_t flags);
CUresult cuGetProcAddress(const char *base, void **found, int version, uint64_t flags) {
    NEED(cuGetProcAddress);
    CUresult wrong = REAL(cuGetProcAddress)(base, found, version, flags);
    if (!wrong) replace(base, found, version, flags);
    return wrong;
}

EXPORTED CUresult cuGetProcAddress_v2(const char *base, void **found, int version, uint64_t flags,
                                      int *status);
CUresult cuGetProcAddress_v2(const char *base, void **found, int version, uint64_t flags,
                             int *status) {
    NEED(cuGetProcAddress_v2);
    CUresult wrong = REAL(cuGetProcAddress_v2)(base, found, version, flags, status);
    if (!wrong) replace(base, found, version, flags);
    return wrong;
}
