// What the folds of one core need, each part once however often and in whichever order it streams: the
// weights and the inputs of its strips or reduction tiles. Knows nothing of cycles.
#pragma once

#include <cstdint>
#include <vector>

#include "sim/cores.h"
#include "sim/folding.h"

namespace pysim {

/// Weights that travel together.
struct WeightUnit {
  std::int64_t elements = 0;  ///< Weights in kept blocks.
  std::int64_t blocks = 0;    ///< Kept blocks that lie in it, wholly or in part.
  std::int32_t quarter = 0;   ///< 0 to 3: its place among the units that are used in turn.
};

/// A strip of this core (`ws`, `os`).
struct ListedStrip {
  std::int64_t features;
  std::int64_t depth;          ///< Lanes; 0 where it has no fold.
  std::int64_t parts;          ///< `ws`: folds. `os`: pieces of a fold.
  std::int64_t part_operands;  ///< `os`: operands of every piece but the last.
  std::int32_t first_weights;  ///< Of its first part; further ones follow.
  std::int32_t first_list;
};

/// A reduction tile that has a fold (`is`): its input units, and its features cut by ranges of features.
struct ListedTile {
  std::int64_t depth;
  std::int32_t list;
  std::vector<std::int64_t> operands;  ///< (ranges): features of the range that are streamed.
  std::int32_t first_weights;          ///< Of its first range with operands; further ones follow.
};

/// Operands of one core.
struct CoreOperands {
  // Positions, cut into places.
  std::int64_t place_positions = 1;          ///< Of every place but the last.
  std::int64_t places = 1;                   ///< Of all cores.
  std::int64_t core_places = 0;              ///< Of those, this core's.
  std::int64_t core_positions = 0;           ///< Positions in them.
  std::vector<std::int64_t> place_elements;  ///< (places): elements of an input unit; 0 if other cores' own.

  // Inputs. A unit is a channel of a convolution or a reduction element of a product; `group` neighbouring
  // ones are always needed together.
  std::int64_t input_units = 0;
  std::int64_t group = 1;
  std::int64_t used_input_units = 0;      ///< That any part needs.
  std::vector<std::int64_t> list_begin;   ///< (lists + 1): into `list_groups`.
  std::vector<std::int32_t> list_groups;  ///< Groups of units that a part needs, each once.
  std::int64_t input_elements = 0;        ///< Reduction elements on all feeder lines, of all parts.

  std::vector<WeightUnit> weights;
  std::int64_t weight_elements = 0;  ///< Of all of them.

  std::vector<ListedStrip> strips;  ///< `ws`, `os`.

  // `is`:
  std::vector<ListedTile> tiles;
  std::int64_t range_features = 1;     ///< Of every range of features but the last.
  std::vector<std::uint8_t> touched;   ///< (ranges): whether any tile streams a feature of it.
  std::int64_t streamed_features = 0;  ///< Features that any tile streams.

  std::int64_t groups() const { return input_units / group; }
  std::int64_t lists() const { return static_cast<std::int64_t>(list_begin.size()) - 1; }
};

/// Throws std::invalid_argument if the layer is out of range or a core has too many parts.
CoreOperands list_operands(const ArrayConfig& array, const Layer& layer, const CoreMap& cores,
                           std::int64_t core);

/// Throws std::invalid_argument if it is plain from its size that list_operands would refuse the layer.
void require_listable(const ArrayConfig& array, const Layer& layer);

/// Throws std::invalid_argument, saying what to do, if one core has more pieces of folds than are listed.
void require_few_pieces(std::int64_t pieces);

/// The size of every part but the last of the most even cut of `operands` into pieces.
std::int64_t piece_operands(const ArrayConfig& array, std::int64_t operands);

}  // namespace pysim
