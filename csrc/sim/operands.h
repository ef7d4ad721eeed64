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

  const Fold& fold(std::int64_t f) const { return list.folds[static_cast<std::size_t>(f)]; }
  const StripLanes& strip(const Fold& fold) const { return list.strips[static_cast<std::size_t>(fold.part)]; }
  const TileFeatures& tile(const Fold& fold) const { return list.tiles[static_cast<std::size_t>(fold.part)]; }

  /// Reduction element of member `member` of a lane; -1 if there is none.
  std::int64_t element(const FeedLanes& feed, std::int64_t lane, std::int64_t member) const {
    return feed.elements[static_cast<std::size_t>(lane * array.slot_members() + member)];
  }

  /// The feed of array column `col`, or null where the strip has no feature.
  const FeedLanes* feed_of_col(const StripLanes& strip, std::int64_t col) const {
    const auto index = static_cast<std::size_t>(col / array.feeder_cols());
    if (index >= strip.feeds.size() || col >= strip.feeds[index].col_end) return nullptr;
    return &strip.feeds[index];
  }

  /// The weight that array column `col` meets on a lane: that of the member whose block its feature keeps.
  /// A feature that keeps none meets the zero weight of the first member.
  Held<Operand> weight(const StripLanes& strip, std::int64_t col, std::int64_t lane) const {
    const FeedLanes* const feed = feed_of_col(strip, col);
    if (feed == nullptr || lane >= feed->lanes) return {Operand{0}, -1};
    const std::int64_t feature = strip.feature_begin + col;
    const std::uint8_t* const kept = layer.mask + feature / layer.grid.bh * layer.grid.block_cols();
    std::int64_t chosen = -1;
    bool stored = false;
    for (std::int64_t i = 0; i < array.slot_members(); ++i) {
      const std::int64_t k = element(*feed, lane, i);
      if (k < 0) continue;
      const bool keeps = kept[block_col[static_cast<std::size_t>(k)]] != 0;
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
  /// Words that a buffer was read for: what is preloaded, what is streamed.
  static std::int64_t& preloaded(ArrayAccesses& accesses) { return accesses.weight_reads; }
  static std::int64_t& streamed(ArrayAccesses& accesses) { return accesses.input_reads; }
  /// Whether the buffer holds what row `row` streams as operand t; only where the row is not padding.
  bool stream_is_stored(std::int64_t, std::int64_t, std::int64_t) const { return true; }

  /// Where the stream of a row starts, or null where the row is padding.
  const Operand* stream_base(std::int64_t f, std::int64_t feeder, std::int64_t row,
                             std::int64_t member) const {
    const Fold& fold = this->fold(f);
    const StripLanes& strip = this->strip(fold);
    if (feeder >= static_cast<std::int64_t>(strip.feeds.size())) return nullptr;
    const FeedLanes& feed = strip.feeds[static_cast<std::size_t>(feeder)];
    const std::int64_t lane = fold.chunk * this->array.rows + row;
    if (lane >= feed.lanes) return nullptr;
    const std::int64_t k = this->element(feed, lane, member);
    return k < 0 ? nullptr : this->x + k * this->layer.n;
  }
  std::int64_t stream_offset(std::int64_t f, std::int64_t t) const {
    return this->fold(f).first_position + t;
  }

  Held<Operand> held(std::int64_t f, std::int64_t row, std::int64_t col) const {
    const Fold& fold = this->fold(f);
    return this->weight(this->strip(fold), col, fold.chunk * this->array.rows + row);
  }

  Sum* result(std::int64_t f, std::int64_t t, std::int64_t col) const {
    const Fold& fold = this->fold(f);
    const StripLanes& strip = this->strip(fold);
    const std::int64_t feature = strip.feature_begin + col;
    if (feature >= strip.feature_end) return nullptr;
    return this->y + feature * this->layer.n + fold.first_position + t;
  }
};

/// `is`: rows hold reduction elements, columns positions; features are streamed.
template <class Operand, class Sum>
struct InputStationaryOperands : Operands<Operand, Sum> {
  static std::int64_t& preloaded(ArrayAccesses& accesses) { return accesses.input_reads; }
  static std::int64_t& streamed(ArrayAccesses& accesses) { return accesses.weight_reads; }
  bool stream_is_stored(std::int64_t f, std::int64_t row, std::int64_t t) const {
    const TileFeatures& tile = this->tile(this->fold(f));
    const std::int64_t block_row = tile.features[static_cast<std::size_t>(t)] / this->layer.grid.bh;
    const std::int64_t col = this->block_col[static_cast<std::size_t>(tile.reduction.begin + row)];
    return this->layer.mask[block_row * this->layer.grid.block_cols() + col] != 0;
  }

  const Operand* stream_base(std::int64_t f, std::int64_t, std::int64_t row, std::int64_t) const {
    const Span reduction = this->tile(this->fold(f)).reduction;
    return row < reduction.size() ? this->w + reduction.begin + row : nullptr;
  }
  std::int64_t stream_offset(std::int64_t f, std::int64_t t) const {
    return this->tile(this->fold(f)).features[static_cast<std::size_t>(t)] * this->layer.grid.k;
  }

  Held<Operand> held(std::int64_t f, std::int64_t row, std::int64_t col) const {
    const Fold& fold = this->fold(f);
    const Span reduction = this->tile(fold).reduction;
    const std::int64_t position = fold.chunk * this->array.cols + col;
    if (row >= reduction.size() || position >= this->layer.n) return {Operand{0}, -1};
    return {this->x[(reduction.begin + row) * this->layer.n + position], 0, true};
  }

  Sum* result(std::int64_t f, std::int64_t t, std::int64_t col) const {
    const Fold& fold = this->fold(f);
    const std::int64_t position = fold.chunk * this->array.cols + col;
    if (position >= this->layer.n) return nullptr;
    const std::int64_t feature = this->tile(fold).features[static_cast<std::size_t>(t)];
    return this->y + feature * this->layer.n + position;
  }
};

/// `os`: rows hold positions, columns features; the lanes of the reduction are streamed.
template <class Operand, class Sum>
struct OutputStationaryOperands : Operands<Operand, Sum> {
  bool row_is_real(std::int64_t f, std::int64_t feeder, std::int64_t row, std::int64_t t) const {
    const Fold& fold = this->fold(f);
    const StripLanes& strip = this->strip(fold);
    return feeder < static_cast<std::int64_t>(strip.feeds.size()) &&
           t < strip.feeds[static_cast<std::size_t>(feeder)].lanes &&
           fold.chunk * this->array.rows + row < this->layer.n;
  }
  /// Whether a multiplexer line carries an input on this lane.
  bool has_input(std::int64_t f, std::int64_t feeder, std::int64_t t, std::int64_t member) const {
    return this->element(this->strip(this->fold(f)).feeds[static_cast<std::size_t>(feeder)], t, member) >= 0;
  }
  /// The input on one multiplexer line; only where row_is_real.
  Operand input(std::int64_t f, std::int64_t feeder, std::int64_t row, std::int64_t t,
                std::int64_t member) const {
    const Fold& fold = this->fold(f);
    const FeedLanes& feed = this->strip(fold).feeds[static_cast<std::size_t>(feeder)];
    const std::int64_t k = this->element(feed, t, member);
    return k < 0 ? Operand{0} : this->x[k * this->layer.n + fold.chunk * this->array.rows + row];
  }

  Held<Operand> streamed_weight(std::int64_t f, std::int64_t col, std::int64_t t) const {
    return this->weight(this->strip(this->fold(f)), col, t);
  }

  Sum* result(std::int64_t f, std::int64_t row, std::int64_t col) const {
    const Fold& fold = this->fold(f);
    const StripLanes& strip = this->strip(fold);
    const std::int64_t feature = strip.feature_begin + col;
    const std::int64_t position = fold.chunk * this->array.rows + row;
    if (feature >= strip.feature_end || position >= this->layer.n) return nullptr;
    return this->y + feature * this->layer.n + position;
  }
};

}  // namespace pysim
