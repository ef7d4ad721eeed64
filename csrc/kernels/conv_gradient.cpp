#include "kernels/conv_gradient.h"

#include <algorithm>
#include <limits>
#include <stdexcept>
#include <string>
#include <utility>

#include "base/check.h"
#include "kernels/thread_pool.h"

namespace pysim {
namespace {

// As in the forward direction.
constexpr std::int64_t kSlack = 64;
constexpr std::int64_t kWorthAThread = 1 << 17;

}  // namespace

ConvInputGradient::ConvInputGradient(std::shared_ptr<const ConvWeights> weights, std::int64_t height,
                                     std::int64_t width, const KernelTable& kernels, int threads)
    : weights_(std::move(weights)), kernels_(kernels), threads_(threads), size_{height, width} {
  if (weights_->transposed.empty())
    throw std::logic_error("convolution: the plan was not made for gradients");
  const ConvWindow& window = weights_->window;
  check_threads(threads, "convolution");
  out_size_ = window.out_size(size_);

  // Rows and columns that a tap is moved by at most: as many zeros surround dY. A plane's left margin is the
  // end of the row before, its upper one the end of the plane before.
  const std::int64_t margin_rows = (window.kernel[0] - 1) * window.dilation[0] / window.stride[0];
  const std::int64_t margin_cols = (window.kernel[1] - 1) * window.dilation[1] / window.stride[1];
  plane_rows_ = out_size_[0] + margin_rows;
  plane_cols_ = out_size_[1] + margin_cols;
  front_ = margin_rows * plane_cols_ + margin_cols;
  const double elements = static_cast<double>(weights_->out_channels) * static_cast<double>(plane_rows_) *
                              static_cast<double>(plane_cols_) +
                          static_cast<double>(front_);
  require(elements < static_cast<double>(std::numeric_limits<std::int32_t>::max() - kSlack), "convolution",
          "padded planes of fewer than 2^31 elements", std::to_string(elements));
  const std::int64_t plane = plane_rows_ * plane_cols_;
  plane_elements_ = front_ + weights_->out_channels * plane + kSlack;

  const std::int64_t group_out = weights_->out_channels / weights_->group_count();
  std::size_t phase_index = 0;
  for (const std::int64_t phase_row : weights_->phase_rows) {
    for (const std::int64_t phase_col : weights_->phase_cols) {
      Phase phase;
      // Plane row r is image row r * stride + shift; likewise columns. Those outside of the image are left
      // out.
      const Pair shift{phase_row - window.padding[0], phase_col - window.padding[1]};
      const auto first_inside = [&](std::size_t axis) {
        return shift[axis] >= 0 ? 0 : ceil_div(-shift[axis], window.stride[axis]);
      };
      const auto inside_end = [&](std::size_t axis, std::int64_t planes_end) {
        const std::int64_t left = size_[axis] - shift[axis];
        return left <= 0 ? 0 : std::min(planes_end, ceil_div(left, window.stride[axis]));
      };
      const std::int64_t first_col = first_inside(1);
      phase.first_col = first_col * window.stride[1] + shift[1];
      phase.cols = std::max<std::int64_t>(0, inside_end(1, plane_cols_) - first_col);
      for (std::int64_t r = first_inside(0); phase.cols > 0 && r < inside_end(0, plane_rows_); ++r) {
        phase.rows.push_back({r * plane_cols_ + first_col, r * window.stride[0] + shift[0], phase.cols});
      }
      const std::vector<std::int64_t> taps = weights_->taps_of(phase_row, phase_col);
      for (std::int64_t g = 0; g < weights_->group_count(); ++g) {
        std::vector<std::int32_t>& starts = phase.offsets.emplace_back();
        for (const std::int32_t index :
             weights_->transposed[static_cast<std::size_t>(g)][phase_index].indices()) {
          const std::int64_t tap = taps[static_cast<std::size_t>(index / group_out)];
          const std::int64_t row = tap / window.kernel[1] * window.dilation[0] / window.stride[0];
          const std::int64_t col = tap % window.kernel[1] * window.dilation[1] / window.stride[1];
          const std::int64_t channel = g * group_out + index % group_out;
          starts.push_back(static_cast<std::int32_t>(front_ + channel * plane - row * plane_cols_ - col));
        }
      }
      phases_.push_back(std::move(phase));
      ++phase_index;
    }
  }
}

void ConvInputGradient::pack(const float* dy, float* planes) const {
  std::fill(planes, planes + plane_elements_, 0.0F);
  for (std::int64_t o = 0; o < weights_->out_channels; ++o) {
    for (std::int64_t r = 0; r < out_size_[0]; ++r) {
      const float* const from = dy + (o * out_size_[0] + r) * out_size_[1];
      std::copy(from, from + out_size_[1], planes + front_ + (o * plane_rows_ + r) * plane_cols_);
    }
  }
}

void ConvInputGradient::multiply(std::size_t group, std::size_t phase_index, std::int64_t slab_begin,
                                 std::int64_t slab_end, const float* planes, float* dx) const {
  const Phase& phase = phases_[phase_index];
  const PackedMatrix& matrix = weights_->transposed[group][phase_index];
  const std::int64_t pixels = size_[0] * size_[1];
  const std::int64_t stride = weights_->window.stride[1];
  const std::int64_t first_channel =
      static_cast<std::int64_t>(group) * (weights_->channels / weights_->group_count());
  const auto rows = static_cast<std::int64_t>(phase.rows.size());
  const std::int64_t size = rows * phase.cols;
  // With a horizontal stride, neighbours of a phase are not neighbours in the image: results go there one by
  // one.
  std::vector<float> apart(stride == 1 ? 0 : static_cast<std::size_t>(kSlabRows * size));
  std::vector<ColumnRun> runs = phase.rows;
  for (std::int64_t r = 0; r < rows; ++r) {
    ColumnRun& run = runs[static_cast<std::size_t>(r)];
    run.y = stride == 1 ? run.y * size_[1] + phase.first_col : r * phase.cols;
  }
  for (std::int64_t s = slab_begin; s < slab_end; ++s) {
    const Slab slab = matrix.slab(s, phase.offsets[group].data());
    float* const target = dx + (first_channel + matrix.first_row(s)) * pixels;
    if (stride == 1) {
      kernels_.slab(slab, planes, 1, runs.data(), rows, kSlack, {}, target, pixels);
      continue;
    }
    kernels_.slab(slab, planes, 1, runs.data(), rows, kSlack, {}, apart.data(), size);
    for (int c = 0; c < slab.rows; ++c) {
      for (std::int64_t r = 0; r < rows; ++r) {
        const float* const from = apart.data() + c * size + r * phase.cols;
        float* const to =
            target + c * pixels + phase.rows[static_cast<std::size_t>(r)].y * size_[1] + phase.first_col;
        for (std::int64_t j = 0; j < phase.cols; ++j) to[j * stride] = from[j];
      }
    }
  }
}

void ConvInputGradient::run_image(const float* dy, float* dx, int threads) const {
  thread_local std::vector<float> workspace;
  if (static_cast<std::int64_t>(workspace.size()) < plane_elements_) {
    workspace.assign(static_cast<std::size_t>(plane_elements_), 0.0F);
  }
  float* const planes = workspace.data();
  pack(dy, planes);
  // What no tap reads has no gradient.
  std::fill(dx, dx + weights_->channels * size_[0] * size_[1], 0.0F);
  for (std::size_t g = 0; g < weights_->transposed.size(); ++g) {
    for (std::size_t p = 0; p < phases_.size(); ++p) {
      if (phases_[p].rows.empty()) continue;
      const std::vector<std::int64_t> edges = split_by_cost(weights_->transposed[g][p], threads);
      run_parallel(threads, threads, [&](std::int64_t task) {
        const auto part = static_cast<std::size_t>(task);
        multiply(g, p, edges[part], edges[part + 1], planes, dx);
      });
    }
  }
}

void ConvInputGradient::run(const float* dy, std::int64_t batch, float* dx) const {
  const std::int64_t in = weights_->channels * size_[0] * size_[1];
  const std::int64_t pixels = out_size_[0] * out_size_[1];
  std::int64_t weights = 0;
  for (const PackedMatrix& group : weights_->groups) weights += group.cost_before(group.slab_count());
  const int threads = weights * pixels * batch < kWorthAThread ? 1 : threads_;
  const std::int64_t out = weights_->out_channels * pixels;
  if (batch >= 2 * threads) {
    run_parallel(threads, batch, [&](std::int64_t b) { run_image(dy + b * out, dx + b * in, 1); });
  } else {
    for (std::int64_t b = 0; b < batch; ++b) run_image(dy + b * out, dx + b * in, threads);
  }
}

}  // namespace pysim
