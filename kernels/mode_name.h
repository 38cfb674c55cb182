// The names that Python has for the sampler's modes.
#pragma once

#include <stdexcept>
#include <string>

#include "sample_gmm.h"

namespace picme {

// Throws std::invalid_argument, Python's ValueError.
inline Mode mode_from_name(const std::string& name) {
    if (name == "categorical") return Mode::categorical;
    if (name == "per_primitive") return Mode::per_primitive;
    if (name == "mean") return Mode::mean;
    throw std::invalid_argument("mode must be categorical, per_primitive or mean, got " + name);
}

}  // namespace picme
