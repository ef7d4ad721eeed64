// What kernels are given: tables that a plan made, and where the operands lie. Plain data, passed by value.
#pragma once

#include <cstdint>

#include "kernels/gpu/tile.h"
#include "kernels/int8_finish.h"

namespace pysim::gpu {

/// Slabs that one CTA works on; their panel of X comes in `chunks` pieces. Groups of one cluster have the
/// same chunks.
struct GroupEntry {
  std::int32_t slot_begin;
  std::int32_t slots;
  std::int32_t chunk_begin;
  std::int32_t chunks;
};

/// Part of a group's panel: octets of rows of X, behind one row of zeros.
struct ChunkEntry {
  std::int32_t octet_begin;
  std::int32_t octets;
};

/// A slab or, if its sum is divided, a part of one.
struct SlotEntry {
  std::int32_t first_row;
  std::int32_t rows;     ///< Rows to write, 1 to the slab's height.
  std::int32_t partial;  ///< Place of the partial sum in the workspace; -1 if the sum is whole.
  std::int32_t
      edge_begin;  ///< Its steps in chunk c of the group: edges[edge_begin + c] to edges[.. + c + 1].
};

/// A slab as the kernel for few columns sees it, undivided. Longest first.
struct SlabEntry {
  std::int32_t first_row;
  std::int32_t rows;
  std::int32_t step_begin;
  std::int32_t step_end;
};

/// What one CTA of that kernel does: slabs from `slab_begin` on, as many as it has times `share` warps.
struct DecodeEntry {
  std::int32_t slab_begin;
  std::int32_t share;  ///< Warps that divide the steps of one slab: a power of two, 1 to kDecodeWarps.
};

/// A slab whose sum is divided: partial sums to be added in rising order.
struct SplitEntry {
  std::int32_t first_row;
  std::int32_t rows;
  std::int32_t partial_begin;
  std::int32_t partial_end;
};

/// How a CTA fetches its panel of X.
enum class Loading : std::int32_t {
  along_columns,         ///< 16 bytes of one row at a time, asynchronously.
  along_reduction,       ///< 16 bytes of one column at a time, through registers.
  elements_by_column,    ///< Single elements, neighbours along columns.
  elements_by_reduction  ///< Single elements, neighbours along the reduction.
};

/// X (k, n): a strided matrix, or the taps of a convolution over images.
///
/// For a convolution reduction element k is (tap, channel), channels fastest, and column n is (image, output
/// row, output column). Strides count elements, in i8 quads: so do k and channels.
struct XSource {
  const void* data;
  std::int64_t k;
  std::int64_t n;
  std::int64_t k_stride;  ///< From channel to channel for a convolution.
  std::int64_t n_stride;  ///< From pixel to pixel in a row for a convolution.
  std::int64_t row_stride;
  std::int64_t image_stride;
  std::int32_t channels;  ///< Input channels of all groups; 0 for a matrix.
  std::int32_t height, width;
  std::int32_t out_height, out_width;
  std::int32_t kernel_width;
  std::int32_t stride_y, stride_x;
  std::int32_t pad_y, pad_x;
  std::int32_t dilation_y, dilation_x;
  // Of i8 alone.
  std::uint32_t fill;  ///< Stands outside an image: four times the zero point.
  std::uint32_t flip;  ///< The bits that make signed bytes unsigned ones, 128 more.
};

template <Math kMath>
PYSIM_HD std::uint32_t fill_of(const XSource& x) {
  return kMath == Math::i8 ? x.fill : 0;
}
template <Math kMath>
PYSIM_HD std::uint32_t flip_of(const XSource& x) {
  return kMath == Math::i8 ? x.flip : 0;
}

/// Y (m, n), strides in elements.
struct Output {
  void* data;
  std::int64_t m_stride;
  std::int64_t n_stride;
};

/// Arguments of every kernel.
struct Arguments {
  const GroupEntry* groups;
  const ChunkEntry* chunks;
  const std::int32_t* octets;  ///< Row of X over kOctet.
  const SlotEntry* slots;
  const std::int32_t* edges;
  const std::uint16_t*
      panel_rows;                 ///< For every step and element its row in the chunk; 0 is the row of zeros.
  const std::int32_t* reduction;  ///< The same as a row of X; -1 is none.
  const SlabEntry* slabs;
  const DecodeEntry* decode;
  const SplitEntry* splits;
  const void* weights;        ///< Step after step, as weight_position says.
  const float* bias;          ///< (m) or null; null in i8.
  const std::int32_t* start;  ///< (m), in i8: added to every sum.
  Int8Finish int8;            ///< Of i8 alone.
  void* partials;             ///< (partials, height, n), float or, in i8, std::int32_t.
  XSource x;
  Output y;
  std::int64_t x_bytes;   ///< From x.data on, what may be read of X; the emulation holds the kernels to it.
  std::int64_t panels;    ///< ceil(n / columns of the kernel's panel).
  std::int64_t elements;  ///< Of the second pass: splits * height * n.
  std::int32_t slab_count;
  std::int32_t stages;       ///< Panels in shared memory, 1 or 2.
  std::int32_t stage_bytes;  ///< From one to the next.
  std::int32_t cluster;      ///< CTAs that share each fetched row of X; groups come in as many.
  std::int32_t height;
  Math math;
  Loading loading;
  bool relu;
};

/// What an address in X owes to its column alone, so that a thread that stays in a column divides only once.
struct ColumnPlace {
  std::int64_t offset;
  std::int64_t y;  ///< Of a convolution's first tap; may lie in the padding.
  std::int64_t x;
  bool inside;  ///< Whether there is such a column.
};

PYSIM_HD ColumnPlace column_place(const XSource& x, std::int64_t column) {
  if (column >= x.n) return {0, 0, 0, false};
  if (x.channels == 0) return {column * x.n_stride, 0, 0, true};
  const std::int64_t line = column / x.out_width;
  const std::int64_t image = line / x.out_height;
  return {image * x.image_stride, line % x.out_height * x.stride_y - x.pad_y,
          column % x.out_width * x.stride_x - x.pad_x, true};
}

/// Columns of X from `column` on, no more than a panel has.
PYSIM_HD int columns_from(const XSource& x, std::int64_t column) {
  const std::int64_t left = x.n - column;
  return left < kMostPanelColumns ? static_cast<int>(left) : kMostPanelColumns;
}

/// Offset in elements of X[k] in that column from x.data, or -1 where a zero stands: outside X and in the
/// padding. Divides in 32 bits, which GPUs do much faster.
PYSIM_HD std::int64_t x_offset(const XSource& x, const ColumnPlace& place, std::int64_t k) {
  if (k < 0 || k >= x.k || !place.inside) return -1;
  if (x.channels == 0) return place.offset + k * x.k_stride;
  const auto channels = static_cast<std::uint32_t>(x.channels);
  const auto kernel_width = static_cast<std::uint32_t>(x.kernel_width);
  const std::uint32_t tap = static_cast<std::uint32_t>(k) / channels;
  const std::int64_t channel = static_cast<std::uint32_t>(k) - tap * channels;
  const std::uint32_t tap_y = tap / kernel_width;
  const std::int64_t in_y = place.y + std::int64_t{tap_y} * x.dilation_y;
  const std::int64_t in_x = place.x + std::int64_t{tap - tap_y * kernel_width} * x.dilation_x;
  if (in_y < 0 || in_y >= x.height || in_x < 0 || in_x >= x.width) return -1;
  return place.offset + in_y * x.row_stride + in_x * x.n_stride + channel * x.k_stride;
}

}  // namespace pysim::gpu
