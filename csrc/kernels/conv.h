// Block-sparse 2-D convolution without im2col, float32, NCHW.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "kernels/bsr.h"

namespace pysim {

/// The geometry of a convolution. Pairs are (vertical, horizontal).
struct ConvShape {
  std::int64_t channels;  ///< Input channels of all groups, a multiple of the number of groups.
  std::int64_t height;
  std::int64_t width;
  std::array<std::int64_t, 2> kernel;
  std::array<std::int64_t, 2> stride;
  std::array<std::int64_t, 2> padding;
  std::array<std::int64_t, 2> dilation;

  std::int64_t out_height() const { return out_size(height, 0); }
  std::int64_t out_width() const { return out_size(width, 1); }

  /// Throws std::invalid_argument if a field is out of range or nothing would come out.
  void check() const;

 private:
  std::int64_t out_size(std::int64_t size, std::size_t axis) const {
    return (size + 2 * padding[axis] - dilation[axis] * (kernel[axis] - 1) - 1) / stride[axis] + 1;
  }
};

/// A convolution for one image size, ready to run any number of times, from several threads at once.
/// Immutable.
///
/// The input is copied once into zero-padded planes, one for each channel and for each phase of the stride.
/// Then an input tap (channel, kernel row, kernel column) is a constant offset, and the convolution is the
/// same slab kernel as the matrix product, on runs of one output row each.
class ConvPlan {
 public:
  /// Args: one matrix per group, each (out channels / groups, kh * kw * channels / groups) with kh * kw
  /// positions. Throws std::invalid_argument if shapes disagree, a matrix is broken, or the planes exceed
  /// 2^31 - 1 elements.
  ConvPlan(const std::vector<BsrView>& groups, const ConvShape& shape, const std::vector<float>& bias,
           const KernelTable& kernels, int threads);

  const ConvShape& shape() const { return shape_; }
  std::int64_t out_channels() const { return out_channels_; }

  /// x (batch, channels, height, width), y (batch, out channels, out height, out width), both contiguous and
  /// apart. The bits of the result do not depend on the number of threads.
  void run(const float* x, std::int64_t batch, float* y) const;

 private:
  void pack_channels(const float* image, std::int64_t begin, std::int64_t end, float* planes) const;
  void multiply(std::size_t group, std::int64_t slab_begin, std::int64_t slab_end, std::int64_t row_begin,
                std::int64_t row_end, const float* planes, float* image_out) const;
  void run_image(const float* image, float* image_out, int threads) const;

  ConvShape shape_;
  std::vector<PackedMatrix> groups_;
  std::vector<float> bias_;
  const KernelTable& kernels_;
  std::int64_t out_channels_ = 0;
  int threads_;
  std::vector<std::int64_t> phase_rows_;  ///< Phases of the vertical stride that some kernel row falls on.
  std::vector<std::int64_t> phase_cols_;
  std::int64_t plane_rows_ = 0;
  std::int64_t plane_cols_ = 0;
  std::int64_t plane_elements_ =
      0;  ///< Of all planes of one image, with slack for a vector that starts at the end.
  std::vector<ColumnRun> rows_;  ///< One run per output row, or a single one where rows follow each other.
};

}  // namespace pysim
