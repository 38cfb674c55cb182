// run_tasks where memory ends as threads are made: those that are there do the work.
#include <atomic>
#include <cstdlib>
#include <new>

#include "threads.h"

namespace {

std::atomic<int> left{-1};  // allocations, any number below 0

}  // namespace

void* operator new(std::size_t size) {
    void* found = left == 0 ? nullptr : std::malloc(size);
    if (!found) throw std::bad_alloc();
    if (left > 0) --left;
    return found;
}

void operator delete(void* memory) noexcept {
    std::free(memory);
}

void operator delete(void* memory, std::size_t) noexcept {
    std::free(memory);
}

int main() {
    for (const int allocations : {1, 2}) {  // the list of threads, and the first of two
        std::atomic<int> done{0};
        left = allocations;
        picme::run_tasks(8, 3, [&](int64_t, int64_t) { ++done; });
        left = -1;
        if (done != 8) return 1;
    }
    return 0;
}
