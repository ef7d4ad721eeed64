// Block-sparse 2-D convolution without im2col, float32, on images in either order of axes.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "kernels/bsr.h"

namespace pysim {

using Pair = std::array<std::int64_t, 2>;  ///< Vertical, horizontal.

/// Which axis of contiguous images is the fastest: columns (NCHW) or channels (NHWC).
enum class ImageOrder { channels_first, channels_last };

/// Contiguous images of the caller.
struct Images {
  const float* data = nullptr;
  ImageOrder order = ImageOrder::channels_first;
};

/// How the kernel moves over the image.
struct ConvWindow {
  Pair kernel;
  Pair stride;
  Pair padding;
  Pair dilation;

  /// Image elements from the kernel's first tap to its last, both counted.
  std::int64_t reach(std::size_t axis) const { return dilation[axis] * (kernel[axis] - 1) + 1; }

  /// Throws std::invalid_argument if a field is out of range.
  void check() const;

  /// Size of the output. Throws std::invalid_argument if the image is empty, beyond 2^31 - 1 or too small.
  Pair out_size(const Pair& size) const;
};

/// The weights of a convolution, packed: what does not depend on the image. Immutable.
struct ConvWeights {
  /// Args: one matrix per group, each (out channels / groups, kh * kw * channels / groups) with kh * kw
  /// positions. Throws std::invalid_argument if shapes disagree or a matrix is broken.
  ConvWeights(const std::vector<BsrView>& matrices, const ConvWindow& kernel_window,
              std::vector<float> bias_or_none, bool relu_last, bool trainable);

  /// The same kept blocks of other values, one array for each group. Throws std::logic_error unless `like` is
  /// trainable.
  ConvWeights(const ConvWeights& like, const std::vector<const float*>& values);

  std::int64_t group_count() const { return static_cast<std::int64_t>(groups.size()); }

  ConvWindow window;
  std::int64_t channels = 0;      ///< Input channels of all groups.
  std::int64_t out_channels = 0;  ///< Of all groups.
  std::vector<PackedMatrix> groups;
  std::vector<float> bias;  ///< (out channels) or empty.
  bool relu;                ///< Whether ReLU comes last.
  /// Phases of the stride, vertical and horizontal, that some kernel tap falls on.
  std::vector<std::int64_t> phase_rows;
  std::vector<std::int64_t> phase_cols;
  /// If trainable, for each group and phase (row by row) the taps on that phase, transposed: one row for each
  /// input channel of the group.
  std::vector<std::vector<PackedMatrix>> transposed;

  /// Kernel positions whose input lies on a phase, in rising order.
  std::vector<std::int64_t> taps_of(std::int64_t phase_row, std::int64_t phase_col) const;
};

/// A convolution for one image size, ready to run any number of times, from several threads at once.
/// Immutable.
///
/// The input is copied once into zero-padded planes, one for each channel and for each phase of the stride.
/// Then an input tap (channel, kernel row, kernel column) is a constant offset, and the convolution is the
/// same slab kernel as the matrix product, on runs of one output row each.
class ConvPlan {
 public:
  /// Throws std::invalid_argument if the image is too small for the kernel, the planes exceed 2^31 - 1
  /// elements, or threads is not 1..kMaxThreads.
  ConvPlan(std::shared_ptr<const ConvWeights> weights, std::int64_t height, std::int64_t width,
           const KernelTable& kernels, int threads);

  std::array<std::int64_t, 4> in_shape(std::int64_t batch) const {
    return {batch, weights_->channels, size_[0], size_[1]};
  }
  std::array<std::int64_t, 4> out_shape(std::int64_t batch) const {
    return {batch, weights_->out_channels, out_size_[0], out_size_[1]};
  }

  /// The same for other weights of the same structure.
  ConvPlan(const ConvPlan& like, std::shared_ptr<const ConvWeights> weights);

  /// x (batch, channels, height, width); residual and y (batch, out channels, out height, out width); y apart
  /// from the others. The residual, whose data may be null, is added after the bias and before ReLU. The bits
  /// of the result depend neither on the number of threads nor on the orders.
  void run(const Images& x, std::int64_t batch, const Images& residual, float* y, ImageOrder y_order) const;

  /// Whether a call takes more than some microseconds.
  bool is_long(std::int64_t batch) const;

  // What the gradients take from it.

  const std::shared_ptr<const ConvWeights>& weights() const { return weights_; }
  const KernelTable& kernels() const { return kernels_; }
  int threads() const { return threads_; }
  /// Of the padded planes of one image.
  std::int64_t plane_elements() const { return plane_elements_; }
  /// Where in the planes each element of each slab of a group starts.
  const std::vector<std::int32_t>& offsets(std::size_t group) const { return offsets_[group]; }
  /// What decides where the zeros around the pixels are.
  const std::vector<std::int64_t>& zeros() const { return zeros_; }
  /// Writes those zeros.
  void clear_planes(float* planes) const;
  /// Writes the pixels of one image between them.
  void pack_image(const Images& image, float* planes) const;

 private:
  struct Workspace;
  /// The part of an image that a plane of one phase holds: rows top to bottom - 1 and columns first to last -
  /// 1 of the plane. Its pixel (row, column) is the image's (row * stride + row_shift, column * stride +
  /// col_shift).
  struct Inside {
    std::int64_t phase, top, bottom, row_shift, first, last, col_shift;
    bool empty() const { return top == bottom || first == last; }
  };

  void find_insides();
  void find_offsets();
  const float* pack(const Images& image, int threads) const;
  void pack_channels(const float* image, std::int64_t begin, std::int64_t end, bool zeros_are_there,
                     float* planes) const;
  void pack_rows(const float* image, std::int64_t part, std::int64_t parts, float* planes) const;
  void clear_around(const Inside& inside, float* plane) const;
  void take(const float* from, std::int64_t from_pitch, std::int64_t stride, float* to, std::int64_t rows,
            std::int64_t width) const;
  void multiply(std::size_t group, std::int64_t slab_begin, std::int64_t slab_end, std::int64_t row_begin,
                std::int64_t row_end, const float* planes, const Images& residual, float* image_out,
                ImageOrder order) const;
  void write_rows(const Slab& slab, std::int64_t channel, std::int64_t row_begin, std::int64_t row_end,
                  float* scratch, std::int64_t pitch, const Images& residual, float* image_out,
                  ImageOrder order) const;
  static float* scratch_of(std::int64_t columns);
  void run_image(const Images& image, const Images& residual, float* image_out, ImageOrder order,
                 int threads) const;

  std::shared_ptr<const ConvWeights> weights_;
  const KernelTable& kernels_;
  int threads_;
  Pair size_;
  Pair out_size_{};
  std::int64_t plane_rows_ = 0;
  std::int64_t plane_cols_ = 0;
  /// Of all planes of one image, with slack for a vector that starts at the end.
  std::int64_t plane_elements_ = 0;
  /// Of each group: where in the planes each element of each slab starts.
  std::vector<std::vector<std::int32_t>> offsets_;
  std::vector<Inside> insides_;      ///< Of each phase.
  std::vector<std::int64_t> zeros_;  ///< What decides where the zeros are; equal for layers of equal planes.
  std::int64_t image_work_ = 0;      ///< Multiply-adds of one image.
  bool merges_rows_ = false;         ///< Whether several rows are computed as one run.
  std::vector<ColumnRun> rows_;  ///< One run per output row, or a single one where rows follow each other.
};

}  // namespace pysim
