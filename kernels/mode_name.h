// The names that Python has for the sampler's options.
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

// Likewise.
inline Rounding rounding_from_name(const std::string& name) {
    if (name == "float32") return Rounding::float32;
    if (name == "float16") return Rounding::float16;
    if (name == "bfloat16") return Rounding::bfloat16;
    throw std::invalid_argument("dtype must be float32, float16 or bfloat16, got " + name);
}

}  // namespace picme
