// What the array asks of its buffers, piece by piece and in array cycles: which inputs, weights and outputs
// each piece of a fold needs and when. Knows nothing of capacities, the channel or stalls.
#pragma once

#include <cstdint>
#include <vector>

#include "sim/core_operands.h"
#include "sim/cores.h"
#include "sim/counts.h"
#include "sim/folding.h"

namespace pysim {

/// Consecutive operands of one fold. Cycles are the array's own: those it would have without any stall.
struct Piece {
  std::int64_t preload = -1;    ///< First cycle of the fold's preload; -1 but in a preloaded fold's first.
  std::int64_t stream = 0;      ///< First streamed operand.
  std::int64_t stream_end = 0;  ///< One past the last.
  std::int64_t result = -1;     ///< First result reaches the output buffer; -1 if there is none.
  std::int32_t inputs = -1;     ///< Which list of input units it needs, or -1.
  std::int32_t place = 0;       ///< Which positions those are of.
  std::int32_t weights = -1;    ///< Weight unit, or -1.
};

/// Outputs that are summed together.
struct OutputUnit {
  std::int64_t elements = 0;
  std::int32_t first = -1;  ///< First visit.
  std::int32_t last = -1;   ///< Last one; after it the outputs are complete.
  std::int32_t quarter = 0;
};

/// Pieces in a row with results for the same output unit.
struct OutputVisit {
  std::int64_t begin;  ///< First result of the first of them reaches the output buffer.
  std::int64_t last;   ///< First result of the last of them does.
  std::int64_t end;    ///< One past the last result.
  std::int32_t unit;
};

/// Outputs that no fold computes: zeros that are written all the same.
struct ZeroOutputs {
  std::int32_t before = 0;  ///< The piece that they precede in program order.
  std::int64_t elements = 0;
};

/// The pieces at which one list of inputs is needed: `first`, and `step` further on at each further place.
struct ListPieces {
  std::int32_t first = -1;
  std::int32_t step = 0;
};

/// All pieces of one core in the order in which they run.
struct Demand {
  bool inputs_preloaded = false;   ///< `is`; else inputs are streamed.
  bool weights_used_once = false;  ///< No piece needs weights that another one has needed.
  bool weights_preloaded = false;  ///< `ws`; else weights are streamed.
  std::vector<Piece> pieces;
  std::int64_t inner_pieces = 1;  ///< Pieces after which the innermost reuse of a unit comes round again.
  std::vector<ListPieces> list_pieces;  ///< (lists).
  std::int64_t place_step = 1;          ///< From one place of this core to its next.

  std::vector<OutputUnit> outputs;
  std::vector<OutputVisit> visits;  ///< In the order in which they are.
  std::vector<ZeroOutputs> zeros;

  std::int64_t folds = 0;
  std::int64_t compute_cycles = 0;
  std::int64_t longest_piece = 0;  ///< Most operands of a piece.
  std::int64_t longest_fold = 0;   ///< Most cycles from the stream of one fold to that of the next.
  ArrayAccesses accesses;

  /// The next piece, seen from one of `place`, with inputs of `list` at the same place.
  std::int64_t piece_of(std::int32_t list, std::int32_t place) const {
    const ListPieces& at = list_pieces[static_cast<std::size_t>(list)];
    return at.first + place / place_step * at.step;
  }
};

/// Cuts one core's part of the layer into pieces.
///
/// operands: of the same core. ranges_apart: `ws` alone: whether all folds of a strip stream one range of the
/// positions before the next range's turn comes, so that each fold streams one range; needed where `array`
/// swaps the loops. Throws std::invalid_argument if the core has more than 2^22 pieces.
Demand list_demand(const ArrayConfig& array, const Layer& layer, const CoreMap& cores, std::int64_t core,
                   const CoreOperands& operands, bool ranges_apart);

}  // namespace pysim
