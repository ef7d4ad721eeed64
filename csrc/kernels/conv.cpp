#include "kernels/conv.h"

#include <algorithm>
#include <limits>
#include <stdexcept>
#include <string>
#include <utility>

#include "base/check.h"
#include "kernels/thread_pool.h"

namespace pysim {
namespace {

// Vectors that start inside a plane may end this far behind the last one.
constexpr std::int64_t kSlack = 64;
// Below this many multiply-adds a second thread costs more than it saves.
constexpr std::int64_t kWorthAThread = 1 << 17;
// Columns that one task computes for all its slabs: enough tiles to be worth a call, few enough for their
// input to stay in the fastest cache.
constexpr std::int64_t kTaskColumns = 96;
constexpr std::int64_t kTaskBytes = 24 * 1024;

/// The phases of `stride` that taps 0, dilation, 2 dilation ... fall on, in rising order.
std::vector<std::int64_t> phases(std::int64_t taps, std::int64_t dilation, std::int64_t stride) {
  std::vector<std::int64_t> found;
  for (std::int64_t i = 0; i < taps; ++i) found.push_back(i * dilation % stride);
  std::sort(found.begin(), found.end());
  found.erase(std::unique(found.begin(), found.end()), found.end());
  return found;
}

std::int64_t place_of(const std::vector<std::int64_t>& sorted, std::int64_t value) {
  return std::lower_bound(sorted.begin(), sorted.end(), value) - sorted.begin();
}

// Rows are short: plain loops beat calls of memset and memcpy, so this file is compiled without turning them
// into such calls.
inline void clear(float* row, std::int64_t begin, std::int64_t end) {
  for (std::int64_t x = begin; x < end; ++x) row[x] = 0.0F;
}

inline void add(float* __restrict row, const float* __restrict a, const float* __restrict b,
                std::int64_t count, bool relu) {
  for (std::int64_t x = 0; x < count; ++x) {
    const float sum = a[x] + b[x];
    row[x] = relu && sum < 0.0F ? 0.0F : sum;
  }
}

}  // namespace

void ConvWindow::check() const {
  constexpr std::int64_t most = 1 << 20;
  for (std::size_t axis = 0; axis < 2; ++axis) {
    require(kernel[axis] >= 1 && kernel[axis] <= most, "convolution", "a kernel of 1 to 2^20",
            std::to_string(kernel[axis]));
    require(stride[axis] >= 1 && stride[axis] <= most, "convolution", "a stride of 1 to 2^20",
            std::to_string(stride[axis]));
    require(padding[axis] >= 0 && padding[axis] <= most, "convolution", "a padding of 0 to 2^20",
            std::to_string(padding[axis]));
    require(dilation[axis] >= 1 && dilation[axis] <= most, "convolution", "a dilation of 1 to 2^20",
            std::to_string(dilation[axis]));
  }
}

Pair ConvWindow::out_size(const Pair& size) const {
  require(size[0] >= 1 && size[1] >= 1, "convolution", "an image of at least 1 x 1",
          std::to_string(size[0]) + " x " + std::to_string(size[1]));
  Pair out{};
  for (std::size_t axis = 0; axis < 2; ++axis) {
    require(size[axis] <= std::numeric_limits<std::int32_t>::max(), "convolution", "sides below 2^31",
            std::to_string(size[axis]));
    const std::int64_t padded = size[axis] + 2 * padding[axis];
    require(padded >= reach(axis), "convolution", "a padded side of at least " + std::to_string(reach(axis)),
            std::to_string(padded));
    out[axis] = (padded - reach(axis)) / stride[axis] + 1;
  }
  return out;
}

ConvWeights::ConvWeights(const std::vector<BsrView>& matrices, const ConvWindow& kernel_window,
                         std::vector<float> bias_or_none, bool relu_last, bool trainable)
    : window(kernel_window), bias(std::move(bias_or_none)), relu(relu_last) {
  window.check();
  require(!matrices.empty(), "convolution", "at least one group", "none");
  const std::int64_t taps = window.kernel[0] * window.kernel[1];
  const BlockGrid& first = matrices[0].grid;
  for (const BsrView& matrix : matrices) {
    const BlockGrid& grid = matrix.grid;
    require(grid.positions == taps, "convolution",
            "matrices of " + std::to_string(taps) + " kernel positions", std::to_string(grid.positions));
    require(grid.channels() == first.channels(), "convolution", "groups of equal width",
            std::to_string(grid.channels()) + " and " + std::to_string(first.channels()) + " channels");
    require(grid.m == first.m, "convolution", "groups of equal height",
            std::to_string(grid.m) + " and " + std::to_string(first.m) + " features");
    groups.emplace_back(matrix, trainable);
  }
  channels = group_count() * first.channels();
  out_channels = group_count() * first.m;
  require(bias.empty() || static_cast<std::int64_t>(bias.size()) == out_channels, "convolution",
          "a bias of " + std::to_string(out_channels), std::to_string(bias.size()));
  phase_rows = phases(window.kernel[0], window.dilation[0], window.stride[0]);
  phase_cols = phases(window.kernel[1], window.dilation[1], window.stride[1]);
  if (!trainable) return;
  for (const BsrView& matrix : matrices) {
    std::vector<PackedMatrix>& parts = transposed.emplace_back();
    for (const std::int64_t row : phase_rows) {
      for (const std::int64_t col : phase_cols)
        parts.push_back(PackedMatrix::transposed(matrix, taps_of(row, col)));
    }
  }
}

std::vector<std::int64_t> ConvWeights::taps_of(std::int64_t phase_row, std::int64_t phase_col) const {
  std::vector<std::int64_t> taps;
  for (std::int64_t i = 0; i < window.kernel[0]; ++i) {
    for (std::int64_t j = 0; j < window.kernel[1]; ++j) {
      if (i * window.dilation[0] % window.stride[0] == phase_row &&
          j * window.dilation[1] % window.stride[1] == phase_col)
        taps.push_back(i * window.kernel[1] + j);
    }
  }
  return taps;
}

ConvPlan::ConvPlan(std::shared_ptr<const ConvWeights> weights, std::int64_t height, std::int64_t width,
                   const KernelTable& kernels, int threads)
    : weights_(std::move(weights)), kernels_(kernels), threads_(threads), size_{height, width} {
  const ConvWindow& window = weights_->window;
  const std::int64_t channels = weights_->channels;
  check_threads(threads, "convolution");
  out_size_ = window.out_size(size_);
  plane_rows_ = out_size_[0] + (window.kernel[0] - 1) * window.dilation[0] / window.stride[0];
  plane_cols_ = out_size_[1] + (window.kernel[1] - 1) * window.dilation[1] / window.stride[1];
  const auto phase_count =
      static_cast<std::int64_t>(weights_->phase_rows.size() * weights_->phase_cols.size());
  const double elements = static_cast<double>(phase_count) * static_cast<double>(channels) *
                          static_cast<double>(plane_rows_) * static_cast<double>(plane_cols_);
  require(elements < 2147483647.0 - static_cast<double>(kSlack), "convolution",
          "padded planes of fewer than 2^31 elements", std::to_string(elements));
  const std::int64_t plane = plane_rows_ * plane_cols_;
  plane_elements_ = phase_count * channels * plane + kSlack;

  // Element (tap, channel) of the reduction starts at its phase's plane, moved by the tap's whole strides.
  const std::int64_t group_channels = channels / weights_->group_count();
  const auto offset = [&](std::int64_t group, std::int64_t k) {
    const std::int64_t tap = k / group_channels;
    const std::int64_t row = tap / window.kernel[1] * window.dilation[0];
    const std::int64_t col = tap % window.kernel[1] * window.dilation[1];
    const std::int64_t phase = place_of(weights_->phase_rows, row % window.stride[0]) *
                                   static_cast<std::int64_t>(weights_->phase_cols.size()) +
                               place_of(weights_->phase_cols, col % window.stride[1]);
    const std::int64_t channel = group * group_channels + k % group_channels;
    return (phase * channels + channel) * plane + row / window.stride[0] * plane_cols_ +
           col / window.stride[1];
  };
  for (std::int64_t g = 0; g < weights_->group_count(); ++g) {
    std::vector<std::int32_t>& starts = offsets_.emplace_back();
    for (const std::int32_t k : weights_->groups[static_cast<std::size_t>(g)].indices())
      starts.push_back(static_cast<std::int32_t>(offset(g, k)));
  }
  const std::int64_t out_width = out_size_[1];
  if (plane_cols_ == out_width) {
    rows_.push_back({0, 0, out_size_[0] * out_width});
  } else {
    for (std::int64_t r = 0; r < out_size_[0]; ++r) {
      rows_.push_back({r * plane_cols_, r * out_width, out_width});
    }
  }
  // Short rows leave vectors half empty. Then several rows are computed as one run, what lies between them
  // included, and copied from there.
  const std::int64_t lanes = kernels_.lanes;
  merges_rows_ = ceil_div(out_size_[0] * plane_cols_, lanes) <= out_size_[0] * ceil_div(out_width, lanes) &&
                 rows_.size() > 1;
}

void ConvPlan::pack_channels(const float* image, std::int64_t begin, std::int64_t end, float* planes) const {
  const std::int64_t plane = plane_rows_ * plane_cols_;
  const std::int64_t stride = weights_->window.stride[1];
  for (std::size_t j = 0; j < weights_->phase_cols.size(); ++j) {
    // Column x of a plane is column x * stride + shift of the image, or zero outside of it.
    const std::int64_t shift = weights_->phase_cols[j] - weights_->window.padding[1];
    const std::int64_t first = shift >= 0 ? 0 : std::min(plane_cols_, ceil_div(-shift, stride));
    const std::int64_t inside = size_[1] - shift;
    const std::int64_t last = inside <= 0 ? first : std::clamp(ceil_div(inside, stride), first, plane_cols_);
    for (std::size_t i = 0; i < weights_->phase_rows.size(); ++i) {
      const auto phase = static_cast<std::int64_t>(i * weights_->phase_cols.size() + j);
      // Plane rows that the image has, and the plane's zeros around them.
      const std::int64_t row_shift = weights_->phase_rows[i] - weights_->window.padding[0];
      const std::int64_t row_stride = weights_->window.stride[0];
      const std::int64_t top = row_shift >= 0 ? 0 : std::min(plane_rows_, ceil_div(-row_shift, row_stride));
      const std::int64_t rows_inside = size_[0] - row_shift;
      const std::int64_t bottom =
          rows_inside <= 0 ? top : std::clamp(ceil_div(rows_inside, row_stride), top, plane_rows_);
      const std::int64_t width = last - first;
      const std::int64_t from_pitch = row_stride * size_[1];
      for (std::int64_t c = begin; c < end; ++c) {
        float* const target = planes + (phase * weights_->channels + c) * plane;
        const float* const from = image + (c * size_[0] + row_shift + top * row_stride) * size_[1] + shift;
        if (bottom == top || width == 0) {
          clear(target, 0, plane);
          continue;
        }
        clear(target, 0, top * plane_cols_ + first);
        float* const pixels = target + top * plane_cols_ + first;
        if (stride == 1) {
          kernels_.copy_rows(from + first, from_pitch, pixels, plane_cols_, bottom - top, width);
        } else {
          take(from + first * stride, from_pitch, stride, pixels, bottom - top, width);
        }
        for (std::int64_t r = 0; r + 1 < bottom - top; ++r)
          clear(pixels + r * plane_cols_, width, plane_cols_);
        clear(target, (bottom - 1) * plane_cols_ + last, plane);
      }
    }
  }
}

/// Every `stride`-th element of rows, beside each other.
void ConvPlan::take(const float* from, std::int64_t from_pitch, std::int64_t stride, float* to,
                    std::int64_t rows, std::int64_t width) const {
  for (std::int64_t r = 0; r < rows; ++r, from += from_pitch, to += plane_cols_) {
    float* const __restrict row = to;
    if (stride == 2) {
      for (std::int64_t x = 0; x < width; ++x) row[x] = from[2 * x];
    } else {
      for (std::int64_t x = 0; x < width; ++x) row[x] = from[stride * x];
    }
  }
}

void ConvPlan::multiply(std::size_t group, std::int64_t slab_begin, std::int64_t slab_end,
                        std::int64_t row_begin, std::int64_t row_end, const float* planes,
                        const float* residual, float* image_out) const {
  const PackedMatrix& matrix = weights_->groups[group];
  const std::int64_t pixels = out_size_[0] * out_size_[1];
  const std::int64_t first_channel =
      static_cast<std::int64_t>(group) *
      (weights_->out_channels / static_cast<std::int64_t>(weights_->groups.size()));
  const ColumnRun& first = rows_[static_cast<std::size_t>(row_begin)];
  const ColumnRun& last = rows_[static_cast<std::size_t>(row_end - 1)];
  const ColumnRun whole{first.x, 0, last.x + last.count - first.x};
  const bool merged = merges_rows_ && row_end - row_begin > 1;
  float* const scratch = merged ? scratch_of(whole.count) : nullptr;
  for (std::int64_t s = slab_begin; s < slab_end; ++s) {
    const std::int64_t channel = first_channel + matrix.first_row(s);
    const float* const bias = weights_->bias.empty() ? nullptr : weights_->bias.data() + channel;
    const float* const added = residual == nullptr ? nullptr : residual + channel * pixels;
    float* const out = image_out + channel * pixels;
    const Slab slab = matrix.slab(s, offsets_[group].data());
    if (!merged) {
      kernels_.slab(slab, planes, 1, rows_.data() + row_begin, row_end - row_begin, kSlack,
                    {bias, added, pixels, weights_->relu}, out, pixels);
      continue;
    }
    kernels_.slab(slab, planes, 1, &whole, 1, kSlack,
                  {bias, nullptr, 0, weights_->relu && residual == nullptr}, scratch, whole.count);
    const std::int64_t width = out_size_[1];
    for (int r = 0; r < slab.rows; ++r) {
      const float* from = scratch + r * whole.count;
      const std::int64_t to = r * pixels + row_begin * width;
      if (added == nullptr) {
        kernels_.copy_rows(from, plane_cols_, out + to, width, row_end - row_begin, width);
        continue;
      }
      for (std::int64_t row = 0; row < row_end - row_begin; ++row, from += plane_cols_)
        add(out + to + row * width, from, added + to + row * width, width, weights_->relu);
    }
  }
}

float* ConvPlan::scratch_of(std::int64_t columns) {
  thread_local std::vector<float> scratch;
  const auto size = static_cast<std::size_t>(kSlabRows * columns);
  if (scratch.size() < size) scratch.resize(size);
  return scratch.data();
}

float* ConvPlan::pack(const float* image, int threads) const {
  // Kept between calls: a network's layers run one after the other on the same threads.
  thread_local std::vector<float> workspace;
  if (static_cast<std::int64_t>(workspace.size()) < plane_elements_) {
    workspace.assign(static_cast<std::size_t>(plane_elements_), 0.0F);
  }
  float* const planes = workspace.data();
  const std::int64_t parts = std::min<std::int64_t>(threads, weights_->channels);
  run_parallel(threads, parts, [&](std::int64_t part) {
    pack_channels(image, weights_->channels * part / parts, weights_->channels * (part + 1) / parts, planes);
  });
  return planes;
}

void ConvPlan::run_image(const float* image, const float* residual, float* image_out, int threads) const {
  const float* const planes = pack(image, threads);
  const auto rows = static_cast<std::int64_t>(rows_.size());
  const std::int64_t columns =
      std::max(kTaskColumns, kTaskBytes / static_cast<std::int64_t>(sizeof(float)) / weights_->channels);
  const std::int64_t task_rows =
      std::min(rows, ceil_div(threads == 1 ? columns : kTaskColumns, rows_[0].count));
  const std::int64_t row_tasks = ceil_div(rows, task_rows);
  const int slab_parts = row_tasks >= 2 * threads ? 1 : threads;
  for (std::size_t g = 0; g < weights_->groups.size(); ++g) {
    const std::vector<std::int64_t> edges = split_by_cost(weights_->groups[g], slab_parts);
    run_parallel(threads, row_tasks * slab_parts, [&](std::int64_t task) {
      const auto part = static_cast<std::size_t>(task % slab_parts);
      const std::int64_t row_begin = task / slab_parts * task_rows;
      const std::int64_t row_end = std::min(rows, row_begin + task_rows);
      multiply(g, edges[part], edges[part + 1], row_begin, row_end, planes, residual, image_out);
    });
  }
}

void ConvPlan::run(const float* x, std::int64_t batch, const float* residual, float* y) const {
  const std::int64_t in = weights_->channels * size_[0] * size_[1];
  const std::int64_t out = weights_->out_channels * out_size_[0] * out_size_[1];
  std::int64_t weights = 0;
  for (const PackedMatrix& group : weights_->groups) weights += group.cost_before(group.slab_count());
  const std::int64_t pixels = out_size_[0] * out_size_[1];
  const int threads = weights * pixels * batch < kWorthAThread ? 1 : threads_;
  const auto image = [&](std::int64_t b, int image_threads) {
    run_image(x + b * in, residual == nullptr ? nullptr : residual + b * out, y + b * out, image_threads);
  };
  if (batch >= 2 * threads) {
    // Whole images to each thread: what a thread packs stays in its own cache.
    run_parallel(threads, batch, [&](std::int64_t b) { image(b, 1); });
  } else {
    for (std::int64_t b = 0; b < batch; ++b) image(b, threads);
  }
}

void ConvPlan::weight_gradient(const float* x, std::int64_t batch, const float* dy,
                               const std::vector<float*>& values,
                               const std::vector<std::int64_t>& counts) const {
  if (weights_->transposed.empty())
    throw std::logic_error("convolution: the plan was not made for gradients");
  const std::int64_t in = weights_->channels * size_[0] * size_[1];
  const std::int64_t pixels = out_size_[0] * out_size_[1];
  const std::int64_t group_out = weights_->out_channels / weights_->group_count();
  std::vector<std::vector<float>> sums;
  std::vector<std::vector<std::int64_t>> edges;
  for (const PackedMatrix& matrix : weights_->groups) {
    sums.emplace_back(matrix.places().size(), 0.0F);
    edges.push_back(split_by_cost(matrix, threads_));
  }
  for (std::int64_t b = 0; b < batch; ++b) {
    // One image after the other, so that the order of every sum is the same for any number of threads.
    const float* const planes = pack(x + b * in, threads_);
    const float* const image_dy = dy + b * weights_->out_channels * pixels;
    run_parallel(threads_, weights_->group_count() * threads_, [&](std::int64_t task) {
      const auto g = static_cast<std::size_t>(task / threads_);
      const auto part = static_cast<std::size_t>(task % threads_);
      const PackedMatrix& matrix = weights_->groups[g];
      for (std::int64_t s = edges[g][part]; s < edges[g][part + 1]; ++s) {
        const std::int64_t channel = static_cast<std::int64_t>(g) * group_out + matrix.first_row(s);
        kernels_.gradient(matrix.slab(s, offsets_[g].data()), planes, 1, rows_.data(),
                          static_cast<std::int64_t>(rows_.size()), image_dy + channel * pixels, pixels,
                          sums[g].data() + matrix.weights_before(s));
      }
    });
  }
  for (std::size_t g = 0; g < sums.size(); ++g) {
    std::fill(values[g], values[g] + counts[g], 0.0F);
    const std::vector<std::int64_t>& places = weights_->groups[g].places();
    for (std::size_t i = 0; i < places.size(); ++i) values[g][places[i]] = sums[g][i];
  }
}

}  // namespace pysim
