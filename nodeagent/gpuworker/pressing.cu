// Chunks of bf16 made smaller, and back: two kernels; the layout is in docs/reference/guest.md.
//
// A value's sign and mantissa look random and stay as they are; exponents are few, and are coded with
// rANS (Duda): 12 bits of probability from the chunk's own counts, 32 streams for a chunk, one warp
// for each. A warp's lanes are coders of their own that share the stream: those that need 16 bits
// take them in the lanes' order. Streams are written from their end, as rANS wants it.
// Rule: bytes of the pool may be wrong. Whatever they are, nothing beside the chunk is written, and
// nothing farther than 2 MiB behind its beginning is read.
//
// pressing.ptx is made of this: see docs/reference/guest.md.
typedef unsigned char byte;
typedef unsigned short half;
typedef unsigned int word;
typedef unsigned long long wide;

#define GRAIN (2u << 20)
#define STREAMS 32
#define VALUES (GRAIN / 2 / STREAMS)  // of a stream
#define AT_ONCE 8                     // of a lane: 16 bytes
#define ROUNDS (VALUES / 32 / AT_ONCE)
#define BITS 12
#define SCALE (1u << BITS)
#define SYMBOLS 256
#define ROOM 25600u                   // halves: more than a stream can take
#define STATES 64u                    // halves of 32 states
#define LOW (1u << 16)                // states are not below it

struct head {
    half often[SYMBOLS];  // of SCALE
    word end[STREAMS];    // of the streams, in halves from the first one's beginning
};
#define PLANE ((word)sizeof(struct head))
#define CODED (PLANE + GRAIN / 2)
#define LAST (GRAIN / 2 - 1)  // half that may be read

static __device__ word lanes_below(void) { return (1u << threadIdx.x % 32) - 1; }

static __device__ word exponent(word value) { return value >> 7 & 0xff; }

static __device__ word others(word value) { return (value >> 8 & 0x80) | (value & 0x7f); }

static __device__ word value_of(word exponent, word others) {
    return (others & 0x80) << 8 | exponent << 7 | (others & 0x7f);
}

static __device__ word value_at(const uint4 &v, int j) {
    word both = j < 2 ? v.x : j < 4 ? v.y : j < 6 ? v.z : v.w;
    return j & 1 ? both >> 16 : both & 0xffff;
}

// How often each exponent comes, so that it is SCALE together; false: too even to be of any use.
static __device__ bool scaled(const word *counts, half *often) {
    word sum = 0, most = 0;
    for (word symbol = 0; symbol < SYMBOLS; symbol++) {
        word share = counts[symbol] >> 8;
        if (counts[symbol] && !share) share = 1;
        often[symbol] = share;
        sum += share;
        if (share > often[most]) most = symbol;
    }
    if (often[most] + SCALE <= sum) return false;
    often[most] += SCALE - sum;
    return true;
}

static __device__ void count(const uint4 *from, word *counts) {
    for (word i = threadIdx.x; i < GRAIN / 16; i += blockDim.x) {
        const uint4 v = from[i];
        for (int j = 0; j < AT_ONCE; j++) atomicAdd(&counts[exponent(value_at(v, j))], 1);
    }
}

// One warp's stream into its room, from the end; the first half of it that is used.
static __device__ word coded(const uint4 *from, uint2 *plane, half *room, const word *table) {
    word lane = threadIdx.x % 32, x = LOW, at = ROOM;
    for (int round = ROUNDS - 1; round >= 0; round--) {
        const uint4 v = from[round * 32 + lane];
        word low = 0, high = 0;
#pragma unroll
        for (int j = AT_ONCE - 1; j >= 0; j--) {
            word value = value_at(v, j), entry = table[exponent(value)];
            word often = entry >> 16, before = entry & 0xffff;
            (j < 4 ? low : high) |= others(value) << j % 4 * 8;
            bool full = x >> 20 >= often;
            word full_ones = __ballot_sync(~0u, full);
            at -= __popc(full_ones);
            if (full) {
                room[at + __popc(full_ones & lanes_below())] = x & 0xffff;
                x >>= 16;
            }
            x = (x / often << BITS) + x % often + before;
        }
        plane[round * 32 + lane] = make_uint2(low, high);
    }
    at -= STATES;
    room[at + 2 * lane] = x & 0xffff;
    room[at + 2 * lane + 1] = x >> 16;
    return at;
}

// A block of 1024 threads for each chunk. `sizes`: bytes of each pressed chunk; 0: it is not worth it.
// `to`: 2 MiB for each; `rooms`: ROOM * STREAMS halves for each.
extern "C" __global__ void __launch_bounds__(1024)
    kyb_press(const byte *from, byte *to, half *rooms, word *sizes, const word most) {
    __shared__ word counts[SYMBOLS], table[SYMBOLS], begins[STREAMS], ends[STREAMS];
    __shared__ half often[SYMBOLS];
    __shared__ word size;
    from += (wide)blockIdx.x * GRAIN;
    to += (wide)blockIdx.x * GRAIN;
    rooms += (wide)blockIdx.x * ROOM * STREAMS;
    const word warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    if (threadIdx.x < SYMBOLS) counts[threadIdx.x] = 0;
    __syncthreads();
    count((const uint4 *)from, counts);
    __syncthreads();
    if (threadIdx.x == 0) {
        size = scaled(counts, often);
        for (word symbol = 0, before = 0; symbol < SYMBOLS; symbol++) {
            table[symbol] = (word)often[symbol] << 16 | before;
            before += often[symbol];
        }
    }
    __syncthreads();
    if (!size) {
        if (threadIdx.x == 0) sizes[blockIdx.x] = 0;
        return;
    }
    half *room = rooms + warp * ROOM;
    word begin = coded((const uint4 *)from + warp * (VALUES / AT_ONCE),
                       (uint2 *)(to + PLANE) + warp * (VALUES / AT_ONCE), room, table);
    if (lane == 0) begins[warp] = begin;
    __syncthreads();
    if (threadIdx.x == 0) {
        word end = 0;
        for (word i = 0; i < STREAMS; i++) ends[i] = end += ROOM - begins[i];
        size = (CODED + 2 * end + 255) / 256 * 256;
        if (size > most) size = 0;
        sizes[blockIdx.x] = size;
    }
    __syncthreads();
    if (!size) return;
    struct head *head = (struct head *)to;
    if (threadIdx.x < SYMBOLS) head->often[threadIdx.x] = often[threadIdx.x];
    if (threadIdx.x < STREAMS) head->end[threadIdx.x] = ends[threadIdx.x];
    half *stream = (half *)(to + CODED) + (warp ? ends[warp - 1] : 0);
    for (word i = begin + lane; i < ROOM; i += 32) stream[i - begin] = room[i];
}

#define CHUNKS 256

struct places {
    struct {
        word chunk, from;  // of the part; where it is pressed, in units of 256 bytes
    } one[CHUNKS];
};

#define WARPS 8

// By the entry of the low bits of a state: the exponent, how often it comes - 1, and what is left.
static __device__ void tabulate(const half *often, word *table) {
    __shared__ word before[SYMBOLS];
    if (threadIdx.x == 0)
        for (word symbol = 0, sum = 0; symbol < SYMBOLS; symbol++) {
            before[symbol] = sum;
            sum += often[symbol];
        }
    __syncthreads();
    const word symbol = threadIdx.x, share = often[symbol], first = before[symbol];
    for (word i = 0; i < share && i < SCALE; i++)
        table[(first + i) % SCALE] = symbol << 24 | (share - 1) % SCALE << 12 | i;
    __syncthreads();
}

// Four blocks of 256 threads for each chunk.
extern "C" __global__ void __launch_bounds__(WARPS * 32)
    kyb_expand(byte *to, const byte *from, const struct places places) {
    __shared__ word table[SCALE];
    const word which = blockIdx.x / (STREAMS / WARPS), lane = threadIdx.x % 32;
    const word stream = blockIdx.x % (STREAMS / WARPS) * WARPS + threadIdx.x / 32;
    from += (wide)places.one[which].from * 256;
    to += (wide)places.one[which].chunk * GRAIN;
    const struct head *head = (const struct head *)from;
    tabulate(head->often, table);
    const half *halves = (const half *)from;
    const uint2 *plane = (const uint2 *)(from + PLANE) + stream * (VALUES / AT_ONCE);
    uint4 *out = (uint4 *)to + stream * (VALUES / AT_ONCE);
    word at = CODED / 2 + (stream ? head->end[stream - 1] % GRAIN : 0);
    word x = halves[min(at + 2 * lane, LAST)] | (word)halves[min(at + 2 * lane + 1, LAST)] << 16;
    at += STATES;
    for (int round = 0; round < ROUNDS; round++) {
        const uint2 other = plane[round * 32 + lane];
        word values[AT_ONCE];
#pragma unroll
        for (int j = 0; j < AT_ONCE; j++) {
            const word entry = table[x % SCALE];
            x = ((entry >> 12) % SCALE + 1) * (x >> BITS) + entry % SCALE;
            const bool low = x < LOW;
            const word low_ones = __ballot_sync(~0u, low);
            if (low) x = x << 16 | halves[min(at + __popc(low_ones & lanes_below()), LAST)];
            at += __popc(low_ones);
            values[j] = value_of(entry >> 24, (j < 4 ? other.x : other.y) >> j % 4 * 8 & 0xff);
        }
        out[round * 32 + lane] = make_uint4(values[0] | values[1] << 16, values[2] | values[3] << 16,
                                            values[4] | values[5] << 16, values[6] | values[7] << 16);
    }
}
