// Checks of numpy arrays before the core sees their memory. They run before every product: text is made only
// when there is something to say.
#pragma once

#include <pybind11/numpy.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <string>
#include <tuple>
#include <utility>

#include "base/check.h"
#include "kernels/bsr.h"

namespace pysim {

using F32 = pybind11::array_t<float>;
using I32 = pybind11::array_t<std::int32_t>;
using I64 = pybind11::array_t<std::int64_t>;
using GridTuple = std::tuple<std::int64_t, std::int64_t, std::int64_t, std::int64_t, std::int64_t>;

inline void require_aligned(const pybind11::array& array, const char* where) {
  const auto bytes = static_cast<std::uintptr_t>(array.itemsize());
  if (reinterpret_cast<std::uintptr_t>(array.data()) % bytes != 0)
    require(false, where, "aligned memory", "an address that is not a multiple of " + std::to_string(bytes));
}

inline void require_contiguous(const pybind11::array& array, int ndim, const char* where) {
  if (array.ndim() != ndim) {
    require(false, where, std::to_string(ndim) + " dimensions", std::to_string(array.ndim()));
  }
  if ((array.flags() & pybind11::array::c_style) == 0)
    require(false, where, "a C-contiguous array", "another layout");
}

inline std::string shape_text(const std::int64_t* sizes, std::size_t count) {
  std::string text = "(";
  for (std::size_t i = 0; i < count; ++i) text.append(i == 0 ? "" : ", ").append(std::to_string(sizes[i]));
  return text.append(")");
}

inline void require_shape(const pybind11::array& array, const std::array<std::int64_t, 4>& shape,
                          const char* where) {
  if (!std::equal(shape.begin(), shape.end(), array.shape())) {
    const std::array<std::int64_t, 4> got{array.shape(0), array.shape(1), array.shape(2), array.shape(3)};
    require(false, where, shape_text(shape.data(), 4), shape_text(got.data(), 4));
  }
}

/// Elements from one row to the next of a matrix whose rows are contiguous and do not overlap.
inline std::int64_t row_pitch(const pybind11::array& a, std::int64_t rows, const char* where) {
  if (a.ndim() != 2 || a.shape(0) != rows) {
    require(false, where, "shape (" + std::to_string(rows) + ", n)",
            a.ndim() == 2 ? std::to_string(a.shape(0)) + " rows" : std::to_string(a.ndim()) + " dimensions");
  }
  require_aligned(a, where);
  const std::int64_t n = a.shape(1);
  const pybind11::ssize_t bytes = a.itemsize();
  if (n > 1 && a.strides(1) != bytes) {
    require(false, where, "contiguous rows", "a stride of " + std::to_string(a.strides(1)) + " bytes");
  }
  if (rows <= 1) return n;
  const pybind11::ssize_t stride = a.strides(0);
  if (stride % bytes != 0 || stride < n * bytes) {
    require(false, where, "rows that do not overlap", "a stride of " + std::to_string(stride) + " bytes");
  }
  return stride / bytes;
}

inline bool overlap(const pybind11::array& a, const pybind11::array& b) {
  const auto range = [](const pybind11::array& x) {
    const char* const begin = static_cast<const char*>(x.data());
    pybind11::ssize_t last = 0;
    for (pybind11::ssize_t i = 0; i < x.ndim(); ++i) last += (x.shape(i) - 1) * x.strides(i);
    return std::pair(begin, begin + last + x.itemsize());
  };
  if (a.size() == 0 || b.size() == 0) return false;
  const auto [a_begin, a_end] = range(a);
  const auto [b_begin, b_end] = range(b);
  return a_begin < b_end && b_begin < a_end;
}

inline void require_apart(const pybind11::array& a, const pybind11::array& b, const char* where,
                          const char* expected) {
  if (overlap(a, b)) require(false, where, expected, "an overlap");
}

/// All but the values. The view lives as long as the arrays do. Shapes are checked here, indices by the plan.
inline BsrView view_blocks(const GridTuple& grid, const I64& row_ptr, const I32& col_idx,
                           const pybind11::array& values) {
  const auto [m, k, positions, bh, bw] = grid;
  const BsrView view{{m, k, positions, bh, bw}, row_ptr.data(), col_idx.data(), nullptr, col_idx.size()};
  view.grid.check();
  require_contiguous(row_ptr, 1, "BSR row_ptr");
  require_contiguous(col_idx, 1, "BSR col_idx");
  require_contiguous(values, 3, "BSR values");
  require_aligned(values, "BSR values");
  require(row_ptr.size() == view.grid.block_rows() + 1, "BSR row_ptr",
          "length " + std::to_string(view.grid.block_rows() + 1), std::to_string(row_ptr.size()));
  require(values.shape(0) == col_idx.size() && values.shape(1) == bh && values.shape(2) == bw, "BSR values",
          "shape (" + std::to_string(col_idx.size()) + ", " + std::to_string(bh) + ", " + std::to_string(bw) +
              ")",
          "another");
  return view;
}

}  // namespace pysim
