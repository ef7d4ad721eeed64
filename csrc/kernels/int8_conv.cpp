#include "kernels/int8_conv.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <string>

#include "base/check.h"
#include "kernels/thread_pool.h"

namespace pysim {
namespace {

std::size_t index(std::int64_t i) { return static_cast<std::size_t>(i); }

/// Of the taps 0, dilation, 2 dilation ..., in rising order.
std::vector<std::int64_t> residues(std::int64_t taps, std::int64_t dilation, std::int64_t stride) {
  std::vector<std::int64_t> found;
  for (std::int64_t i = 0; i < taps; ++i) found.push_back(i * dilation % stride);
  std::sort(found.begin(), found.end());
  found.erase(std::unique(found.begin(), found.end()), found.end());
  return found;
}

std::int64_t place_of(const std::vector<std::int64_t>& sorted, std::int64_t value) {
  return std::lower_bound(sorted.begin(), sorted.end(), value) - sorted.begin();
}

template <class T>
std::vector<T> part(const std::vector<T>& all, std::int64_t begin, std::int64_t count) {
  if (all.empty()) return {};
  return {all.begin() + begin, all.begin() + begin + count};
}

void require_all(std::size_t length, std::int64_t m, const char* what) {
  require(length == 0 || static_cast<std::int64_t>(length) == m, "int8 convolution",
          std::string(what) + " of " + std::to_string(m), std::to_string(length));
}

std::uint8_t* memory_of(std::vector<std::uint8_t>& memory, std::int64_t bytes) {
  if (memory.size() < index(bytes)) memory = std::vector<std::uint8_t>(index(bytes));
  return memory.data();
}

}  // namespace

Int8ConvPlan::Int8ConvPlan(const std::vector<Int8View>& groups, const ConvWindow& window,
                           const Int8Options& options, std::int64_t height, std::int64_t width,
                           const Int8Kernels& kernels, int threads)
    : window_(window),
      zero_(static_cast<std::uint8_t>(options.input_zero_point)),
      size_{height, width},
      threads_(threads) {
  window.check();
  check_threads(threads, "int8 convolution");
  require(!groups.empty(), "int8 convolution", "at least one group", "none");
  const BlockGrid& first = groups.front().blocks.grid;
  const std::int64_t taps = window.kernel[0] * window.kernel[1];
  for (const Int8View& group : groups) {
    const BlockGrid& grid = group.blocks.grid;
    require(grid.positions == taps, "int8 convolution",
            "matrices of " + std::to_string(taps) + " kernel positions", std::to_string(grid.positions));
    require(grid.channels() == first.channels() && grid.m == first.m, "int8 convolution",
            "groups of equal size",
            std::to_string(grid.m) + " x " + std::to_string(grid.channels()) + " after " +
                std::to_string(first.m) + " x " + std::to_string(first.channels()));
  }
  const auto count = static_cast<std::int64_t>(groups.size());
  channels_ = count * first.channels();
  out_channels_ = count * first.m;
  require_all(options.sum_bias.size(), out_channels_, "a bias");
  require_all(options.bias.size(), out_channels_, "a bias");
  require_all(options.scale.size(), out_channels_, "a scale");
  out_size_ = window.out_size(size_);

  const std::vector<std::int64_t> rows = residues(window.kernel[0], window.dilation[0], window.stride[0]);
  const std::vector<std::int64_t> cols = residues(window.kernel[1], window.dilation[1], window.stride[1]);
  for (const std::int64_t row : rows) {
    for (const std::int64_t col : cols) phases_.push_back({row, col});
  }
  for (std::size_t axis = 0; axis < 2; ++axis)
    plane_size_[axis] = out_size_[axis] + (window.reach(axis) - 1) / window.stride[axis];
  direct_ = plane_size_ == size_ && phases_.size() == 1 && window.stride == Pair{1, 1} &&
            window.padding == Pair{0, 0};
  const double elements = static_cast<double>(phases_.size()) * static_cast<double>(channels_) *
                          static_cast<double>(plane_size_[0]) * static_cast<double>(plane_size_[1]);
  require(elements < 2147483647.0, "int8 convolution", "padded planes of fewer than 2^31 elements",
          std::to_string(elements));

  const std::int64_t plane = plane_size_[0] * plane_size_[1];
  for (std::int64_t g = 0; g < count; ++g) {
    Int8Options own = options;
    own.sum_bias = part(options.sum_bias, g * first.m, first.m);
    own.bias = part(options.bias, g * first.m, first.m);
    own.scale = part(options.scale, g * first.m, first.m);
    Int8SpmmPlan& spmm = groups_.emplace_back(groups[index(g)], std::move(own), kernels, threads);
    spmm.place_rows([&](std::int64_t k) {
      const std::int64_t tap = k / first.channels();
      const std::int64_t row = tap / window.kernel[1] * window.dilation[0];
      const std::int64_t col = tap % window.kernel[1] * window.dilation[1];
      const std::int64_t phase =
          place_of(rows, row % window.stride[0]) * static_cast<std::int64_t>(cols.size()) +
          place_of(cols, col % window.stride[1]);
      const std::int64_t channel = g * first.channels() + k % first.channels();
      return static_cast<std::int32_t>((phase * channels_ + channel) * plane +
                                       row / window.stride[0] * plane_size_[1] + col / window.stride[1]);
    });
  }
}

void Int8ConvPlan::fill_planes(const std::uint8_t* image, std::uint8_t* planes) const {
  const std::int64_t step = window_.stride[1];
  for (const Phase& phase : phases_) {
    // Columns of the plane that lie in the image, and where the first of them is there.
    const std::int64_t shift = phase.col - window_.padding[1];
    const std::int64_t begin = std::min(plane_size_[1], shift >= 0 ? 0 : ceil_div(-shift, step));
    const std::int64_t behind = size_[1] - shift;
    const std::int64_t end = std::clamp(behind <= 0 ? 0 : ceil_div(behind, step), begin, plane_size_[1]);
    for (std::int64_t c = 0; c < channels_; ++c) {
      for (std::int64_t i = 0; i < plane_size_[0]; ++i, planes += plane_size_[1]) {
        const std::int64_t row = i * window_.stride[0] + phase.row - window_.padding[0];
        if (row < 0 || row >= size_[0] || begin == end) {
          std::memset(planes, zero_, index(plane_size_[1]));
          continue;
        }
        const std::uint8_t* const from = image + (c * size_[0] + row) * size_[1];
        for (std::int64_t j = 0; j < begin; ++j) planes[j] = zero_;
        if (step == 1) {
          std::memcpy(planes + begin, from + shift + begin, index(end - begin));
        } else {
          for (std::int64_t j = begin; j < end; ++j) planes[j] = from[shift + j * step];
        }
        for (std::int64_t j = end; j < plane_size_[1]; ++j) planes[j] = zero_;
      }
    }
  }
}

void Int8ConvPlan::run_image(const std::uint8_t* image, char* y, int threads) const {
  thread_local std::vector<std::uint8_t> plane_memory, result_memory;
  const std::uint8_t* planes = image;
  if (!direct_) {
    const auto phases = static_cast<std::int64_t>(phases_.size());
    std::uint8_t* const filled =
        memory_of(plane_memory, phases * channels_ * plane_size_[0] * plane_size_[1]);
    fill_planes(image, filled);
    planes = filled;
  }
  const std::int64_t bytes = element_bytes(output());
  const std::int64_t pixels = out_size_[0] * out_size_[1];
  // From the first result to the last, with what lies between two rows of them.
  const std::int64_t run = (out_size_[0] - 1) * plane_size_[1] + out_size_[1];
  for (const Int8SpmmPlan& group : groups_) {
    if (run == pixels) {
      group.run(planes, 1, pixels, y, pixels, threads);
    } else {
      std::uint8_t* const results = memory_of(result_memory, group.m() * run * bytes);
      group.run(planes, 1, run, results, run, threads);
      for (std::int64_t r = 0; r < group.m() * out_size_[0]; ++r) {
        const std::int64_t channel = r / out_size_[0], row = r % out_size_[0];
        std::memcpy(y + r * out_size_[1] * bytes, results + (channel * run + row * plane_size_[1]) * bytes,
                    index(out_size_[1] * bytes));
      }
    }
    y += group.m() * pixels * bytes;
  }
}

void Int8ConvPlan::run(const std::uint8_t* x, std::int64_t batch, void* y) const {
  const std::int64_t in = channels_ * size_[0] * size_[1];
  const std::int64_t out = out_channels_ * out_size_[0] * out_size_[1] * element_bytes(output());
  char* const to = static_cast<char*>(y);
  double work = static_cast<double>(batch) * static_cast<double>(out_size_[0] * out_size_[1]);
  work *= static_cast<double>(groups_.front().cost()) * static_cast<double>(groups_.size());
  if (threads_ == 1 || batch < threads_ || work < static_cast<double>(kInt8WorthAThread)) {
    for (std::int64_t i = 0; i < batch; ++i) run_image(x + i * in, to + i * out, threads_);
    return;
  }
  run_parallel(threads_, batch, [&](std::int64_t i) { run_image(x + i * in, to + i * out, 1); });
}

}  // namespace pysim
