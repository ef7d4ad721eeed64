// What is not a product: copies in and out, phases, pooling, sums, flattening.
#include "kernels/steps.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/transpose.h"

namespace pysim {
namespace {

/// Whether every image is one feature of each plane, with nothing between them.
bool is_vector(const PlaneLayout& layout) {
  return layout.shape.height == 1 && layout.shape.width == 1 && layout.image_pitch == 1;
}

class InputStep final : public Step {
 public:
  InputStep(const Place& to, std::int64_t images, RowCopy copy_rows)
      : to_(to), images_(images), copy_rows_(copy_rows) {}

  void run(const Frame& frame) const override {
    const PlaneLayout& layout = to_.layout;
    const ImageShape& shape = layout.shape;
    float* const pixels = to_.pixels(frame.arena);
    if (is_vector(layout)) {
      if (layout.plane == 1) {
        std::copy(frame.x.data, frame.x.data + shape.channels, pixels);
      } else {
        transpose(frame.x.data, images_, shape.channels, shape.channels, pixels, layout.plane);
      }
      return;
    }
    const float* from = frame.x.data;
    for (std::int64_t i = 0; i < images_; ++i) {
      if (frame.x.order == ImageOrder::channels_last) {
        float* row = pixels + i * layout.image_pitch;
        for (std::int64_t r = 0; r < shape.height; ++r, row += layout.row_pitch) {
          transpose(from, shape.width, shape.channels, shape.channels, row, layout.plane);
          from += shape.width * shape.channels;
        }
        continue;
      }
      for (std::int64_t c = 0; c < shape.channels; ++c) {
        copy_rows_(from, shape.width, pixels + c * layout.plane + i * layout.image_pitch, layout.row_pitch,
                   shape.height, shape.width);
        from += shape.height * shape.width;
      }
    }
  }

 private:
  Place to_;
  std::int64_t images_;
  RowCopy copy_rows_;
};

class OutputStep final : public Step {
 public:
  OutputStep(const Place& from, std::int64_t images, RowCopy copy_rows)
      : from_(from), images_(images), copy_rows_(copy_rows) {}

  void run(const Frame& frame) const override {
    const PlaneLayout& layout = from_.layout;
    const ImageShape& shape = layout.shape;
    const float* const pixels = from_.pixels(frame.arena);
    if (is_vector(layout)) {
      transpose(pixels, shape.channels, images_, layout.plane, frame.y, shape.channels);
      return;
    }
    float* to = frame.y;
    for (std::int64_t i = 0; i < images_; ++i) {
      if (frame.y_order == ImageOrder::channels_last) {
        const float* row = pixels + i * layout.image_pitch;
        for (std::int64_t r = 0; r < shape.height; ++r, row += layout.row_pitch) {
          transpose(row, shape.channels, shape.width, layout.plane, to, shape.channels);
          to += shape.width * shape.channels;
        }
        continue;
      }
      for (std::int64_t c = 0; c < shape.channels; ++c) {
        copy_rows_(pixels + c * layout.plane + i * layout.image_pitch, layout.row_pitch, to, shape.width,
                   shape.height, shape.width);
        to += shape.height * shape.width;
      }
    }
  }

 private:
  Place from_;
  std::int64_t images_;
  RowCopy copy_rows_;
};

class SplitStep final : public Step {
 public:
  SplitStep(const Place& from, const Place& to, Phases phases, std::int64_t images)
      : from_(from), to_(to), phases_(std::move(phases)), images_(images) {}

  void run(const Frame& frame) const override {
    const PlaneLayout& in = from_.layout;
    const PlaneLayout& out = to_.layout;
    const std::int64_t channels = in.shape.channels;
    for (std::size_t p = 0; p < phases_.used.size(); ++p) {
      const Pair& phase = phases_.used[p];
      for (std::int64_t c = 0; c < channels; ++c) {
        for (std::int64_t i = 0; i < images_; ++i) {
          const float* const image = from_.pixels(frame.arena) + c * in.plane + i * in.image_pitch;
          float* row = to_.pixels(frame.arena) + (static_cast<std::int64_t>(p) * channels + c) * out.plane +
                       i * out.image_pitch;
          for (std::int64_t r = 0; r < out.shape.height; ++r, row += out.row_pitch)
            copy_row(image, phase, r, row);
        }
      }
    }
  }

 private:
  void copy_row(const float* image, const Pair& phase, std::int64_t r, float* __restrict row) const {
    const PlaneLayout& in = from_.layout;
    const std::int64_t width = to_.layout.shape.width;
    const std::int64_t source_row = r * phases_.stride[0] + phase[0];
    std::int64_t inside = 0;
    if (source_row < in.shape.height) {
      const std::int64_t stride = phases_.stride[1];
      const float* const from = image + source_row * in.row_pitch + phase[1];
      // The phases of an image whose size the stride does not divide may be one short.
      inside = std::min(width, (in.shape.width - phase[1] + stride - 1) / stride);
      if (stride == 2) {
        for (std::int64_t j = 0; j < inside; ++j) row[j] = from[2 * j];
      } else {
        for (std::int64_t j = 0; j < inside; ++j) row[j] = from[j * stride];
      }
    }
    for (std::int64_t j = inside; j < width; ++j) row[j] = 0.0F;
  }

  Place from_;
  Place to_;
  Phases phases_;
  std::int64_t images_;
};

class PoolStep final : public Step {
 public:
  PoolStep(const Place& from, const Place& to, const NetworkGraph::Node& node, std::int64_t images)
      : from_(from),
        to_(to),
        average_(node.kind == NetworkGraph::Kind::average_pool),
        rows_(node.rows),
        cols_(node.cols),
        images_(images) {
    const ImageShape& shape = from.layout.shape;
    const auto whole = [](const std::vector<PoolRange>& ranges, std::int64_t size) {
      return ranges.size() == 1 && ranges[0].begin == 0 && ranges[0].end == size;
    };
    mean_ = average_ && whole(rows_, shape.height) && whole(cols_, shape.width);
  }

  void run(const Frame& frame) const override {
    const PlaneLayout& in = from_.layout;
    const PlaneLayout& out = to_.layout;
    for (std::int64_t c = 0; c < in.shape.channels; ++c) {
      for (std::int64_t i = 0; i < images_; ++i) {
        const float* const image = from_.pixels(frame.arena) + c * in.plane + i * in.image_pitch;
        float* const target = to_.pixels(frame.arena) + c * out.plane + i * out.image_pitch;
        if (mean_) {
          *target = mean(image);
          continue;
        }
        for (std::size_t r = 0; r < rows_.size(); ++r) {
          for (std::size_t j = 0; j < cols_.size(); ++j) {
            target[static_cast<std::int64_t>(r) * out.row_pitch + static_cast<std::int64_t>(j)] =
                average_ ? average(image, rows_[r], cols_[j]) : largest(image, rows_[r], cols_[j]);
          }
        }
      }
    }
  }

 private:
  /// The zeros between rows add nothing, so the image is one run.
  float mean(const float* image) const {
    constexpr int kSums = 16;
    const PlaneLayout& in = from_.layout;
    const std::int64_t count = (in.shape.height - 1) * in.row_pitch + in.shape.width;
    float sums[kSums] = {};
    std::int64_t j = 0;
    for (; j + kSums <= count; j += kSums) {
      for (int s = 0; s < kSums; ++s) sums[s] += image[j + s];
    }
    for (int s = 0; j < count; ++j, ++s) sums[s] += image[j];
    for (int half = kSums / 2; half >= 1; half /= 2) {
      for (int s = 0; s < half; ++s) sums[s] += sums[s + half];
    }
    return sums[0] / static_cast<float>(rows_[0].count * cols_[0].count);
  }

  float average(const float* image, const PoolRange& rows, const PoolRange& cols) const {
    float sum = 0.0F;
    for (std::int64_t r = rows.begin; r < rows.end; ++r) {
      for (std::int64_t j = cols.begin; j < cols.end; ++j) sum += image[r * from_.layout.row_pitch + j];
    }
    return sum / static_cast<float>(rows.count * cols.count);
  }

  float largest(const float* image, const PoolRange& rows, const PoolRange& cols) const {
    float most = -std::numeric_limits<float>::infinity();
    for (std::int64_t r = rows.begin; r < rows.end; ++r) {
      for (std::int64_t j = cols.begin; j < cols.end; ++j) {
        const float value = image[r * from_.layout.row_pitch + j];
        if (value > most || std::isnan(value)) most = value;
      }
    }
    return most;
  }

  Place from_;
  Place to_;
  bool average_;
  std::vector<PoolRange> rows_;
  std::vector<PoolRange> cols_;
  std::int64_t images_;
  bool mean_ = false;
};

/// Elements from the first pixel to the last, zeros between them included.
std::int64_t span_of(const PlaneLayout& layout) { return layout.shape.channels * layout.plane; }

class AddStep final : public Step {
 public:
  AddStep(const Place& a, const Place& b, const Place& to, bool relu) : a_(a), b_(b), to_(to), relu_(relu) {}

  void run(const Frame& frame) const override {
    const float* const a = a_.pixels(frame.arena);
    const float* const b = b_.pixels(frame.arena);
    float* const to = to_.pixels(frame.arena);
    const std::int64_t count = span_of(to_.layout);
    if (relu_) {
      for (std::int64_t i = 0; i < count; ++i) {
        const float sum = a[i] + b[i];
        to[i] = sum < 0.0F ? 0.0F : sum;
      }
    } else {
      for (std::int64_t i = 0; i < count; ++i) to[i] = a[i] + b[i];
    }
  }

 private:
  Place a_;
  Place b_;
  Place to_;
  bool relu_;
};

class ClampStep final : public Step {
 public:
  ClampStep(const Place& from, const Place& to, float low, float high)
      : from_(from), to_(to), low_(low), high_(high) {}

  void run(const Frame& frame) const override {
    const float* const from = from_.pixels(frame.arena);
    float* const to = to_.pixels(frame.arena);
    const std::int64_t count = span_of(to_.layout);
    for (std::int64_t i = 0; i < count; ++i) {
      const float value = from[i] < low_ ? low_ : from[i];
      to[i] = value > high_ ? high_ : value;
    }
  }

 private:
  Place from_;
  Place to_;
  float low_;
  float high_;
};

class FlattenStep final : public Step {
 public:
  FlattenStep(const Place& from, const Place& to, std::int64_t images)
      : from_(from), to_(to), images_(images) {}

  void run(const Frame& frame) const override {
    const PlaneLayout& in = from_.layout;
    const PlaneLayout& out = to_.layout;
    float* to = to_.pixels(frame.arena);
    for (std::int64_t c = 0; c < in.shape.channels; ++c) {
      const float* row = from_.pixels(frame.arena) + c * in.plane;
      for (std::int64_t r = 0; r < in.shape.height; ++r, row += in.row_pitch) {
        if (is_vector(out)) {
          transpose(row, images_, in.shape.width, in.image_pitch, to, out.plane);
        } else {
          for (std::int64_t i = 0; i < images_; ++i) {
            for (std::int64_t j = 0; j < in.shape.width; ++j)
              to[j * out.plane + i * out.image_pitch] = row[i * in.image_pitch + j];
          }
        }
        to += in.shape.width * out.plane;
      }
    }
  }

 private:
  Place from_;
  Place to_;
  std::int64_t images_;
};

}  // namespace

std::unique_ptr<const Step> make_input(const Place& to, std::int64_t images, const KernelTable& kernels) {
  return std::make_unique<const InputStep>(to, images, kernels.copy_rows);
}

std::unique_ptr<const Step> make_output(const Place& from, std::int64_t images, const KernelTable& kernels) {
  return std::make_unique<const OutputStep>(from, images, kernels.copy_rows);
}

std::unique_ptr<const Step> make_split(const Place& from, const Place& to, const Phases& phases,
                                       std::int64_t images) {
  return std::make_unique<const SplitStep>(from, to, phases, images);
}

std::unique_ptr<const Step> make_pool(const Place& from, const Place& to, const NetworkGraph::Node& node,
                                      std::int64_t images) {
  return std::make_unique<const PoolStep>(from, to, node, images);
}

std::unique_ptr<const Step> make_add(const Place& a, const Place& b, const Place& to, bool relu) {
  return std::make_unique<const AddStep>(a, b, to, relu);
}

std::unique_ptr<const Step> make_clamp(const Place& from, const Place& to, float low, float high) {
  return std::make_unique<const ClampStep>(from, to, low, high);
}

std::unique_ptr<const Step> make_flatten(const Place& from, const Place& to, std::int64_t images) {
  return std::make_unique<const FlattenStep>(from, to, images);
}

}  // namespace pysim
