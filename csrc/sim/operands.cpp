#include "sim/operands.h"

#include <algorithm>
#include <string>

#include "base/check.h"

namespace pysim {
namespace {

FeedLanes write_out(const Feed& feed, std::int64_t slot_members) {
  FeedLanes out{feed.col_begin, feed.col_end, feed.lanes, {}};
  out.elements.assign(static_cast<std::size_t>(feed.lanes * slot_members), -1);
  std::int64_t lane = 0;
  std::int64_t begin = 0;
  for (const std::int64_t end : feed.slot_end) {
    std::int64_t lanes = 0;
    for (std::int64_t i = begin; i < end; ++i) {
      const Span span = feed.members[static_cast<std::size_t>(i)];
      for (std::int64_t e = 0; e < span.size(); ++e) {
        out.elements[static_cast<std::size_t>((lane + e) * slot_members + i - begin)] = span.begin + e;
      }
      lanes = std::max(lanes, span.size());
    }
    lane += lanes;
    begin = end;
  }
  return out;
}

void require_few(std::int64_t folds, std::int64_t max_folds) {
  require(folds <= max_folds, "cycle engine",
          "at most " + std::to_string(max_folds) + " folds (use engine=\"event\" for a layer of this size)",
          std::to_string(folds));
}

}  // namespace

FoldList list_folds(const ArrayConfig& array, const Layer& layer, const CoreMap& cores,
                    std::int64_t fold_positions, std::int64_t max_folds) {
  Folder folder(array, layer);
  FoldList list;
  if (array.dataflow == Dataflow::is) {
    require_few(folder.reduction_tiles(), max_folds);
    ReductionTile tile;
    for (std::int64_t i = 0; i < folder.reduction_tiles(); ++i) {
      folder.fill_reduction_tile(i, tile);
      if (tile.depth == 0) continue;
      TileFeatures out{tile.reduction, {}};
      for (const Span span : tile.features) {
        for (std::int64_t feature = span.begin; feature < span.end; ++feature)
          out.features.push_back(feature);
      }
      list.tiles.push_back(std::move(out));
    }
    const auto tiles = static_cast<std::int64_t>(list.tiles.size());
    require_few(tiles == 0 ? 0 : folder.position_tiles(), max_folds);
    require_few(tiles * (tiles == 0 ? 0 : folder.position_tiles()), max_folds);
    const auto add = [&](std::int64_t i, std::int64_t position) {
      const std::size_t depth = list.tiles[static_cast<std::size_t>(i)].features.size();
      list.folds.push_back({i, position, static_cast<std::int64_t>(depth), cores.core_of(position)});
    };
    const std::int64_t positions = tiles == 0 ? 0 : folder.position_tiles();
    const std::int64_t outer = array.swapped ? tiles : positions;
    const std::int64_t inner = array.swapped ? positions : tiles;
    for (std::int64_t i = 0; i < outer; ++i) {
      for (std::int64_t j = 0; j < inner; ++j) add(array.swapped ? i : j, array.swapped ? j : i);
    }
    return list;
  }
  Strip strip;
  for (std::int64_t i = 0; i < folder.strips(); ++i) {
    folder.fill_strip(i, strip);
    const std::int64_t folds = folder.folds_of(strip.lanes());
    if (folds == 0) continue;
    require_few(folds + static_cast<std::int64_t>(list.folds.size()), max_folds);
    const auto part = static_cast<std::int64_t>(list.strips.size());
    StripLanes out{strip.feature_begin, strip.feature_end, {}};
    for (const Feed& feed : strip.feeds) out.feeds.push_back(write_out(feed, array.slot_members()));
    list.strips.push_back(std::move(out));
    if (array.dataflow == Dataflow::os) {
      for (std::int64_t tile = 0; tile < folds; ++tile) {
        list.folds.push_back({part, tile, folder.depth_of(strip.lanes()), cores.core_of(i)});
      }
      continue;
    }
    for (std::int64_t first = 0; first < layer.n; first += fold_positions) {
      require_few(folds + static_cast<std::int64_t>(list.folds.size()), max_folds);
      const std::int64_t depth = std::min(layer.n - first, fold_positions);
      for (std::int64_t chunk = 0; chunk < folds; ++chunk) {
        list.folds.push_back({part, chunk, depth, cores.core_of(i), first});
      }
    }
  }
  if (array.swapped) {
    // Position tiles, or the ranges of positions that folds start with, become the outermost loop.
    const bool os = array.dataflow == Dataflow::os;
    std::stable_sort(list.folds.begin(), list.folds.end(), [os](const Fold& a, const Fold& b) {
      return os ? a.chunk < b.chunk : a.first_position < b.first_position;
    });
  }
  return list;
}

}  // namespace pysim
