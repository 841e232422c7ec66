// `static REPORT GIB`: CUDA C++ with the runtime linked in statically (nvcc's default).
//
// Numbers that every step changes by a rule; the host knows what they have to be. Large pieces by
// cudaMalloc, small ones too, and one by cudaMallocAsync in every step.
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

static void check(cudaError_t wrong) {
    if (wrong == cudaSuccess) return;
    fprintf(stderr, "%s\n", cudaGetErrorString(wrong));
    exit(1);
}

__global__ void advance(unsigned *at, size_t count, unsigned by) {
    for (size_t i = blockIdx.x * (size_t)blockDim.x + threadIdx.x; i < count;
         i += (size_t)gridDim.x * blockDim.x)
        at[i] += by;
}

__global__ void compare(const unsigned *at, size_t count, unsigned expected, unsigned *wrong) {
    for (size_t i = blockIdx.x * (size_t)blockDim.x + threadIdx.x; i < count;
         i += (size_t)gridDim.x * blockDim.x)
        if (at[i] != expected) atomicAdd(wrong, 1);
}

int main(int, char **arguments) {
    const size_t piece = (20u << 20) / 4, small = 250;
    std::vector<unsigned *> all(size_t(atof(arguments[2]) * 1024 / 20));
    std::vector<unsigned *> tiny(1000);
    unsigned *wrong, sum = 0, steps = 0;
    check(cudaMallocManaged(&wrong, sizeof *wrong));
    *wrong = 0;
    for (auto &one : all) check(cudaMalloc(&one, piece * 4)), check(cudaMemset(one, 0, piece * 4));
    for (auto &one : tiny) check(cudaMalloc(&one, small * 4)), check(cudaMemset(one, 0, small * 4));
    cudaStream_t stream;
    check(cudaStreamCreate(&stream));
    const std::string report = arguments[1], draft = report + ".draft";
    for (;; steps++) {
        unsigned *passing, expected = sum + steps;
        check(cudaMallocAsync(&passing, piece * 4, stream));
        check(cudaMemsetAsync(passing, 0, piece * 4, stream));
        advance<<<512, 256, 0, stream>>>(passing, piece, steps);
        for (auto one : all) advance<<<512, 256, 0, stream>>>(one, piece, steps);
        for (auto one : tiny) advance<<<1, 256, 0, stream>>>(one, small, steps);
        compare<<<512, 256, 0, stream>>>(passing, piece, steps, wrong);
        for (auto one : all) compare<<<512, 256, 0, stream>>>(one, piece, expected, wrong);
        for (auto one : tiny) compare<<<1, 256, 0, stream>>>(one, small, expected, wrong);
        check(cudaFreeAsync(passing, stream));
        check(cudaGetLastError());
        check(cudaStreamSynchronize(stream));
        sum = expected;
        FILE *file = fopen(draft.c_str(), "w");
        fprintf(file, "{\"steps\": %u, \"wrong\": %u}", steps, *wrong);
        fclose(file);
        rename(draft.c_str(), report.c_str());
    }
}
