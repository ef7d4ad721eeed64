// Block-sparse 2-D convolution of 8-bit images, NCHW, without im2col in memory.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/conv.h"
#include "kernels/int8_spmm.h"

namespace pysim {

/// A convolution for one image size, ready to run any number of times, from several threads at once.
/// Immutable.
///
/// As in ConvPlan an image is copied into padded planes, one for each channel and phase of the stride, in
/// which every kernel tap is a constant offset; padding holds the input's zero point. The planes' rows follow
/// each other, so one image is one run of columns. Its quads are packed from the planes panel by panel, tap
/// by tap.
class Int8ConvPlan {
 public:
  /// One matrix per group; the options' vectors are those of all groups. Throws std::invalid_argument if
  /// shapes disagree, the image is too small for the kernel, the planes exceed 2^31 - 1 elements; or as
  /// Int8SpmmPlan.
  Int8ConvPlan(const std::vector<Int8View>& groups, const ConvWindow& window, const Int8Options& options,
               std::int64_t height, std::int64_t width, const Int8Kernels& kernels, int threads);

  std::array<std::int64_t, 4> in_shape(std::int64_t batch) const {
    return {batch, channels_, size_[0], size_[1]};
  }
  std::array<std::int64_t, 4> out_shape(std::int64_t batch) const {
    return {batch, out_channels_, out_size_[0], out_size_[1]};
  }
  bool signed_input() const { return groups_.front().signed_input(); }
  Int8Output output() const { return groups_.front().output(); }

  /// x (batch, channels, height, width), y (batch, out channels, out height, out width); contiguous and
  /// apart. Exact.
  void run(const std::uint8_t* x, std::int64_t batch, void* y) const;

 private:
  /// One phase of the stride that some kernel tap falls on: its first row and column in the padded image.
  struct Phase {
    std::int64_t row;
    std::int64_t col;
  };

  void fill_planes(const std::uint8_t* image, std::uint8_t* planes) const;
  void run_image(const std::uint8_t* image, char* y, int threads) const;

  ConvWindow window_;
  std::vector<Int8SpmmPlan> groups_;
  std::uint8_t zero_;  ///< The input's zero point, as a byte.
  std::int64_t channels_ = 0;
  std::int64_t out_channels_ = 0;
  Pair size_;
  Pair out_size_{};
  std::vector<Phase> phases_;
  Pair plane_size_{};
  bool direct_ = false;  ///< The image itself is the planes.
  int threads_;
};

}  // namespace pysim
