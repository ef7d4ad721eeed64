// A whole network as one native call: activations stay in zero-padded planes from layer to layer.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "kernels/conv.h"

namespace pysim {

/// What one image is at some point of the network. A vector of features is an image of 1 x 1.
struct ImageShape {
  std::int64_t channels;
  std::int64_t height;
  std::int64_t width;

  friend bool operator==(const ImageShape&, const ImageShape&) = default;
};

/// Image rows or columns [begin, end) that one output of a pooling reads. An average divides by the product
/// of the counts of its row and its column.
struct PoolRange {
  std::int64_t begin;
  std::int64_t end;
  std::int64_t count;
};

/// A network without its batch: operators in the order in which they run, each one's result named by the
/// index that the call returned. Every call throws std::invalid_argument if shapes do not fit.
class NetworkGraph {
 public:
  enum class Kind { input, conv, max_pool, average_pool, add, clamp, flatten };

  struct Node {
    Kind kind;
    ImageShape shape;
    std::vector<int> sources;  ///< A convolution's second one is the residual.
    std::shared_ptr<const ConvWeights> weights = nullptr;
    std::vector<PoolRange> rows = {};
    std::vector<PoolRange> cols = {};
    float low = 0.0F;
    float high = 0.0F;
    bool relu = false;
  };

  /// The one input; it comes first.
  int input(const ImageShape& shape);
  /// `residual` is added after the bias and before ReLU; -1 for none.
  int conv(int x, std::shared_ptr<const ConvWeights> weights, int residual);
  int pool(int x, bool average, std::vector<PoolRange> rows, std::vector<PoolRange> cols);
  int add(int a, int b, bool relu);
  /// low <= 0 <= high, either may be infinite.
  int clamp(int x, float low, float high);
  /// Channels, rows and columns become channels, in that order.
  int flatten(int x);

  const std::vector<Node>& nodes() const { return nodes_; }

 private:
  int append(Node node);
  const ImageShape& shape_of(int x) const;

  std::vector<Node> nodes_;
};

class ChunkPlan;

/// A network for one batch size, ready to run any number of times, from several threads at once. Immutable
/// but for its workspaces, one for each call that runs at the same time; they are kept.
class Network {
 public:
  /// The result is what node `output` computes. Throws std::invalid_argument if a size is out of range.
  Network(const NetworkGraph& graph, int output, std::int64_t batch, const KernelTable& kernels, int threads);
  ~Network();
  Network(const Network&) = delete;
  Network& operator=(const Network&) = delete;

  std::int64_t batch() const { return batch_; }
  const ImageShape& in_shape() const { return in_shape_; }
  const ImageShape& out_shape() const { return out_shape_; }
  /// Images that pass through the network together.
  std::int64_t chunk_images() const { return chunk_; }
  /// Bytes of one workspace.
  std::int64_t workspace_bytes() const;

  /// x (batch, channels, height, width) and y, y apart from x. The bits of the result depend neither on the
  /// number of threads nor on the orders.
  void run(const Images& x, float* y, ImageOrder y_order) const;

 private:
  struct Workspace;
  struct WorkspaceUse;

  void run_chunk(std::int64_t first, const Images& x, float* y, ImageOrder y_order, int threads) const;

  std::int64_t batch_;
  ImageShape in_shape_;
  ImageShape out_shape_;
  int threads_;
  std::int64_t chunk_ = 1;
  std::unique_ptr<const ChunkPlan> whole_;  ///< For chunk_ images.
  std::unique_ptr<const ChunkPlan> rest_;   ///< For what is left, or null.
  mutable std::mutex mutex_;
  mutable std::size_t workspaces_ = 0;  ///< Made so far.
  mutable std::vector<std::unique_ptr<Workspace>> idle_;
};

}  // namespace pysim
