// What enters the array from above, column after column: preloads, and the weights of `os`.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <deque>
#include <memory>
#include <utility>
#include <vector>

#include "base/checked_math.h"
#include "sim/operands.h"
#include "sim/pe.h"

namespace pysim {

/// Puts each fold's operands into the top row: operand j enters column c in cycle start + j + c.
template <class Operand, class Ops>
class TopEdge {
 public:
  using Lane = LaneOf<Operand>;

  /// starts, depths: first cycle and operands of each fold, the same for every column.
  TopEdge(const Ops& operands, std::vector<std::int64_t> starts, std::vector<std::int64_t> depths,
          std::int64_t words)
      : ops_(operands),
        cols_(operands.array.cols),
        words_(words),
        counted_(operands.summed != nullptr),
        depths_(depths),
        edge_(std::move(starts), std::move(depths), 1) {}

  /// Whether something enters in this cycle. Must be called once for every cycle, from 0 on.
  bool advance(std::int64_t cycle) {
    edge_.advance(cycle);
    if (!passing_.empty() && cycle > passing_.front().until) passing_.pop_front();
    if (const Beat& beat = edge_.beat(0); beat.first) open(cycle, beat.fold);
    return !passing_.empty();
  }

  /// Operands taken from a buffer so far; 0 if they are not counted.
  std::int64_t reads() const { return reads_; }

  /// Fills one row of registers with what enters. Columns without an operand keep their values and get no
  /// token; a token is real where the operand is not padding. selects: written if there are several members.
  void enter(std::int64_t cycle, Lane* values, std::int32_t* selects, TokenWord* tokens) {
    std::fill(tokens, tokens + words_, TokenWord{});
    for (const Passing& fold : passing_) {
      const Image& image = *fold.image;
      const std::int64_t entered = cycle - fold.start;  // Column c takes operand entered - c.
      for (std::int64_t col = 0; col < cols_ && col <= entered; col += image.width) {
        const std::int64_t line = entered - col;
        if (line >= image.lines()) continue;
        const std::int64_t begin = std::max<std::int64_t>(0, line - image.depth + 1);
        const std::int64_t count = std::min({image.width, cols_ - col, line + 1}) - begin;
        if (count <= 0) continue;
        const std::int64_t piece = col / image.width * image.lines() + line;
        const std::int64_t at = piece * image.width + begin;
        if (counted_) reads_ += image.stored[static_cast<std::size_t>(piece)];
        std::copy_n(image.values.data() + at, count, values + col + begin);
        if (!image.selects.empty()) std::copy_n(image.selects.data() + at, count, selects + col + begin);
        TokenWord& word = tokens[col / word_bits];
        word.valid |= ~std::uint64_t{0} >> (word_bits - count) << ((col + begin) % word_bits);
        word.real |= image.real[static_cast<std::size_t>(piece)] << (col % word_bits);
      }
      if (entered < cols_) tokens[entered / word_bits].first |= bit_of(entered);
      const std::int64_t ending = entered - image.depth + 1;
      if (ending >= 0) tokens[ending / word_bits].last |= bit_of(ending);
    }
  }

 private:
  /// A fold's operands as they enter: chunks of `width` columns, in each the operands of one cycle on one
  /// line, so that operand j of a chunk's column i stands on line i + j.
  struct Image {
    std::int64_t depth;
    std::int64_t width;  ///< A divisor of 64, no more than the depth: at most half of the places are empty.
    std::vector<Lane> values;
    std::vector<std::int32_t> selects;  ///< Empty without multiplexers.
    std::vector<std::uint64_t> real;    ///< One bit per column, from bit 0 of each chunk and line.
    std::vector<std::uint8_t> stored;   ///< How many of a chunk's line a buffer holds: at most 64.

    std::int64_t lines() const { return depth + width - 1; }
  };

  /// A fold of which some columns have not taken every operand yet.
  struct Passing {
    std::int64_t start;
    std::int64_t until;  ///< Last cycle in which one enters.
    std::shared_ptr<const Image> image;
  };

  void open(std::int64_t cycle, std::int64_t fold) {
    if (image_ == nullptr || !ops_.same_pushes(fold, imaged_)) image_ = draw(fold);
    imaged_ = fold;
    passing_.push_back({cycle, cycle + image_->depth + cols_ - 2, image_});
  }

  std::shared_ptr<const Image> draw(std::int64_t fold) const {
    const std::int64_t depth = depths_[static_cast<std::size_t>(fold)];
    const auto widest = static_cast<std::uint64_t>(std::min({depth, cols_, word_bits}));
    const auto width = static_cast<std::int64_t>(std::bit_floor(widest));
    Image image{depth, width, {}, {}, {}, {}};
    const auto lines = static_cast<std::size_t>(ceil_div(cols_, width) * image.lines());
    const bool selected = ops_.array.slot_members() > 1;
    image.values.resize(lines * static_cast<std::size_t>(width));
    image.selects.resize(selected ? image.values.size() : 0);
    image.real.resize(lines);
    image.stored.resize(lines);
    for (std::int64_t col = 0; col < cols_; ++col) {
      const std::int64_t i = col % width;
      std::int64_t line = col / width * image.lines() + i;
      for (std::int64_t j = 0; j < depth; ++j, ++line) {
        const auto pushed = ops_.pushed(fold, j, col);
        const auto at = static_cast<std::size_t>(line * width + i);
        image.values[at] = to_lane(pushed.value);
        if (selected) image.selects[at] = pushed.select;
        image.real[static_cast<std::size_t>(line)] |= pushed.select < 0 ? 0 : bit_of(i);
        if (pushed.stored) ++image.stored[static_cast<std::size_t>(line)];
      }
    }
    return std::make_shared<const Image>(std::move(image));
  }

  const Ops& ops_;
  std::int64_t cols_, words_;
  bool counted_;  ///< Buffer accesses are.
  std::vector<std::int64_t> depths_;
  Edge edge_;
  std::deque<Passing> passing_;
  std::shared_ptr<const Image> image_;
  std::int64_t imaged_ = -1;
  std::int64_t reads_ = 0;
};

}  // namespace pysim
