// What enters the array from above, column after column: preloads, and the weights of `os`.
#pragma once

#include <algorithm>
#include <cstdint>
#include <deque>
#include <memory>
#include <utility>
#include <vector>

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
        depths_(depths),
        edge_(std::move(starts), std::move(depths), 1) {}

  /// Whether something enters in this cycle. Must be called once for every cycle, from 0 on.
  bool advance(std::int64_t cycle) {
    edge_.advance(cycle);
    if (!passing_.empty() && cycle > passing_.front().until) passing_.pop_front();
    if (const Beat& beat = edge_.beat(0); beat.first) open(cycle, beat.fold);
    return !passing_.empty();
  }

  /// Fills one row of registers with what enters. Columns without an operand keep their values and get no
  /// token; a token is real where the operand is not padding.
  void enter(std::int64_t cycle, Lane* values, std::int32_t* selects, TokenWord* tokens) const {
    std::fill(tokens, tokens + words_, TokenWord{});
    for (const Passing& fold : passing_) {
      const std::int64_t entered = cycle - fold.start;  // Column c takes operand entered - c.
      const std::int64_t depth = fold.image->depth;
      const std::int64_t end = std::min(cols_, entered + 1);
      for (std::int64_t c = std::max<std::int64_t>(0, entered - depth + 1); c < end;) {
        TokenWord& word = tokens[c / word_bits];
        const std::int64_t word_end = std::min(end, (c / word_bits + 1) * word_bits);
        std::uint64_t real = 0;
        std::uint64_t valid = 0;
        for (; c < word_end; ++c) {
          const auto at = static_cast<std::size_t>((entered - c) * cols_ + c);
          values[c] = fold.image->values[at];
          selects[c] = fold.image->selects[at];
          valid |= bit_of(c);
          real |= selects[c] < 0 ? 0 : bit_of(c);
        }
        word.valid |= valid;
        word.real |= real;
      }
      if (entered < cols_) tokens[entered / word_bits].first |= bit_of(entered);
      const std::int64_t ending = entered - depth + 1;
      if (ending >= 0) tokens[ending / word_bits].last |= bit_of(ending);
    }
  }

 private:
  /// A fold's operands, (depth, columns).
  struct Image {
    std::int64_t depth;
    std::vector<Lane> values;
    std::vector<std::int32_t> selects;
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
    auto image = std::make_shared<Image>(Image{depth, {}, {}});
    image->values.reserve(static_cast<std::size_t>(depth * cols_));
    image->selects.reserve(static_cast<std::size_t>(depth * cols_));
    for (std::int64_t j = 0; j < depth; ++j) {
      for (std::int64_t c = 0; c < cols_; ++c) {
        const auto pushed = ops_.pushed(fold, j, c);
        image->values.push_back(to_lane(pushed.value));
        image->selects.push_back(pushed.select);
      }
    }
    return image;
  }

  const Ops& ops_;
  std::int64_t cols_, words_;
  std::vector<std::int64_t> depths_;
  Edge edge_;
  std::deque<Passing> passing_;
  std::shared_ptr<const Image> image_;
  std::int64_t imaged_ = -1;
};

}  // namespace pysim
