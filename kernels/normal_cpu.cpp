#include <algorithm>
#include <stdexcept>

#include "normal.h"
#include "threads.h"

namespace picme {
namespace {

constexpr int64_t kPiece = 1 << 14;        // numbers a task, a multiple of 4
constexpr int64_t kThreadWorth = 1 << 17;  // numbers: 50 us with AVX-512, 200 us without AVX

}  // namespace

void normal_cpu(const NormalParams& params, const LaneKernels& lanes, int64_t threads) {
    constexpr int64_t words = int64_t{1} << 32;
    const bool sizes = params.batch >= 0 && params.size >= 0 && params.size <= 4 * (words - 1);
    const bool range = params.k >= 1 && params.first >= 0 && params.first <= words - params.k;
    const bool place = params.place >= 0 && params.place < words;
    if (!sizes || !range || !place) {
        throw std::invalid_argument("normal: sizes, k, first or place out of range");
    }
    const int64_t pieces = (params.size + kPiece - 1) / kPiece;  // a sample
    const int64_t tasks = params.batch * params.k * pieces;
    threads = thread_count(threads, tasks, params.batch * params.k * params.size, kThreadWorth);
    run_tasks(tasks, threads, [&](int64_t i, int64_t) {
        const int64_t row = i / pieces, begin = i % pieces * kPiece;
        const Stream stream{params.seeds[row / params.k], static_cast<uint32_t>(params.place),
                            static_cast<uint32_t>(params.first + row % params.k)};
        float* eps = params.eps + row * params.size + begin;
        lanes.normal(stream, begin, eps, std::min(kPiece, params.size - begin));
    });
}

}  // namespace picme
