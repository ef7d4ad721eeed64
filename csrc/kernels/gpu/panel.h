// Fetching a panel of X into shared memory: which thread copies which bytes where.
#pragma once

#include <cstdint>

#include "kernels/gpu/arguments.h"

namespace pysim::gpu {

/// Copies that the panel of one chunk is made of, but for those along columns: of 16 bytes, or of single
/// elements. A panel fits in shared memory, so that 32 bits hold their number.
PYSIM_HD std::uint32_t panel_items(Math math, Loading loading, int octets) {
  const auto elements = static_cast<std::uint32_t>(octets * kOctet * panel_columns(math));
  return loading == Loading::along_reduction ? elements / static_cast<std::uint32_t>(16 / element_bytes(math))
                                             : elements;
}

/// One copy: X[k ...][column] to row `row` of the panel, byte `byte` of that row.
struct PanelItem {
  std::int64_t k;
  std::int64_t column;
  std::int32_t row;  ///< In the panel; row 0 is the zeros'.
  std::int32_t byte;
};

/// Item `item` of a chunk whose octets begin at `octets`, for the panel of columns from `first_column` on.
PYSIM_HD PanelItem panel_item(Math math, Loading loading, const std::int32_t* octets,
                              std::int64_t first_column, std::uint32_t item) {
  const auto columns = static_cast<std::uint32_t>(panel_columns(math));
  const auto vector = static_cast<std::uint32_t>(16 / element_bytes(math));
  std::uint32_t row = 0;
  std::uint32_t column = 0;
  switch (loading) {
    case Loading::along_columns:  // has a loop of its own
      break;
    case Loading::along_reduction:  // Neighbouring threads store to neighbouring columns.
      row = item / columns * vector;
      column = item % columns;
      break;
    case Loading::elements_by_column:
      row = item / columns;
      column = item % columns;
      break;
    case Loading::elements_by_reduction:
      row = item / (kOctet * columns) * kOctet + item % kOctet;
      column = item / kOctet % columns;
      break;
  }
  const std::int64_t k = static_cast<std::int64_t>(octets[row / kOctet]) * kOctet + row % kOctet;
  return {k, first_column + column, static_cast<std::int32_t>(row) + 1,
          static_cast<std::int32_t>(column) * element_bytes(math)};
}

/// Bytes that may be read along columns from `column` on, 0 to 16.
PYSIM_HD int readable_bytes(const XSource& x, Math math, std::int64_t column) {
  const std::int64_t left = (x.n - column) * element_bytes(math);
  return left < 0 ? 0 : left < 16 ? static_cast<int>(left) : 16;
}

/// Copies a thread's share of the rows of a chunk, 16 bytes at a time, for X whose columns lie together. A
/// thread stays in its columns: a CTA has a multiple of as many threads as a row has copies. Cta's copy16 may
/// finish later, and fills up with zeros.
template <Math kMath, class Cta>
PYSIM_DEVICE void copy_along_columns(Cta& cta, const XSource& x, const std::int32_t* octets, int count,
                                     std::int64_t first_column, int thread, char* stage) {
  constexpr int bytes = element_bytes(kMath);
  constexpr int vectors = panel_columns(kMath) * bytes / 16;  // of a row
  const int vector = thread % vectors;
  const auto rows = static_cast<std::uint32_t>(count * kOctet);
  const auto step = static_cast<std::uint32_t>(cta.size() / vectors);
  const std::int64_t column = first_column + vector * (16 / bytes);
  const int readable = readable_bytes(x, kMath, column);
  const char* const data = static_cast<const char*>(x.data);
  const char* const at_column = readable == 0 ? data : data + column * bytes;
  const std::int64_t stride = x.k_stride * bytes;
  char* to = stage + (1 + thread / vectors) * panel_pitch(kMath) + vector * 16;  // behind the row of zeros
  for (auto row = static_cast<std::uint32_t>(thread / vectors); row < rows; row += step) {
    const auto k = static_cast<std::uint32_t>(octets[row / kOctet]) * kOctet + row % kOctet;
    const bool inside = k < static_cast<std::uint32_t>(x.k);  // The last octet may reach behind X.
    cta.copy16(to, inside ? at_column + k * stride : data, inside ? readable : 0);
    to += step * panel_pitch(kMath);
  }
}

/// Makes one copy; `place` is that of the item's column.
template <Math kMath, class Cta>
PYSIM_DEVICE void copy_item(Cta& cta, const XSource& x, Loading loading, const PanelItem& item,
                            const ColumnPlace& place, char* stage) {
  constexpr int bytes = element_bytes(kMath);
  constexpr int vector = 16 / bytes;
  const char* const data = static_cast<const char*>(x.data);
  char* const to = stage + item.row * panel_pitch(kMath) + item.byte;
  const std::uint32_t fill = fill_of<kMath>(x);
  const std::uint32_t flip = flip_of<kMath>(x);
  if (loading == Loading::along_reduction) {
    const std::int64_t first = x_offset(x, place, item.k);
    if (first >= 0 && item.k + vector <= x.k) {
      cta.template scatter16<bytes>(to, panel_pitch(kMath), data + first * bytes, flip);
    } else {
      for (int j = 0; j < vector; ++j) {
        const std::int64_t offset = x_offset(x, place, item.k + j);
        cta.template copy_element<bytes>(to + j * panel_pitch(kMath), data, offset, fill, flip);
      }
    }
  } else {
    cta.template copy_element<bytes>(to, data, x_offset(x, place, item.k), fill, flip);
  }
}

}  // namespace pysim::gpu
