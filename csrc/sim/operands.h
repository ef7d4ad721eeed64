// Which element of W, X and Y each fold puts on which port of the array: the cycle engine's address
// generators. Holds pointers to the caller's arrays.
#pragma once

#include <cstdint>
#include <vector>

#include "sim/cores.h"
#include "sim/counts.h"
#include "sim/folding.h"

namespace pysim {

/// One load of the array.
struct Fold {
  std::int64_t part;                ///< Index of its strip, or of its reduction tile.
  std::int64_t chunk;               ///< `ws`: row chunk of the strip; `os`, `is`: position tile.
  std::int64_t depth;               ///< Operands streamed, T.
  std::int64_t core;                ///< Which array runs it.
  std::int64_t first_position = 0;  ///< `ws`: of those that it streams.
};

/// The reduction elements of one feed, lane by lane.
struct FeedLanes {
  std::int64_t col_begin;
  std::int64_t col_end;
  std::int64_t lanes;
  std::vector<std::int64_t> elements;  ///< (lanes, slot members); -1 where a lane has no such member.
};

/// A strip with its feeds written out lane by lane.
struct StripLanes {
  std::int64_t feature_begin;
  std::int64_t feature_end;
  std::vector<FeedLanes> feeds;
};

/// A reduction tile with its features written out one by one.
struct TileFeatures {
  Span reduction;
  std::vector<std::int64_t> features;
};

/// All folds of a layer in the order in which they run.
struct FoldList {
  std::vector<StripLanes> strips;   ///< `ws`, `os`.
  std::vector<TileFeatures> tiles;  ///< `is`.
  std::vector<Fold> folds;
};

/// Writes out every fold of the layer; `ws` folds stream at most `fold_positions`. Throws
/// std::invalid_argument if there are more than `max_folds`.
FoldList list_folds(const ArrayConfig& array, const Layer& layer, const CoreMap& cores,
                    std::int64_t fold_positions, std::int64_t max_folds);

/// A weight or input with the multiplexer input that it is to meet; select is -1 for padding.
template <class Operand>
struct Held {
  Operand value;
  std::int32_t select;
  bool stored = false;  ///< Whether a buffer holds it: neither padding nor in a pruned block.
};

/// Elements of a matrix that pass one port during a fold, one after the other.
template <class Element>
struct Stream {
  Element* base = nullptr;
  std::int64_t length = 0;              ///< Elements; 0 where the port is padding.
  std::int64_t pitch = 1;               ///< Elements from one index to the next.
  const std::int64_t* index = nullptr;  ///< Index of each, below 0 where there is none; null counts up.
  std::int64_t index_step = 1;

  /// Element t, or null if there is none.
  [[gnu::always_inline]] Element* at(std::int64_t t) const {
    if (t >= length) return nullptr;
    if (index == nullptr) return base + t * pitch;
    const std::int64_t i = index[t * index_step];
    return i < 0 ? nullptr : base + i * pitch;
  }
};

/// Matrices and geometry shared by the three dataflows. Weights of pruned blocks are zero in `w`.
template <class Operand, class Sum>
struct Operands {
  const ArrayConfig& array;
  const Layer& layer;
  const FoldList& list;
  std::vector<std::int64_t> block_col;  ///< (k): block column of each reduction element.
  const Operand* w;                     ///< (m, k).
  const Operand* x;                     ///< (k, n).
  Sum* y;                               ///< (m, n), zero before the first fold.
  const std::uint8_t* kept;  ///< (m, k): whether the weight is in a kept block; if `is` is counted.
  std::uint8_t* summed;  ///< (m, n): whether the output has a result already; null: accesses are not counted.

  const Fold& fold(std::int64_t f) const { return list.folds[static_cast<std::size_t>(f)]; }
  const StripLanes& strip(const Fold& fold) const { return list.strips[static_cast<std::size_t>(fold.part)]; }
  const TileFeatures& tile(const Fold& fold) const { return list.tiles[static_cast<std::size_t>(fold.part)]; }

  /// Reduction element of member `member` of a lane; -1 if there is none.
  std::int64_t element(const FeedLanes& feed, std::int64_t lane, std::int64_t member) const {
    return feed.elements[static_cast<std::size_t>(lane * array.slot_members() + member)];
  }

  /// The feed of array column `col`, or null where the strip has no feature.
  const FeedLanes* feed_of_col(const StripLanes& strip, std::int64_t col) const {
    const auto index = strip.feeds.size() == 1 ? 0 : static_cast<std::size_t>(col / array.feeder_cols());
    if (index >= strip.feeds.size() || col >= strip.feeds[index].col_end) return nullptr;
    return &strip.feeds[index];
  }

  /// The weight that array column `col` meets on a lane: that of the member whose block its feature keeps.
  /// A feature that keeps none meets the zero weight of the first member.
  Held<Operand> weight(const StripLanes& strip, std::int64_t col, std::int64_t lane) const {
    const FeedLanes* const feed = feed_of_col(strip, col);
    if (feed == nullptr || lane >= feed->lanes) return {Operand{0}, -1};
    const std::int64_t feature = strip.feature_begin + col;
    const std::uint8_t* const blocks = layer.mask + feature / layer.grid.bh * layer.grid.block_cols();
    std::int64_t chosen = -1;
    bool stored = false;
    for (std::int64_t i = 0; i < array.slot_members(); ++i) {
      const std::int64_t k = element(*feed, lane, i);
      if (k < 0) continue;
      const bool keeps = blocks[block_col[static_cast<std::size_t>(k)]] != 0;
      if (chosen < 0 || keeps) chosen = i;
      stored = keeps;
      if (keeps) break;
    }
    const std::int64_t k = element(*feed, lane, chosen);
    return {w[feature * layer.grid.k + k], static_cast<std::int32_t>(chosen), stored};
  }
};

/// `ws`: rows hold lanes, columns features; positions are streamed.
template <class Operand, class Sum>
struct WeightStationaryOperands : Operands<Operand, Sum> {
  /// Words that a buffer was read for: what enters from above, what enters from the left.
  static std::int64_t& pushed_reads(ArrayAccesses& accesses) { return accesses.weight_reads; }
  static std::int64_t& streamed_reads(ArrayAccesses& accesses) { return accesses.input_reads; }
  /// Whether the buffer holds an operand that a feeder has sent.
  bool is_stored(const Operand* /*operand*/) const { return true; }

  /// What a feeder sends on one multiplexer line of a row.
  Stream<const Operand> stream(std::int64_t f, std::int64_t feeder, std::int64_t row,
                               std::int64_t member) const {
    const Fold& fold = this->fold(f);
    const StripLanes& strip = this->strip(fold);
    if (feeder >= static_cast<std::int64_t>(strip.feeds.size())) return {};
    const FeedLanes& feed = strip.feeds[static_cast<std::size_t>(feeder)];
    const std::int64_t lane = fold.chunk * this->array.rows + row;
    if (lane >= feed.lanes) return {};
    const std::int64_t k = this->element(feed, lane, member);
    if (k < 0) return {};
    return {.base = this->x + k * this->layer.n + fold.first_position, .length = fold.depth};
  }

  /// Whether two folds push the same operands.
  bool same_pushes(std::int64_t f, std::int64_t g) const {
    return this->fold(f).part == this->fold(g).part && this->fold(f).chunk == this->fold(g).chunk;
  }

  /// What the j-th push of a preload brings into the top of a column.
  Held<Operand> pushed(std::int64_t f, std::int64_t j, std::int64_t col) const {
    const Fold& fold = this->fold(f);
    return this->weight(this->strip(fold), col, (fold.chunk + 1) * this->array.rows - 1 - j);
  }

  /// Where the results of a column go.
  Stream<Sum> results(std::int64_t f, std::int64_t col) const {
    const Fold& fold = this->fold(f);
    const StripLanes& strip = this->strip(fold);
    const std::int64_t feature = strip.feature_begin + col;
    if (feature >= strip.feature_end) return {};
    return {.base = this->y + feature * this->layer.n + fold.first_position, .length = fold.depth};
  }
};

/// `is`: rows hold reduction elements, columns positions; features are streamed.
template <class Operand, class Sum>
struct InputStationaryOperands : Operands<Operand, Sum> {
  static std::int64_t& pushed_reads(ArrayAccesses& accesses) { return accesses.input_reads; }
  static std::int64_t& streamed_reads(ArrayAccesses& accesses) { return accesses.weight_reads; }
  bool is_stored(const Operand* operand) const { return this->kept[operand - this->w] != 0; }

  Stream<const Operand> stream(std::int64_t f, std::int64_t /*feeder*/, std::int64_t row,
                               std::int64_t /*member*/) const {
    const TileFeatures& tile = this->tile(this->fold(f));
    if (row >= tile.reduction.size()) return {};
    return {.base = this->w + tile.reduction.begin + row,
            .length = static_cast<std::int64_t>(tile.features.size()),
            .pitch = this->layer.grid.k,
            .index = tile.features.data()};
  }

  bool same_pushes(std::int64_t /*f*/, std::int64_t /*g*/) const { return false; }

  Held<Operand> pushed(std::int64_t f, std::int64_t j, std::int64_t col) const {
    const Fold& fold = this->fold(f);
    const Span reduction = this->tile(fold).reduction;
    const std::int64_t row = this->array.rows - 1 - j;
    const std::int64_t position = fold.chunk * this->array.cols + col;
    if (row >= reduction.size() || position >= this->layer.n) return {Operand{0}, -1};
    return {this->x[(reduction.begin + row) * this->layer.n + position], 0, true};
  }

  Stream<Sum> results(std::int64_t f, std::int64_t col) const {
    const Fold& fold = this->fold(f);
    const std::int64_t position = fold.chunk * this->array.cols + col;
    if (position >= this->layer.n) return {};
    const TileFeatures& tile = this->tile(fold);
    return {.base = this->y + position,
            .length = static_cast<std::int64_t>(tile.features.size()),
            .pitch = this->layer.n,
            .index = tile.features.data()};
  }
};

/// `os`: rows hold positions, columns features; the lanes of the reduction are streamed.
template <class Operand, class Sum>
struct OutputStationaryOperands : Operands<Operand, Sum> {
  static std::int64_t& pushed_reads(ArrayAccesses& accesses) { return accesses.weight_reads; }
  static std::int64_t& streamed_reads(ArrayAccesses& accesses) { return accesses.input_reads; }
  bool is_stored(const Operand* /*operand*/) const { return true; }

  Stream<const Operand> stream(std::int64_t f, std::int64_t feeder, std::int64_t row,
                               std::int64_t member) const {
    const Fold& fold = this->fold(f);
    const StripLanes& strip = this->strip(fold);
    const std::int64_t position = fold.chunk * this->array.rows + row;
    if (feeder >= static_cast<std::int64_t>(strip.feeds.size()) || position >= this->layer.n) return {};
    const FeedLanes& feed = strip.feeds[static_cast<std::size_t>(feeder)];
    return {.base = this->x + position,
            .length = feed.lanes,
            .pitch = this->layer.n,
            .index = feed.elements.data() + member,
            .index_step = this->array.slot_members()};
  }

  bool same_pushes(std::int64_t f, std::int64_t g) const { return this->fold(f).part == this->fold(g).part; }

  /// The weight that enters the top of a column with operand t.
  Held<Operand> pushed(std::int64_t f, std::int64_t t, std::int64_t col) const {
    return this->weight(this->strip(this->fold(f)), col, t);
  }

  /// Where the results of a column go, those of row 0 first.
  Stream<Sum> results(std::int64_t f, std::int64_t col) const {
    const Fold& fold = this->fold(f);
    const StripLanes& strip = this->strip(fold);
    const std::int64_t feature = strip.feature_begin + col;
    if (feature >= strip.feature_end) return {};
    const std::int64_t position = fold.chunk * this->array.rows;
    return {.base = this->y + feature * this->layer.n + position, .length = this->layer.n - position};
  }
};

}  // namespace pysim
