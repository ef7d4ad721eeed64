// The memory beside the array: three on-chip buffers and one off-chip channel, and how wide operands are.
#pragma once

#include <cstdint>

#include "base/block_grid.h"

namespace pysim {

/// What is off chip, with mode rowbuffer: banks that each hold one row open. See docs/machine.md, "DRAM
/// rows". Times are in array cycles.
struct DramConfig {
  std::int64_t banks = 0;        ///< 0: no rows are followed; every byte costs the same.
  std::int64_t row_bytes = 1;    ///< A multiple of `burst_bytes`.
  std::int64_t burst_bytes = 1;  ///< What one request moves, whole.
  std::int64_t t_cl = 0;         ///< From the end of a read to its data, beside the latency.
  std::int64_t t_rcd = 0;        ///< To open a row.
  std::int64_t t_rp = 0;         ///< To close one.
  std::int64_t t_rfc = 0;        ///< That a refresh takes; 0: there is none.
  std::int64_t t_refi = 1;       ///< From one refresh to the next.

  static constexpr std::int64_t max_banks = 4096;
  static constexpr std::int64_t max_row_bytes = std::int64_t{1} << 30;
  static constexpr std::int64_t max_burst_bytes = std::int64_t{1} << 16;
  static constexpr std::int64_t max_cycles = std::int64_t{1} << 30;  ///< Of every time.

  bool present() const { return banks > 0; }

  /// Cycles of each `t_refi` in which nothing else happens: all rows are closed, refreshed, opened again.
  std::int64_t refresh_cycles() const { return t_rfc == 0 ? 0 : t_rp + t_rfc + t_rcd; }

  /// Throws std::invalid_argument if it is present and a field is out of range.
  void check() const;
};

/// Capacities, the channel and operand widths. See docs/machine.md, "Memory".
struct MemoryConfig {
  std::int64_t input_capacity = 0;   ///< Bytes of the input buffer, at least 1.
  std::int64_t weight_capacity = 0;  ///< Bytes of the weight buffer, at least 1; indices are kept there too.
  std::int64_t output_capacity = 0;  ///< Bytes of the output buffer, at least 1; holds partial sums.
  std::int64_t bandwidth = 0;        ///< 2^-20 bytes per cycle; 0 is unlimited.
  std::int64_t latency = 0;          ///< Cycles from the end of a read on the channel to its data on chip.
  std::int64_t input_bits = 8;
  std::int64_t weight_bits = 8;
  std::int64_t output_bits = 8;
  std::int64_t accumulator_bits = 32;
  std::int64_t index_bits = 32;
  DramConfig dram{};

  static constexpr int fraction_bits = 20;                           ///< Of `bandwidth`.
  static constexpr std::int64_t max_bytes = std::int64_t{1} << 42;   ///< Of one transfer, one capacity.
  static constexpr std::int64_t max_cycles = std::int64_t{1} << 40;  ///< Of `latency`.
  static constexpr std::int64_t max_bits = 64;                       ///< Of every width.

  /// Throws std::invalid_argument if a field is out of range.
  void check() const;

  /// Whole cycles for which `bytes` occupy the channel: ceil(bytes / bandwidth), 0 if it is unlimited.
  std::int64_t channel_cycles(std::int64_t bytes) const {
    return bandwidth == 0 ? 0 : ceil_div(bytes << fraction_bits, bandwidth);
  }

  /// Cycles from the end of a read on the channel to its data on chip.
  std::int64_t read_latency() const { return latency + (dram.present() ? dram.t_cl : 0); }
};

/// Bytes of `elements` operands of `bits` each, packed, rounded up to whole bytes.
constexpr std::int64_t packed_bytes(std::int64_t elements, std::int64_t bits) {
  return ceil_div(elements * bits, 8);
}

/// The convolution behind a layer; all zero for a plain product.
struct ConvShape {
  std::int64_t height = 0, width = 0;          ///< Input pixels of one image.
  std::int64_t out_height = 0, out_width = 0;  ///< Output pixels of one image.
  std::int64_t kernel_height = 1, kernel_width = 1;
  std::int64_t stride_y = 1, stride_x = 1;
  std::int64_t padding_y = 0, padding_x = 0;
  std::int64_t dilation_y = 1, dilation_x = 1;

  bool present() const { return height > 0; }

  /// Throws std::invalid_argument unless it is the geometry of a product with these sizes.
  void check(std::int64_t kernel_positions, std::int64_t n) const;

  /// Input pixels of one channel that output positions begin to end - 1 read, each counted once. Positions
  /// run over images, rows and columns, columns fastest; padding is not read.
  std::int64_t distinct_pixels(std::int64_t begin, std::int64_t end) const;
};

}  // namespace pysim
