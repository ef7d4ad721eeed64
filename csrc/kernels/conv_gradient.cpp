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
constexpr std::int64_t kTaskBytes = 24 * 1024;
constexpr std::int64_t kTaskColumns = 96;
// Planes of X and dY that a thread works on at a time: half of a small second-level cache.
constexpr std::int64_t kChunkBytes = 256 * 1024;
// Parts of a batch whose sums are made apart and added in order: as many, whatever the number of threads.
constexpr std::int64_t kBatchParts = 16;

constexpr auto kFloat = static_cast<std::int64_t>(sizeof(float));

/// Whether rows of `cols` columns, `pitch` apart, are better computed as one run with what lies between them:
/// single rows end in a vector that is not full, and in a masked store.
bool merges(std::int64_t rows, std::int64_t cols, std::int64_t pitch, std::int64_t lanes) {
  if (rows < 2) return false;
  const std::int64_t apart = rows * ceil_div(cols, lanes);
  return ceil_div((rows - 1) * pitch + cols, lanes) <= apart + (cols % lanes == 0 ? 0 : apart / 4);
}

}  // namespace

ConvGradient::ConvGradient(std::shared_ptr<const ConvPlan> forward) : forward_(std::move(forward)) {
  if (weights().transposed.empty())
    throw std::logic_error("convolution: the plan was not made for gradients");
  const ConvWindow& window = weights().window;
  const auto in_shape = forward_->in_shape(1);
  const auto out_shape = forward_->out_shape(1);
  size_ = {in_shape[2], in_shape[3]};
  out_size_ = {out_shape[2], out_shape[3]};
  // Rows and columns that a tap is moved by at most: as many zeros surround dY. A plane's left margin is the
  // end of the row before, its upper one the end of the plane before.
  const std::int64_t margin_rows = (window.kernel[0] - 1) * window.dilation[0] / window.stride[0];
  const std::int64_t margin_cols = (window.kernel[1] - 1) * window.dilation[1] / window.stride[1];
  plane_rows_ = out_size_[0] + margin_rows;
  plane_cols_ = out_size_[1] + margin_cols;
  front_ = margin_rows * plane_cols_ + margin_cols;
  const double elements = static_cast<double>(weights().out_channels) * static_cast<double>(plane_rows_) *
                              static_cast<double>(plane_cols_) +
                          static_cast<double>(front_);
  require(elements < static_cast<double>(std::numeric_limits<std::int32_t>::max() - kSlack), "convolution",
          "padded planes of fewer than 2^31 elements", std::to_string(elements));
  plane_elements_ = front_ + weights().out_channels * plane_rows_ * plane_cols_ + kSlack;
  chunk_images_ =
      std::max<std::int64_t>(1, kChunkBytes / kFloat / (plane_elements_ + forward_->plane_elements()));
  sums_before_.push_back(0);
  for (const PackedMatrix& matrix : weights().groups)
    sums_before_.push_back(sums_before_.back() + matrix.weights_before(matrix.slab_count()));
  find_phases();
  find_runs();
}

ConvGradient::ConvGradient(const ConvGradient& like, std::shared_ptr<const ConvPlan> forward)
    : ConvGradient(like) {
  forward_ = std::move(forward);
}

void ConvGradient::find_phases() {
  const ConvWindow& window = weights().window;
  const std::int64_t plane = plane_rows_ * plane_cols_;
  const std::int64_t group_out = weights().out_channels / weights().group_count();
  std::size_t phase_index = 0;
  for (const std::int64_t phase_row : weights().phase_rows) {
    for (const std::int64_t phase_col : weights().phase_cols) {
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
      const std::vector<std::int64_t> taps = weights().taps_of(phase_row, phase_col);
      for (std::int64_t g = 0; g < weights().group_count(); ++g) {
        std::vector<std::int32_t>& starts = phase.offsets.emplace_back();
        for (const std::int32_t index :
             weights().transposed[static_cast<std::size_t>(g)][phase_index].indices()) {
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

void ConvGradient::find_runs() {
  if (merges(out_size_[0], out_size_[1], plane_cols_, forward_->kernels().lanes)) {
    image_runs_.push_back({0, 0, (out_size_[0] - 1) * plane_cols_ + out_size_[1]});
    return;
  }
  for (std::int64_t r = 0; r < out_size_[0]; ++r)
    image_runs_.push_back({r * plane_cols_, r * plane_cols_, out_size_[1]});
}

/// The planes of a thread, for whatever layer it runs. They stay for the next, and so do the zeros around the
/// pixels if that has them in the same places.
struct ConvGradient::Workspace {
  std::vector<float> x;
  std::vector<float> dy;
  std::vector<float> scratch;
  std::vector<std::int64_t> x_zeros;   ///< What decides where the zeros of X are.
  std::vector<std::int64_t> dy_zeros;  ///< The same of dY.

  /// Memory of `count` floats; whether its zeros are those of `key`, which they will be.
  static bool prepare(std::vector<float>& planes, std::int64_t count, std::vector<std::int64_t>& zeros,
                      const std::vector<std::int64_t>& key) {
    const bool there = zeros == key && static_cast<std::int64_t>(planes.size()) >= count;
    if (static_cast<std::int64_t>(planes.size()) < count)
      planes.assign(static_cast<std::size_t>(count), 0.0F);
    if (!there) zeros.clear();  // until it is done: it may end in an exception
    return there;
  }
};

void ConvGradient::pack(const float* dy, float* planes) const {
  for (std::int64_t o = 0; o < weights().out_channels; ++o) {
    forward_->kernels().copy_rows(dy + o * out_size_[0] * out_size_[1], out_size_[1],
                                  planes + front_ + o * plane_rows_ * plane_cols_, plane_cols_, out_size_[0],
                                  out_size_[1]);
  }
}

ConvGradient::Chunk ConvGradient::pack(const float* dy, const Images& x, std::int64_t first,
                                       std::int64_t images) const {
  thread_local Workspace workspace;
  const std::int64_t x_elements = forward_->plane_elements();
  std::vector<std::int64_t> dy_key{chunk_images_, weights().out_channels, plane_rows_,
                                   plane_cols_,   out_size_[0],           out_size_[1]};
  if (!Workspace::prepare(workspace.dy, chunk_images_ * plane_elements_, workspace.dy_zeros, dy_key)) {
    std::fill_n(workspace.dy.data(), chunk_images_ * plane_elements_, 0.0F);
    workspace.dy_zeros = std::move(dy_key);
  }
  const std::int64_t pixels = weights().out_channels * out_size_[0] * out_size_[1];
  for (std::int64_t i = 0; i < images; ++i)
    pack(dy + (first + i) * pixels, workspace.dy.data() + i * plane_elements_);
  if (x.data == nullptr) return {first, images, nullptr, workspace.dy.data()};

  std::vector<std::int64_t> x_key = forward_->zeros();
  x_key.push_back(chunk_images_);
  const bool zeros_are_there =
      Workspace::prepare(workspace.x, chunk_images_ * x_elements, workspace.x_zeros, x_key);
  const std::int64_t in = weights().channels * size_[0] * size_[1];
  if (!zeros_are_there) {
    for (std::int64_t i = 0; i < chunk_images_; ++i)
      forward_->clear_planes(workspace.x.data() + i * x_elements);
    workspace.x_zeros = std::move(x_key);
  }
  for (std::int64_t i = 0; i < images; ++i)
    forward_->pack_image({x.data + (first + i) * in, x.order}, workspace.x.data() + i * x_elements);
  return {first, images, workspace.x.data(), workspace.dy.data()};
}

/// Rows `begin` to `end` - 1 of the phase for one slab, to its channels of the image.
void ConvGradient::multiply_rows(const Slab& slab, const Phase& phase, std::int64_t begin, std::int64_t end,
                                 const float* planes, float* scratch, float* dx) const {
  const KernelTable& kernels = forward_->kernels();
  const Pair& stride = weights().window.stride;
  const std::int64_t pixels = size_[0] * size_[1];
  const std::int64_t rows = end - begin;
  const ColumnRun& first = phase.rows[static_cast<std::size_t>(begin)];
  const bool merged = merges(rows, phase.cols, plane_cols_, kernels.lanes);
  const std::int64_t pitch = merged || rows == 1 ? plane_cols_ : phase.cols;
  const std::int64_t count = (rows - 1) * pitch + phase.cols;
  if (merged || rows == 1) {
    const ColumnRun run{first.x, 0, count};
    kernels.slab(slab, planes, 1, &run, 1, kSlack, {}, scratch, count);
  } else {
    std::vector<ColumnRun> runs(phase.rows.begin() + begin, phase.rows.begin() + end);
    for (std::int64_t r = 0; r < rows; ++r) runs[static_cast<std::size_t>(r)].y = r * pitch;
    kernels.slab(slab, planes, 1, runs.data(), rows, kSlack, {}, scratch, count);
  }
  float* const target = dx + first.y * size_[1] + phase.first_col;
  for (int c = 0; c < slab.rows; ++c) {
    const float* from = scratch + c * count;
    float* to = target + c * pixels;
    if (stride[1] == 1) {
      kernels.copy_rows(from, pitch, to, stride[0] * size_[1], rows, phase.cols);
      continue;
    }
    // With a horizontal stride, neighbours of a phase are not neighbours in the image.
    for (std::int64_t r = 0; r < rows; ++r, from += pitch, to += stride[0] * size_[1]) {
      for (std::int64_t j = 0; j < phase.cols; ++j) to[j * stride[1]] = from[j];
    }
  }
}

void ConvGradient::multiply(std::size_t group, std::size_t phase_index, std::int64_t slab_begin,
                            std::int64_t slab_end, const float* planes, float* dx) const {
  thread_local std::vector<float> scratch;
  const Phase& phase = phases_[phase_index];
  const PackedMatrix& matrix = weights().transposed[group][phase_index];
  const std::int64_t first_channel =
      static_cast<std::int64_t>(group) * (weights().channels / weights().group_count());
  const auto rows = static_cast<std::int64_t>(phase.rows.size());
  const std::int64_t columns = std::max(kTaskColumns, kTaskBytes / kFloat / weights().out_channels);
  const std::int64_t task_rows = std::min(rows, ceil_div(columns, plane_cols_));
  const auto size = static_cast<std::size_t>(kSlabRows * task_rows * plane_cols_);
  if (scratch.size() < size) scratch.resize(size);
  for (std::int64_t begin = 0; begin < rows; begin += task_rows) {
    for (std::int64_t s = slab_begin; s < slab_end; ++s) {
      multiply_rows(matrix.slab(s, phase.offsets[group].data()), phase, begin,
                    std::min(rows, begin + task_rows), planes, scratch.data(),
                    dx + (first_channel + matrix.first_row(s)) * size_[0] * size_[1]);
    }
  }
}

void ConvGradient::input_gradient(const float* planes, float* dx, int threads) const {
  // What no tap reads has no gradient.
  const Pair& stride = weights().window.stride;
  if (stride[0] > 1 || stride[1] > 1) std::fill_n(dx, weights().channels * size_[0] * size_[1], 0.0F);
  for (std::size_t g = 0; g < weights().transposed.size(); ++g) {
    for (std::size_t p = 0; p < phases_.size(); ++p) {
      if (phases_[p].rows.empty()) continue;
      const std::vector<std::int64_t> edges = split_by_cost(weights().transposed[g][p], threads);
      run_parallel(threads, threads, [&](std::int64_t task) {
        const auto part = static_cast<std::size_t>(task);
        multiply(g, p, edges[part], edges[part + 1], planes, dx);
      });
    }
  }
}

void ConvGradient::weight_gradient(const Chunk& chunk, float* sums, int threads) const {
  const std::int64_t x_elements = forward_->plane_elements();
  const std::int64_t group_out = weights().out_channels / weights().group_count();
  const std::int64_t plane = plane_rows_ * plane_cols_;
  std::vector<ColumnRun> runs;
  for (std::int64_t i = 0; i < chunk.images; ++i) {
    for (const ColumnRun& run : image_runs_)
      runs.push_back({i * x_elements + run.x, i * plane_elements_ + run.y, run.count});
  }
  for (std::size_t g = 0; g < weights().groups.size(); ++g) {
    const PackedMatrix& matrix = weights().groups[g];
    const std::vector<std::int64_t> edges = split_by_cost(matrix, threads);
    run_parallel(threads, threads, [&](std::int64_t task) {
      const auto part = static_cast<std::size_t>(task);
      for (std::int64_t s = edges[part]; s < edges[part + 1]; ++s) {
        const std::int64_t channel = static_cast<std::int64_t>(g) * group_out + matrix.first_row(s);
        forward_->kernels().gradient(matrix.slab(s, forward_->offsets(g).data()), chunk.x_planes, 1,
                                     runs.data(), static_cast<std::int64_t>(runs.size()),
                                     chunk.dy_planes + front_ + channel * plane, plane,
                                     sums + sums_before_[g] + matrix.weights_before(s));
      }
    });
  }
}

void ConvGradient::run_images(const float* dy, const Images& x, std::int64_t begin, std::int64_t end,
                              float* dx, float* sums, int threads) const {
  const std::int64_t in = weights().channels * size_[0] * size_[1];
  for (std::int64_t first = begin; first < end; first += chunk_images_) {
    const Chunk chunk = pack(dy, x, first, std::min(chunk_images_, end - first));
    for (std::int64_t i = 0; dx != nullptr && i < chunk.images; ++i)
      input_gradient(chunk.dy_planes + i * plane_elements_, dx + (first + i) * in, threads);
    if (x.data != nullptr) weight_gradient(chunk, sums, threads);
  }
}

void ConvGradient::run(const float* dy, const Images& x, std::int64_t batch, float* dx,
                       const std::vector<float*>& values, const std::vector<std::int64_t>& counts) const {
  const std::int64_t total = sums_before_.back();
  const std::int64_t parts = std::min(batch, kBatchParts);
  const std::int64_t work = (total + weights().group_count()) * out_size_[0] * out_size_[1] * batch;
  const int threads = work < kWorthAThread ? 1 : forward_->threads();
  std::vector<float> sums(x.data == nullptr ? 0 : static_cast<std::size_t>(parts * total), 0.0F);
  const auto run_part = [&](std::int64_t part, int part_threads) {
    run_images(dy, x, batch * part / parts, batch * (part + 1) / parts, dx,
               x.data == nullptr ? nullptr : sums.data() + part * total, part_threads);
  };
  if (parts >= 2 * threads) {
    run_parallel(threads, parts, [&](std::int64_t part) { run_part(part, 1); });
  } else {
    for (std::int64_t part = 0; part < parts; ++part) run_part(part, threads);
  }
  for (std::size_t g = 0; g < values.size(); ++g) {
    std::fill(values[g], values[g] + counts[g], 0.0F);
    const std::vector<std::int64_t>& places = weights().groups[g].places();
    for (std::int64_t i = 0; i < static_cast<std::int64_t>(places.size()); ++i) {
      float sum = 0.0F;
      for (std::int64_t part = 0; part < parts; ++part)
        sum += sums[static_cast<std::size_t>(part * total + sums_before_[g] + i)];
      values[g][places[static_cast<std::size_t>(i)]] = sum;
    }
  }
}

}  // namespace pysim
