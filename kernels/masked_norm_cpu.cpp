// Which loops of masked_norm.h run, and how the work is shared out.
#include <algorithm>

#include "lanes.h"
#include "masked_norm.h"
#include "threads.h"

namespace picme {

extern const NormLoops k_norm_scalar;
#ifdef PICME_X86
extern const NormLoops k_norm_avx2, k_norm_avx512;
#endif

namespace {

const NormLoops& loops_of(const std::string& lanes) {
    const std::string name = lane_kernels(lanes).name;
#ifdef PICME_X86
    if (name == "avx512") return k_norm_avx512;
    if (name == "avx2") return k_norm_avx2;
#endif
    return k_norm_scalar;
}

NormPart part_of(const NormPasses& passes, NormPass pass) {
    if (pass == NormPass::kForward) return passes.forward;
    return pass == NormPass::kBack ? passes.back : passes.tangent;
}

}  // namespace

void masked_norm_cpu(const NormParams& params, NormPass pass, const std::string& lanes,
                     int64_t threads) {
    const NormLoops& loops = loops_of(lanes);
    const NormPart wide = part_of(loops.wide[params.half], pass);
    const NormPart one = part_of(loops.one[params.half], pass);
    const int64_t groups = params.channels / kNormWide, rest = params.channels % kNormWide;
    const int64_t parts = groups + rest, tasks = params.batch * parts;
    run_tasks(tasks, std::max<int64_t>(1, std::min(threads, tasks)), [&](int64_t task, int64_t) {
        const int64_t picture = task / parts, part = task % parts;
        if (part < groups) {
            wide(params, picture, part * kNormWide);
        } else {
            one(params, picture, groups * kNormWide + part - groups);
        }
    });
}

}  // namespace picme
