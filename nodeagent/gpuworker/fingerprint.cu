// A keyed fingerprint of VRAM: 122 bits for each 2 MiB, as fast as the card reads its memory.
//
// Each thread hashes 64 words at a time with NH (Black, Halevi, Krawczyk, Krovetz, Rogaway: UMAC),
// folds its results as a polynomial over the field of 2^61 - 1, and the threads' values are summed
// as a polynomial again, in a second point. Two of these run side by side, the second with NH's key
// shifted by one pair (Toeplitz) and its own points. For two different chunks and a random key the
// chance of equal fingerprints is below 2^-55; it needs the key to be unknown, not secret for ever.
//
// fingerprint.ptx is made of this: see docs/reference/guest.md.
typedef unsigned int word;
typedef unsigned long long wide;

struct key {
    word nh[68];
    wide along[2], across[2];
};

#define THREADS 512
#define GROUPS 16
#define VECTORS 16
#define PRIME ((1ull << 61) - 1)

static __device__ wide fold(wide value) { return (value & PRIME) + (value >> 61); }

static __device__ wide times(wide a, wide b) {
    wide low = a * b, high = __umul64hi(a, b);
    return fold((low & PRIME) + ((low >> 61) | (high << 3)));
}

static __device__ wide power(wide base, word exponent) {
    wide result = 1;
    for (; exponent; exponent >>= 1, base = times(base, base))
        if (exponent & 1) result = times(result, base);
    return result;
}

static __device__ wide pair(word a, word b, word x, word y) { return (wide)(a + x) * (b + y); }

static __device__ wide sum_of_block(wide value) {
    __shared__ wide warps[THREADS / 32];
    for (int step = 16; step; step >>= 1) value = fold(value + __shfl_down_sync(~0u, value, step));
    if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = value;
    __syncthreads();
    wide sum = 0;
    for (int i = 0; i < THREADS / 32; i++) sum = fold(sum + warps[i]);
    __syncthreads();
    return sum % PRIME;
}

extern "C" __global__ void __launch_bounds__(THREADS)
    kyb_fingerprint(const uint4 *base, wide *out, const struct key key) {
    const uint4 *at = base + (wide)blockIdx.x * (GROUPS * VECTORS * THREADS) + threadIdx.x;
    wide first = 0, second = 0;
    for (int group = 0; group < GROUPS; group++, at += VECTORS * THREADS) {
        wide a = 0, b = 0;
#pragma unroll
        for (int j = 0; j < VECTORS; j++) {
            const uint4 v = __ldcs(at + j * THREADS);
            a += pair(v.x, v.y, key.nh[4 * j], key.nh[4 * j + 1]);
            a += pair(v.z, v.w, key.nh[4 * j + 2], key.nh[4 * j + 3]);
            b += pair(v.x, v.y, key.nh[4 * j + 2], key.nh[4 * j + 3]);
            b += pair(v.z, v.w, key.nh[4 * j + 4], key.nh[4 * j + 5]);
        }
        first = fold(times(first, key.along[0]) + fold(a));
        second = fold(times(second, key.along[1]) + fold(b));
    }
    first = sum_of_block(times(first, power(key.across[0], threadIdx.x + 1)));
    second = sum_of_block(times(second, power(key.across[1], threadIdx.x + 1)));
    if (threadIdx.x == 0) {
        out[2 * blockIdx.x] = first;
        out[2 * blockIdx.x + 1] = second;
    }
}
