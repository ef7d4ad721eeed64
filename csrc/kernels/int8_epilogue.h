// What stands around the integer product: zero points, bias, scale and type of the result, checked against
// the weights and folded into where each row's sum starts and what is done to it when it is finished.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/bsr.h"
#include "kernels/int8_finish.h"

namespace pysim {

/// A BSR matrix of 8-bit weights in somebody else's memory.
struct Int8View {
  BsrView blocks;             ///< All but the values, which are null.
  const std::int8_t* values;  ///< (nnz_blocks, bh, bw), row-major.
};

struct Int8Options {
  bool signed_input = false;
  std::int32_t input_zero_point = 0;   ///< In the range of the input's type.
  std::vector<std::int32_t> sum_bias;  ///< (m) or empty; added to the sums.
  std::vector<float> scale;            ///< (m), finite; empty for int32 output.
  std::vector<float> bias;             ///< (m), finite, or empty; added after the scaling.
  Int8Output output = Int8Output::int32;
  std::int32_t output_zero_point = 0;  ///< In the range of the output's type, if that has 8 bits.
  bool relu = false;
};

/// The options as the kernels take them. Their inputs are unsigned: signed ones get 128 added on the way.
struct Int8Epilogue {
  /// Args: W, one matrix for each group of a convolution, one below the other.
  ///
  /// Throws std::invalid_argument if a view is broken, an option is out of range or of another length, or a
  /// sum may leave 32 bits.
  Int8Epilogue(const std::vector<Int8View>& groups, Int8Options options);

  std::int64_t m() const { return static_cast<std::int64_t>(start.size()); }

  bool signed_input;
  std::uint8_t zero;                ///< The input's zero point as the kernels see it.
  std::vector<std::int32_t> start;  ///< (m): integer bias less zero point x weights; may wrap, and back.
  std::vector<float> scale;         ///< (m), as is bias; both empty for int32 output.
  std::vector<float> bias;
  Int8Finish finish;  ///< Without its pointers.
};

}  // namespace pysim
