#include "sim/memory_config.h"

#include <algorithm>
#include <string>
#include <vector>

#include "base/check.h"

namespace pysim {
namespace {

void require_within(std::int64_t value, std::int64_t least, std::int64_t most, const char* where) {
  require(value >= least && value <= most, where, std::to_string(least) + " to " + std::to_string(most),
          std::to_string(value));
}

/// Marks the input columns that output columns begin to end - 1 read.
void mark_columns(const ConvShape& shape, std::int64_t begin, std::int64_t end,
                  std::vector<std::uint8_t>& marks) {
  for (std::int64_t kernel = 0; kernel < shape.kernel_width; ++kernel) {
    for (std::int64_t column = begin; column < end; ++column) {
      const std::int64_t at = column * shape.stride_x - shape.padding_x + kernel * shape.dilation_x;
      if (at >= 0 && at < shape.width) marks[static_cast<std::size_t>(at)] = 1;
    }
  }
}

/// Distinct pixels of one image: output rows `first` to `last`, of which the first starts at column `left`
/// and the last ends before column `right`.
std::int64_t distinct_in_image(const ConvShape& shape, std::int64_t first, std::int64_t left,
                               std::int64_t last, std::int64_t right) {
  // A row of outputs reads one of three sets of columns: those of the first, the last or a whole row.
  const std::int64_t left_end = first == last ? right : shape.out_width;
  std::vector<std::uint8_t> marks(static_cast<std::size_t>(shape.width), 0);
  const auto marked = [&] { return static_cast<std::int64_t>(std::count(marks.begin(), marks.end(), 1)); };
  std::int64_t columns[4] = {};  // Of no set, the first row's, the last row's, both.
  mark_columns(shape, left, left_end, marks);
  columns[1] = marked();
  mark_columns(shape, 0, right, marks);
  columns[3] = marked();
  std::fill(marks.begin(), marks.end(), std::uint8_t{0});
  mark_columns(shape, 0, right, marks);
  columns[2] = marked();
  std::fill(marks.begin(), marks.end(), std::uint8_t{0});
  mark_columns(shape, 0, shape.out_width, marks);
  const std::int64_t whole = marked();

  std::vector<std::uint8_t> sets(static_cast<std::size_t>(shape.height), 0);
  for (std::int64_t row = first; row <= last; ++row) {
    const std::uint8_t set = row == first ? 1 : row == last ? 2 : 4;
    for (std::int64_t kernel = 0; kernel < shape.kernel_height; ++kernel) {
      const std::int64_t at = row * shape.stride_y - shape.padding_y + kernel * shape.dilation_y;
      if (at >= 0 && at < shape.height) sets[static_cast<std::size_t>(at)] |= set;
    }
  }
  std::int64_t pixels = 0;
  for (const std::uint8_t set : sets) pixels += set >= 4 ? whole : columns[set];
  return pixels;
}

}  // namespace

void MemoryConfig::check() const {
  require_within(input_capacity, 1, max_bytes, "memory input_bytes");
  require_within(weight_capacity, 1, max_bytes, "memory weight_bytes");
  require_within(output_capacity, 1, max_bytes, "memory output_bytes");
  require_within(bandwidth, 0, max_bytes << fraction_bits, "memory bandwidth");
  require_within(latency, 0, max_cycles, "memory latency");
  require_within(input_bits, 1, max_bits, "memory input_bits");
  require_within(weight_bits, 1, max_bits, "memory weight_bits");
  require_within(output_bits, 1, max_bits, "memory output_bits");
  require_within(accumulator_bits, 1, max_bits, "memory accumulator_bits");
  require_within(index_bits, 0, max_bits, "memory index_bits");
  dram.check();
}

void DramConfig::check() const {
  if (!present()) return;
  require_within(banks, 1, max_banks, "memory dram banks");
  require_within(burst_bytes, 1, max_burst_bytes, "memory dram burst_bytes");
  require_within(row_bytes, burst_bytes, max_row_bytes, "memory dram row_bytes");
  require(row_bytes % burst_bytes == 0, "memory dram row_bytes",
          "a multiple of " + std::to_string(burst_bytes), std::to_string(row_bytes));
  for (const std::int64_t time : {t_cl, t_rcd, t_rp, t_rfc})
    require_within(time, 0, max_cycles, "memory dram");
  require_within(t_refi, refresh_cycles() + 1, max_cycles, "memory dram t_refi");
}

void ConvShape::check(std::int64_t kernel_positions, std::int64_t n) const {
  if (!present()) return;
  constexpr std::int64_t most = std::int64_t{1} << 20;
  for (const std::int64_t side : {height, width, out_height, out_width, kernel_height, kernel_width, stride_y,
                                  stride_x, dilation_y, dilation_x}) {
    require_within(side, 1, most, "convolution");
  }
  require_within(padding_y, 0, most, "convolution padding");
  require_within(padding_x, 0, most, "convolution padding");
  require(kernel_height * kernel_width == kernel_positions, "convolution kernel",
          std::to_string(kernel_positions) + " positions", std::to_string(kernel_height * kernel_width));
  require(n % (out_height * out_width) == 0, "convolution outputs",
          "a divisor of " + std::to_string(n) + " positions", std::to_string(out_height * out_width));
}

std::int64_t ConvShape::distinct_pixels(std::int64_t begin, std::int64_t end) const {
  const std::int64_t image = out_height * out_width;
  const auto within = [&](std::int64_t from, std::int64_t to) {  // 0 <= from < to <= image
    const std::int64_t last = (to - 1) / out_width;
    return distinct_in_image(*this, from / out_width, from % out_width, last, to - last * out_width);
  };
  const std::int64_t first_image = begin / image;
  const std::int64_t last_image = (end - 1) / image;
  if (first_image == last_image) return within(begin - first_image * image, end - first_image * image);
  const std::int64_t head = within(begin - first_image * image, image);
  const std::int64_t tail = within(0, end - last_image * image);
  const std::int64_t whole = last_image - first_image > 1 ? within(0, image) : 0;
  return head + tail + (last_image - first_image - 1) * whole;
}

}  // namespace pysim
