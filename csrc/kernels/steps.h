// The operators of a network that runs in planes.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "kernels/chunk_plan.h"

namespace pysim {

/// Vectors that start inside a plane may end this far behind the last one.
inline constexpr std::int64_t kPlaneSlack = 64;

/// An activation: its layout and where in the arena it begins.
struct Place {
  PlaneLayout layout;
  std::int64_t begin = 0;

  /// The first pixel's address.
  float* pixels(float* arena) const { return arena + begin + layout.first; }
};

/// Copies the caller's images into planes.
std::unique_ptr<const Step> make_input(const Place& to, std::int64_t images, const KernelTable& kernels);

/// Copies planes to the caller's images.
std::unique_ptr<const Step> make_output(const Place& from, std::int64_t images, const KernelTable& kernels);

/// Which phases of a stride are read: image rows p, p + stride, ... for vertical phase p, and so on.
struct Phases {
  Pair stride;
  std::vector<Pair> used;  ///< Vertical, horizontal; in rising order.
};

/// Sorts every channel's pixels by phase: channel p * channels + c holds phase used[p] of channel c.
std::unique_ptr<const Step> make_split(const Place& from, const Place& to, const Phases& phases,
                                       std::int64_t images);

/// `from` is what make_split returned if the stride is not 1, with its phases; `residual` may be null.
std::unique_ptr<const Step> make_conv(const Place& from, const Phases& phases, const Place* residual,
                                      const Place& to, std::shared_ptr<const ConvWeights> weights,
                                      std::int64_t images, const KernelTable& kernels);

std::unique_ptr<const Step> make_pool(const Place& from, const Place& to, const NetworkGraph::Node& node,
                                      std::int64_t images);

/// a + b, then ReLU perhaps; all three of one layout.
std::unique_ptr<const Step> make_add(const Place& a, const Place& b, const Place& to, bool relu);

std::unique_ptr<const Step> make_clamp(const Place& from, const Place& to, float low, float high);

std::unique_ptr<const Step> make_flatten(const Place& from, const Place& to, std::int64_t images);

/// The phase that the tap `at` (in image rows or columns from the output's own, possibly negative) falls on,
/// and by how many of the phase's rows or columns it is moved.
struct TapPlace {
  std::int64_t phase;
  std::int64_t shift;
};
inline TapPlace tap_place(std::int64_t at, std::int64_t stride) {
  const std::int64_t shift = at >= 0 ? at / stride : -((-at + stride - 1) / stride);
  return {at - shift * stride, shift};
}

}  // namespace pysim
