// Float32 arrays of the caller, numpy's or torch's, as the core sees them. Nothing is copied or converted.
#pragma once

#include <pybind11/numpy.h>

#include <array>
#include <cstdint>
#include <string>

namespace pysim {

/// A strided float32 array on the CPU. Valid while `owner` lives and nobody resizes it.
struct FloatArray {
  static constexpr int kMostDims = 4;

  float* data = nullptr;
  int ndim = 0;
  std::array<std::int64_t, kMostDims> shape{};  ///< The first ndim; all of them if ndim is at most kMostDims.
  std::array<std::int64_t, kMostDims> strides{};  ///< In bytes.
  bool writeable = true;
  pybind11::object owner;

  std::int64_t size() const;
  /// "(2, 3)".
  std::string shape_text() const;
  /// Whether elements follow each other in the order of `axes`, the last fastest. Axes of one element do not
  /// matter.
  bool follows(const std::array<int, kMostDims>& axes) const;
  bool is_contiguous() const { return follows({0, 1, 2, 3}); }
};

/// The array behind a numpy array or a torch tensor. `where` begins the message if it is another type, dtype
/// or device (ShapeError), misaligned, or of other than `ndim` dimensions, which `shape` describes
/// (std::invalid_argument).
FloatArray read_array(pybind11::handle array, int ndim, const char* where, const char* shape);

/// Throws std::invalid_argument if the array is read-only. Torch's never are.
void require_writeable(const FloatArray& array, const char* where);

/// A new array of the kind of `like`, which read_array() has taken: numpy's or torch's. Its axes lie in
/// memory in the order of `axes`.
FloatArray new_array(pybind11::handle like, int ndim,
                     const std::array<std::int64_t, FloatArray::kMostDims>& shape,
                     const std::array<int, FloatArray::kMostDims>& axes = {0, 1, 2, 3});

/// Throws std::invalid_argument("where: expected `expected`, got an overlap") if the two share memory.
void require_apart(const FloatArray& a, const FloatArray& b, const char* where, const char* expected);

}  // namespace pysim
