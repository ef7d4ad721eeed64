// A network for some images that pass through it together: where every activation lies, and what runs in
// turn.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "kernels/network.h"

namespace pysim {

/// Where the pixels of some images lie. Pixel (channel, image, row, column) is at
/// first + channel * plane + image * image_pitch + row * row_pitch + column, in elements.
///
/// Behind every row and every image there are zeros, as many as any reader's padding needs: the zeros behind
/// one row stand before the next, the rows of zeros behind one image above the next. So a kernel tap is a
/// constant offset into the planes, and rows follow each other closely enough to be computed as one run.
struct PlaneLayout {
  ImageShape shape{};
  std::int64_t row_pitch = 0;
  std::int64_t image_pitch = 0;
  std::int64_t plane = 0;
  std::int64_t first = 0;
  std::int64_t elements = 0;  ///< Of all, with what vectors may read before and behind.

  /// `gap_cols` zeros behind each row, `gap_rows` rows of zeros behind each image.
  PlaneLayout(const ImageShape& image, std::int64_t images, std::int64_t gap_rows, std::int64_t gap_cols);
  PlaneLayout() = default;

  friend bool operator==(const PlaneLayout&, const PlaneLayout&) = default;
};

/// What one call works on.
struct Frame {
  Images x;
  float* y;
  ImageOrder y_order;
  float* arena;
  int threads;
};

/// One operator of the plan, its places in the arena resolved.
class Step {
 public:
  virtual ~Step() = default;
  virtual void run(const Frame& frame) const = 0;
  /// A measure of its work: weights times vectors of columns, and once more the weights.
  virtual double cost() const { return 0.0; }
};

class ChunkPlan {
 public:
  /// Throws std::invalid_argument if activations exceed 2^31 - 1 elements.
  ChunkPlan(const NetworkGraph& graph, int output, std::int64_t images, const KernelTable& kernels);

  /// Of the arena, which is zero before the first run and belongs to this plan alone.
  std::int64_t elements() const { return elements_; }
  double cost_per_image() const;

  void run(const Frame& frame) const {
    for (const std::unique_ptr<const Step>& step : steps_) step->run(frame);
  }

 private:
  std::int64_t images_;
  std::int64_t elements_ = 0;
  std::vector<std::unique_ptr<const Step>> steps_;
};

}  // namespace pysim
