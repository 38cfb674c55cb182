// What every binding checks of its arrays, so that no wrong call can read outside one.
#pragma once

#include <pybind11/numpy.h>

#include <cstdint>
#include <initializer_list>
#include <string>

namespace picme {

// C-contiguous.
template <typename T>
using Array = pybind11::array_t<T, pybind11::array::c_style>;

inline void require(bool condition, const char* message) {
    if (!condition) throw pybind11::value_error(message);
}

inline void require(bool condition, const std::string& message) {
    require(condition, message.c_str());
}

// Whether its dtype is T in this machine's order of bytes.
template <typename T>
bool holds(const pybind11::array& array) {
    return pybind11::isinstance<pybind11::array_t<T>>(array);
}

// pybind11 takes an array at any address, C++ does not.
inline bool is_aligned(const pybind11::array& array) {
    return reinterpret_cast<uintptr_t>(array.data()) % array.dtype().alignment() == 0;
}

inline void require_aligned(std::initializer_list<const pybind11::array*> arrays) {
    for (const auto* array : arrays) require(is_aligned(*array), "arrays must be aligned");
}

}  // namespace picme
