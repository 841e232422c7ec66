// Physical memory with a stable address: it can be taken away and made anew where it was.
//
// The program's own physical memory (cuMemCreate) is one of these too. The program never sees the
// driver's handle for it, since that changes with every park: it has a token, made of the id.
#include <stdlib.h>
#include <string.h>

#include "guest.h"

static const CUhandle TOKEN = 0x6b79620000000000u;  // "kyb": no driver's handle looks like it
static const uint64_t ID_MASK = 0xffffffffffu;

struct lock table_lock;
struct segment **segments;
size_t segment_count;
static size_t segment_room;
static uint64_t last_id;

// The first place whose segment begins above the address.
static size_t place_above(CUdeviceptr address) {
    size_t low = 0, high = segment_count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (segments[middle]->at <= address) low = middle + 1;
        else high = middle;
    }
    return low;
}

void segment_add(struct segment *one) {
    if (segment_count == segment_room) {
        size_t room = segment_room ? 2 * segment_room : 64;
        struct segment **more = realloc(segments, room * sizeof *more);
        if (!more) abort();  // a few bytes: nothing in this process goes on without them
        segments = more;
        segment_room = room;
    }
    size_t place = place_above(one->at);
    memmove(segments + place + 1, segments + place, (segment_count - place) * sizeof *segments);
    segments[place] = one;
    segment_count++;
    if (!one->id) one->id = ++last_id;
}

static void take_out(const struct segment *one) {
    size_t place = place_above(one->at);
    while (place && segments[place - 1] != one) place--;
    if (!place) return;
    memmove(segments + place - 1, segments + place, (segment_count - place) * sizeof *segments);
    segment_count--;
}

void segment_drop(struct segment *one) {
    take_out(one);
    if (one->slab) small_forget(one->slab);
    free(one);
}

void segment_move(struct segment *one, CUdeviceptr at) {
    take_out(one);
    one->at = at;
    segment_add(one);
}

struct segment *segment_at(CUdeviceptr address) {
    size_t place = place_above(address);
    if (!place || !address) return NULL;
    struct segment *one = segments[place - 1];
    return one->at && address - one->at < one->size ? one : NULL;
}

struct segment *segment_of(CUhandle token) {
    if ((token & ~ID_MASK) != TOKEN) return NULL;
    for (size_t i = 0; i < segment_count; i++)
        if (segments[i]->id == (token & ID_MASK)) return segments[i];
    return NULL;
}

CUhandle segment_token(const struct segment *one) {
    return TOKEN | one->id;
}

static CUresult allow_all(const struct segment *one) {
    for (int card = 0; card < CARDS; card++) {
        struct access who = {{ON_DEVICE, card}, one->access[card]};
        CUresult wrong = one->access[card] ? driver.cuMemSetAccess(one->at, one->size, &who, 1) : 0;
        if (wrong) return wrong;
    }
    return CUDA_SUCCESS;
}

// Makes the physical memory and puts it where it belongs. Nothing is left of it where that fails.
static CUresult make(struct segment *one) {
    CUresult wrong = driver.cuMemCreate(&one->real, one->size, &one->made, 0);
    if (wrong) return wrong;
    if (one->at) {
        wrong = driver.cuMemMap(one->at, one->size, 0, one->real, 0);
        if (!wrong && (wrong = allow_all(one))) driver.cuMemUnmap(one->at, one->size);
    }
    if (wrong) driver.cuMemRelease(one->real);
    return wrong;
}

CUresult segment_release(struct segment *one) {
    if (one->state == RELEASED) return CUDA_SUCCESS;
    CUresult wrong = one->at ? driver.cuMemUnmap(one->at, one->size) : 0;
    if (!wrong) wrong = driver.cuMemRelease(one->real);
    if (wrong) return wrong;
    one->state = RELEASED;
    one->touched = true;
    return CUDA_SUCCESS;
}

CUresult segment_back(struct segment *one) {
    if (one->state != RELEASED) return CUDA_SUCCESS;
    CUresult wrong = make(one);
    if (wrong) return wrong;
    one->state = EMPTY;
    return CUDA_SUCCESS;
}

CUresult segment_allow(struct segment *one, CUdevice device) {
    struct access who = {{ON_DEVICE, device}, READ_WRITE};
    if (device < 0 || device >= CARDS || one->access[device]) return CUDA_SUCCESS;
    CUresult wrong = driver.cuMemSetAccess(one->at, one->size, &who, 1);
    if (!wrong) one->access[device] = READ_WRITE;
    return wrong;
}

static void describe(struct segment *one, CUdevice device) {
    int rdma = 0;
    driver.cuDeviceGetAttribute(&rdma, HAS_RDMA, device);
    one->made = (struct properties){.type = PINNED, .handles = POSIX_DESCRIPTOR,
                                    .where = {ON_DEVICE, device}, .rdma = rdma == 1};
    uint32_t peers = peers_of(device);
    for (int card = 0; card < CARDS; card++)
        if (card == device || peers >> card & 1) one->access[card] = READ_WRITE;
}

CUresult segment_new(size_t size, CUdevice device, CUcontext owner, struct segment **made) {
    struct segment *one = calloc(1, sizeof *one);
    if (!one) return CUDA_OUT_OF_MEMORY;
    *one = (struct segment){.size = size, .owner = owner};
    describe(one, device);
    CUresult wrong = driver.cuMemAddressReserve(&one->at, size, 0, 0, 0);
    if (!wrong && (wrong = make(one))) driver.cuMemAddressFree(one->at, size);
    if (wrong) {
        free(one);
        return wrong;
    }
    segment_add(one);
    *made = one;
    return CUDA_SUCCESS;
}

CUresult segment_end(struct segment *one) {
    CUdeviceptr at = one->at;
    size_t size = one->size;
    CUresult wrong = segment_release(one);
    segment_drop(one);
    return wrong ? wrong : driver.cuMemAddressFree(at, size);
}

void segments_end_of(CUcontext owner) {
    for (size_t i = segment_count; i-- > 0;)
        if (segments[i]->owner == owner) segment_end(segments[i]);
}

void segments_forked(void) {
    table_lock.state = 0;
    segment_count = 0;  // the parent's; its memory is not ours to touch
}
