// The loops of the masked norms for every processor, four numbers at a time.
#define PICME_NORM_NUMBERS 4
#include "masked_norm_loops.h"

namespace picme {

extern const NormLoops k_norm_scalar;
constexpr NormLoops k_norm_scalar = norm_loops();

}  // namespace picme
