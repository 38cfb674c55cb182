#include "lanes.h"

#include <stdexcept>

namespace picme {

const std::vector<const LaneKernels*>& lane_kernels() {
    static const std::vector<const LaneKernels*> tables = [] {
        std::vector<const LaneKernels*> found;
#ifdef PICME_X86
        // These ask the operating system too: it must keep the wide registers of a thread.
        const bool wide = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                          __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
        if (wide) found.push_back(&kAvx512Kernels);
        if (__builtin_cpu_supports("avx2")) found.push_back(&kAvx2Kernels);
#endif
        found.push_back(&kScalarKernels);
        return found;
    }();
    return tables;
}

const LaneKernels& lane_kernels(const std::string& name) {
    if (name.empty()) return *lane_kernels().front();
    for (const LaneKernels* table : lane_kernels()) {
        if (name == table->name) return *table;
    }
    throw std::invalid_argument("no lanes named " + name +
                                " here: lanes() has those of this processor");
}

}  // namespace picme
