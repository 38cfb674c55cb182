#include "composite_loops.h"

namespace picme::composite {
extern const RowLoops k_baseline;
constexpr RowLoops k_baseline = row_loops<loops::PlainPack>("baseline");
}  // namespace picme::composite
