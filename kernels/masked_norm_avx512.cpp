// The loops of the masked norms. Compiled with -mavx512f, dq, bw and vl, called where they run.
#define PICME_NORM_NUMBERS 16
#include "masked_norm_loops.h"

namespace picme {

extern const NormLoops k_norm_avx512;
constexpr NormLoops k_norm_avx512 = norm_loops();

}  // namespace picme
