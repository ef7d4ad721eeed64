#include "sim/demand.h"

#include <algorithm>
#include <string>

#include "base/check.h"
#include "base/interrupt.h"
#include "sim/schedule.h"

namespace pysim {
namespace {

constexpr std::int64_t max_pieces = std::int64_t{1} << 22;
constexpr std::int64_t max_list_units = std::int64_t{1} << 26;
constexpr std::int64_t max_elements = std::int64_t{1} << 28;

void require_few(std::int64_t pieces) {
  require(pieces <= max_pieces, "memory",
          "a layer of at most " + std::to_string(max_pieces) +
              " pieces of folds (a larger array, a smaller layer, or no memory)",
          std::to_string(pieces));
}

/// Kept weights and blocks of some features, summed along the reduction.
class KeptSums {
 public:
  KeptSums(const BlockGrid& grid, const std::uint8_t* mask) : grid_(grid), mask_(mask) {
    const auto cols = static_cast<std::size_t>(grid.block_cols());
    block_col_.resize(static_cast<std::size_t>(grid.k));
    for (std::size_t j = 0; j < cols; ++j) {
      const auto col = static_cast<std::int64_t>(j);
      begins_.push_back(grid.col_begin(col));
      std::fill(block_col_.begin() + grid.col_begin(col), block_col_.begin() + grid.col_end(col),
                static_cast<std::int32_t>(j));
    }
    begins_.push_back(grid.k);
    features_.resize(cols);
    blocks_.resize(cols);
    weights_before_.resize(cols + 1);
    blocks_before_.resize(cols + 1);
  }

  /// Counts for features begin to end - 1.
  void count(std::int64_t feature_begin, std::int64_t feature_end) {
    std::fill(features_.begin(), features_.end(), 0);
    std::fill(blocks_.begin(), blocks_.end(), 0);
    const std::size_t cols = features_.size();
    for (std::int64_t i = feature_begin / grid_.bh; i < ceil_div(feature_end, grid_.bh); ++i) {
      // No more than the columns of an array.
      const auto rows = static_cast<std::int32_t>(std::min(feature_end, grid_.row_end(i)) -
                                                  std::max(feature_begin, grid_.row_begin(i)));
      const std::uint8_t* const kept = mask_ + i * static_cast<std::int64_t>(cols);
      for (std::size_t j = 0; j < cols; ++j) {
        const std::int32_t one = kept[j] != 0;
        features_[j] += -one & rows;
        blocks_[j] += one;
      }
    }
    for (std::size_t j = 0; j < cols; ++j) {
      weights_before_[j + 1] = weights_before_[j] + features_[j] * (begins_[j + 1] - begins_[j]);
      blocks_before_[j + 1] = blocks_before_[j] + blocks_[j];
    }
  }

  /// Adds the kept weights in reduction elements `span`, and the blocks that meet it.
  void add_to(WeightUnit& unit, Span span) const {
    unit.elements += weights_before(span.end) - weights_before(span.begin);
    unit.blocks += blocks_before_[block_col(span.end - 1) + 1] - blocks_before_[block_col(span.begin)];
  }

 private:
  std::size_t block_col(std::int64_t k) const {
    return static_cast<std::size_t>(block_col_[static_cast<std::size_t>(k)]);
  }
  std::int64_t weights_before(std::int64_t k) const {
    if (k == grid_.k) return weights_before_.back();
    const std::size_t j = block_col(k);
    return weights_before_[j] + (k - begins_[j]) * features_[j];
  }

  BlockGrid grid_;
  const std::uint8_t* mask_;
  std::vector<std::int32_t> block_col_;          ///< (k).
  std::vector<std::int64_t> begins_;             ///< (block columns + 1).
  std::vector<std::int32_t> features_, blocks_;  ///< (block columns): features, block rows that keep it.
  std::vector<std::int64_t> weights_before_, blocks_before_;  ///< (block columns + 1).
};

class DemandLister {
 public:
  DemandLister(const ArrayConfig& array, const Layer& layer, const CoreMap& cores, std::int64_t core,
               bool ranges_apart)
      : array_(array),
        layer_(layer),
        cores_(cores),
        core_(core),
        ranges_apart_(ranges_apart),
        folder_(array, layer),
        clock_(array),
        kept_(layer.grid, layer.mask) {
    demand_.inputs_preloaded = array.dataflow == Dataflow::is;
    demand_.weights_preloaded = array.dataflow == Dataflow::ws;
    demand_.input_units = layer.conv.present() ? layer.grid.channels() : layer.grid.k;
    demand_.list_begin.push_back(0);
    seen_.assign(static_cast<std::size_t>(demand_.input_units), -1);
    used_.assign(static_cast<std::size_t>(demand_.input_units), 0);
  }

  Demand list() {
    switch (array_.dataflow) {
      case Dataflow::ws:
        list_weight_stationary();
        break;
      case Dataflow::os:
        list_output_stationary();
        break;
      case Dataflow::is:
        list_input_stationary();
        break;
    }
    demand_.compute_cycles = clock_.total_cycles();
    demand_.used_input_units = std::count(used_.begin(), used_.end(), 1);
    return std::move(demand_);
  }

 private:
  std::int64_t positions_of(std::int64_t place) const {
    return std::min(layer_.n, (place + 1) * place_positions_) - place * place_positions_;
  }

  /// Cuts the positions into places of `positions` each.
  void set_places(std::int64_t positions) {
    place_positions_ = positions;
    places_ = ceil_div(layer_.n, positions);
    require_few(places_);
    require_few(places_);
    for (std::int64_t place = 0; place < places_; ++place) {
      poll_interrupt();
      if (array_.dataflow == Dataflow::is && cores_.core_of(place) != core_) {
        demand_.place_elements.push_back(0);
        continue;
      }
      const std::int64_t begin = place * positions;
      core_positions_ += positions_of(place);
      ++core_places_;
      const std::int64_t size = positions_of(place);
      demand_.place_elements.push_back(
          layer_.conv.present() ? layer_.conv.distinct_pixels(begin, begin + size) : size);
    }
  }

  FoldStart add_fold(std::int64_t depth) {
    const FoldStart start = clock_.add(depth);
    const std::int64_t apart = demand_.pieces.empty() ? depth : start.stream - last_stream_;
    demand_.longest_fold = std::max(demand_.longest_fold, apart);
    last_stream_ = start.stream;
    ++demand_.folds;
    return start;
  }

  /// Most even cut of `operands` into pieces: operands of all but the last.
  std::int64_t piece_operands(std::int64_t operands) const {
    return ceil_div(operands, ceil_div(operands, array_.piece));
  }

  /// Cuts what a strip is fed into buckets of `lanes` lanes: weights and input units of each.
  void fill_buckets(const Strip& strip, std::int64_t lanes, std::vector<WeightUnit>& weights,
                    std::vector<std::vector<Span>>& spans) {
    const auto buckets = static_cast<std::size_t>(ceil_div(strip.lanes(), lanes));
    weights.assign(buckets, {});
    spans.resize(buckets);
    for (std::vector<Span>& bucket : spans) bucket.clear();
    for (const Feed& feed : strip.feeds) {
      kept_.count(strip.feature_begin + feed.col_begin, strip.feature_begin + feed.col_end);
      std::int64_t slot_lane = 0;
      std::size_t member = 0;
      for (const std::int64_t slot_end : feed.slot_end) {
        std::int64_t slot_lanes = 0;
        for (; member < static_cast<std::size_t>(slot_end); ++member) {
          const Span span = feed.members[member];
          slot_lanes = std::max(slot_lanes, span.size());
          for (std::int64_t at = 0; at < span.size();) {
            const std::int64_t bucket = (slot_lane + at) / lanes;
            const std::int64_t end = std::min(span.size(), (bucket + 1) * lanes - slot_lane);
            const Span part{span.begin + at, span.begin + end};
            kept_.add_to(weights[static_cast<std::size_t>(bucket)], part);
            spans[static_cast<std::size_t>(bucket)].push_back(part);
            at = end;
          }
        }
        slot_lane += slot_lanes;
      }
    }
  }

  /// Adds one list of the input units that reduction elements belong to, each once; returns its number.
  std::int32_t add_list(const std::vector<Span>& spans) {
    poll_interrupt();
    const auto number = static_cast<std::int32_t>(demand_.list_begin.size() - 1);
    for (const Span span : spans) {
      for (std::int64_t k = span.begin; k < span.end; ++k) {
        const auto unit = static_cast<std::size_t>(k % demand_.input_units);
        if (seen_[unit] == number) continue;
        seen_[unit] = number;
        used_[unit] = 1;
        demand_.list_units.push_back(static_cast<std::int32_t>(unit));
      }
    }
    const auto size = static_cast<std::int64_t>(demand_.list_units.size());
    require(size <= max_list_units, "memory", "a layer of at most 2^26 input rows over all folds",
            std::to_string(size));
    demand_.list_begin.push_back(size);
    return number;
  }

  std::int32_t add_weights(WeightUnit unit, std::int64_t index, std::int64_t count) {
    unit.quarter = static_cast<std::int32_t>(index * 4 / count);
    demand_.weights.push_back(unit);
    return static_cast<std::int32_t>(demand_.weights.size() - 1);
  }

  std::int32_t add_output(std::int64_t elements, std::int64_t index, std::int64_t count) {
    OutputUnit unit;
    unit.elements = elements;
    unit.quarter = static_cast<std::int32_t>(index * 4 / count);
    demand_.outputs.push_back(unit);
    return static_cast<std::int32_t>(demand_.outputs.size() - 1);
  }

  void add_piece(const Piece& piece) {
    poll_interrupt();
    const auto number = static_cast<std::int32_t>(demand_.pieces.size());
    require_few(number + 1);
    demand_.pieces.push_back(piece);
    demand_.longest_piece = std::max(demand_.longest_piece, piece.stream_end - piece.stream);
    if (piece.output < 0) return;
    OutputUnit& unit = demand_.outputs[static_cast<std::size_t>(piece.output)];
    if (unit.first < 0) unit.first = number;
    unit.last = number;
  }

  void add_zeros(std::int64_t elements) {
    demand_.zeros.push_back({static_cast<std::int32_t>(demand_.pieces.size()), elements});
  }

  static std::int64_t elements_of(const std::vector<Span>& spans) {
    std::int64_t elements = 0;
    for (const Span span : spans) elements += span.size();
    return elements;
  }

  /// A strip of this core: what its folds need, each once however often it streams.
  struct ListedStrip {
    std::int64_t features;
    std::int64_t depth;          ///< `os`: lanes; 0 where it has no fold.
    std::int64_t parts;          ///< `ws`: folds. `os`: pieces of a fold.
    std::int64_t part_operands;  ///< `os`: operands of every piece but the last.
    std::int32_t first_weights;  ///< Of its first part; further ones follow.
    std::int32_t first_list;
  };

  /// Lists weights and inputs of this core's strips.
  ///
  /// passes: how often the array takes a strip's weights from their buffer.
  std::vector<ListedStrip> list_strips(std::int64_t passes) {
    const bool ws = array_.dataflow == Dataflow::ws;
    std::vector<ListedStrip> listed;
    Strip strip;
    std::vector<WeightUnit> weights;
    std::vector<std::vector<Span>> spans;
    for (std::int64_t i = 0; i < folder_.strips(); ++i) {
      if (cores_.core_of(i) != core_) continue;
      folder_.fill_strip(i, strip);
      ListedStrip out{strip.feature_end - strip.feature_begin,
                      strip.lanes(),
                      0,
                      array_.rows,
                      static_cast<std::int32_t>(demand_.weights.size()),
                      static_cast<std::int32_t>(demand_.list_begin.size() - 1)};
      if (out.depth > 0) {
        if (!ws) out.part_operands = piece_operands(out.depth);
        out.parts = ceil_div(out.depth, out.part_operands);
        require_few(out.parts * places_);
        fill_buckets(strip, out.part_operands, weights, spans);
      }
      for (std::int64_t part = 0; part < out.parts; ++part) {
        const auto at = static_cast<std::size_t>(part);
        add_weights(weights[at], part, out.parts);
        add_list(spans[at]);
        demand_.accesses.input_reads += elements_of(spans[at]) * layer_.n;
        demand_.accesses.weight_reads += weights[at].elements * passes;
      }
      listed.push_back(out);
    }
    if (array_.swapped) number_quarters();
    return listed;
  }

  /// Weights of all strips are used in turn: quarters of all of them.
  void number_quarters() {
    for (std::size_t u = 0; u < demand_.weights.size(); ++u) {
      demand_.weights[u].quarter = static_cast<std::int32_t>(u * 4 / demand_.weights.size());
    }
  }

  void list_weight_stationary() {
    set_places(piece_operands(layer_.n));
    const std::int64_t fold_places = ranges_apart_ ? 1 : places_;
    const std::int64_t groups = ceil_div(places_, fold_places);
    demand_.inner_pieces = fold_places;
    demand_.weights_used_once = groups == 1;
    const std::vector<ListedStrip> strips = list_strips(groups);
    std::int64_t all_folds = 0;
    for (const ListedStrip& strip : strips) {
      demand_.accesses.output_writes += strip.parts * strip.features * layer_.n;
      demand_.accesses.output_reads += std::max<std::int64_t>(0, strip.parts - 1) * strip.features * layer_.n;
      if (groups > 1) demand_.inner_pieces = std::max(demand_.inner_pieces, strip.parts);
      all_folds += strip.parts;
    }
    if (array_.swapped && groups > 1) demand_.inner_pieces = std::max<std::int64_t>(1, all_folds);
    for (std::int64_t outer = 0; outer < (array_.swapped ? groups : 1); ++outer) {
      for (const ListedStrip& strip : strips) {
        if (strip.parts == 0) {
          if (outer == 0) add_zeros(strip.features * layer_.n);
          continue;
        }
        for (std::int64_t inner = 0; inner < (array_.swapped ? 1 : groups); ++inner) {
          const std::int64_t first = (outer + inner) * fold_places;
          add_range(strip, first, std::min(places_, first + fold_places) - 1);
        }
      }
    }
  }

  /// `ws`: all folds of a strip stream the positions of places `first` to `last`.
  void add_range(const ListedStrip& strip, std::int64_t first, std::int64_t last) {
    const std::int64_t skew = array_.rows + array_.cols - 2;
    const std::int64_t depth = last * place_positions_ + positions_of(last) - first * place_positions_;
    const auto outputs = static_cast<std::int32_t>(demand_.outputs.size());
    for (std::int64_t place = first; place <= last; ++place) {
      add_output(strip.features * positions_of(place), place, places_);
    }
    for (std::int64_t chunk = 0; chunk < strip.parts; ++chunk) {
      const FoldStart start = add_fold(depth);
      for (std::int64_t place = first; place <= last; ++place) {
        Piece piece;
        piece.stream = start.stream + (place - first) * place_positions_;
        piece.stream_end = piece.stream + positions_of(place);
        piece.result = piece.stream + skew;
        piece.result_end = piece.stream_end + skew;
        piece.inputs = strip.first_list + static_cast<std::int32_t>(chunk);
        piece.place = static_cast<std::int32_t>(place);
        piece.output = outputs + static_cast<std::int32_t>(place - first);
        if (place == first) {
          piece.preload = start.preload;
          piece.weights = strip.first_weights + static_cast<std::int32_t>(chunk);
        }
        add_piece(piece);
      }
    }
  }

  void list_output_stationary() {
    set_places(array_.rows);
    const std::vector<ListedStrip> strips = list_strips(places_);
    std::int64_t all_pieces = 0;
    for (const ListedStrip& strip : strips) {
      demand_.inner_pieces = std::max(demand_.inner_pieces, strip.parts);
      if (strip.parts > 0) demand_.accesses.output_writes += strip.features * layer_.n;
      all_pieces += strip.parts;
    }
    if (array_.swapped) demand_.inner_pieces = std::max<std::int64_t>(1, all_pieces);
    for (std::int64_t outer = 0; outer < (array_.swapped ? places_ : 1); ++outer) {
      for (const ListedStrip& strip : strips) {
        if (strip.parts == 0) {
          if (outer == 0) add_zeros(strip.features * layer_.n);
          continue;
        }
        for (std::int64_t inner = 0; inner < (array_.swapped ? 1 : places_); ++inner) {
          add_tile(strip, outer + inner);
        }
      }
    }
  }

  /// `os`: one fold of a strip, for the positions of `place`.
  void add_tile(const ListedStrip& strip, std::int64_t place) {
    const FoldStart start = add_fold(strip.depth);
    for (std::int64_t part = 0; part < strip.parts; ++part) {
      Piece piece;
      piece.stream = start.stream + part * strip.part_operands;
      piece.stream_end = std::min(start.stream + strip.depth, piece.stream + strip.part_operands);
      piece.inputs = strip.first_list + static_cast<std::int32_t>(part);
      piece.place = static_cast<std::int32_t>(place);
      piece.weights = strip.first_weights + static_cast<std::int32_t>(part);
      if (part == strip.parts - 1) {
        piece.result = start.stream + strip.depth + array_.rows + array_.cols - 2;
        piece.result_end = piece.result + array_.rows;
        piece.output = add_output(strip.features * positions_of(place), 0, 1);
      }
      add_piece(piece);
    }
  }

  /// One reduction tile that has a fold: its input units, and its features cut by ranges of features.
  struct Tile {
    std::int64_t depth;
    std::int32_t list;
    std::vector<std::int64_t> operands;  ///< (ranges): features of the range that are streamed.
    std::int32_t first_weights;          ///< Of its first range with operands; further ones follow.
  };

  void list_input_stationary() {
    set_places(array_.cols);
    const std::int64_t features = piece_operands(layer_.grid.m);
    const std::int64_t ranges = ceil_div(layer_.grid.m, features);
    std::vector<std::uint8_t> touched(static_cast<std::size_t>(ranges), 0);
    std::vector<std::uint8_t> streamed(static_cast<std::size_t>(layer_.grid.m), 0);
    const std::vector<Tile> tiles = list_tiles(features, ranges, touched, streamed);
    const std::int64_t computed = std::count(streamed.begin(), streamed.end(), 1);
    demand_.accesses.output_reads = demand_.accesses.output_writes - computed * core_positions_;
    std::vector<std::int64_t> places;
    for (std::int64_t place = core_; place < places_; place += cores_.cores()) places.push_back(place);
    std::vector<std::vector<std::int32_t>> outputs;  // (places, ranges).
    const auto add_outputs = [&](std::size_t at) {
      const std::int64_t positions = positions_of(places[at]);
      outputs.emplace_back(static_cast<std::size_t>(ranges), -1);
      for (std::int64_t range = 0; range < ranges; ++range) {
        const std::int64_t size = std::min(layer_.grid.m, (range + 1) * features) - range * features;
        if (touched[static_cast<std::size_t>(range)] == 0) {
          add_zeros(size * positions);
          continue;
        }
        const std::int64_t index = static_cast<std::int64_t>(at) * ranges + range;
        outputs.back()[static_cast<std::size_t>(range)] =
            array_.swapped ? add_output(size * positions, index, ranges * core_places_)
                           : add_output(size * positions, range, ranges);
      }
    };
    if (!array_.swapped) {
      for (std::size_t at = 0; at < places.size(); ++at) {
        add_outputs(at);
        for (const Tile& tile : tiles) add_tile_fold(tile, places[at], outputs[at]);
      }
      return;
    }
    for (std::size_t at = 0; at < places.size(); ++at) add_outputs(at);
    for (const Tile& tile : tiles) {
      for (std::size_t at = 0; at < places.size(); ++at) add_tile_fold(tile, places[at], outputs[at]);
    }
  }

  /// `is`: one fold of a reduction tile, for the positions of `place`.
  void add_tile_fold(const Tile& tile, std::int64_t place, const std::vector<std::int32_t>& outputs) {
    const std::int64_t skew = array_.rows + array_.cols - 2;
    const FoldStart start = add_fold(tile.depth);
    std::int64_t stream = start.stream;
    std::int32_t weights = tile.first_weights;
    for (std::size_t range = 0; range < tile.operands.size(); ++range) {
      if (tile.operands[range] == 0) continue;
      Piece piece;
      piece.stream = stream;
      piece.stream_end = stream + tile.operands[range];
      piece.result = piece.stream + skew;
      piece.result_end = piece.stream_end + skew;
      piece.place = static_cast<std::int32_t>(place);
      piece.weights = weights++;
      piece.output = outputs[range];
      if (stream == start.stream) {
        piece.preload = start.preload;
        piece.inputs = tile.list;
      }
      stream = piece.stream_end;
      add_piece(piece);
    }
  }

  std::vector<Tile> list_tiles(std::int64_t features, std::int64_t ranges, std::vector<std::uint8_t>& touched,
                               std::vector<std::uint8_t>& streamed) {
    std::vector<Tile> tiles;
    ReductionTile tile;
    std::int64_t pieces = 0;
    std::int64_t most = 0;  // Pieces of a tile.
    for (std::int64_t i = 0; i < folder_.reduction_tiles(); ++i) {
      folder_.fill_reduction_tile(i, tile);
      if (tile.depth == 0) continue;
      Tile out{tile.depth, add_list({tile.reduction}),
               std::vector<std::int64_t>(static_cast<std::size_t>(ranges), 0),
               static_cast<std::int32_t>(demand_.weights.size())};
      std::vector<WeightUnit> weights(static_cast<std::size_t>(ranges));
      for (const Span span : tile.features) {
        std::fill(streamed.begin() + span.begin, streamed.begin() + span.end, std::uint8_t{1});
        for (std::int64_t begin = span.begin; begin < span.end;) {
          const std::int64_t range = begin / features;
          const std::int64_t end = std::min(span.end, (range + 1) * features);
          out.operands[static_cast<std::size_t>(range)] += end - begin;
          add_kept(tile.reduction, begin, end, weights[static_cast<std::size_t>(range)]);
          begin = end;
        }
      }
      for (std::size_t range = 0; range < static_cast<std::size_t>(ranges); ++range) {
        if (out.operands[range] == 0) continue;
        touched[range] = 1;
        demand_.weights.push_back(weights[range]);
        demand_.accesses.weight_reads += weights[range].elements * core_places_;
        ++pieces;
      }
      most = std::max(most, static_cast<std::int64_t>(demand_.weights.size()) - out.first_weights);
      demand_.accesses.input_reads += tile.reduction.size() * core_positions_;
      demand_.accesses.output_writes += tile.depth * core_positions_;
      tiles.push_back(std::move(out));
    }
    require_few(pieces);
    require_few(pieces * core_places_);
    demand_.inner_pieces = std::max<std::int64_t>(1, array_.swapped ? most : pieces);
    number_quarters();
    return tiles;
  }

  /// Adds what features begin to end - 1 keep among the reduction elements of `reduction`.
  void add_kept(Span reduction, std::int64_t begin, std::int64_t end, WeightUnit& unit) const {
    const BlockGrid& grid = layer_.grid;
    const std::int64_t first = folder_.block_col_of(reduction.begin);
    const std::int64_t last = folder_.block_col_of(reduction.end - 1);
    for (std::int64_t i = begin / grid.bh; i < ceil_div(end, grid.bh); ++i) {
      const std::int64_t rows = std::min(end, grid.row_end(i)) - std::max(begin, grid.row_begin(i));
      for (std::int64_t j = first; j <= last; ++j) {
        if (layer_.mask[i * grid.block_cols() + j] == 0) continue;
        const std::int64_t width =
            std::min(reduction.end, grid.col_end(j)) - std::max(reduction.begin, grid.col_begin(j));
        unit.elements += rows * width;
        ++unit.blocks;
      }
    }
  }

  ArrayConfig array_;
  Layer layer_;
  const CoreMap& cores_;
  std::int64_t core_;
  bool ranges_apart_;
  Folder folder_;
  FoldClock clock_;
  KeptSums kept_;
  Demand demand_;
  std::int64_t place_positions_ = 1;
  std::int64_t places_ = 1;
  std::int64_t core_places_ = 0;     ///< Of those, this core's.
  std::int64_t core_positions_ = 0;  ///< Positions in them.
  std::int64_t last_stream_ = 0;
  std::vector<std::int32_t> seen_;  ///< (input units): the last list that it is in.
  std::vector<std::uint8_t> used_;  ///< (input units): whether it is in any.
};

}  // namespace

void require_listable(const ArrayConfig& array, const Layer& layer) {
  for (const std::int64_t side : {layer.grid.m, layer.grid.k}) {
    require(side <= max_elements, "memory",
            "a layer of at most 2^28 features and reduction elements (a smaller layer, or no memory)",
            std::to_string(side));
  }
  if (array.dataflow != Dataflow::is) require_few(Folder(array, layer).strips());
}

std::int64_t range_positions(const ArrayConfig& array, const Layer& layer) {
  return ceil_div(layer.n, ceil_div(layer.n, array.piece));
}

std::vector<Demand> list_demands(const ArrayConfig& array, const Layer& layer, const CoreMap& cores,
                                 bool ranges_apart) {
  require_listable(array, layer);
  std::vector<Demand> demands;
  for (std::int64_t core = 0; core < cores.cores(); ++core) {
    demands.push_back(DemandLister(array, layer, cores, core, ranges_apart).list());
  }
  return demands;
}

}  // namespace pysim
