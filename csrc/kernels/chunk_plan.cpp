#include "kernels/chunk_plan.h"

#include <algorithm>
#include <limits>
#include <map>
#include <string>
#include <tuple>
#include <utility>

#include "base/check.h"
#include "kernels/steps.h"

namespace pysim {
namespace {

using Kind = NetworkGraph::Kind;
using Node = NetworkGraph::Node;

constexpr std::int64_t kLine = 16;
// Planes shorter than this follow each other without gaps.
constexpr std::int64_t kShortPlane = 4 * kLine;

/// Zeros that a reader needs around the pixels.
struct Gap {
  std::int64_t rows = 0;
  std::int64_t cols = 0;
};

std::size_t index(std::int64_t i) { return static_cast<std::size_t>(i); }

/// Height and width of one phase of an image.
Pair phase_size(const ImageShape& shape, const Pair& stride) {
  return {ceil_div(shape.height, stride[0]), ceil_div(shape.width, stride[1])};
}

/// How far a convolution reads outside of the (phases of the) image, along one axis.
std::int64_t gap_of(const ConvWindow& window, std::size_t axis, std::int64_t size, std::int64_t out) {
  std::int64_t gap = 0;
  for (std::int64_t tap = 0; tap < window.kernel[axis]; ++tap) {
    const std::int64_t shift =
        tap_place(tap * window.dilation[axis] - window.padding[axis], window.stride[axis]).shift;
    gap = std::max({gap, -shift, out + shift - size});
  }
  return gap;
}

Phases phases_of(const ConvWindow& window) {
  Phases phases{window.stride, {}};
  for (std::int64_t i = 0; i < window.kernel[0]; ++i) {
    for (std::int64_t j = 0; j < window.kernel[1]; ++j) {
      phases.used.push_back({tap_place(i * window.dilation[0] - window.padding[0], window.stride[0]).phase,
                             tap_place(j * window.dilation[1] - window.padding[1], window.stride[1]).phase});
    }
  }
  std::sort(phases.used.begin(), phases.used.end());
  phases.used.erase(std::unique(phases.used.begin(), phases.used.end()), phases.used.end());
  return phases;
}

bool strided(const ConvWindow& window) { return window.stride != Pair{1, 1}; }

/// Gives out places in the arena. Memory is used again for activations of the same layout only: their zeros
/// stay zeros.
class Arena {
 public:
  Place take(const PlaneLayout& layout) {
    for (auto held = idle_.begin(); held != idle_.end(); ++held) {
      if (held->layout == layout) {
        const Place place = *held;
        idle_.erase(held);
        return place;
      }
    }
    const Place place{layout, elements_};
    elements_ += ceil_div(layout.elements, kLine) * kLine;
    return place;
  }
  void give_back(const Place& place) { idle_.push_back(place); }
  std::int64_t elements() const { return elements_; }

 private:
  std::vector<Place> idle_;
  std::int64_t elements_ = 0;
};

/// An activation of the plan: a node's result, or its phases for one stride.
struct Value {
  ImageShape shape{};
  int last_read = -1;  // The node that reads it last.
  Place place{};
};

using SplitKey = std::tuple<int, std::int64_t, std::int64_t>;  // Node, vertical and horizontal stride.

struct Split {
  Phases phases;
  Value value;
};

}  // namespace

PlaneLayout::PlaneLayout(const ImageShape& image, std::int64_t images, std::int64_t gap_rows,
                         std::int64_t gap_cols)
    : shape(image) {
  row_pitch = image.width + gap_cols;
  image_pitch = (image.height + gap_rows) * row_pitch;
  plane = images * image_pitch;
  // An odd number of lines from plane to plane: else channels would compete for few places of the cache.
  if (plane >= kShortPlane) plane = (ceil_div(plane, kLine) | 1) * kLine;
  first = ceil_div(gap_rows * row_pitch + gap_cols, kLine) * kLine;
  elements = first + image.channels * plane + kPlaneSlack;
}

ChunkPlan::ChunkPlan(const NetworkGraph& graph, int output, std::int64_t images, const KernelTable& kernels)
    : images_(images) {
  const std::vector<Node>& nodes = graph.nodes();
  std::vector<Value> values(nodes.size());
  std::map<SplitKey, Split> splits;
  // One gap for all activations of one height and width: then a convolution that keeps the size reads and
  // writes rows that lie equally far apart.
  std::map<Pair, Gap> gaps;
  const auto need = [&](const Pair& size, const Gap& gap) {
    Gap& most = gaps[size];
    most = {std::max(most.rows, gap.rows), std::max(most.cols, gap.cols)};
  };
  for (std::size_t i = 0; i < nodes.size(); ++i) {
    const Node& node = nodes[i];
    values[i].shape = node.shape;
    for (const int source : node.sources) values[index(source)].last_read = static_cast<int>(i);
    if (node.kind != Kind::conv) continue;
    const ConvWindow& window = node.weights->window;
    const ImageShape& shape = nodes[index(node.sources[0])].shape;
    const Pair size = phase_size(shape, window.stride);
    need(size, {gap_of(window, 0, size[0], node.shape.height), gap_of(window, 1, size[1], node.shape.width)});
    if (!strided(window)) continue;
    Split& split = splits[{node.sources[0], window.stride[0], window.stride[1]}];
    const Phases mine = phases_of(window);
    split.phases.stride = mine.stride;
    std::vector<Pair> both;
    std::set_union(split.phases.used.begin(), split.phases.used.end(), mine.used.begin(), mine.used.end(),
                   std::back_inserter(both));
    split.phases.used = both;
    split.value.shape = {shape.channels * static_cast<std::int64_t>(both.size()), size[0], size[1]};
    split.value.last_read = static_cast<int>(i);
  }
  values[index(output)].last_read = static_cast<int>(nodes.size());

  Arena arena;
  const auto place_value = [&](Value& value) {
    const Gap gap = gaps[{value.shape.height, value.shape.width}];
    const PlaneLayout layout(value.shape, images, gap.rows, gap.cols);
    const double size = static_cast<double>(value.shape.channels) * static_cast<double>(layout.plane);
    require(size < static_cast<double>(std::numeric_limits<std::int32_t>::max() - 4 * kPlaneSlack), "network",
            "activations of fewer than 2^31 elements", std::to_string(size));
    value.place = arena.take(layout);
  };
  for (std::size_t i = 0; i < nodes.size(); ++i) {
    const Node& node = nodes[i];
    const int now = static_cast<int>(i);
    if (values[i].last_read < 0) continue;  // nobody reads it
    const Value* const from = node.sources.empty() ? nullptr : &values[index(node.sources[0])];
    const Value* source = from;
    const Phases* phases = nullptr;
    static const Phases kOne{{1, 1}, {{0, 0}}};
    Split* split = nullptr;
    if (node.kind == Kind::conv) {
      phases = &kOne;
      const ConvWindow& window = node.weights->window;
      if (strided(window)) {
        split = &splits.at({node.sources[0], window.stride[0], window.stride[1]});
        phases = &split->phases;
        if (split->value.place.layout.elements == 0) {
          place_value(split->value);
          steps_.push_back(make_split(from->place, split->value.place, split->phases, images));
        }
        source = &split->value;
      }
    }
    place_value(values[i]);
    const Place& to = values[i].place;
    switch (node.kind) {
      case Kind::input:
        steps_.push_back(make_input(to, images, kernels));
        break;
      case Kind::conv: {
        const Place* const residual =
            node.sources.size() == 2 ? &values[index(node.sources[1])].place : nullptr;
        steps_.push_back(make_conv(source->place, *phases, residual, to, node.weights, images, kernels));
        break;
      }
      case Kind::max_pool:
      case Kind::average_pool:
        steps_.push_back(make_pool(from->place, to, node, images));
        break;
      case Kind::add:
        steps_.push_back(make_add(from->place, values[index(node.sources[1])].place, to, node.relu));
        break;
      case Kind::clamp:
        steps_.push_back(make_clamp(from->place, to, node.low, node.high));
        break;
      case Kind::flatten:
        steps_.push_back(make_flatten(from->place, to, images));
        break;
    }
    if (now == output) {
      steps_.push_back(make_output(to, images, kernels));
      break;
    }
    std::vector<int> read = node.sources;
    std::sort(read.begin(), read.end());
    read.erase(std::unique(read.begin(), read.end()), read.end());
    for (const int r : read) {
      if (values[index(r)].last_read == now) arena.give_back(values[index(r)].place);
    }
    if (split != nullptr && split->value.last_read == now) arena.give_back(split->value.place);
  }
  elements_ = arena.elements();
}

double ChunkPlan::cost_per_image() const {
  double cost = 0.0;
  for (const std::unique_ptr<const Step>& step : steps_) cost += step->cost();
  return cost / static_cast<double>(images_);
}

}  // namespace pysim
