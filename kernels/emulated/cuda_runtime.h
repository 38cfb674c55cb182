// Enough of CUDA's runtime to run a kernel of ours on the host, where there is no GPU: a test of
// what a kernel computes and of its barriers, not of its speed.
//
//     c++ -std=c++17 -ffp-contract=off -x c++ -I kernels/emulated -I kernels some_cuda.cu ...
//
// A CUDA thread is a coroutine. A warp runs until all of it waits for the block, so warps are as
// far apart as the kernel's barriers allow: a missing one is read as old memory. Warps take their
// turns from the first on, with PICME_EMULATED_BACKWARDS from the last.
#pragma once

#include <ucontext.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __shared__ static
#define __launch_bounds__(...)

struct dim3 {
    unsigned x, y, z;
    dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

using cudaStream_t = struct CUstream_st*;
enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidConfiguration = 9 };
enum cudaMemcpyKind { cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost };

struct cudaLaunchConfig_t {
    dim3 gridDim, blockDim;
    size_t dynamicSmemBytes;
    cudaStream_t stream;
};

// CUDA's own names, set for the thread that runs.
inline dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace picme_emulated {

constexpr int kWarp = 32;
constexpr size_t kStack = 64 * 1024;

struct Barrier {
    int waiting = 0, passed = 0;
};

struct Thread {
    ucontext_t context;
    const Barrier* barrier = nullptr;  // where it waits, or waited last
    int passed = 0;                    // the barrier's count when it came
    bool done = false;

    bool may_run() const { return !done && !(barrier && barrier->passed == passed); }
};

struct Block {
    ucontext_t scheduler;
    std::vector<Thread> threads;
    std::vector<Barrier> warps;
    std::vector<uint64_t> exchanged;  // one word a thread, for shuffles and votes
    Barrier all;
    std::function<void()> body;
};

inline Block* block = nullptr;                 // the one that runs; blocks run one after another
inline std::vector<std::vector<char>> stacks;  // of its threads, kept for the next one

inline void wait(Barrier& barrier, int size) {
    Thread& thread = block->threads[threadIdx.x];
    thread.barrier = &barrier;
    thread.passed = barrier.passed;
    if (++barrier.waiting == size) {
        barrier.waiting = 0;
        ++barrier.passed;
    }
    if (!thread.may_run()) swapcontext(&thread.context, &block->scheduler);
}

inline void start() {
    block->body();
    block->threads[threadIdx.x].done = true;
}

// Runs a warp until all of it waits for others or is done; false if nothing could run.
inline bool run_warp(unsigned warp) {
    bool ran = false;
    for (bool again = true; again; ran |= again) {
        again = false;
        for (int lane = 0; lane < kWarp; ++lane) {
            threadIdx.x = warp * kWarp + lane;
            Thread& thread = block->threads[threadIdx.x];
            if (!thread.may_run()) continue;
            swapcontext(&block->scheduler, &thread.context);
            again = true;
        }
    }
    return ran;
}

inline void run_block() {
    const unsigned warps = blockDim.x / kWarp;
    block->threads = std::vector<Thread>(blockDim.x);
    block->warps = std::vector<Barrier>(warps);
    block->exchanged.assign(blockDim.x, 0);
    while (stacks.size() < blockDim.x) stacks.emplace_back(kStack);
    for (size_t i = 0; i < blockDim.x; ++i) {
        Thread& thread = block->threads[i];
        getcontext(&thread.context);
        thread.context.uc_stack.ss_sp = stacks[i].data();
        thread.context.uc_stack.ss_size = kStack;
        thread.context.uc_link = &block->scheduler;
        makecontext(&thread.context, start, 0);
    }
    for (bool again = true; again;) {
        again = false;
        for (unsigned i = 0; i < warps; ++i) {
#ifdef PICME_EMULATED_BACKWARDS
            again |= run_warp(warps - 1 - i);
#else
            again |= run_warp(i);
#endif
        }
    }
    for (const Thread& thread : block->threads) {
        if (thread.done) continue;
        std::fprintf(stderr, "a barrier waits for threads that never come\n");
        std::exit(1);
    }
}

template <typename T>
T shuffled(T value, int other) {
    static_assert(sizeof(T) <= sizeof(uint64_t), "one word a thread");
    const int thread = threadIdx.x, warp = thread / kWarp;
    std::memcpy(&block->exchanged[thread], &value, sizeof value);
    wait(block->warps[warp], kWarp);
    if (other >= 0 && other < kWarp) {
        std::memcpy(&value, &block->exchanged[warp * kWarp + other], sizeof value);
    }
    wait(block->warps[warp], kWarp);  // nobody writes again before all have read
    return value;
}

// How many threads of first .. first + count - 1 say yes; all of them ask.
inline int votes(bool mine, Barrier& barrier, int first, int count) {
    block->exchanged[threadIdx.x] = mine;
    wait(barrier, count);
    int found = 0;
    for (int i = 0; i < count; ++i) found += static_cast<int>(block->exchanged[first + i]);
    wait(barrier, count);  // nobody votes again before all have counted
    return found;
}

inline int lane() {
    return threadIdx.x % kWarp;
}

}  // namespace picme_emulated

inline void __syncthreads() {
    picme_emulated::wait(picme_emulated::block->all, blockDim.x);
}

inline int __syncthreads_or(int predicate) {
    return picme_emulated::votes(predicate, picme_emulated::block->all, 0, blockDim.x);
}

inline void __syncwarp() {
    picme_emulated::wait(picme_emulated::block->warps[threadIdx.x / picme_emulated::kWarp],
                         picme_emulated::kWarp);
}

inline int __any_sync(unsigned, int predicate) {
    const int warp = threadIdx.x / picme_emulated::kWarp;
    return picme_emulated::votes(predicate, picme_emulated::block->warps[warp],
                                 warp * picme_emulated::kWarp, picme_emulated::kWarp);
}

template <typename T>
T __shfl_sync(unsigned, T value, int lane) {
    return picme_emulated::shuffled(value, lane);
}

template <typename T>
T __shfl_xor_sync(unsigned, T value, int mask) {
    return picme_emulated::shuffled(value, picme_emulated::lane() ^ mask);
}

template <typename T>
T __shfl_down_sync(unsigned, T value, int distance) {
    return picme_emulated::shuffled(value, picme_emulated::lane() + distance);
}

// A launch has run when it returns. Whole warps alone: the kernels launch nothing else.
template <typename... Parameters, typename... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               Arguments... arguments) {
    const unsigned threads = config->blockDim.x;
    const bool whole = threads > 0 && threads <= 1024 && threads % picme_emulated::kWarp == 0;
    if (!whole || config->gridDim.x == 0 || config->gridDim.y == 0 || config->gridDim.y > 65535) {
        return cudaErrorInvalidConfiguration;
    }
    picme_emulated::Block block;
    picme_emulated::block = &block;
    block.body = [&] { kernel(arguments...); };
    blockDim = config->blockDim;
    gridDim = config->gridDim;
    for (blockIdx.y = 0; blockIdx.y < gridDim.y; ++blockIdx.y) {
        for (blockIdx.x = 0; blockIdx.x < gridDim.x; ++blockIdx.x) picme_emulated::run_block();
    }
    picme_emulated::block = nullptr;
    return cudaSuccess;
}

inline cudaError_t cudaGetLastError() {
    return cudaSuccess;
}
inline cudaError_t cudaDeviceSynchronize() {
    return cudaSuccess;
}
inline const char* cudaGetErrorString(cudaError_t) {
    return "invalid configuration argument";
}

template <typename T>
cudaError_t cudaMalloc(T** pointer, size_t bytes) {
    *pointer = static_cast<T*>(std::malloc(bytes));
    return cudaSuccess;
}

inline cudaError_t cudaFree(void* pointer) {
    std::free(pointer);
    return cudaSuccess;
}

inline cudaError_t cudaMemset(void* pointer, int value, size_t bytes) {
    std::memset(pointer, value, bytes);
    return cudaSuccess;
}

inline cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind) {
    std::memcpy(to, from, bytes);
    return cudaSuccess;
}
