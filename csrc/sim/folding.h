// A layer cut into folds: what each feeder of the array sends, fold by fold. The only place that leaves
// anything out; both engines read it, so they cannot disagree on what is skipped.
#pragma once

#include <cstdint>
#include <vector>

#include "base/block_grid.h"
#include "sim/config.h"
#include "sim/memory_config.h"

namespace pysim {

/// Y[m, n] = W[m, k] X[k, n] with a block mask on W.
struct Layer {
  BlockGrid grid;
  const std::uint8_t* mask;  ///< (block rows, block columns), row-major; nonzero where the block is kept.
  std::int64_t n;            ///< Output positions, at least 1.
  ConvShape conv{};          ///< Used by the memory alone: which elements of X are the same pixel.
};

/// Where block columns begin, and one past the last: (block columns + 1).
std::vector<std::int64_t> block_col_edges(const BlockGrid& grid);

/// Writes to `counts`, of one entry a block column, how many of `rows` rows of a mask keep it.
void count_kept_blocks(const std::uint8_t* mask, std::int64_t rows, std::vector<std::int32_t>& counts);

/// Indices begin to end - 1 of the reduction, or of the output features.
struct Span {
  std::int64_t begin;
  std::int64_t end;
  std::int64_t size() const { return end - begin; }
};

/// What one feeder sends to its array columns: slots in order, each of one or more member spans of the
/// reduction. Lane l of a slot carries element l of every member that has one.
struct Feed {
  std::int64_t col_begin = 0;          ///< First array column fed.
  std::int64_t col_end = 0;            ///< One past the last array column that holds a feature.
  std::vector<Span> members;           ///< Slot after slot.
  std::vector<std::int64_t> slot_end;  ///< One past the last member of each slot.
  std::int64_t lanes = 0;              ///< Lanes of all slots.
};

/// `ws`, `os`: the features that share the array columns, and what is fed to them.
struct Strip {
  std::int64_t feature_begin = 0;
  std::int64_t feature_end = 0;
  std::vector<Feed> feeds;

  /// Lanes of the longest feed; the feeds run in lockstep, so this is what takes cycles.
  std::int64_t lanes() const;
};

/// How much of a strip there is.
struct StripSize {
  std::int64_t lanes = 0;    ///< Of its longest feed.
  std::int64_t weights = 0;  ///< One for each lane of a feed and column that it feeds.
};

/// `is`: the reduction elements that share the array rows, and the features streamed past them.
struct ReductionTile {
  Span reduction{0, 0};
  std::vector<Span> features;
  std::int64_t depth = 0;  ///< Features streamed; 0 means that the tile has no fold.
};

/// Cuts one layer for one array. Fills a caller's strip or tile so that memory stays that of one of them.
class Folder {
 public:
  /// Throws std::invalid_argument if the configuration or the layer is out of range.
  Folder(const ArrayConfig& array, const Layer& layer);

  std::int64_t strips() const;           ///< `ws`, `os`: strips of `cols` features.
  std::int64_t position_tiles() const;   ///< `os`, `is`: tiles of `rows` or `cols` output positions.
  std::int64_t reduction_tiles() const;  ///< `is`: tiles of `rows` reduction elements.

  void fill_strip(std::int64_t index, Strip& strip);
  void fill_reduction_tile(std::int64_t index, ReductionTile& tile);

  /// The size of what fill_strip fills, in less time.
  StripSize measure_strip(std::int64_t index);

  /// Folds of a strip with this many lanes: row chunks when weight stationary, position tiles when output
  /// stationary.
  std::int64_t folds_of(std::int64_t lanes) const;

  /// Operands streamed through each of them.
  std::int64_t depth_of(std::int64_t lanes) const;

  /// Weights in kept blocks.
  std::int64_t kept_weights() const;

  /// Block column that holds reduction element k.
  std::int64_t block_col_of(std::int64_t k) const;

 private:
  void count_kept(std::int64_t block_row_begin, std::int64_t block_row_end);
  void find_kept(std::int64_t block_row_begin, std::int64_t block_row_end);
  std::int64_t lanes_of_found() const;
  void fill_feed(std::int64_t feature_begin, std::int64_t feature_end, Feed& feed);
  void fill_found(Feed& feed);
  void fill_kept_row_chunks(Feed& feed) const;
  void pack_slots(std::int64_t block_row_begin, std::int64_t block_row_end, Feed& feed);
  Span block_col_span(std::int64_t j) const;

  ArrayConfig array_;
  Layer layer_;
  std::vector<std::int64_t> col_edges_;  ///< (block columns + 1).
  std::vector<std::int32_t> kept_;       ///< Kept blocks of each block column in the rows counted last.
  std::vector<std::uint8_t> found_;      ///< 1 where those searched last have any, else 0; padded to words.
  std::vector<std::int32_t> found_cols_;
  Strip measured_;
};

}  // namespace pysim
