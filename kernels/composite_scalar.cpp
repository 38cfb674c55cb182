#include "composite_loops.h"

namespace picme::composite {
extern const RowLoops k_scalar;
constexpr RowLoops k_scalar = row_loops<loops::PlainPack>("scalar");
}  // namespace picme::composite
