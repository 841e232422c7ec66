// Allocations that share a segment, cut into equal places.
//
// Small ones (below 1 MiB) share 2 MiB, in places of a power of two. Of those up to 20 MiB, which is
// what PyTorch's allocator asks for, many of one size share up to 256 MiB: every segment costs
// about 0.1 ms of a park, whatever its size.
// Rule: a shared segment is at most a quarter of what the program has in places of that size, so
// what its empty places hold back stays in proportion.
#include <stdlib.h>
#include <string.h>

#include "guest.h"

enum { SMALLEST = 512, SHARED_MOST = 256 * MIB };  // SMALLEST: the driver's own alignment

struct slab {
    struct slab *next;
    struct segment *under;
    uint32_t place, places, used, first_free;
    uint32_t sizes[];  // as asked for; 0: free
};

static struct slab *slabs;

static uint32_t place_for(size_t size) {
    if (size >= SMALL) return (uint32_t)((size + GRAIN - 1) / GRAIN * GRAIN);
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

// How many allocations of this size there are.
static size_t alike(uint32_t place, CUcontext owner) {
    size_t count = 0;
    for (size_t i = 0; i < segment_count; i++)
        count += !segments[i]->slab && segments[i]->owner == owner && segments[i]->size == place;
    for (struct slab *one = slabs; one; one = one->next)
        if (one->place == place && one->under->owner == owner) count += one->used;
    return count;
}

static uint32_t places_for(uint32_t place, CUcontext owner) {
    if (place < GRAIN) return GRAIN / place;
    size_t places = alike(place, owner) / 4;
    return places * place < SHARED_MOST ? (uint32_t)places : SHARED_MOST / place;
}

static CUresult slab_new(uint32_t place, uint32_t places, CUdevice device, CUcontext owner,
                         struct slab **made) {
    struct slab *one = calloc(1, sizeof *one + places * sizeof *one->sizes);
    if (!one) return CUDA_OUT_OF_MEMORY;
    CUresult wrong = segment_new((size_t)place * places, device, owner, &one->under);
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

static CUdeviceptr take_place(struct slab *one, size_t size) {
    uint32_t i = one->first_free;
    while (one->sizes[i]) i++;
    one->sizes[i] = (uint32_t)size;
    one->first_free = i + 1;
    one->used++;
    return one->under->at + (CUdeviceptr)i * one->place;
}

CUresult small_new(size_t size, CUdevice device, CUcontext owner, CUdeviceptr *at) {
    if (size > MEDIUM) return CUDA_NOT_SUPPORTED;
    uint32_t place = place_for(size);
    struct slab *one = with_room(place, owner, NULL);
    if (!one) {
        uint32_t places = places_for(place, owner);
        if (places < 2) return CUDA_NOT_SUPPORTED;
        CUresult wrong = slab_new(place, places, device, owner, &one);
        if (wrong) return place < GRAIN ? wrong : CUDA_NOT_SUPPORTED;  // one alone may still fit
    }
    *at = take_place(one, size);
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
    // A small one is kept while it is the only one with room: the next allocation is not far.
    bool surplus = one->place >= GRAIN || with_room(one->place, under->owner, one);
    if (--one->used == 0 && surplus) segment_end(under);
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
