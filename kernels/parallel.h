// A loop whose steps are shared out between threads.
#pragma once

#include <atomic>
#include <cstdint>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

namespace picme {

// Calls step(0) to step(count - 1), each once, on at most `threads` threads, this one among them.
// The first exception of a step is thrown here once every thread has ended.
template <class Step>
void parallel_for(int64_t count, int64_t threads, const Step& step) {
    std::atomic<int64_t> next{0};
    std::exception_ptr failed;
    std::mutex mutex;
    const auto work = [&] {
        try {
            for (int64_t i; (i = next.fetch_add(1)) < count;) step(i);
        } catch (...) {
            const std::lock_guard<std::mutex> lock(mutex);
            if (!failed) failed = std::current_exception();
            next = count;
        }
    };
    std::vector<std::thread> others;
    try {
        for (int64_t i = 1; i < threads && i < count; ++i) others.emplace_back(work);
    } catch (const std::system_error&) {
        // the machine gives no more threads: those that run take the whole work
    }
    work();
    for (std::thread& other : others) other.join();
    if (failed) std::rethrow_exception(failed);
}

}  // namespace picme
