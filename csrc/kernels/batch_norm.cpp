#include "kernels/batch_norm.h"

#include <algorithm>

#include "base/block_grid.h"
#include "kernels/thread_pool.h"

namespace pysim {
namespace {

// Elements of one task: long enough to be worth handing out, short enough to share.
constexpr std::int64_t kTaskElements = 1 << 15;

/// body(plane): for every channel of every image.
template <class Body>
void for_planes(const NormShape& shape, int threads, const Body& body) {
  const std::int64_t planes = shape.planes();
  if (planes == 0 || shape.pixels == 0) return;
  const std::int64_t per_task = std::max<std::int64_t>(1, kTaskElements / shape.pixels);
  run_parallel(threads, ceil_div(planes, per_task), [&](std::int64_t task) {
    const std::int64_t end = std::min(planes, (task + 1) * per_task);
    for (std::int64_t plane = task * per_task; plane < end; ++plane) body(plane);
  });
}

/// body(begin, count, piece): for every piece of a plane; `piece` counts through all planes.
template <class Body>
void for_pieces(const NormShape& shape, std::int64_t plane, const Body& body) {
  std::int64_t piece = plane * ceil_div(shape.pixels, kNormPiece);
  for (std::int64_t done = 0; done < shape.pixels; done += kNormPiece)
    body(plane * shape.pixels + done, std::min(kNormPiece, shape.pixels - done), piece++);
}

std::size_t index(std::int64_t i) { return static_cast<std::size_t>(i); }

}  // namespace

NormStatistics norm_statistics(const float* x, const NormShape& shape, const NormRun& run) {
  const NormKernels& kernels = *run.kernels.norm;
  std::vector<NormMoments> moments(index(shape.planes() * ceil_div(shape.pixels, kNormPiece)));
  for_planes(shape, run.threads, [&](std::int64_t plane) {
    for_pieces(shape, plane, [&](std::int64_t begin, std::int64_t count, std::int64_t piece) {
      moments[index(piece)] = kernels.moments(x + begin, count);
    });
  });
  NormStatistics found{std::vector<double>(index(shape.channels)),
                       std::vector<double>(index(shape.channels))};
  for (std::int64_t plane = 0; plane < shape.planes(); ++plane) {
    for_pieces(shape, plane, [&](std::int64_t, std::int64_t count, std::int64_t piece) {
      const NormMoments& part = moments[index(piece)];
      found.means[index(plane % shape.channels)] +=
          static_cast<double>(part.mean) * static_cast<double>(count) + static_cast<double>(part.sum);
    });
  }
  for (double& mean : found.means) mean /= static_cast<double>(shape.count());
  for (std::int64_t plane = 0; plane < shape.planes(); ++plane) {
    for_pieces(shape, plane, [&](std::int64_t, std::int64_t count, std::int64_t piece) {
      // (x - mean)^2 = (d + moved)^2, where d is the distance from the piece's own mean.
      const NormMoments& part = moments[index(piece)];
      const std::size_t channel = index(plane % shape.channels);
      const double moved = static_cast<double>(part.mean) - found.means[channel];
      found.squares[channel] += static_cast<double>(part.squares) +
                                2 * moved * static_cast<double>(part.sum) +
                                moved * moved * static_cast<double>(count);
    });
  }
  for (double& squares : found.squares) squares = squares < 0 ? 0.0 : squares;
  return found;
}

void normalize(const float* x, const NormShape& shape, const std::vector<NormChannel>& channels,
               const float* residual, bool relu, float* y, const NormRun& run) {
  for_planes(shape, run.threads, [&](std::int64_t plane) {
    const std::int64_t begin = plane * shape.pixels;
    run.kernels.norm->normalize(x + begin, shape.pixels, channels[index(plane % shape.channels)],
                                residual == nullptr ? nullptr : residual + begin, relu, y + begin);
  });
}

NormGradientSums norm_gradient_sums(const float* dy, const float* x, const float* y, const NormShape& shape,
                                    const std::vector<NormChannel>& channels, ReluGradient relu,
                                    float* masked, const NormRun& run) {
  std::vector<std::array<float, 2>> parts(index(shape.planes() * ceil_div(shape.pixels, kNormPiece)));
  for_planes(shape, run.threads, [&](std::int64_t plane) {
    for_pieces(shape, plane, [&](std::int64_t begin, std::int64_t count, std::int64_t piece) {
      run.kernels.norm->gradient_sums(dy + begin, x + begin, y == nullptr ? nullptr : y + begin, count,
                                      channels[index(plane % shape.channels)], relu,
                                      masked == nullptr ? nullptr : masked + begin,
                                      parts[index(piece)].data());
    });
  });
  NormGradientSums found{std::vector<double>(index(shape.channels)),
                         std::vector<double>(index(shape.channels))};
  for (std::int64_t plane = 0; plane < shape.planes(); ++plane) {
    for_pieces(shape, plane, [&](std::int64_t, std::int64_t, std::int64_t piece) {
      const std::size_t channel = index(plane % shape.channels);
      found.sums[channel] += static_cast<double>(parts[index(piece)][0]);
      found.with_x[channel] += static_cast<double>(parts[index(piece)][1]);
    });
  }
  return found;
}

void norm_gradient(const float* dy, const float* x, const NormShape& shape,
                   const std::vector<NormChannel>& channels, const float* inverse_deviations,
                   ReluGradient relu, const NormGradientSums& sums, float* dx, const NormRun& run) {
  // dX = scale * (g - mean of g - (x - mean) / variance * mean of g (x - mean)).
  const auto count = static_cast<double>(shape.count());
  std::vector<NormGradient> gradients;
  for (std::size_t c = 0; c < channels.size(); ++c) {
    const auto scale = static_cast<double>(channels[c].scale);
    const auto inverse = static_cast<double>(inverse_deviations[c]);
    gradients.push_back({static_cast<float>(-scale * inverse * inverse * sums.with_x[c] / count),
                         static_cast<float>(-scale * sums.sums[c] / count)});
  }
  const ReluGradient left = relu == ReluGradient::of_result ? ReluGradient::none : relu;
  for_planes(shape, run.threads, [&](std::int64_t plane) {
    const std::int64_t begin = plane * shape.pixels;
    const std::size_t channel = index(plane % shape.channels);
    run.kernels.norm->gradient(dy + begin, x + begin, shape.pixels, channels[channel], left,
                               gradients[channel], dx + begin);
  });
}

}  // namespace pysim
