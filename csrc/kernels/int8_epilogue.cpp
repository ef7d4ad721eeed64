#include "kernels/int8_epilogue.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <utility>

#include "base/check.h"

namespace pysim {
namespace {

std::size_t index(std::int64_t i) { return static_cast<std::size_t>(i); }

void check_range(std::int64_t value, bool is_signed, const char* where) {
  const std::int64_t low = is_signed ? -128 : 0;
  require(value >= low && value <= low + 255, where,
          "from " + std::to_string(low) + " to " + std::to_string(low + 255), std::to_string(value));
}

void check_reals(const std::vector<float>& values, const char* where) {
  for (const float value : values)
    require(std::isfinite(value), where, "finite numbers", std::to_string(value));
}

void check_length(std::size_t length, std::int64_t m, const char* what) {
  require(static_cast<std::int64_t>(length) == m, "int8 spmm", std::string(what) + " of " + std::to_string(m),
          std::to_string(length));
}

/// A row's positive and its negative weights, added up.
struct RowSums {
  std::int64_t positive = 0;
  std::int64_t negative = 0;
};

void add_rows(const Int8View& matrix, std::vector<RowSums>& sums) {
  matrix.blocks.check();
  const BlockGrid& grid = matrix.blocks.grid;
  const auto first = static_cast<std::int64_t>(sums.size());
  sums.resize(index(first + grid.m));
  for (std::int64_t i = 0; i < grid.block_rows(); ++i) {
    for (std::int64_t b = matrix.blocks.row_ptr[i]; b < matrix.blocks.row_ptr[i + 1]; ++b) {
      const std::int64_t width =
          grid.col_end(matrix.blocks.col_idx[b]) - grid.col_begin(matrix.blocks.col_idx[b]);
      for (std::int64_t r = grid.row_begin(i); r < grid.row_end(i); ++r) {
        const std::int8_t* const weights = matrix.values + (b * grid.bh + r - grid.row_begin(i)) * grid.bw;
        RowSums& row = sums[index(first + r)];
        for (std::int64_t c = 0; c < width; ++c) (weights[c] > 0 ? row.positive : row.negative) += weights[c];
      }
    }
  }
}

}  // namespace

Int8Epilogue::Int8Epilogue(const std::vector<Int8View>& groups, Int8Options options)
    : signed_input(options.signed_input),
      zero(0),
      scale(std::move(options.scale)),
      bias(std::move(options.bias)) {
  std::vector<RowSums> sums;
  for (const Int8View& group : groups) add_rows(group, sums);
  const auto rows = static_cast<std::int64_t>(sums.size());
  check_range(options.input_zero_point, signed_input, "int8 spmm input zero point");
  if (!options.sum_bias.empty()) check_length(options.sum_bias.size(), rows, "a bias");
  const Int8Output output = options.output;
  if (output == Int8Output::int32) {
    require(scale.empty() && bias.empty(), "int8 spmm", "neither scale nor float bias for int32 output",
            "one");
  } else {
    check_length(scale.size(), rows, "a scale");
    check_reals(scale, "int8 spmm scale");
    if (!bias.empty()) check_length(bias.size(), rows, "a bias");
    check_reals(bias, "int8 spmm bias");
    if (bias.empty()) bias.assign(index(rows), -0.0F);
  }
  finish.output = output;
  finish.relu = options.relu;
  finish.low = options.relu ? 0.0F : -std::numeric_limits<float>::infinity();
  if (output == Int8Output::uint8 || output == Int8Output::int8) {
    check_range(options.output_zero_point, output == Int8Output::int8, "int8 spmm output zero point");
    const std::int32_t least = output == Int8Output::int8 ? -128 : 0;
    finish.zero_point = options.output_zero_point;
    finish.low = std::max(finish.low, static_cast<float>(least - finish.zero_point));
    finish.high = static_cast<float>(least + 255 - finish.zero_point);
  } else {
    require(options.output_zero_point == 0, "int8 spmm", "an output zero point for 8-bit output only",
            std::to_string(options.output_zero_point));
  }
  const std::int64_t zero_point = options.input_zero_point + (signed_input ? 128 : 0);
  zero = static_cast<std::uint8_t>(zero_point);
  start.resize(index(rows));
  for (std::int64_t r = 0; r < rows; ++r) {
    const auto [positive, negative] = sums[index(r)];
    const std::int64_t added = options.sum_bias.empty() ? 0 : options.sum_bias[index(r)];
    const std::int64_t most = added + positive * (255 - zero_point) - negative * zero_point;
    const std::int64_t least = added - positive * zero_point + negative * (255 - zero_point);
    const std::int64_t worst = most > -least ? most : least;
    require(
        most <= std::numeric_limits<std::int32_t>::max() && least >= std::numeric_limits<std::int32_t>::min(),
        "int8 spmm", "sums that fit in 32 bits",
        "up to " + std::to_string(worst) + " in row " + std::to_string(r));
    start[index(r)] = static_cast<std::int32_t>(added - zero_point * (positive + negative));
  }
}

}  // namespace pysim
