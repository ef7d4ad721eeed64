#include "kernels/spmm.h"

#include <algorithm>
#include <stdexcept>
#include <string>
#include <utility>

#include "base/aligned.h"
#include "base/check.h"
#include "kernels/thread_pool.h"

namespace pysim {
namespace {

// Below this many multiply-adds a second thread costs more than it saves (some microseconds to wake it).
constexpr std::int64_t kWorthAThread = 1 << 17;

// Columns that a gradient takes at one time: a few rows of X and dY of this length stay in the fastest cache.
constexpr std::int64_t kGradientColumns = 1024;

// Tiles of a panel: with two, weights come from the fastest cache for the second, and panels of 24 columns
// do not end inside of cache lines.
constexpr std::int64_t kPanelTiles = 2;
// What those may take of the second cache, which weights and results pass through too.
constexpr std::int64_t kPanelBytes = 256 * 1024;
// Beyond this a packed panel is no nearer than X itself.
constexpr std::int64_t kMostPackedBytes = 1024 * 1024;
// Rows this far apart share a sixteenth of the places of the first cache, so what is not packed stays narrow.
constexpr std::int64_t kUnluckyPitch = 1024 / static_cast<std::int64_t>(sizeof(float));
// How often slabs have to read a panel for packing it to pay.
constexpr std::int64_t kPackingPays = 8;

}  // namespace

SpmmPlan::SpmmPlan(const BsrView& matrix, Form form, std::vector<float> bias, bool relu,
                   const KernelTable& kernels, int threads, Weights weights)
    : matrix_(form == Form::transposed ? PackedMatrix::transposed(matrix)
                                       : PackedMatrix(matrix, form == Form::trainable)),
      bias_(std::move(bias)),
      relu_(relu),
      kernels_(kernels),
      m_(form == Form::transposed ? matrix.grid.k : matrix.grid.m),
      k_(form == Form::transposed ? matrix.grid.m : matrix.grid.k),
      threads_(threads) {
  require(bias_.empty() || static_cast<std::int64_t>(bias_.size()) == m_, "spmm",
          "a bias of " + std::to_string(m_), std::to_string(bias_.size()));
  check_threads(threads, "spmm");
  for (std::int64_t s = 0; s < matrix_.slab_count(); ++s) loads_ += matrix_.slab(s).elements;
  if (weights == Weights::bfloat16) bfloat16_ = Bfloat16Weights(matrix_);
}

bool SpmmPlan::is_long(std::int64_t n) const {
  return n > 0 && matrix_.cost_before(matrix_.slab_count()) >= ceil_div(kWorthAThread, n);
}

void SpmmPlan::run(const float* x, std::int64_t x_pitch, std::int64_t n, const float* residual,
                   std::int64_t residual_pitch, float* y, std::int64_t y_pitch) const {
  if (n == 0) return;
  if (!bfloat16_.empty()) return run_bfloat16(x, x_pitch, n, residual, residual_pitch, y, y_pitch);
  const int threads = threads_for(n);
  const Epilogue epilogue{bias_.empty() ? nullptr : bias_.data(), residual, residual_pitch, relu_};
  const auto column = [&](std::int64_t begin, std::int64_t end) {
    kernels_.column(matrix_.places_of_slabs() + begin, end - begin, matrix_.weights(),
                    matrix_.indices().data(), kMostSideBySide, x, epilogue, y, y_pitch);
  };
  if (n == 1 && x_pitch == 1 && threads == 1) return column(0, matrix_.slab_count());
  if (n <= kernels_.lanes) {
    return for_parts(threads, [&](std::int64_t slab_begin, std::int64_t slab_end) {
      if (n == 1 && x_pitch == 1) return column(slab_begin, slab_end);
      for (std::int64_t s = slab_begin; s < slab_end; ++s) {
        const std::int64_t row = matrix_.first_row(s);
        kernels_.narrow(matrix_.slab(s), x, x_pitch, static_cast<int>(n), epilogue.from_row(row),
                        y + row * y_pitch, y_pitch);
      }
    });
  }
  for_panels(x, x_pitch, n, [&](const Panel& panel, std::int64_t slab_begin, std::int64_t slab_end) {
    for (std::int64_t s = slab_begin; s < slab_end; ++s) {
      const std::int64_t row = matrix_.first_row(s);
      kernels_.slab(matrix_.slab(s), panel.x, panel.pitch, &panel.run, 1, panel.readable,
                    epilogue.from_row(row), y + row * y_pitch, y_pitch);
    }
  });
}

void SpmmPlan::for_parts(int threads, const SlabWork& work) const {
  const std::vector<std::int64_t> edges = split_by_cost(matrix_, threads);
  run_parallel(threads, threads, [&](std::int64_t task) {
    const auto i = static_cast<std::size_t>(task);
    work(edges[i], edges[i + 1]);
  });
}

void SpmmPlan::for_panels(const float* x, std::int64_t x_pitch, std::int64_t n, const PanelWork& work) const {
  constexpr auto bytes = static_cast<std::int64_t>(sizeof(float));
  const std::int64_t slabs = matrix_.slab_count();
  const std::int64_t tile = kernels_.tile_columns;
  const std::int64_t tiles = ceil_div(n, tile);
  const int threads = threads_for(n);
  const bool divides_columns = tiles >= 2 * threads;
  const std::int64_t parts = divides_columns ? 1 : threads;
  // Rows of X may lie so far apart, or so unluckily, that they compete for few places of the caches; a panel
  // whose rows follow each other never does.
  const bool fits = k_ <= kPanelBytes / (kPanelTiles * tile * bytes);
  const bool packs = loads_ / parts >= kPackingPays * k_ &&
                     k_ <= kMostPackedBytes / ((fits ? kPanelTiles : 1) * tile * bytes);
  const std::int64_t together = fits && (packs || x_pitch % kUnluckyPitch != 0) ? kPanelTiles : 1;
  // One panel stays in cache while every slab of the range passes over it.
  const auto multiply = [&](std::int64_t slab_begin, std::int64_t slab_end, std::int64_t tile_begin,
                            std::int64_t tile_end) {
    thread_local AlignedFloats packed;
    for (std::int64_t t = tile_begin; t < tile_end; t += together) {
      const std::int64_t begin = t * tile;
      const std::int64_t end = std::min(n, std::min(t + together, tile_end) * tile);
      if (!packs) {
        work({x, x_pitch, {begin, begin, end - begin}, n - end}, slab_begin, slab_end);
        continue;
      }
      const std::int64_t pitch = ceil_div(end - begin, kernels_.lanes) * kernels_.lanes;
      const auto size = static_cast<std::size_t>(k_ * pitch);
      if (packed.size() < size) packed.resize(size);
      kernels_.copy_rows(x + begin, x_pitch, packed.data(), pitch, k_, end - begin);
      // A last vector in part is read whole: the row has room for it.
      work({packed.data(), pitch, {0, begin, end - begin}, kernels_.lanes}, slab_begin, slab_end);
    }
  };
  if (!divides_columns) {
    return for_parts(threads, [&](std::int64_t slab_begin, std::int64_t slab_end) {
      multiply(slab_begin, slab_end, 0, tiles);
    });
  }
  const std::int64_t tasks = threads == 1 ? 1 : std::min<std::int64_t>(tiles, 4 * threads);
  run_parallel(threads, tasks, [&](std::int64_t task) {
    multiply(0, slabs, tiles * task / tasks, tiles * (task + 1) / tasks);
  });
}

void SpmmPlan::weight_gradient(const float* dy, std::int64_t dy_pitch, const float* x, std::int64_t x_pitch,
                               std::int64_t n, float* values, std::int64_t count) const {
  const std::int64_t slabs = matrix_.slab_count();
  const std::vector<std::int64_t>& places = matrix_.places();
  if (static_cast<std::int64_t>(places.size()) != matrix_.weights_before(slabs))
    throw std::logic_error("spmm: the plan was not made for gradients");
  std::fill(values, values + count, 0.0F);
  std::vector<float> sums(places.size(), 0.0F);
  const bool alone = matrix_.cost_before(slabs) < ceil_div(kWorthAThread, std::max<std::int64_t>(n, 1));
  const int threads = alone ? 1 : threads_;
  for_parts(threads, [&](std::int64_t slab_begin, std::int64_t slab_end) {
    for (std::int64_t begin = 0; begin < n; begin += kGradientColumns) {
      const ColumnRun run{begin, begin, std::min(n - begin, kGradientColumns)};
      for (std::int64_t s = slab_begin; s < slab_end; ++s) {
        kernels_.gradient(matrix_.slab(s), x, x_pitch, &run, 1, dy + matrix_.first_row(s) * dy_pitch,
                          dy_pitch, sums.data() + matrix_.weights_before(s));
      }
    }
  });
  for (std::size_t i = 0; i < places.size(); ++i) values[places[i]] = sums[i];
}

}  // namespace pysim
