#include "kernels/conv.h"

#include <algorithm>
#include <limits>
#include <stdexcept>
#include <string>
#include <utility>

#include "base/check.h"
#include "kernels/thread_pool.h"
#include "kernels/transpose.h"

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

/// row += from, whose elements lie `step` apart.
inline void add(float* __restrict row, const float* __restrict from, std::int64_t step, std::int64_t count,
                bool relu) {
  const auto one = [&](std::int64_t x, float value) {
    const float sum = row[x] + value;
    row[x] = relu && sum < 0.0F ? 0.0F : sum;
  };
  if (step == 1) {
    for (std::int64_t x = 0; x < count; ++x) one(x, from[x]);
  } else {
    for (std::int64_t x = 0; x < count; ++x) one(x, from[x * step]);
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

ConvWeights::ConvWeights(const ConvWeights& like, const std::vector<const float*>& values)
    : ConvWeights(like) {
  if (transposed.empty()) throw std::logic_error("convolution: the plan was not made for gradients");
  for (std::size_t g = 0; g < groups.size(); ++g) {
    groups[g] = groups[g].with_values(values[g]);
    for (PackedMatrix& part : transposed[g]) part = part.with_values(values[g]);
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

  find_offsets();
  find_insides();
  for (const PackedMatrix& group : weights_->groups) image_work_ += group.cost_before(group.slab_count());
  image_work_ *= out_size_[0] * out_size_[1];
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

ConvPlan::ConvPlan(const ConvPlan& like, std::shared_ptr<const ConvWeights> weights) : ConvPlan(like) {
  weights_ = std::move(weights);
}

void ConvPlan::find_offsets() {
  const ConvWindow& window = weights_->window;
  const std::int64_t channels = weights_->channels;
  const std::int64_t plane = plane_rows_ * plane_cols_;
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
}

void ConvPlan::find_insides() {
  const Pair& stride = weights_->window.stride;
  const Pair& padding = weights_->window.padding;
  const Pair plane{plane_rows_, plane_cols_};
  // Row x of a plane is row x * stride + shift of the image, or zero outside of it; likewise columns.
  const auto range = [&](std::size_t axis, std::int64_t shift) {
    const std::int64_t begin = shift >= 0 ? 0 : std::min(plane[axis], ceil_div(-shift, stride[axis]));
    const std::int64_t inside = size_[axis] - shift;
    const std::int64_t end =
        inside <= 0 ? begin : std::clamp(ceil_div(inside, stride[axis]), begin, plane[axis]);
    return Pair{begin, end};
  };
  std::int64_t phase = 0;
  for (const std::int64_t phase_row : weights_->phase_rows) {
    for (const std::int64_t phase_col : weights_->phase_cols) {
      const std::int64_t row_shift = phase_row - padding[0];
      const std::int64_t col_shift = phase_col - padding[1];
      const Pair rows = range(0, row_shift);
      const Pair cols = range(1, col_shift);
      insides_.push_back({phase++, rows[0], rows[1], row_shift, cols[0], cols[1], col_shift});
    }
  }
  zeros_ = {weights_->channels, plane_rows_, plane_cols_};
  for (const Inside& inside : insides_)
    zeros_.insert(zeros_.end(), {inside.top, inside.bottom, inside.first, inside.last});
}

void ConvPlan::clear_around(const Inside& inside, float* plane) const {
  const std::int64_t elements = plane_rows_ * plane_cols_;
  if (inside.empty()) return clear(plane, 0, elements);
  clear(plane, 0, inside.top * plane_cols_ + inside.first);
  for (std::int64_t row = inside.top; row + 1 < inside.bottom; ++row)
    clear(plane, row * plane_cols_ + inside.last, (row + 1) * plane_cols_ + inside.first);
  clear(plane, (inside.bottom - 1) * plane_cols_ + inside.last, elements);
}

void ConvPlan::pack_channels(const float* image, std::int64_t begin, std::int64_t end, bool zeros_are_there,
                             float* planes) const {
  const std::int64_t plane = plane_rows_ * plane_cols_;
  const Pair& stride = weights_->window.stride;
  for (const Inside& inside : insides_) {
    const std::int64_t rows = inside.bottom - inside.top;
    const std::int64_t width = inside.last - inside.first;
    for (std::int64_t c = begin; c < end; ++c) {
      float* const target = planes + (inside.phase * weights_->channels + c) * plane;
      if (!zeros_are_there) clear_around(inside, target);
      if (inside.empty()) continue;
      float* const pixels = target + inside.top * plane_cols_ + inside.first;
      const float* const from = image +
                                (c * size_[0] + inside.row_shift + inside.top * stride[0]) * size_[1] +
                                inside.col_shift + inside.first * stride[1];
      if (stride[1] == 1) {
        kernels_.copy_rows(from, stride[0] * size_[1], pixels, plane_cols_, rows, width);
      } else {
        take(from, stride[0] * size_[1], stride[1], pixels, rows, width);
      }
    }
  }
}

/// The pixels of an image whose channels lie side by side: part `part` of `parts` of the rows of every phase.
void ConvPlan::pack_rows(const float* image, std::int64_t part, std::int64_t parts, float* planes) const {
  const std::int64_t plane = plane_rows_ * plane_cols_;
  const std::int64_t channels = weights_->channels;
  const Pair& stride = weights_->window.stride;
  for (const Inside& inside : insides_) {
    if (inside.empty()) continue;
    const std::int64_t rows = inside.bottom - inside.top;
    for (std::int64_t row = inside.top + rows * part / parts; row < inside.top + rows * (part + 1) / parts;
         ++row) {
      const std::int64_t source =
          (inside.row_shift + row * stride[0]) * size_[1] + inside.col_shift + inside.first * stride[1];
      transpose(image + source * channels, inside.last - inside.first, channels, stride[1] * channels,
                planes + inside.phase * channels * plane + row * plane_cols_ + inside.first, plane);
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
                        const Images& residual, float* image_out, ImageOrder order) const {
  const PackedMatrix& matrix = weights_->groups[group];
  const std::int64_t pixels = out_size_[0] * out_size_[1];
  const std::int64_t first_channel =
      static_cast<std::int64_t>(group) *
      (weights_->out_channels / static_cast<std::int64_t>(weights_->groups.size()));
  const ColumnRun& first = rows_[static_cast<std::size_t>(row_begin)];
  const ColumnRun& last = rows_[static_cast<std::size_t>(row_end - 1)];
  const ColumnRun whole{first.x, 0, last.x + last.count - first.x};
  const bool in_order = order == ImageOrder::channels_first &&
                        (residual.data == nullptr || residual.order == ImageOrder::channels_first);
  const bool direct = in_order && !(merges_rows_ && row_end - row_begin > 1);
  float* const scratch = direct ? nullptr : scratch_of(whole.count);
  for (std::int64_t s = slab_begin; s < slab_end; ++s) {
    const std::int64_t channel = first_channel + matrix.first_row(s);
    const float* const bias = weights_->bias.empty() ? nullptr : weights_->bias.data() + channel;
    const Slab slab = matrix.slab(s, offsets_[group].data());
    if (direct) {
      const float* const added = residual.data == nullptr ? nullptr : residual.data + channel * pixels;
      kernels_.slab(slab, planes, 1, rows_.data() + row_begin, row_end - row_begin, kSlack,
                    {bias, added, pixels, weights_->relu}, image_out + channel * pixels, pixels);
    } else {
      kernels_.slab(slab, planes, 1, &whole, 1, kSlack,
                    {bias, nullptr, 0, weights_->relu && residual.data == nullptr}, scratch, whole.count);
      write_rows(slab, channel, row_begin, row_end, scratch, whole.count, residual, image_out, order);
    }
  }
}

/// What the slab computed for some rows, with what lies between them, to its place in the image.
void ConvPlan::write_rows(const Slab& slab, std::int64_t channel, std::int64_t row_begin,
                          std::int64_t row_end, float* scratch, std::int64_t pitch, const Images& residual,
                          float* image_out, ImageOrder order) const {
  const std::int64_t width = out_size_[1];
  const std::int64_t pixels = out_size_[0] * width;
  const std::int64_t channels = weights_->out_channels;
  const std::int64_t rows = rows_.size() == 1 ? 1 : row_end - row_begin;
  const std::int64_t count = rows_.size() == 1 ? pixels : width;
  const std::int64_t begin = row_begin * count;
  for (int r = 0; residual.data != nullptr && r < slab.rows; ++r) {
    const bool first = residual.order == ImageOrder::channels_first;
    const float* from = first ? residual.data + (channel + r) * pixels + begin
                              : residual.data + begin * channels + channel + r;
    for (std::int64_t row = 0; row < rows; ++row, from += first ? count : count * channels)
      add(scratch + r * pitch + row * plane_cols_, from, first ? 1 : channels, count, weights_->relu);
  }
  if (order == ImageOrder::channels_first) {
    for (int r = 0; r < slab.rows; ++r)
      kernels_.copy_rows(scratch + r * pitch, plane_cols_, image_out + (channel + r) * pixels + begin, count,
                         rows, count);
    return;
  }
  for (std::int64_t row = 0; row < rows; ++row)
    transpose(scratch + row * plane_cols_, slab.rows, count, pitch,
              image_out + (begin + row * count) * channels + channel, channels);
}

float* ConvPlan::scratch_of(std::int64_t columns) {
  thread_local std::vector<float> scratch;
  const auto size = static_cast<std::size_t>(kSlabRows * columns);
  if (scratch.size() < size) scratch.resize(size);
  return scratch.data();
}

/// The planes of a thread, for whatever layer it runs. They stay for the next, and so do the zeros around the
/// pixels if that has them in the same places.
struct ConvPlan::Workspace {
  std::vector<float> planes;
  std::vector<std::int64_t> zeros;  ///< See zeros_. Empty if nothing is known.
};

const float* ConvPlan::pack(const Images& image, int threads) const {
  thread_local Workspace workspace;
  if (static_cast<std::int64_t>(workspace.planes.size()) < plane_elements_) {
    workspace.zeros.clear();
    workspace.planes.assign(static_cast<std::size_t>(plane_elements_), 0.0F);
  }
  float* const planes = workspace.planes.data();
  const std::int64_t channels = weights_->channels;
  const bool zeros_are_there = workspace.zeros == zeros_;
  if (!zeros_are_there) workspace.zeros.clear();  // until it is done: it may end in an exception
  if (image.order == ImageOrder::channels_first) {
    const std::int64_t parts = std::min<std::int64_t>(threads, channels);
    run_parallel(threads, parts, [&](std::int64_t part) {
      pack_channels(image.data, channels * part / parts, channels * (part + 1) / parts, zeros_are_there,
                    planes);
    });
  } else {
    if (!zeros_are_there) clear_planes(planes);
    run_parallel(threads, threads, [&](std::int64_t part) { pack_rows(image.data, part, threads, planes); });
  }
  if (!zeros_are_there) workspace.zeros = zeros_;
  return planes;
}

void ConvPlan::run_image(const Images& image, const Images& residual, float* image_out, ImageOrder order,
                         int threads) const {
  const float* const planes = pack(image, threads);
  const auto rows = static_cast<std::int64_t>(rows_.size());
  const std::int64_t columns =
      std::max(kTaskColumns, kTaskBytes / static_cast<std::int64_t>(sizeof(float)) / weights_->channels);
  const std::int64_t task_rows =
      std::min(rows, ceil_div(threads == 1 ? columns : kTaskColumns, rows_[0].count));
  const std::int64_t row_tasks = ceil_div(rows, task_rows);
  const int slab_parts = row_tasks >= 2 * threads ? 1 : threads;
  for (std::size_t g = 0; g < weights_->groups.size(); ++g) {
    const auto rows_of = [&](std::int64_t task, std::int64_t slab_begin, std::int64_t slab_end) {
      const std::int64_t row_begin = task * task_rows;
      multiply(g, slab_begin, slab_end, row_begin, std::min(rows, row_begin + task_rows), planes, residual,
               image_out, order);
    };
    if (threads == 1) {
      for (std::int64_t task = 0; task < row_tasks; ++task)
        rows_of(task, 0, weights_->groups[g].slab_count());
      continue;
    }
    const std::vector<std::int64_t> edges = split_by_cost(weights_->groups[g], slab_parts);
    run_parallel(threads, row_tasks * slab_parts, [&](std::int64_t task) {
      const auto part = static_cast<std::size_t>(task % slab_parts);
      rows_of(task / slab_parts, edges[part], edges[part + 1]);
    });
  }
}

bool ConvPlan::is_long(std::int64_t batch) const { return image_work_ * batch >= kWorthAThread; }

void ConvPlan::run(const Images& x, std::int64_t batch, const Images& residual, float* y,
                   ImageOrder y_order) const {
  const std::int64_t in = weights_->channels * size_[0] * size_[1];
  const std::int64_t out = weights_->out_channels * out_size_[0] * out_size_[1];
  const int threads = is_long(batch) ? threads_ : 1;
  const auto image = [&](std::int64_t b, int image_threads) {
    const Images added{residual.data == nullptr ? nullptr : residual.data + b * out, residual.order};
    run_image({x.data + b * in, x.order}, added, y + b * out, y_order, image_threads);
  };
  if (batch >= 2 * threads) {
    // Whole images to each thread: what a thread packs stays in its own cache.
    run_parallel(threads, batch, [&](std::int64_t b) { image(b, 1); });
  } else {
    for (std::int64_t b = 0; b < batch; ++b) image(b, threads);
  }
}

void ConvPlan::clear_planes(float* planes) const {
  for (const Inside& inside : insides_) {
    for (std::int64_t c = 0; c < weights_->channels; ++c)
      clear_around(inside, planes + (inside.phase * weights_->channels + c) * plane_rows_ * plane_cols_);
  }
}

void ConvPlan::pack_image(const Images& image, float* planes) const {
  if (image.order == ImageOrder::channels_first) {
    pack_channels(image.data, 0, weights_->channels, true, planes);
  } else {
    pack_rows(image.data, 0, 1, planes);
  }
}

}  // namespace pysim
