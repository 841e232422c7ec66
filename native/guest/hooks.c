// Which function of ours stands in for which of the driver's, however the program finds it: as a
// symbol it was linked with, by dlsym, or by cuGetProcAddress (names.c).
//
// A call that is only gated is passed on as words (words.h).
#include "hooks.h"

#include <string.h>

static inline CUresult passed(any_call *real, WORDS) {
    if (!real) return CUDA_NO_DEVICE;
    gate_enter();
    CUresult result = real(PASSED);
    gate_leave();
    return result;
}

#define GATED(name) \
    EXPORTED CUresult name(WORDS); \
    CUresult name(WORDS) { return passed((any_call *)hook_real(HOOK_##name), PASSED); }
#define OWN(name, base, since, own_stream) CUresult name();
#include "calls.def"

static struct hook {
    const char *name;
    void *ours;
    const char *base;  // of ours only
    int since;
    bool own_stream;
    _Atomic(void *) real;
} hooks[] = {
#define GATED(name) {#name, (void *)name, NULL, 0, false, NULL},
#define OWN(name, base, since, own_stream) {#name, (void *)name, base, since, own_stream, NULL},
#include "calls.def"
};

void *hook_real(enum hook_id id) {
    void *real = atomic_load_explicit(&hooks[id].real, memory_order_relaxed);
    if (real) return real;
    real = object_symbol("libcuda.so", hooks[id].name);
    atomic_store(&hooks[id].real, real);
    return real;
}

// Functions that cuGetProcAddress gives and no symbol names: each is gated in a spare place.
enum { SPARE = 64 };
static _Atomic(void *) spare_real[SPARE];
#define SPARE_CALL(n) \
    static CUresult spare_##n(WORDS) { return passed((any_call *)spare_real[n], PASSED); }
#define EIGHT(X, n) X(n##0) X(n##1) X(n##2) X(n##3) X(n##4) X(n##5) X(n##6) X(n##7)
#define OCTAL(X) EIGHT(X, 0) EIGHT(X, 01) EIGHT(X, 02) EIGHT(X, 03) \
                 EIGHT(X, 04) EIGHT(X, 05) EIGHT(X, 06) EIGHT(X, 07)
OCTAL(SPARE_CALL)
#define SPARE_NAME(n) spare_##n,
static any_call *const spare[SPARE] = {OCTAL(SPARE_NAME)};

static void *in_spare(void *real) {
    for (int i = 0; i < SPARE; i++) {
        void *there = NULL;
        if (atomic_compare_exchange_strong(&spare_real[i], &there, real) || there == real)
            return (void *)spare[i];
    }
    return NULL;
}

// cuMemcpyHtoDAsync_v2_ptsz is a form of cuMemcpyHtoDAsync.
static bool is_form_of(const char *name, const char *base) {
    size_t size = strlen(base);
    if (strncmp(name, base, size)) return false;
    name += size;
    if (name[0] == '_' && name[1] == 'v' && name[2] >= '1' && name[2] <= '9') name += 3;
    return !*name || !strcmp(name, "_ptsz") || !strcmp(name, "_ptds");
}

void *hook_for_symbol(const char *name, void *real) {
    for (int i = 0; i < HOOKS; i++)
        if (!strcmp(hooks[i].name, name)) {
            atomic_store(&hooks[i].real, real);
            return hooks[i].ours;
        }
    return NULL;
}

// One of ours that the driver gives under another address than its symbol has.
static struct hook *ours_since(const char *base, int version, bool own_stream) {
    struct hook *best = NULL;
    for (int i = 0; i < HOOKS; i++) {
        struct hook *one = &hooks[i];
        if (!one->base || strcmp(one->base, base) || one->since > version) continue;
        if (one->own_stream && !own_stream) continue;
        if (!best || one->since > best->since || (one->own_stream && one->since == best->since))
            best = one;
    }
    return best;
}

void *hook_for_base(const char *base, int version, uint64_t flags, void *real) {
    bool gated = false, own = false;
    for (int i = 0; i < HOOKS; i++) {
        if (!is_form_of(hooks[i].name, base)) continue;
        if (hook_real((enum hook_id)i) == real) return hooks[i].ours;
        own |= hooks[i].base != NULL;
        gated |= hooks[i].base == NULL;
    }
    struct hook *ours = own ? ours_since(base, version, flags & PER_THREAD_STREAM) : NULL;
    if (ours) {
        atomic_store(&ours->real, real);
        return ours->ours;
    }
    return gated ? in_spare(real) : NULL;
}
