#include "sim/core_operands.h"

#include <algorithm>
#include <numeric>
#include <string>

#include "base/check.h"
#include "base/interrupt.h"

namespace pysim {
namespace {

constexpr std::int64_t max_pieces = std::int64_t{1} << 22;
constexpr std::int64_t max_list_units = std::int64_t{1} << 26;
constexpr std::int64_t max_elements = std::int64_t{1} << 28;

/// Kept weights and blocks of some features, by block column.
class KeptColumns {
 public:
  KeptColumns(const BlockGrid& grid, const std::uint8_t* mask)
      : grid_(grid), mask_(mask), block_col_(static_cast<std::size_t>(grid.k)) {
    const std::vector<std::int64_t> edges = block_col_edges(grid);
    begins_.assign(edges.begin(), edges.end());
    const std::size_t cols = begins_.size() - 1;
    for (std::size_t j = 0; j < cols; ++j) {
      std::fill(block_col_.begin() + begins_[j], block_col_.begin() + begins_[j + 1],
                static_cast<std::int32_t>(j));
    }
    features_.resize(cols);
    blocks_.resize(cols);
  }

  /// Counts for features begin to end - 1.
  void count(std::int64_t feature_begin, std::int64_t feature_end) {
    const std::size_t cols = blocks_.size();
    const std::int64_t first = feature_begin / grid_.bh;
    const std::int64_t last = ceil_div(feature_end, grid_.bh) - 1;
    const std::uint8_t* const rows = mask_ + first * static_cast<std::int64_t>(cols);
    count_kept_blocks(rows, last - first + 1, blocks_);
    const auto height = static_cast<std::int32_t>(first == last ? feature_end - feature_begin : grid_.bh);
    for (std::size_t j = 0; j < cols; ++j) features_[j] = blocks_[j] * height;
    // Only the first and the last block row can lie in these features in part.
    const auto leave_out = [&](std::int64_t row, std::int64_t missing) {
      const std::uint8_t* const kept = mask_ + row * static_cast<std::int64_t>(cols);
      for (std::size_t j = 0; j < cols; ++j) {
        features_[j] -= -static_cast<std::int32_t>(kept[j] != 0) & static_cast<std::int32_t>(missing);
      }
    };
    if (first == last) return;
    if (feature_begin > grid_.row_begin(first)) leave_out(first, feature_begin - grid_.row_begin(first));
    if (feature_end < (last + 1) * grid_.bh) leave_out(last, (last + 1) * grid_.bh - feature_end);
  }

  /// Adds the kept weights in reduction elements `span`, and the blocks that meet it.
  void add_to(WeightUnit& unit, Span span) const {
    auto j = static_cast<std::size_t>(block_col_[static_cast<std::size_t>(span.begin)]);
    if (span.end <= begins_[j + 1]) {  // Mostly.
      unit.elements += features_[j] * span.size();
      unit.blocks += blocks_[j];
      return;
    }
    for (; j < blocks_.size() && begins_[j] < span.end; ++j) {
      const std::int64_t width = std::min(span.end, begins_[j + 1]) - std::max(span.begin, begins_[j]);
      unit.elements += features_[j] * width;
      unit.blocks += blocks_[j];
    }
  }

 private:
  BlockGrid grid_;
  const std::uint8_t* mask_;
  std::vector<std::int32_t> block_col_;          ///< (k).
  std::vector<std::int64_t> begins_;             ///< (block columns + 1).
  std::vector<std::int32_t> features_, blocks_;  ///< (block columns): features, block rows that keep it.
};

class OperandLister {
 public:
  OperandLister(const ArrayConfig& array, const Layer& layer, const CoreMap& cores, std::int64_t core)
      : array_(array), layer_(layer), cores_(cores), core_(core), folder_(array, layer) {
    found_.input_units = layer.conv.present() ? layer.grid.channels() : layer.grid.k;
    found_.group = unit_group();
    found_.list_begin.push_back(0);
    seen_.assign(static_cast<std::size_t>(found_.groups()), -1);
    set_places();
  }

  CoreOperands list() {
    if (array_.dataflow == Dataflow::is) {
      list_tiles();
    } else {
      list_strips();
    }
    if (array_.dataflow == Dataflow::is || array_.swapped) number_quarters();
    const auto unused = std::count(seen_.begin(), seen_.end(), -1);
    found_.used_input_units = found_.input_units - unused * found_.group;
    return std::move(found_);
  }

 private:
  /// Neighbouring input units that no list separates: every span that is fed begins and ends at a multiple of
  /// it, and so does every lane at which a part ends and every quarter of the units.
  std::int64_t unit_group() const {
    const std::int64_t units = found_.input_units;
    std::int64_t group = layer_.grid.channels();
    const bool by_block =
        array_.skip == Skip::gather || array_.skip == Skip::group || array_.skip == Skip::mux;
    if (by_block && array_.dataflow != Dataflow::is) group = std::gcd(group, layer_.grid.bw);
    if (array_.dataflow != Dataflow::os) {
      group = std::gcd(group, array_.rows);
    } else if (layer_.grid.k > array_.piece) {
      group = 1;  // Strips are cut wherever their own lengths say.
    }
    for (std::int64_t quarter = 1; quarter < 4; ++quarter) {
      group = std::gcd(group, ceil_div(quarter * units, 4));
    }
    return group;
  }

  void set_places() {
    const std::int64_t positions = array_.dataflow == Dataflow::ws   ? piece_operands(array_, layer_.n)
                                   : array_.dataflow == Dataflow::os ? array_.rows
                                                                     : array_.cols;
    found_.place_positions = positions;
    found_.places = ceil_div(layer_.n, positions);
    require_few_pieces(found_.places);
    found_.place_elements.reserve(static_cast<std::size_t>(found_.places));
    for (std::int64_t place = 0; place < found_.places; ++place) {
      poll_interrupt();
      if (array_.dataflow == Dataflow::is && cores_.core_of(place) != core_) {
        found_.place_elements.push_back(0);
        continue;
      }
      const std::int64_t begin = place * positions;
      const std::int64_t size = std::min(positions, layer_.n - begin);
      found_.core_positions += size;
      ++found_.core_places;
      found_.place_elements.push_back(layer_.conv.present() ? layer_.conv.distinct_pixels(begin, begin + size)
                                                            : size);
    }
  }

  /// A span of what one feeder sends, all of it in one part.
  struct Cut {
    std::int64_t part;
    Span span;
  };

  /// Cuts what a strip is fed into parts of `lanes` lanes: the weights of each, and the spans in their order.
  void cut_strip(const Strip& strip, std::int64_t lanes, std::int64_t parts, KeptColumns& kept) {
    parts_.assign(static_cast<std::size_t>(parts), {});
    cuts_.clear();
    for (const Feed& feed : strip.feeds) {
      kept.count(strip.feature_begin + feed.col_begin, strip.feature_begin + feed.col_end);
      std::int64_t slot_part = 0;
      std::int64_t slot_lane = 0;  // Of that part.
      std::size_t member = 0;
      for (const std::int64_t slot_end : feed.slot_end) {
        std::int64_t slot_lanes = 0;
        for (; member < static_cast<std::size_t>(slot_end); ++member) {
          const Span span = feed.members[member];
          slot_lanes = std::max(slot_lanes, span.size());
          std::int64_t part = slot_part;
          std::int64_t room = lanes - slot_lane;
          for (std::int64_t at = span.begin; at < span.end; ++part, room = lanes) {
            const Span own{at, std::min(span.end, at + room)};
            kept.add_to(parts_[static_cast<std::size_t>(part)], own);
            cuts_.push_back({part, own});
            at = own.end;
          }
        }
        for (slot_lane += slot_lanes; slot_lane >= lanes; slot_lane -= lanes) ++slot_part;
      }
    }
    if (strip.feeds.size() == 1 && array_.slot_members() == 1) return;  // Then they are in order.
    std::stable_sort(cuts_.begin(), cuts_.end(), [](const Cut& a, const Cut& b) { return a.part < b.part; });
  }

  /// Adds to the current list the groups of input units that reduction elements belong to, each once.
  void add_to_list(Span span) {
    const auto number = static_cast<std::int32_t>(found_.lists());
    const auto all = static_cast<std::uint32_t>(found_.groups());
    const auto group = static_cast<std::uint32_t>(found_.group);
    std::uint32_t at = static_cast<std::uint32_t>(span.begin) / group % all;
    for (std::int64_t left = span.size() / found_.group; left > 0; --left) {
      if (seen_[at] != number) {
        seen_[at] = number;
        found_.list_groups.push_back(static_cast<std::int32_t>(at));
      }
      if (++at == all) at = 0;
    }
    found_.input_elements += span.size();
  }

  void end_list() {
    poll_interrupt();
    const auto size = static_cast<std::int64_t>(found_.list_groups.size());
    require(size <= max_list_units / found_.group, "memory",
            "a layer of at most 2^26 input rows over all folds", std::to_string(size * found_.group));
    found_.list_begin.push_back(size);
  }

  void list_strips() {
    const bool ws = array_.dataflow == Dataflow::ws;
    KeptColumns kept(layer_.grid, layer_.mask);
    Strip strip;
    for (std::int64_t i = 0; i < folder_.strips(); ++i) {
      if (cores_.core_of(i) != core_) continue;
      folder_.fill_strip(i, strip);
      ListedStrip out{strip.feature_end - strip.feature_begin,
                      strip.lanes(),
                      0,
                      array_.rows,
                      static_cast<std::int32_t>(found_.weights.size()),
                      static_cast<std::int32_t>(found_.lists())};
      if (out.depth > 0) {
        if (!ws) out.part_operands = piece_operands(array_, out.depth);
        out.parts = ceil_div(out.depth, out.part_operands);
        require_few_pieces(out.parts * found_.places);
        cut_strip(strip, out.part_operands, out.parts, kept);
      }
      std::size_t cut = 0;
      for (std::int64_t part = 0; part < out.parts; ++part) {
        WeightUnit& unit = parts_[static_cast<std::size_t>(part)];
        unit.quarter = static_cast<std::int32_t>(part * 4 / out.parts);
        found_.weights.push_back(unit);
        found_.weight_elements += unit.elements;
        for (; cut < cuts_.size() && cuts_[cut].part == part; ++cut) add_to_list(cuts_[cut].span);
        end_list();
      }
      found_.strips.push_back(out);
    }
  }

  /// Weights of all strips, or of all reduction tiles, are used in turn: quarters of all of them.
  void number_quarters() {
    const std::size_t size = found_.weights.size();
    for (std::size_t u = 0; u < size; ++u) {
      found_.weights[u].quarter = static_cast<std::int32_t>(u * 4 / size);
    }
  }

  void list_tiles() {
    const std::int64_t features = piece_operands(array_, layer_.grid.m);
    const auto ranges = static_cast<std::size_t>(ceil_div(layer_.grid.m, features));
    found_.range_features = features;
    found_.touched.assign(ranges, 0);
    std::vector<std::uint8_t> streamed(static_cast<std::size_t>(layer_.grid.m), 0);
    std::vector<WeightUnit> weights;
    ReductionTile tile;
    for (std::int64_t i = 0; i < folder_.reduction_tiles(); ++i) {
      folder_.fill_reduction_tile(i, tile);
      if (tile.depth == 0) continue;
      ListedTile out{tile.depth, static_cast<std::int32_t>(found_.lists()),
                     std::vector<std::int64_t>(ranges, 0), static_cast<std::int32_t>(found_.weights.size())};
      add_to_list(tile.reduction);
      end_list();
      weights.assign(ranges, {});
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
      for (std::size_t range = 0; range < ranges; ++range) {
        if (out.operands[range] == 0) continue;
        found_.touched[range] = 1;
        found_.weights.push_back(weights[range]);
        found_.weight_elements += weights[range].elements;
      }
      found_.tiles.push_back(std::move(out));
    }
    found_.streamed_features = std::count(streamed.begin(), streamed.end(), 1);
    const auto pieces = static_cast<std::int64_t>(found_.weights.size());
    require_few_pieces(pieces);
    require_few_pieces(pieces * found_.core_places);
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
  Folder folder_;
  CoreOperands found_;
  std::vector<std::int32_t> seen_;  ///< (groups): the last list that it is in, or -1.
  std::vector<WeightUnit> parts_;   ///< Of the strip that was cut last.
  std::vector<Cut> cuts_;
};

}  // namespace

void require_few_pieces(std::int64_t pieces) {
  if (pieces <= max_pieces) return;
  require(false, "memory",
          "a layer of at most " + std::to_string(max_pieces) +
              " pieces of folds (a larger array, a smaller layer, or no memory)",
          std::to_string(pieces));
}

std::int64_t piece_operands(const ArrayConfig& array, std::int64_t operands) {
  return ceil_div(operands, ceil_div(operands, array.piece));
}

void require_listable(const ArrayConfig& array, const Layer& layer) {
  for (const std::int64_t side : {layer.grid.m, layer.grid.k}) {
    require(side <= max_elements, "memory",
            "a layer of at most 2^28 features and reduction elements (a smaller layer, or no memory)",
            std::to_string(side));
  }
  if (array.dataflow != Dataflow::is) require_few_pieces(ceil_div(layer.grid.m, array.cols));
}

CoreOperands list_operands(const ArrayConfig& array, const Layer& layer, const CoreMap& cores,
                           std::int64_t core) {
  require_listable(array, layer);
  return OperandLister(array, layer, cores, core).list();
}

}  // namespace pysim
