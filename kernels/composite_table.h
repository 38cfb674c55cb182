// Which of the tables of composite_rows.h is taken.
#pragma once

#include <string>

#include "composite_rows.h"

namespace picme::composite {

// The loops of that name (lanes.h) among those that this processor can run; "": the fastest.
const RowLoops& row_loops_for(const std::string& lanes);

}  // namespace picme::composite
