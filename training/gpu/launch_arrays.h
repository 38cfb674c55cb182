// Arrays of the launching programs: from a file to the device and back.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>

[[noreturn]] inline void fail(const char* message) {
    std::fprintf(stderr, "launch: %s\n", message);
    std::exit(1);
}

inline void check(cudaError_t code) {
    if (code != cudaSuccess) fail(cudaGetErrorString(code));
}

// `count` values of a file on the device, `before` others in front of them.
template <typename T>
T* filled(std::FILE* file, int64_t count, int64_t before = 0) {
    std::vector<T> host(count);
    if (std::fread(host.data(), sizeof(T), count, file) != host.size()) fail("INPUT is too short");
    T* device;
    check(cudaMalloc(&device, (before + count) * sizeof(T)));
    check(cudaMemcpy(device + before, host.data(), count * sizeof(T), cudaMemcpyHostToDevice));
    return device;
}

template <typename T>
T* poisoned(int64_t count) {
    T* device;
    check(cudaMalloc(&device, count * sizeof(T)));
    check(cudaMemset(device, 0xFF, count * sizeof(T)));
    return device;
}

template <typename T>
void written(std::FILE* file, const T* device, int64_t count) {
    std::vector<T> host(count);
    check(cudaMemcpy(host.data(), device, count * sizeof(T), cudaMemcpyDeviceToHost));
    if (std::fwrite(host.data(), sizeof(T), count, file) != host.size()) fail("OUTPUT: no room");
}
