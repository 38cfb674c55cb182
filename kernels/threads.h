// Tasks that need nothing of each other, on the calling thread and as many others as pay.
#pragma once

#include <algorithm>
#include <atomic>
#include <cfenv>
#include <cstdint>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#ifdef __x86_64__
#include <xmmintrin.h>
#endif

namespace picme {

// Round to nearest and keep denormals while this lives, as docs/sampling.md has it; a program, or a
// library that was built with fast math, may have set the thread otherwise. On x86-64 that is one
// register; <cfenv> would save and set the old x87's too, which takes 0.2 us.
class DefaultFloats {
  public:
#ifdef __x86_64__
    DefaultFloats() : before_(_mm_getcsr()) {
        _mm_setcsr(0x1F80);  // to nearest, denormals kept, exceptions masked
    }
    ~DefaultFloats() { _mm_setcsr(before_); }
#else
    DefaultFloats() {
        std::fegetenv(&before_);
        std::fesetenv(FE_DFL_ENV);
    }
    ~DefaultFloats() { std::fesetenv(&before_); }
#endif
    DefaultFloats(const DefaultFloats&) = delete;
    DefaultFloats& operator=(const DefaultFloats&) = delete;

  private:
#ifdef __x86_64__
    unsigned int before_;
#else
    std::fenv_t before_;
#endif
};

// How many threads to take. asked: at least 1, or 0 for one per `worth` of `work`, but no more than
// the processor has. Starting a thread costs about as much as 10 us of work.
inline int64_t thread_count(int64_t asked, int64_t tasks, int64_t work, int64_t worth) {
    int64_t count = asked;
    if (asked == 0) {
        count = work / worth;
        if (count > 1) count = std::min<int64_t>(count, std::thread::hardware_concurrency());
    }
    return std::max<int64_t>(1, std::min(count, tasks));
}

// task(index, worker) for every index in 0 .. tasks - 1; worker, in 0 .. threads - 1, is the
// thread's number. task must not throw. Where the system refuses a thread, fewer do the work.
template <typename Task>
void run_tasks(int64_t tasks, int64_t threads, const Task& task) {
    std::atomic<int64_t> next{0};
    const auto work = [&](int64_t worker) {
        const DefaultFloats floats;
        for (int64_t i = next.fetch_add(1); i < tasks; i = next.fetch_add(1)) task(i, worker);
    };
    std::vector<std::thread> others;
    others.reserve(threads - 1);
    try {
        while (static_cast<int64_t>(others.size()) < threads - 1) {
            others.emplace_back(work, static_cast<int64_t>(others.size()) + 1);
        }
    } catch (...) {  // no thread to be had, or no memory for one
    }
    work(0);
    for (std::thread& other : others) other.join();
}

// run_tasks for steps that take memory: the first exception is thrown here, at the end.
template <typename Step>
void run_steps(int64_t steps, int64_t threads, const Step& step) {
    std::exception_ptr failed;
    std::mutex mutex;
    run_tasks(steps, std::max<int64_t>(1, std::min(threads, steps)), [&](int64_t i, int64_t) {
        try {
            step(i);
        } catch (...) {
            const std::lock_guard<std::mutex> lock(mutex);
            if (!failed) failed = std::current_exception();
        }
    });
    if (failed) std::rethrow_exception(failed);
}

}  // namespace picme
