// The loops of the masked norms. Compiled with -mavx2, called where it runs.
#define PICME_NORM_NUMBERS 8
#include "masked_norm_loops.h"

namespace picme {

extern const NormLoops k_norm_avx2;
constexpr NormLoops k_norm_avx2 = norm_loops();

}  // namespace picme
