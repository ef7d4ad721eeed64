// What the array asks of its buffers, piece by piece and in array cycles: which inputs, weights and outputs
// each piece of a fold needs and when. Knows nothing of capacities, the channel or stalls.
#pragma once

#include <cstdint>
#include <vector>

#include "sim/cores.h"
#include "sim/counts.h"
#include "sim/folding.h"

namespace pysim {

/// Consecutive operands of one fold. Cycles are the array's own: those it would have without any stall.
struct Piece {
  std::int64_t preload = -1;    ///< First cycle of the fold's preload; -1 but in a preloaded fold's first.
  std::int64_t stream = 0;      ///< First streamed operand.
  std::int64_t stream_end = 0;  ///< One past the last.
  std::int64_t result = 0;      ///< First result reaches the output buffer; unused without `output`.
  std::int64_t result_end = 0;  ///< One past the last.
  std::int32_t inputs = -1;     ///< Which list of input units it needs, or -1.
  std::int32_t place = 0;       ///< Which positions those are of.
  std::int32_t weights = -1;    ///< Weight unit, or -1.
  std::int32_t output = -1;     ///< Output unit, or -1.
};

/// Weights that travel together.
struct WeightUnit {
  std::int64_t elements = 0;  ///< Weights in kept blocks.
  std::int64_t blocks = 0;    ///< Kept blocks that lie in it, wholly or in part.
  std::int32_t quarter = 0;   ///< 0 to 3: its place among the units that are used in turn.
};

/// Outputs that are summed together, and the pieces that sum them.
struct OutputUnit {
  std::int64_t elements = 0;
  std::int32_t first = -1;  ///< First piece with results for it.
  std::int32_t last = -1;   ///< Last one; after it the outputs are complete.
  std::int32_t quarter = 0;
};

/// Outputs that no fold computes: zeros that are written all the same.
struct ZeroOutputs {
  std::int32_t before = 0;  ///< The piece that they precede in program order.
  std::int64_t elements = 0;
};

/// All pieces of one core in the order in which they run.
struct Demand {
  bool inputs_preloaded = false;   ///< `is`; else inputs are streamed.
  bool weights_used_once = false;  ///< No piece needs weights that another one has needed.
  bool weights_preloaded = false;  ///< `ws`; else weights are streamed.
  std::vector<Piece> pieces;
  std::int64_t inner_pieces = 1;  ///< Pieces after which the innermost reuse of a unit comes round again.

  std::int64_t input_units = 0;              ///< Channels of a convolution, reduction elements of a product.
  std::int64_t used_input_units = 0;         ///< Of those, any piece needs.
  std::vector<std::int64_t> place_elements;  ///< (places): elements of an input unit; 0 if other cores' own.
  std::vector<std::int64_t> list_begin;      ///< (lists + 1): into `list_units`.
  std::vector<std::int32_t> list_units;

  std::vector<WeightUnit> weights;
  std::vector<OutputUnit> outputs;
  std::vector<ZeroOutputs> zeros;

  std::int64_t folds = 0;
  std::int64_t compute_cycles = 0;
  std::int64_t longest_piece = 0;  ///< Most operands of a piece.
  std::int64_t longest_fold = 0;   ///< Most cycles from the stream of one fold to that of the next.
  ArrayAccesses accesses;
};

/// Cuts the layer into the pieces of every core.
///
/// ranges_apart: `ws` alone: whether all folds of a strip stream one range of the positions before the next
/// range's turn comes, so that each fold streams one range; needed where `array` swaps the loops. Throws
/// std::invalid_argument if it is out of range or a core has more than 2^22.
std::vector<Demand> list_demands(const ArrayConfig& array, const Layer& layer, const CoreMap& cores,
                                 bool ranges_apart);

/// Throws std::invalid_argument if it is plain from its size that list_demands would refuse the layer.
void require_listable(const ArrayConfig& array, const Layer& layer);

/// `ws`: positions of every range but the last.
std::int64_t range_positions(const ArrayConfig& array, const Layer& layer);

}  // namespace pysim
