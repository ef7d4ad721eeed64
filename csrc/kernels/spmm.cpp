#include "kernels/spmm.h"

#include <algorithm>
#include <stdexcept>
#include <string>
#include <utility>

#include "base/check.h"
#include "kernels/thread_pool.h"

namespace pysim {
namespace {

// Below this many multiply-adds a second thread costs more than it saves (some microseconds to wake it).
constexpr std::int64_t kWorthAThread = 1 << 17;

// Columns that a gradient takes at one time: a few rows of X and dY of this length stay in the fastest cache.
constexpr std::int64_t kGradientColumns = 1024;

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
  if (weights == Weights::bfloat16) bfloat16_ = Bfloat16Weights(matrix_);
}

bool SpmmPlan::is_long(std::int64_t n) const {
  return n > 0 && matrix_.cost_before(matrix_.slab_count()) >= ceil_div(kWorthAThread, n);
}

void SpmmPlan::run(const float* x, std::int64_t x_pitch, std::int64_t n, const float* residual,
                   std::int64_t residual_pitch, float* y, std::int64_t y_pitch) const {
  if (n == 0) return;
  if (!bfloat16_.empty()) return run_bfloat16(x, x_pitch, n, residual, residual_pitch, y, y_pitch);
  const std::int64_t slabs = matrix_.slab_count();
  const std::int64_t panel = kernels_.tile_columns;
  const std::int64_t panels = ceil_div(n, panel);
  const int threads = is_long(n) ? threads_ : 1;

  const Epilogue epilogue{bias_.empty() ? nullptr : bias_.data(), residual, residual_pitch, relu_};
  const auto column = [&](std::int64_t begin, std::int64_t end) {
    kernels_.column(matrix_.places_of_slabs() + begin, end - begin, matrix_.weights(),
                    matrix_.indices().data(), kMostSideBySide, x, epilogue, y, y_pitch);
  };
  if (n == 1 && x_pitch == 1 && threads == 1) return column(0, slabs);
  // One panel of X stays in cache while every slab of the range passes over it.
  const auto multiply = [&](std::int64_t slab_begin, std::int64_t slab_end, std::int64_t panel_begin,
                            std::int64_t panel_end) {
    for (std::int64_t p = panel_begin; p < panel_end; ++p) {
      const std::int64_t begin = p * panel;
      const std::int64_t end = std::min(n, begin + panel);
      const ColumnRun run{begin, begin, end - begin};
      for (std::int64_t s = slab_begin; s < slab_end; ++s) {
        const std::int64_t row = matrix_.first_row(s);
        kernels_.slab(matrix_.slab(s), x, x_pitch, &run, 1, n - end, epilogue.from_row(row),
                      y + row * y_pitch, y_pitch);
      }
    }
  };
  const auto multiply_narrow = [&](std::int64_t slab_begin, std::int64_t slab_end) {
    for (std::int64_t s = slab_begin; s < slab_end; ++s) {
      const std::int64_t row = matrix_.first_row(s);
      kernels_.narrow(matrix_.slab(s), x, x_pitch, static_cast<int>(n), epilogue.from_row(row),
                      y + row * y_pitch, y_pitch);
    }
  };
  if (n <= kernels_.lanes) {
    const std::vector<std::int64_t> edges = split_by_cost(matrix_, threads);
    run_parallel(threads, threads, [&](std::int64_t task) {
      const auto i = static_cast<std::size_t>(task);
      if (n == 1 && x_pitch == 1) {
        column(edges[i], edges[i + 1]);
      } else {
        multiply_narrow(edges[i], edges[i + 1]);
      }
    });
  } else if (panels >= 2 * threads) {
    const std::int64_t tasks = std::min<std::int64_t>(panels, 4 * threads);
    run_parallel(threads, tasks, [&](std::int64_t task) {
      multiply(0, slabs, panels * task / tasks, panels * (task + 1) / tasks);
    });
  } else {
    const std::vector<std::int64_t> edges = split_by_cost(matrix_, threads);
    run_parallel(threads, threads, [&](std::int64_t task) {
      const auto i = static_cast<std::size_t>(task);
      multiply(edges[i], edges[i + 1], 0, panels);
    });
  }
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
  const std::vector<std::int64_t> edges = split_by_cost(matrix_, threads);
  run_parallel(threads, threads, [&](std::int64_t task) {
    const auto part = static_cast<std::size_t>(task);
    for (std::int64_t begin = 0; begin < n; begin += kGradientColumns) {
      const ColumnRun run{begin, begin, std::min(n - begin, kGradientColumns)};
      for (std::int64_t s = edges[part]; s < edges[part + 1]; ++s) {
        kernels_.gradient(matrix_.slab(s), x, x_pitch, &run, 1, dy + matrix_.first_row(s) * dy_pitch,
                          dy_pitch, sums.data() + matrix_.weights_before(s));
      }
    }
  });
  for (std::size_t i = 0; i < places.size(); ++i) values[places[i]] = sums[i];
}

}  // namespace pysim
