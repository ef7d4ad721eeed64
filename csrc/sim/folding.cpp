#include "sim/folding.h"

#include <algorithm>
#include <bit>
#include <numeric>
#include <string>
#include <utility>

#include "base/check.h"
#include "base/checked_math.h"

namespace pysim {
namespace {

/// Strips, reduction tiles or chunks that a layer may be cut into: seconds of work, not hours.
constexpr std::int64_t max_parts = std::int64_t{1} << 28;

void append_lanes(Feed& feed, Span span) {
  feed.members.push_back(span);
  feed.slot_end.push_back(static_cast<std::int64_t>(feed.members.size()));
  feed.lanes += span.size();
}

/// The first block row that features from `feature_begin` to before `feature_end` lie in, and the one behind
/// the last. One that lies among them only in part counts: its features there need what it keeps.
std::pair<std::int64_t, std::int64_t> block_rows(std::int64_t feature_begin, std::int64_t feature_end,
                                                 std::int64_t height) {
  const std::int64_t row_begin = feature_begin / height;
  return {row_begin, ceil_div(feature_end, height)};
}

/// Eight bytes, the first one lowest.
std::uint64_t load_word(const std::uint8_t* bytes) {
  std::uint64_t word = 0;
  for (int i = 7; i >= 0; --i) word = word << 8 | bytes[i];
  return word;
}

/// How many of `count` bytes are not zero.
std::int64_t count_nonzero(const std::uint8_t* bytes, std::int64_t count) {
  constexpr std::int64_t lanes = 64;
  std::int64_t total = 0;
  std::int64_t at = 0;
  while (count - at >= lanes) {
    std::uint8_t sums[lanes] = {};  // Of at most 255 bytes each.
    const std::int64_t turns = std::min<std::int64_t>(255, (count - at) / lanes);
    for (std::int64_t turn = 0; turn < turns; ++turn, at += lanes) {
      for (std::int64_t i = 0; i < lanes; ++i) {
        sums[i] = static_cast<std::uint8_t>(sums[i] + (bytes[at + i] != 0));
      }
    }
    for (const std::uint8_t sum : sums) total += sum;
  }
  for (; at < count; ++at) total += bytes[at] != 0;
  return total;
}

}  // namespace

std::vector<std::int64_t> block_col_edges(const BlockGrid& grid) {
  std::vector<std::int64_t> edges;
  edges.reserve(static_cast<std::size_t>(grid.block_cols()) + 1);
  const std::int64_t channels = grid.channels();
  for (std::int64_t begin = 0; begin < grid.k; begin += channels) {
    // bw may be as large as any integer.
    for (std::int64_t at = 0; at < channels; at += std::min(grid.bw, channels - at))
      edges.push_back(begin + at);
  }
  edges.push_back(grid.k);
  return edges;
}

void count_kept_blocks(const std::uint8_t* mask, std::int64_t rows, std::vector<std::int32_t>& counts) {
  constexpr std::size_t most_cols = 1024;  // At a time, so that the sums stay in the cache,
  constexpr std::int64_t most_rows = 255;  // and fit into a byte.
  const std::size_t cols = counts.size();
  for (std::size_t first = 0; first < cols; first += most_cols) {
    const std::size_t width = std::min(most_cols, cols - first);
    for (std::int64_t row = 0; row < rows; row += most_rows) {
      std::uint8_t sums[most_cols];
      std::fill(sums, sums + width, std::uint8_t{0});
      for (std::int64_t i = row; i < std::min(rows, row + most_rows); ++i) {
        const std::uint8_t* const kept = mask + i * static_cast<std::int64_t>(cols) + first;
        for (std::size_t j = 0; j < width; ++j) sums[j] = static_cast<std::uint8_t>(sums[j] + (kept[j] != 0));
      }
      std::int32_t* const out = counts.data() + first;
      for (std::size_t j = 0; j < width; ++j) out[j] = row == 0 ? sums[j] : out[j] + sums[j];
    }
  }
}

std::int64_t Strip::lanes() const {
  std::int64_t longest = 0;
  for (const Feed& feed : feeds) longest = std::max(longest, feed.lanes);
  return longest;
}

Folder::Folder(const ArrayConfig& array, const Layer& layer) : array_(array), layer_(layer) {
  array.check();
  layer.grid.check();
  require(layer.n >= 1, "layer", "n of at least 1", std::to_string(layer.n));
  layer.conv.check(layer.grid.positions, layer.n);
  const std::int64_t weights = checked_mul(layer.grid.m, layer.grid.k, "layer m * k");
  checked_mul(weights, layer.n, "layer m * k * n");
  const std::int64_t feeders = ceil_div(layer.grid.m, array.feeder_cols());
  const std::int64_t parts = array.dataflow == Dataflow::is ? reduction_tiles()
                             : array.skip == Skip::tile     ? checked_mul(feeders, reduction_tiles(), "layer")
                                                            : feeders;
  require(parts <= max_parts, "layer",
          "at most " + std::to_string(max_parts) +
              " parts of the array's size (a larger array, or a smaller layer)",
          std::to_string(parts));
  col_edges_ = block_col_edges(layer.grid);
  kept_.resize(col_edges_.size() - 1);
}

std::int64_t Folder::strips() const { return ceil_div(layer_.grid.m, array_.cols); }

std::int64_t Folder::position_tiles() const {
  return ceil_div(layer_.n, array_.dataflow == Dataflow::is ? array_.cols : array_.rows);
}

std::int64_t Folder::reduction_tiles() const { return ceil_div(layer_.grid.k, array_.rows); }

std::int64_t Folder::folds_of(std::int64_t lanes) const {
  if (lanes == 0) return 0;
  return array_.dataflow == Dataflow::os ? position_tiles() : ceil_div(lanes, array_.rows);
}

std::int64_t Folder::depth_of(std::int64_t lanes) const {
  return array_.dataflow == Dataflow::os ? lanes : layer_.n;
}

std::int64_t Folder::kept_weights() const {
  const BlockGrid& grid = layer_.grid;
  const std::int64_t rows = grid.block_rows();
  const std::int64_t cols = grid.block_cols();
  const std::int64_t per = grid.block_cols_per_position();
  const std::int64_t width = std::min(grid.bw, grid.channels());
  const std::int64_t height = std::min(grid.bh, grid.m);
  const std::int64_t missing_width = per * width - grid.channels();  // Of the last block of each position,
  const std::int64_t missing_height = rows * height - grid.m;        // and of the last block row.
  const std::uint8_t* const last_row = layer_.mask + (rows - 1) * cols;
  std::int64_t total = width * (height * count_nonzero(layer_.mask, rows * cols) -
                                missing_height * count_nonzero(last_row, cols));
  if (missing_width == 0) return total;
  for (std::int64_t i = 0; i < rows; ++i) {
    const std::int64_t own_height = i == rows - 1 ? height - missing_height : height;
    for (std::int64_t j = per - 1; j < cols; j += per) {
      total -= -std::int64_t{layer_.mask[i * cols + j] != 0} & (missing_width * own_height);
    }
  }
  return total;
}

std::int64_t Folder::block_col_of(std::int64_t k) const {
  return std::upper_bound(col_edges_.begin(), col_edges_.end(), k) - col_edges_.begin() - 1;
}

Span Folder::block_col_span(std::int64_t j) const {
  const auto at = static_cast<std::size_t>(j);
  return {col_edges_[at], col_edges_[at + 1]};
}

void Folder::count_kept(std::int64_t block_row_begin, std::int64_t block_row_end) {
  count_kept_blocks(layer_.mask + block_row_begin * static_cast<std::int64_t>(kept_.size()),
                    block_row_end - block_row_begin, kept_);
}

/// Notes which block columns keep any block in these rows.
void Folder::find_kept(std::int64_t block_row_begin, std::int64_t block_row_end) {
  const std::size_t cols = kept_.size();
  found_.resize((cols + 7) / 8 * 8);
  std::uint8_t* const found = found_.data();
  const std::uint8_t* row = layer_.mask + block_row_begin * static_cast<std::int64_t>(cols);
  for (std::size_t j = 0; j < cols; ++j) found[j] = row[j] != 0;
  for (std::int64_t i = block_row_begin + 1; i < block_row_end; ++i) {
    row += cols;
    for (std::size_t j = 0; j < cols; ++j) found[j] |= row[j] != 0;
  }
}

/// Lanes of the block columns that were found.
std::int64_t Folder::lanes_of_found() const {
  const BlockGrid& grid = layer_.grid;
  const auto cols = static_cast<std::int64_t>(kept_.size());
  const std::int64_t per = grid.block_cols_per_position();
  const std::int64_t width = std::min(grid.bw, grid.channels());
  const std::int64_t missing_width = per * width - grid.channels();  // Of the last block of each position.
  std::int64_t lanes = width * count_nonzero(found_.data(), cols);
  if (missing_width == 0) return lanes;
  for (std::int64_t j = per - 1; j < cols; j += per) {
    lanes -= -std::int64_t{found_[static_cast<std::size_t>(j)]} & missing_width;
  }
  return lanes;
}

StripSize Folder::measure_strip(std::int64_t index) {
  StripSize size;
  const std::int64_t begin = index * array_.cols;
  const std::int64_t end = std::min(layer_.grid.m, begin + array_.cols);
  if (array_.skip == Skip::none) return {layer_.grid.k, layer_.grid.k * (end - begin)};
  if (array_.skip != Skip::gather && array_.skip != Skip::group) {
    fill_strip(index, measured_);
    for (const Feed& feed : measured_.feeds) size.weights += feed.lanes * (feed.col_end - feed.col_begin);
    size.lanes = measured_.lanes();
    return size;
  }
  const std::int64_t per_feed = array_.feeder_cols();
  for (std::int64_t feature = begin; feature < end; feature += per_feed) {
    const std::int64_t feature_end = std::min(end, feature + per_feed);
    const auto [row_begin, row_end] = block_rows(feature, feature_end, layer_.grid.bh);
    find_kept(row_begin, row_end);
    const std::int64_t lanes = lanes_of_found();
    size.lanes = std::max(size.lanes, lanes);
    size.weights += lanes * (feature_end - feature);
  }
  return size;
}

void Folder::fill_strip(std::int64_t index, Strip& strip) {
  strip.feature_begin = index * array_.cols;
  strip.feature_end = std::min(layer_.grid.m, strip.feature_begin + array_.cols);
  const std::int64_t features = strip.feature_end - strip.feature_begin;
  const std::int64_t per_feed = array_.feeder_cols();
  strip.feeds.resize(static_cast<std::size_t>(ceil_div(features, per_feed)));
  std::int64_t col = 0;
  for (Feed& feed : strip.feeds) {
    feed.col_begin = col;
    feed.col_end = std::min(features, col + per_feed);
    fill_feed(strip.feature_begin + feed.col_begin, strip.feature_begin + feed.col_end, feed);
    col += per_feed;
  }
}

void Folder::fill_feed(std::int64_t feature_begin, std::int64_t feature_end, Feed& feed) {
  feed.lanes = 0;
  if (array_.skip != Skip::gather && array_.skip != Skip::group) {
    feed.members.clear();
    feed.slot_end.clear();
  }
  if (array_.skip == Skip::none) {
    append_lanes(feed, {0, layer_.grid.k});
    return;
  }
  const auto [row_begin, row_end] = block_rows(feature_begin, feature_end, layer_.grid.bh);
  switch (array_.skip) {
    case Skip::none:
      return;
    case Skip::tile:
      count_kept(row_begin, row_end);
      fill_kept_row_chunks(feed);
      return;
    case Skip::gather:
    case Skip::group:
      find_kept(row_begin, row_end);
      fill_found(feed);
      return;
    case Skip::mux:
      count_kept(row_begin, row_end);
      pack_slots(row_begin, row_end, feed);
      return;
  }
}

/// One slot for each block column that was found.
void Folder::fill_found(Feed& feed) {
  found_cols_.resize(found_.size());
  std::int32_t* next = found_cols_.data();
  for (std::size_t word = 0; word < found_.size(); word += 8) {
    for (std::uint64_t left = load_word(&found_[word]); left != 0; left &= left - 1) {
      *next++ = static_cast<std::int32_t>(word) + std::countr_zero(left) / 8;
    }
  }
  const auto count = static_cast<std::size_t>(next - found_cols_.data());
  feed.members.resize(count);
  feed.slot_end.resize(count);
  for (std::size_t i = 0; i < count; ++i) {
    const auto j = static_cast<std::size_t>(found_cols_[i]);
    feed.members[i] = {col_edges_[j], col_edges_[j + 1]};
    feed.slot_end[i] = static_cast<std::int64_t>(i) + 1;
  }
  feed.lanes = lanes_of_found();
}

/// The reduction without the folds that hold no kept block. Only the last fold can be short, so cutting
/// what is left into chunks of `rows` gives back exactly the folds that stay.
void Folder::fill_kept_row_chunks(Feed& feed) const {
  const std::int64_t k = layer_.grid.k;
  const std::int64_t chunk = array_.dataflow == Dataflow::os ? k : array_.rows;
  std::size_t j = 0;
  for (std::int64_t begin = 0; begin < k; begin += chunk) {
    const std::int64_t end = std::min(k, begin + chunk);
    bool any = false;
    while (j < kept_.size() && col_edges_[j] < end) {
      any = any || kept_[j] > 0;
      if (col_edges_[j + 1] > end) break;  // This block column reaches into the next chunk too.
      ++j;
    }
    if (any) append_lanes(feed, {begin, end});
  }
}

/// Column combining: block columns by falling number of kept blocks, each into the first slot that has
/// room and in which no block row would keep two.
/// Source: greedy grouping after Kung et al., "Packing Sparse Convolutional Neural Networks for Efficient
/// Systolic Array Implementations", ASPLOS 2019; there columns may also be pruned to fit, here never.
void Folder::pack_slots(std::int64_t block_row_begin, std::int64_t block_row_end, Feed& feed) {
  const std::int64_t block_rows = block_row_end - block_row_begin;
  const auto words = static_cast<std::size_t>(ceil_div(block_rows, 64));
  const std::size_t cols = kept_.size();
  std::vector<std::uint64_t> keeps(cols * words, 0);  // One bit per block row of the strip.
  for (std::int64_t i = 0; i < block_rows; ++i) {
    const std::uint8_t* const row = layer_.mask + (block_row_begin + i) * static_cast<std::int64_t>(cols);
    for (std::size_t j = 0; j < cols; ++j) {
      if (row[j] != 0) keeps[j * words + static_cast<std::size_t>(i / 64)] |= std::uint64_t{1} << (i % 64);
    }
  }
  std::vector<std::size_t> order;
  for (std::size_t j = 0; j < cols; ++j) {
    if (kept_[j] > 0) order.push_back(j);
  }
  std::stable_sort(order.begin(), order.end(),
                   [this](std::size_t a, std::size_t b) { return kept_[a] > kept_[b]; });

  const auto limit = static_cast<std::size_t>(array_.mux);
  std::vector<std::vector<std::size_t>> slots;
  std::vector<std::uint64_t> taken;
  std::vector<std::size_t> open;  // Slots with room, oldest first.
  for (const std::size_t j : order) {
    const std::uint64_t* const mine = &keeps[j * words];
    const auto fits = [&](std::size_t slot) {
      for (std::size_t w = 0; w < words; ++w) {
        if ((taken[slot * words + w] & mine[w]) != 0) return false;
      }
      return true;
    };
    const auto found = std::find_if(open.begin(), open.end(), fits);
    std::size_t slot = slots.size();
    if (found != open.end()) {
      slot = *found;
      if (slots[slot].size() + 1 == limit) open.erase(found);
    } else {
      slots.emplace_back();
      taken.resize(taken.size() + words, 0);
      if (limit > 1) open.push_back(slot);
    }
    slots[slot].push_back(j);
    for (std::size_t w = 0; w < words; ++w) taken[slot * words + w] |= mine[w];
  }
  for (const std::vector<std::size_t>& slot : slots) {
    std::int64_t lanes = 0;
    for (const std::size_t j : slot) {
      feed.members.push_back(block_col_span(static_cast<std::int64_t>(j)));
      lanes = std::max(lanes, feed.members.back().size());
    }
    feed.slot_end.push_back(static_cast<std::int64_t>(feed.members.size()));
    feed.lanes += lanes;
  }
}

void Folder::fill_reduction_tile(std::int64_t index, ReductionTile& tile) {
  const BlockGrid& grid = layer_.grid;
  tile.reduction = {index * array_.rows, std::min(grid.k, (index + 1) * array_.rows)};
  tile.features.clear();
  tile.depth = 0;
  if (array_.skip == Skip::none) {
    tile.features.push_back({0, grid.m});
    tile.depth = grid.m;
    return;
  }
  const std::int64_t first = block_col_of(tile.reduction.begin);
  const std::int64_t last = block_col_of(tile.reduction.end - 1);
  const std::int64_t cols = grid.block_cols();
  for (std::int64_t i = 0; i < grid.block_rows(); ++i) {
    const std::uint8_t* const row = layer_.mask + i * cols;
    const bool meets = std::any_of(row + first, row + last + 1, [](std::uint8_t kept) { return kept != 0; });
    if (!meets) continue;
    if (array_.skip == Skip::tile) {
      tile.features.push_back({0, grid.m});
      tile.depth = grid.m;
      return;
    }
    tile.features.push_back({grid.row_begin(i), grid.row_end(i)});
    tile.depth += tile.features.back().size();
  }
}

}  // namespace pysim
