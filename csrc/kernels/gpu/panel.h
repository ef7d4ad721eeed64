// Fetching a panel of X into shared memory: which thread copies which bytes where.
#pragma once

#include <cstdint>

#include "kernels/gpu/arguments.h"

namespace pysim::gpu {

/// Copies that the panel of one chunk is made of: of 16 bytes each, or of single elements.
PYSIM_HD std::int64_t panel_items(Math math, Loading loading, int octets) {
  const std::int64_t elements = static_cast<std::int64_t>(octets) * kOctet * panel_columns(math);
  const bool whole = loading == Loading::along_columns || loading == Loading::along_reduction;
  return whole ? elements / (16 / element_bytes(math)) : elements;
}

/// One copy: X[k ...][column ...] to row `row` of the panel, byte `byte` of that row.
struct PanelItem {
  std::int64_t k;
  std::int64_t column;
  std::int32_t row;  ///< In the panel; row 0 is the zeros'.
  std::int32_t byte;
};

/// Item `item` of a chunk whose octets begin at `octets`, for the panel of columns from `first_column` on.
PYSIM_HD PanelItem panel_item(Math math, Loading loading, const std::int32_t* octets,
                              std::int64_t first_column, std::int64_t item) {
  const int columns = panel_columns(math);
  const int vector = 16 / element_bytes(math);
  std::int64_t row = 0;
  std::int64_t column = 0;
  switch (loading) {
    case Loading::along_columns:
      row = item / (columns / vector);
      column = item % (columns / vector) * vector;
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

/// Bytes at X[k][column] that may be read along columns, 0 to 16.
PYSIM_HD int readable_bytes(const XSource& x, Math math, std::int64_t k, std::int64_t column) {
  if (k >= x.k || column >= x.n) return 0;
  const std::int64_t left = (x.n - column) * element_bytes(math);
  return left < 16 ? static_cast<int>(left) : 16;
}

/// Makes one copy; `place` is that of the item's column. Cta's copy16 may finish later, and fills up with
/// zeros.
template <Math kMath, class Cta>
PYSIM_DEVICE void copy_item(Cta& cta, const XSource& x, Loading loading, const PanelItem& item,
                            const ColumnPlace& place, char* stage) {
  constexpr int bytes = element_bytes(kMath);
  constexpr int vector = 16 / bytes;
  const char* const data = static_cast<const char*>(x.data);
  char* const to = stage + item.row * panel_pitch(kMath) + item.byte;
  const std::uint32_t fill = fill_of<kMath>(x);
  const std::uint32_t flip = flip_of<kMath>(x);
  if (loading == Loading::along_columns) {  // never in i8, whose X has quads
    const int readable = readable_bytes(x, kMath, item.k, item.column);
    const std::int64_t offset = readable == 0 ? 0 : x_offset(x, place, item.k);
    cta.copy16(to, data + offset * bytes, readable);
  } else if (loading == Loading::along_reduction) {
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
