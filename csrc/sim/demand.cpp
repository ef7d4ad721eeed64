#include "sim/demand.h"

#include <algorithm>
#include <utility>

#include "base/interrupt.h"
#include "sim/schedule.h"

namespace pysim {
namespace {

class DemandLister {
 public:
  DemandLister(const ArrayConfig& array, const Layer& layer, const CoreMap& cores, std::int64_t core,
               const CoreOperands& operands, bool ranges_apart)
      : array_(array),
        layer_(layer),
        cores_(cores),
        core_(core),
        operands_(operands),
        ranges_apart_(ranges_apart),
        skew_(array.rows + array.cols - 2),
        clock_(array) {
    demand_.inputs_preloaded = array.dataflow == Dataflow::is;
    demand_.weights_preloaded = array.dataflow == Dataflow::ws;
    demand_.list_pieces.resize(static_cast<std::size_t>(operands.lists()));
    if (array.dataflow == Dataflow::is) demand_.place_step = cores.cores();
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
    return std::move(demand_);
  }

 private:
  std::int64_t positions_of(std::int64_t place) const {
    return std::min(layer_.n, (place + 1) * operands_.place_positions) - place * operands_.place_positions;
  }

  FoldStart add_fold(std::int64_t depth) {
    poll_interrupt();
    const FoldStart start = clock_.add(depth);
    const std::int64_t apart = demand_.pieces.empty() ? depth : start.stream - last_stream_;
    demand_.longest_fold = std::max(demand_.longest_fold, apart);
    last_stream_ = start.stream;
    ++demand_.folds;
    return start;
  }

  void reserve_pieces(std::int64_t pieces) {
    require_few_pieces(pieces);
    demand_.pieces.reserve(static_cast<std::size_t>(pieces));
  }

  std::int32_t add_output(std::int64_t elements, std::int64_t index, std::int64_t count) {
    OutputUnit unit;
    unit.elements = elements;
    unit.quarter = static_cast<std::int32_t>(index * 4 / count);
    demand_.outputs.push_back(unit);
    return static_cast<std::int32_t>(demand_.outputs.size() - 1);
  }

  void add_piece(const Piece& piece) {
    const auto number = static_cast<std::int32_t>(demand_.pieces.size());
    demand_.pieces.push_back(piece);
    demand_.longest_piece = std::max(demand_.longest_piece, piece.stream_end - piece.stream);
    if (piece.inputs < 0) return;
    ListPieces& at = demand_.list_pieces[static_cast<std::size_t>(piece.inputs)];
    if (at.first < 0) {
      at.first = number;
    } else if (at.step == 0) {
      at.step = number - at.first;
    }
  }

  /// The piece that was added last has results for `unit`.
  void visit_output(std::int32_t unit, std::int64_t result, std::int64_t result_end) {
    const auto number = static_cast<std::int64_t>(demand_.pieces.size()) - 1;
    demand_.pieces.back().result = result;
    if (last_visit_ == number - 1 && !demand_.visits.empty() && demand_.visits.back().unit == unit) {
      demand_.visits.back().last = result;
      demand_.visits.back().end = result_end;
    } else {
      OutputUnit& output = demand_.outputs[static_cast<std::size_t>(unit)];
      output.last = static_cast<std::int32_t>(demand_.visits.size());
      if (output.first < 0) output.first = output.last;
      demand_.visits.push_back({result, result, result_end, unit});
    }
    last_visit_ = number;
  }

  void add_zeros(std::int64_t elements) {
    demand_.zeros.push_back({static_cast<std::int32_t>(demand_.pieces.size()), elements});
  }

  void count_strip_inputs(std::int64_t passes) {
    demand_.accesses.input_reads = operands_.input_elements * layer_.n;
    demand_.accesses.weight_reads = operands_.weight_elements * passes;
  }

  void list_weight_stationary() {
    const std::int64_t places = operands_.places;
    const std::int64_t fold_places = ranges_apart_ ? 1 : places;
    const std::int64_t groups = ceil_div(places, fold_places);
    demand_.inner_pieces = fold_places;
    demand_.weights_used_once = groups == 1;
    count_strip_inputs(groups);
    std::int64_t all_folds = 0;
    for (const ListedStrip& strip : operands_.strips) {
      demand_.accesses.output_writes += strip.parts * strip.features * layer_.n;
      demand_.accesses.output_reads += std::max<std::int64_t>(0, strip.parts - 1) * strip.features * layer_.n;
      if (groups > 1) demand_.inner_pieces = std::max(demand_.inner_pieces, strip.parts);
      all_folds += strip.parts;
    }
    reserve_pieces(all_folds * places);
    if (array_.swapped && groups > 1) demand_.inner_pieces = std::max<std::int64_t>(1, all_folds);
    for (std::int64_t outer = 0; outer < (array_.swapped ? groups : 1); ++outer) {
      for (const ListedStrip& strip : operands_.strips) {
        if (strip.parts == 0) {
          if (outer == 0) add_zeros(strip.features * layer_.n);
          continue;
        }
        for (std::int64_t inner = 0; inner < (array_.swapped ? 1 : groups); ++inner) {
          const std::int64_t first = (outer + inner) * fold_places;
          add_range(strip, first, std::min(places, first + fold_places) - 1);
        }
      }
    }
  }

  /// `ws`: all folds of a strip stream the positions of places `first` to `last`.
  void add_range(const ListedStrip& strip, std::int64_t first, std::int64_t last) {
    const std::int64_t size = operands_.place_positions;
    const std::int64_t depth = last * size + positions_of(last) - first * size;
    const auto outputs = static_cast<std::int32_t>(demand_.outputs.size());
    for (std::int64_t place = first; place <= last; ++place) {
      add_output(strip.features * positions_of(place), place, operands_.places);
    }
    for (std::int64_t chunk = 0; chunk < strip.parts; ++chunk) {
      const FoldStart start = add_fold(depth);
      for (std::int64_t place = first; place <= last; ++place) {
        Piece piece;
        piece.stream = start.stream + (place - first) * size;
        piece.stream_end = piece.stream + positions_of(place);
        piece.inputs = strip.first_list + static_cast<std::int32_t>(chunk);
        piece.place = static_cast<std::int32_t>(place);
        if (place == first) {
          piece.preload = start.preload;
          piece.weights = strip.first_weights + static_cast<std::int32_t>(chunk);
        }
        add_piece(piece);
        visit_output(outputs + static_cast<std::int32_t>(place - first), piece.stream + skew_,
                     piece.stream_end + skew_);
      }
    }
  }

  void list_output_stationary() {
    const std::int64_t places = operands_.places;
    count_strip_inputs(places);
    std::int64_t all_pieces = 0;
    for (const ListedStrip& strip : operands_.strips) {
      demand_.inner_pieces = std::max(demand_.inner_pieces, strip.parts);
      if (strip.parts > 0) demand_.accesses.output_writes += strip.features * layer_.n;
      all_pieces += strip.parts;
    }
    reserve_pieces(all_pieces * places);
    if (array_.swapped) demand_.inner_pieces = std::max<std::int64_t>(1, all_pieces);
    for (std::int64_t outer = 0; outer < (array_.swapped ? places : 1); ++outer) {
      for (const ListedStrip& strip : operands_.strips) {
        if (strip.parts == 0) {
          if (outer == 0) add_zeros(strip.features * layer_.n);
          continue;
        }
        for (std::int64_t inner = 0; inner < (array_.swapped ? 1 : places); ++inner) {
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
      add_piece(piece);
    }
    const std::int64_t result = start.stream + strip.depth + skew_;
    visit_output(add_output(strip.features * positions_of(place), 0, 1), result, result + array_.rows);
  }

  void list_input_stationary() {
    const auto ranges = static_cast<std::int64_t>(operands_.touched.size());
    std::int64_t most = 0;  // Pieces of a tile.
    demand_.accesses.input_reads = operands_.input_elements * operands_.core_positions;
    demand_.accesses.weight_reads = operands_.weight_elements * operands_.core_places;
    for (const ListedTile& tile : operands_.tiles) {
      most = std::max<std::int64_t>(most, std::count_if(tile.operands.begin(), tile.operands.end(),
                                                        [](auto size) { return size > 0; }));
      demand_.accesses.output_writes += tile.depth * operands_.core_positions;
    }
    demand_.accesses.output_reads =
        demand_.accesses.output_writes - operands_.streamed_features * operands_.core_positions;
    const auto pieces = static_cast<std::int64_t>(operands_.weights.size());
    demand_.inner_pieces = std::max<std::int64_t>(1, array_.swapped ? most : pieces);
    reserve_pieces(pieces * operands_.core_places);
    std::vector<std::int64_t> places;
    for (std::int64_t place = core_; place < operands_.places; place += cores_.cores())
      places.push_back(place);
    std::vector<std::vector<std::int32_t>> outputs;  // (places, ranges).
    const auto add_outputs = [&](std::size_t at) {
      const std::int64_t positions = positions_of(places[at]);
      const std::int64_t features = operands_.range_features;
      outputs.emplace_back(static_cast<std::size_t>(ranges), -1);
      for (std::int64_t range = 0; range < ranges; ++range) {
        const std::int64_t size = std::min(layer_.grid.m, (range + 1) * features) - range * features;
        if (operands_.touched[static_cast<std::size_t>(range)] == 0) {
          add_zeros(size * positions);
          continue;
        }
        const std::int64_t index = static_cast<std::int64_t>(at) * ranges + range;
        outputs.back()[static_cast<std::size_t>(range)] =
            array_.swapped ? add_output(size * positions, index, ranges * operands_.core_places)
                           : add_output(size * positions, range, ranges);
      }
    };
    if (!array_.swapped) {
      for (std::size_t at = 0; at < places.size(); ++at) {
        add_outputs(at);
        for (const ListedTile& tile : operands_.tiles) add_tile_fold(tile, places[at], outputs[at]);
      }
      return;
    }
    for (std::size_t at = 0; at < places.size(); ++at) add_outputs(at);
    for (const ListedTile& tile : operands_.tiles) {
      for (std::size_t at = 0; at < places.size(); ++at) add_tile_fold(tile, places[at], outputs[at]);
    }
  }

  /// `is`: one fold of a reduction tile, for the positions of `place`.
  void add_tile_fold(const ListedTile& tile, std::int64_t place, const std::vector<std::int32_t>& outputs) {
    const FoldStart start = add_fold(tile.depth);
    std::int64_t stream = start.stream;
    std::int32_t weights = tile.first_weights;
    for (std::size_t range = 0; range < tile.operands.size(); ++range) {
      if (tile.operands[range] == 0) continue;
      Piece piece;
      piece.stream = stream;
      piece.stream_end = stream + tile.operands[range];
      piece.place = static_cast<std::int32_t>(place);
      piece.weights = weights++;
      if (stream == start.stream) {
        piece.preload = start.preload;
        piece.inputs = tile.list;
      }
      add_piece(piece);
      visit_output(outputs[range], stream + skew_, piece.stream_end + skew_);
      stream = piece.stream_end;
    }
  }

  ArrayConfig array_;
  Layer layer_;
  const CoreMap& cores_;
  std::int64_t core_;
  const CoreOperands& operands_;
  bool ranges_apart_;
  std::int64_t skew_;  ///< From an operand's entering the array to the first result with it, `os`: after it.
  FoldClock clock_;
  Demand demand_;
  std::int64_t last_stream_ = 0;
  std::int64_t last_visit_ = -1;  ///< The last piece with results.
};

}  // namespace

Demand list_demand(const ArrayConfig& array, const Layer& layer, const CoreMap& cores, std::int64_t core,
                   const CoreOperands& operands, bool ranges_apart) {
  return DemandLister(array, layer, cores, core, operands, ranges_apart).list();
}

}  // namespace pysim
