// A convolution from planes to planes.
#include <algorithm>
#include <utility>

#include "base/check.h"
#include "kernels/steps.h"
#include "kernels/thread_pool.h"

namespace pysim {
namespace {

// Below this many multiply-adds a second thread costs more than it saves.
constexpr std::int64_t kWorthAThread = 1 << 20;
// Input of one panel, all channels.
constexpr std::int64_t kPanelBytes = 24 * 1024;

std::size_t index(std::int64_t i) { return static_cast<std::size_t>(i); }

/// The output's pixels as runs of columns. Rows that lie equally far apart on both sides become one run,
/// together with the zeros between them, if there are few; those zeros have to be written anew.
std::vector<ColumnRun> make_runs(const PlaneLayout& from, const PlaneLayout& to, std::int64_t images,
                                 std::int64_t most_gap) {
  std::vector<ColumnRun> runs;
  for (std::int64_t image = 0; image < images; ++image) {
    for (std::int64_t row = 0; row < to.shape.height; ++row) {
      const ColumnRun next{image * from.image_pitch + row * from.row_pitch,
                           image * to.image_pitch + row * to.row_pitch, to.shape.width};
      if (!runs.empty()) {
        ColumnRun& last = runs.back();
        const std::int64_t gap = next.y - last.y - last.count;
        if (next.x - last.x == next.y - last.y && gap <= most_gap) {
          last.count = next.y - last.y + next.count;
          continue;
        }
      }
      runs.push_back(next);
    }
  }
  return runs;
}

class ConvStep final : public Step {
 public:
  ConvStep(const Place& from, const Phases& phases, const Place* residual, const Place& to,
           std::shared_ptr<const ConvWeights> weights, std::int64_t images, const KernelTable& kernels)
      : from_(from),
        to_(to),
        residual_(residual == nullptr ? Place{} : *residual),
        has_residual_(residual != nullptr),
        weights_(std::move(weights)),
        kernels_(kernels) {
    find_offsets(phases);
    const std::vector<ColumnRun> runs = make_runs(from.layout, to.layout, images, 2 * kernels.lanes);
    narrow_ = runs.size() == 1 && runs[0].count <= kernels.lanes;
    side_by_side_ = from.layout.plane == 1 && weights_->window.kernel == Pair{1, 1};
    cut(runs);
    find_gaps(images);
    for (const PackedMatrix& group : weights_->groups) work_ += group.cost_before(group.slab_count());
    std::int64_t columns = 0;
    for (const ColumnRun& run : runs) {
      columns += run.count;
      vectors_ += ceil_div(run.count, kernels.lanes);
    }
    serial_ = work_ * columns < kWorthAThread;
  }

  double cost() const override { return static_cast<double>(work_) * static_cast<double>(vectors_ + 1); }

  void run(const Frame& frame) const override {
    const auto panels = static_cast<std::int64_t>(panels_.size());
    if (frame.threads == 1 || serial_) {
      for (std::size_t g = 0; g < weights_->groups.size(); ++g) {
        const std::int64_t slabs = weights_->groups[g].slab_count();
        for (std::int64_t p = 0; p < panels; ++p) multiply(frame, g, p, 0, slabs);
      }
      return;
    }
    const std::int64_t parts = panels >= 2 * frame.threads ? 1 : frame.threads;
    for (std::size_t g = 0; g < weights_->groups.size(); ++g) {
      const std::int64_t slabs = weights_->groups[g].slab_count();
      run_parallel(frame.threads, panels * parts, [&, this](std::int64_t task) {
        const std::int64_t part = task % parts;
        multiply(frame, g, task / parts, slabs * part / parts, slabs * (part + 1) / parts);
      });
    }
  }

 private:
  /// Columns that are computed together by every slab in turn, and where zeros lie among them.
  struct Panel {
    std::size_t run_begin, run_end;
    std::size_t gap_begin, gap_end;
  };

  void find_offsets(const Phases& phases) {
    const ConvWindow& window = weights_->window;
    const PlaneLayout& layout = from_.layout;
    const std::int64_t group_channels = weights_->channels / weights_->group_count();
    for (std::int64_t g = 0; g < weights_->group_count(); ++g) {
      std::vector<std::int32_t>& offsets = offsets_.emplace_back();
      for (const std::int64_t k : weights_->groups[index(g)].indices()) {
        const std::int64_t tap = k / group_channels;
        const TapPlace row =
            tap_place(tap / window.kernel[1] * window.dilation[0] - window.padding[0], window.stride[0]);
        const TapPlace col =
            tap_place(tap % window.kernel[1] * window.dilation[1] - window.padding[1], window.stride[1]);
        const std::int64_t phase =
            std::lower_bound(phases.used.begin(), phases.used.end(), Pair{row.phase, col.phase}) -
            phases.used.begin();
        const std::int64_t channel = phase * weights_->channels + g * group_channels + k % group_channels;
        offsets.push_back(
            static_cast<std::int32_t>(channel * layout.plane + row.shift * layout.row_pitch + col.shift));
      }
    }
  }

  /// Panels of nearly equal width: a few tiles, whose input stays in the fastest cache while all slabs pass
  /// over it.
  void cut(const std::vector<ColumnRun>& runs) {
    std::int64_t rows = 0;
    for (const PackedMatrix& group : weights_->groups) {
      for (std::int64_t s = 0; s < group.slab_count(); ++s)
        rows = std::max<std::int64_t>(rows, group.slab(s).rows);
    }
    const std::int64_t lanes = kernels_.lanes;
    const std::int64_t tile = kernels_.tile_vectors[rows];
    const std::int64_t line_bytes =
        from_.layout.shape.channels * lanes * static_cast<std::int64_t>(sizeof(float));
    const std::int64_t widest = std::max<std::int64_t>(1, kPanelBytes / (line_bytes * tile)) * tile;
    std::vector<ColumnRun> vectors;
    for (const ColumnRun& run : runs) {
      for (std::int64_t done = 0; done < run.count; done += lanes)
        vectors.push_back({run.x + done, run.y + done, std::min(lanes, run.count - done)});
    }
    const auto count = static_cast<std::int64_t>(vectors.size());
    const std::int64_t panels = ceil_div(count, widest);
    for (std::int64_t p = 0; p < panels; ++p) {
      const std::size_t begin = runs_.size();
      for (std::int64_t v = count * p / panels; v < count * (p + 1) / panels; ++v) {
        const ColumnRun& next = vectors[index(v)];
        if (runs_.size() > begin && runs_.back().x + runs_.back().count == next.x &&
            runs_.back().y + runs_.back().count == next.y) {
          runs_.back().count += next.count;
        } else {
          runs_.push_back(next);
        }
      }
      panels_.push_back({begin, runs_.size(), 0, 0});
    }
  }

  void find_gaps(std::int64_t images) {
    const PlaneLayout& layout = to_.layout;
    const auto is_pixel = [&](std::int64_t y) {
      const std::int64_t in_image = y % layout.image_pitch;
      return in_image / layout.row_pitch < layout.shape.height &&
             in_image % layout.row_pitch < layout.shape.width && y / layout.image_pitch < images;
    };
    for (Panel& panel : panels_) {
      panel.gap_begin = gaps_.size();
      for (std::size_t r = panel.run_begin; r < panel.run_end; ++r) {
        for (std::int64_t y = runs_[r].y; y < runs_[r].y + runs_[r].count; ++y) {
          if (!is_pixel(y)) gaps_.push_back(static_cast<std::int32_t>(y));
        }
      }
      panel.gap_end = gaps_.size();
    }
  }

  void multiply(const Frame& frame, std::size_t group, std::int64_t panel_index, std::int64_t slab_begin,
                std::int64_t slab_end) const {
    const PackedMatrix& matrix = weights_->groups[group];
    const Panel& panel = panels_[index(panel_index)];
    const ColumnRun* const runs = runs_.data() + panel.run_begin;
    const auto run_count = static_cast<std::int64_t>(panel.run_end - panel.run_begin);
    const std::int64_t pitch = to_.layout.plane;
    const std::int64_t first_channel =
        static_cast<std::int64_t>(group) * (weights_->out_channels / weights_->group_count());
    const float* const x = from_.pixels(frame.arena);
    float* const y = to_.pixels(frame.arena);
    const float* const residual = has_residual_ ? residual_.pixels(frame.arena) : nullptr;
    if (narrow_ && runs[0].count == 1) {
      const Epilogue all{weights_->bias.empty() ? nullptr : weights_->bias.data() + first_channel,
                         residual == nullptr ? nullptr : residual + first_channel * pitch, pitch,
                         weights_->relu};
      kernels_.column(matrix.places_of_slabs() + slab_begin, slab_end - slab_begin, matrix.weights(),
                      offsets_[group].data(), side_by_side_ ? kMostSideBySide : 1, x, all,
                      y + first_channel * pitch, pitch);
      return;
    }
    for (std::int64_t s = slab_begin; s < slab_end; ++s) {
      const std::int64_t channel = first_channel + matrix.first_row(s);
      const Epilogue epilogue{weights_->bias.empty() ? nullptr : weights_->bias.data() + channel,
                              residual == nullptr ? nullptr : residual + channel * pitch, pitch,
                              weights_->relu};
      const Slab slab = matrix.slab(s, offsets_[group].data());
      float* const target = y + channel * pitch;
      if (narrow_) {
        kernels_.narrow(slab, x, 1, static_cast<int>(runs[0].count), epilogue, target, pitch);
      } else {
        kernels_.slab(slab, x, 1, runs, run_count, kPlaneSlack, epilogue, target, pitch);
      }
      for (int r = 0; r < slab.rows; ++r) {
        for (std::size_t i = panel.gap_begin; i < panel.gap_end; ++i) target[r * pitch + gaps_[i]] = 0.0F;
      }
    }
  }

  Place from_;
  Place to_;
  Place residual_;
  bool has_residual_;
  std::shared_ptr<const ConvWeights> weights_;
  const KernelTable& kernels_;
  std::vector<std::vector<std::int32_t>> offsets_;  ///< Of each group: where each element of a slab lies.
  std::vector<ColumnRun> runs_;
  std::vector<std::int32_t> gaps_;
  std::vector<Panel> panels_;
  bool narrow_ = false;
  bool side_by_side_ = false;  ///< Whether neighbours in the reduction are neighbours in memory.
  bool serial_ = true;
  std::int64_t work_ = 0;
  std::int64_t vectors_ = 0;
};

}  // namespace

std::unique_ptr<const Step> make_conv(const Place& from, const Phases& phases, const Place* residual,
                                      const Place& to, std::shared_ptr<const ConvWeights> weights,
                                      std::int64_t images, const KernelTable& kernels) {
  return std::make_unique<const ConvStep>(from, phases, residual, to, std::move(weights), images, kernels);
}

}  // namespace pysim
