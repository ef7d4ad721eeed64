#include "kernels/network.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <new>
#include <string>
#include <utility>

#include "base/check.h"
#include "kernels/chunk_plan.h"
#include "kernels/thread_pool.h"

namespace pysim {
namespace {

// Images pass through the network together while their activations fit in a core's own cache.
constexpr std::int64_t kChunkBytes = 512 * 1024;

std::string text_of(const ImageShape& shape) {
  return std::to_string(shape.channels) + " x " + std::to_string(shape.height) + " x " +
         std::to_string(shape.width);
}

void check_ranges(const std::vector<PoolRange>& ranges, std::int64_t size) {
  require(!ranges.empty(), "network pooling", "at least one output", "none");
  for (const PoolRange& range : ranges) {
    require(range.begin >= 0 && range.begin < range.end && range.end <= size, "network pooling",
            "ranges within 0 .. " + std::to_string(size),
            std::to_string(range.begin) + " .. " + std::to_string(range.end));
    require(range.count >= 1, "network pooling", "counts of at least 1", std::to_string(range.count));
  }
}

}  // namespace

int NetworkGraph::append(Node node) {
  nodes_.push_back(std::move(node));
  return static_cast<int>(nodes_.size()) - 1;
}

const ImageShape& NetworkGraph::shape_of(int x) const {
  require(x >= 0 && x < static_cast<int>(nodes_.size()), "network", "a node made before", std::to_string(x));
  return nodes_[static_cast<std::size_t>(x)].shape;
}

int NetworkGraph::input(const ImageShape& shape) {
  constexpr std::int64_t most = 1 << 24;
  require(nodes_.empty(), "network input", "one, first of all", "another");
  for (const std::int64_t size : {shape.channels, shape.height, shape.width})
    require(size >= 1 && size <= most, "network input", "sizes of 1 to 2^24", text_of(shape));
  return append({.kind = Kind::input, .shape = shape, .sources = {}});
}

int NetworkGraph::conv(int x, std::shared_ptr<const ConvWeights> weights, int residual) {
  const ImageShape& shape = shape_of(x);
  require(shape.channels == weights->channels, "network convolution",
          std::to_string(weights->channels) + " channels", std::to_string(shape.channels));
  const Pair size = weights->window.out_size({shape.height, shape.width});
  const ImageShape out{weights->out_channels, size[0], size[1]};
  std::vector<int> sources{x};
  if (residual != -1) {
    require(shape_of(residual) == out, "network residual", text_of(out), text_of(shape_of(residual)));
    sources.push_back(residual);
  }
  return append({.kind = Kind::conv, .shape = out, .sources = sources, .weights = std::move(weights)});
}

int NetworkGraph::pool(int x, bool average, std::vector<PoolRange> rows, std::vector<PoolRange> cols) {
  const ImageShape& shape = shape_of(x);
  check_ranges(rows, shape.height);
  check_ranges(cols, shape.width);
  const ImageShape out{shape.channels, static_cast<std::int64_t>(rows.size()),
                       static_cast<std::int64_t>(cols.size())};
  return append({.kind = average ? Kind::average_pool : Kind::max_pool,
                 .shape = out,
                 .sources = {x},
                 .rows = std::move(rows),
                 .cols = std::move(cols)});
}

int NetworkGraph::add(int a, int b, bool relu) {
  require(shape_of(a) == shape_of(b), "network sum", text_of(shape_of(a)), text_of(shape_of(b)));
  return append({.kind = Kind::add, .shape = shape_of(a), .sources = {a, b}, .relu = relu});
}

int NetworkGraph::clamp(int x, float low, float high) {
  require(low <= 0.0F && high >= 0.0F, "network clamp", "a range that holds zero",
          std::to_string(low) + " .. " + std::to_string(high));
  return append({.kind = Kind::clamp, .shape = shape_of(x), .sources = {x}, .low = low, .high = high});
}

int NetworkGraph::flatten(int x) {
  const ImageShape& shape = shape_of(x);
  return append(
      {.kind = Kind::flatten, .shape = {shape.channels * shape.height * shape.width, 1, 1}, .sources = {x}});
}

/// Zeroed, aligned memory for one call.
struct Network::Workspace {
  struct Free {
    void operator()(float* p) const { std::free(p); }
  };
  std::unique_ptr<float, Free> whole;
  std::unique_ptr<float, Free> rest;

  static std::unique_ptr<float, Free> make(const ChunkPlan* plan) {
    if (plan == nullptr) return nullptr;
    constexpr std::size_t line = 64;
    const std::size_t bytes =
        (static_cast<std::size_t>(plan->elements()) * sizeof(float) + line - 1) / line * line;
    auto* const memory = static_cast<float*>(std::aligned_alloc(line, bytes));
    if (memory == nullptr) throw std::bad_alloc();
    std::fill(memory, memory + bytes / sizeof(float), 0.0F);
    return std::unique_ptr<float, Free>(memory);
  }
};

/// One of the network's idle workspaces, or a new one, until the end of the scope.
struct Network::WorkspaceUse {
  explicit WorkspaceUse(const Network& owner) : network(owner) {
    {
      const std::lock_guard lock(network.mutex_);
      if (!network.idle_.empty()) {
        workspace = std::move(network.idle_.back());
        network.idle_.pop_back();
        return;
      }
    }
    workspace = std::make_unique<Workspace>();
    workspace->whole = Workspace::make(network.whole_.get());
    workspace->rest = Workspace::make(network.rest_.get());
    const std::lock_guard lock(network.mutex_);
    network.idle_.reserve(++network.workspaces_);  // so that giving it back needs no memory
  }
  ~WorkspaceUse() {
    const std::lock_guard lock(network.mutex_);
    network.idle_.push_back(std::move(workspace));
  }
  WorkspaceUse(const WorkspaceUse&) = delete;
  WorkspaceUse& operator=(const WorkspaceUse&) = delete;

  const Network& network;
  std::unique_ptr<Workspace> workspace;
};

Network::Network(const NetworkGraph& graph, int output, std::int64_t batch, const KernelTable& kernels,
                 int threads)
    : batch_(batch), threads_(threads) {
  check_threads(threads, "network");
  const std::vector<NetworkGraph::Node>& nodes = graph.nodes();
  require(!nodes.empty(), "network", "an input", "none");
  require(output >= 0 && output < static_cast<int>(nodes.size()), "network", "an output made before",
          std::to_string(output));
  require(batch >= 1 && batch <= 1 << 24, "network", "a batch of 1 to 2^24", std::to_string(batch));
  in_shape_ = nodes[0].shape;
  out_shape_ = nodes[static_cast<std::size_t>(output)].shape;
  // More images at once fill vectors better and read weights less often, but soon leave the cache.
  const std::int64_t most = ceil_div(batch, threads);
  for (std::int64_t images = 1;; images = std::min(most, 2 * images)) {
    auto plan = std::make_unique<const ChunkPlan>(graph, output, images, kernels);
    const bool large = plan->elements() * static_cast<std::int64_t>(sizeof(float)) > kChunkBytes;
    if (whole_ != nullptr && large) break;
    if (whole_ == nullptr || plan->cost_per_image() < 0.98 * whole_->cost_per_image()) {
      whole_ = std::move(plan);
      chunk_ = images;
    }
    if (images == most) break;
  }
  if (batch % chunk_ != 0) rest_ = std::make_unique<const ChunkPlan>(graph, output, batch % chunk_, kernels);
}

Network::~Network() = default;

std::int64_t Network::workspace_bytes() const {
  return (whole_->elements() + (rest_ == nullptr ? 0 : rest_->elements())) *
         static_cast<std::int64_t>(sizeof(float));
}

void Network::run_chunk(std::int64_t first, const Images& x, float* y, ImageOrder y_order,
                        int threads) const {
  const WorkspaceUse use(*this);
  const bool whole = first + chunk_ <= batch_;
  const std::int64_t in = in_shape_.channels * in_shape_.height * in_shape_.width;
  const std::int64_t out = out_shape_.channels * out_shape_.height * out_shape_.width;
  const ChunkPlan& plan = whole ? *whole_ : *rest_;
  plan.run({{x.data + first * in, x.order},
            y + first * out,
            y_order,
            (whole ? use.workspace->whole : use.workspace->rest).get(),
            threads});
}

void Network::run(const Images& x, float* y, ImageOrder y_order) const {
  const std::int64_t chunks = ceil_div(batch_, chunk_);
  if (chunks == 1 || threads_ == 1) {
    for (std::int64_t c = 0; c < chunks; ++c) run_chunk(c * chunk_, x, y, y_order, threads_);
    return;
  }
  // Whole chunks to each thread: activations stay in its own cache, and nobody waits between layers.
  run_parallel(threads_, chunks, [&](std::int64_t c) { run_chunk(c * chunk_, x, y, y_order, 1); });
}

}  // namespace pysim
