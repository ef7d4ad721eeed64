// The gradients of a convolution's input and weights.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "kernels/conv.h"

namespace pysim {

/// dX = W^T dY and dW = dY X^T at the kept weights, for one image size, ready to run any number of times,
/// from several threads at once. Immutable.
///
/// The mirror of ConvPlan: there, tap and pixel name an element of a phase plane of the input; here every
/// element of such a plane collects, from zero-padded planes of dY, what the taps of its phase made of it. So
/// dX is one product with the slab kernel per phase, and nothing is ever added to memory. Those planes of dY
/// have rows as far apart as the planes of X, so that dW too is sums along whole planes.
class ConvGradient {
 public:
  /// Throws std::invalid_argument if the planes exceed 2^31 - 1 elements, std::logic_error unless the weights
  /// are trainable.
  explicit ConvGradient(std::shared_ptr<const ConvPlan> forward);

  /// The same for other weights of the same structure.
  ConvGradient(const ConvGradient& like, std::shared_ptr<const ConvPlan> forward);

  /// dy (batch, out channels, out height, out width), dx (batch, channels, height, width), contiguous and
  /// apart. values[g][i] becomes the gradient of the weight of group g that values[g][i] is, zero where a
  /// ragged block leaves W; counts[g] of them. dx may be null, and so may x.data with values empty: then that
  /// gradient is not made. Where x is not finite, what is not may be more of dW than the taps that meet it.
  /// The bits of the result do not depend on the number of threads.
  void run(const float* dy, const Images& x, std::int64_t batch, float* dx, const std::vector<float*>& values,
           const std::vector<std::int64_t>& counts) const;

 private:
  /// The part of the input that one phase of the stride reads.
  struct Phase {
    std::int64_t first_col;  ///< Of the image: column j of the phase is first_col + j * stride.
    std::int64_t cols;
    std::vector<ColumnRun> rows;  ///< Where each row starts in the planes of dY; y is its row of the image.
    std::vector<std::vector<std::int32_t>> offsets;  ///< Of each group's elements.
  };
  struct Workspace;
  /// Some images of a batch, packed.
  struct Chunk {
    std::int64_t first;
    std::int64_t images;
    const float* x_planes;
    const float* dy_planes;
  };

  const ConvWeights& weights() const { return *forward_->weights(); }
  void find_phases();
  void find_runs();
  void pack(const float* dy, float* planes) const;
  Chunk pack(const float* dy, const Images& x, std::int64_t first, std::int64_t images) const;
  void multiply(std::size_t group, std::size_t phase, std::int64_t slab_begin, std::int64_t slab_end,
                const float* planes, float* dx) const;
  void multiply_rows(const Slab& slab, const Phase& phase, std::int64_t begin, std::int64_t end,
                     const float* planes, float* scratch, float* dx) const;
  void input_gradient(const float* planes, float* dx, int threads) const;
  void weight_gradient(const Chunk& chunk, float* sums, int threads) const;
  void run_images(const float* dy, const Images& x, std::int64_t begin, std::int64_t end, float* dx,
                  float* sums, int threads) const;

  std::shared_ptr<const ConvPlan> forward_;
  Pair size_;
  Pair out_size_;
  std::int64_t plane_rows_ = 0;
  std::int64_t plane_cols_ = 0;
  std::int64_t front_ = 0;  ///< Zeros before the first plane, for taps that reach before the image.
  std::int64_t plane_elements_ = 0;
  std::int64_t chunk_images_ = 1;      ///< Images whose planes stay in a thread's cache together.
  std::vector<ColumnRun> image_runs_;  ///< The pixels of a channel of dY, in the planes of X and of dY.
  std::vector<Phase> phases_;
  std::vector<std::int64_t> sums_before_;  ///< Of each group and all: packed weights of the groups before.
};

}  // namespace pysim
