// Small allocations: each segment of 2 MiB is cut into equal places, a power of two large.
#include <stdlib.h>
#include <string.h>

#include "guest.h"

enum { SMALLEST = 512 };  // the driver's own alignment

struct slab {
    struct slab *next;
    struct segment *under;
    uint32_t place, places, used, first_free;
    uint32_t sizes[];  // as asked for; 0: free
};

static struct slab *slabs;

static uint32_t place_for(size_t size) {
    uint32_t place = SMALLEST;
    while (place < size) place *= 2;
    return place;
}

static struct slab *with_room(uint32_t place, CUcontext owner, const struct slab *other_than) {
    for (struct slab *one = slabs; one; one = one->next)
        if (one != other_than && one->place == place && one->under->owner == owner &&
            one->used < one->places)
            return one;
    return NULL;
}

static CUresult slab_new(uint32_t place, CUdevice device, CUcontext owner, struct slab **made) {
    uint32_t places = GRAIN / place;
    struct slab *one = calloc(1, sizeof *one + places * sizeof *one->sizes);
    if (!one) return CUDA_OUT_OF_MEMORY;
    CUresult wrong = segment_new(GRAIN, device, owner, &one->under);
    if (wrong) {
        free(one);
        return wrong;
    }
    one->under->slab = one;
    one->place = place;
    one->places = places;
    one->next = slabs;
    *made = slabs = one;
    return CUDA_SUCCESS;
}

CUresult small_new(size_t size, CUdevice device, CUcontext owner, CUdeviceptr *at) {
    uint32_t place = place_for(size);
    struct slab *one = with_room(place, owner, NULL);
    CUresult wrong = one ? CUDA_SUCCESS : slab_new(place, device, owner, &one);
    if (wrong) return wrong;
    uint32_t i = one->first_free;
    while (one->sizes[i]) i++;
    one->sizes[i] = (uint32_t)size;
    one->first_free = i + 1;
    one->used++;
    *at = one->under->at + (CUdeviceptr)i * place;
    return CUDA_SUCCESS;
}

// Which place an address begins; false: none that is in use.
static bool find(const struct slab *one, CUdeviceptr at, bool inside, uint32_t *place) {
    CUdeviceptr offset = at - one->under->at;
    *place = (uint32_t)(offset / one->place);
    return (inside || offset % one->place == 0) && one->sizes[*place];
}

bool small_free(struct segment *under, CUdeviceptr at) {
    struct slab *one = under->slab;
    uint32_t place;
    if (!find(one, at, false, &place)) return false;
    one->sizes[place] = 0;
    if (place < one->first_free) one->first_free = place;
    // An empty one is kept while it is the only one with room: the next allocation is not far.
    if (--one->used == 0 && with_room(one->place, under->owner, one)) segment_end(under);
    return true;
}

bool small_range(const struct segment *under, CUdeviceptr at, CUdeviceptr *base, size_t *size) {
    uint32_t place;
    if (!find(under->slab, at, true, &place)) return false;
    *base = under->at + (CUdeviceptr)place * under->slab->place;
    *size = under->slab->sizes[place];
    return true;
}

void small_forget(struct slab *gone) {
    for (struct slab **at = &slabs; *at; at = &(*at)->next)
        if (*at == gone) {
            *at = gone->next;
            break;
        }
    free(gone);
}
