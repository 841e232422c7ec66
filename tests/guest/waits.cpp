// A C++ program that is linked to the driver and to NCCL, with one rank: what it takes for the time,
// and how long its waits are. A line in, a line out.
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <future>
#include <iostream>
#include <mutex>
#include <string>
#include <thread>
#include <time.h>

struct id {
    char bytes[128];
};
extern "C" {
int cuInit(unsigned);
int cuDevicePrimaryCtxRetain(void **, int);
int cuCtxSetCurrent(void *);
int ncclGetUniqueId(id *);
int ncclCommInitRank(void **, int, id, int);
int ncclAllReduce(const void *, void *, size_t, int, int, void *, void *);
}

using std::chrono::steady_clock;
static const auto SHORT = std::chrono::milliseconds(200);

static double kernel_now() {
    timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return double(now.tv_sec) + double(now.tv_nsec) / 1e9;
}

template <class Wait> static double took(Wait wait) {
    double began = kernel_now();
    wait();
    return kernel_now() - began;
}

int main() {
    void *context, *communicator;
    id unique;
    if (cuInit(0) || cuDevicePrimaryCtxRetain(&context, 0) || cuCtxSetCurrent(context)) return 2;
    if (ncclGetUniqueId(&unique) || ncclCommInitRank(&communicator, 1, unique, 0)) return 3;
    std::mutex mutex;
    std::timed_mutex timed;
    std::condition_variable changed;
    std::promise<int> promise;
    auto future = promise.get_future();
    std::promise<void> taken;
    std::thread holder([&] { timed.lock(), taken.set_value(), std::this_thread::sleep_for(std::chrono::hours(1)); });
    taken.get_future().wait();
    const auto began = steady_clock::now();
    std::string line;
    for (std::printf("ready\n"), std::fflush(stdout); std::getline(std::cin, line);) {
        if (ncclAllReduce(nullptr, nullptr, 1, 7, 0, communicator, nullptr)) return 4;
        std::unique_lock<std::mutex> lock(mutex);
        double condition = took([&] { changed.wait_for(lock, SHORT, [] { return false; }); });
        double result = took([&] { future.wait_for(SHORT); });
        double locked = took([&] { timed.try_lock_for(SHORT); });
        double age = std::chrono::duration<double>(steady_clock::now() - began).count();
        std::printf("%f %f %f %f\n", age, condition, result, locked);
        std::fflush(stdout);
    }
    std::_Exit(0);
}
