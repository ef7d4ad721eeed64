// Inputs that move right: their control tokens and the feeders that put operands into the rows. The same for
// all dataflows.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "base/checked_math.h"
#include "sim/operands.h"
#include "sim/pe.h"
#include "sim/schedule.h"

namespace pysim {

/// First cycle of each fold's stream, and of its preload.
inline std::vector<std::int64_t> stream_starts(const std::vector<FoldStart>& starts) {
  std::vector<std::int64_t> cycles;
  for (const FoldStart& start : starts) cycles.push_back(start.stream);
  return cycles;
}
inline std::vector<std::int64_t> preload_starts(const std::vector<FoldStart>& starts) {
  std::vector<std::int64_t> cycles;
  for (const FoldStart& start : starts) cycles.push_back(start.preload);
  return cycles;
}

/// Operands that each fold streams.
template <class Ops>
std::vector<std::int64_t> depths(const Ops& operands) {
  std::vector<std::int64_t> depths;
  for (const Fold& fold : operands.list.folds) depths.push_back(fold.depth);
  return depths;
}

/// Tokens and operands that enter the array from the left. A row's feeder sits at column 0; groups have one
/// more at the first column of each. A feeder hands out the next operand of its fold whenever a token comes
/// by.
template <class Operand, class Ops>
class LeftEdge {
 public:
  using Lane = LaneOf<Operand>;

  LeftEdge(const Ops& operands, Edge edge, std::int64_t lanes)
      : ops_(operands),
        rows_(operands.array.rows),
        cols_(operands.array.cols),
        words_(ceil_div(cols_, word_bits)),
        pitch_(ceil_div(cols_, lanes) * lanes),
        members_(operands.array.slot_members()),
        feeder_cols_(operands.array.feeder_cols()),
        feeders_(ceil_div(cols_, feeder_cols_)),
        edge_(std::move(edge)),
        feeds_(static_cast<std::size_t>(rows_ * feeders_)),
        streams_(static_cast<std::size_t>(rows_ * feeders_ * members_)),
        tokens_(rows_, words_),
        work_(static_cast<std::size_t>(rows_), RowWork::none),
        injects_(static_cast<std::size_t>(words_), 0),
        x_(members_ * rows_, pitch_),
        entering_(members_, rows_),
        injected_(feeders_ > 1 ? rows_ : 0, pitch_) {
    for (std::int64_t col = feeder_cols_; col < cols_; col += feeder_cols_) {
      injects_[static_cast<std::size_t>(col / word_bits)] |= bit_of(col);
    }
  }

  std::int64_t words() const { return words_; }
  std::int64_t pitch() const { return pitch_; }
  TokenWord* tokens(std::int64_t r) { return tokens_.row(r); }

  void advance(std::int64_t cycle) { edge_.advance(cycle); }

  /// Moves row r's tokens one PE on and lets in what enters. Says whether the row holds any operand, and
  /// whether one of them is the first or last of its fold.
  RowWork enter(std::int64_t r) {
    const Beat& beat = edge_.beat(r);
    TokenWord* const row = tokens_.row(r);
    const TokenWord entering{beat.fold >= 0, beat.first, beat.last, 0};
    shift_tokens(row, words_, entering, ~std::uint64_t{0} >> (words_ * word_bits - cols_));
    std::uint64_t valid = 0;
    std::uint64_t edges = 0;
    for (std::int64_t i = 0; i < words_; ++i) {
      valid |= row[i].valid;
      edges |= row[i].first | row[i].last;
    }
    RowWork& work = work_[static_cast<std::size_t>(r)];
    work = valid == 0 ? RowWork::none : edges == 0 ? RowWork::multiply : RowWork::edge;
    if (valid != 0) {
      for (std::int64_t feeder = 0; feeder < feeders_; ++feeder) feed(r, feeder);
    }
    return work;
  }

  MovingInputs<Lane> inputs() {
    return {rows_,
            pitch_,
            words_,
            members_,
            x_.data(),
            entering_.data(),
            feeders_ > 1 ? injected_.data() : nullptr,
            injects_.data(),
            tokens_.data(),
            work_.data()};
  }

 private:
  struct Feed {
    std::int64_t fold = -1;
    std::int64_t index = 0;
  };

  /// The operand that belongs to the token at a feeder's first column, if there is one.
  void feed(std::int64_t r, std::int64_t feeder) {
    const std::int64_t col = feeder * feeder_cols_;
    TokenWord& word = tokens_.row(r)[col / word_bits];
    const std::uint64_t here = bit_of(col);
    const std::int64_t at = r * feeders_ + feeder;
    Feed& state = feeds_[static_cast<std::size_t>(at)];
    Stream<const Operand>* const streams = streams_.data() + at * members_;
    const bool valid = (word.valid & here) != 0;
    if ((word.first & here) != 0) {
      ++state.fold;
      state.index = 0;
      for (std::int64_t i = 0; i < members_; ++i) streams[i] = ops_.stream(state.fold, feeder, r, i);
    }
    std::uint64_t real = 0;
    for (std::int64_t i = 0; i < members_; ++i) {
      const std::int64_t offset = valid ? streams[i].at(state.index) : -1;
      if (offset >= 0) real = here;
      const Lane value = offset >= 0 ? to_lane(streams[i].base[offset]) : Lane{0};
      (feeder == 0 ? entering_.row(i)[r] : injected_.row(r)[col]) = value;
    }
    word.real = (word.real & ~here) | real;
    if (valid) ++state.index;
  }

  const Ops& ops_;
  std::int64_t rows_, cols_, words_, pitch_, members_, feeder_cols_, feeders_;
  Edge edge_;
  std::vector<Feed> feeds_;                     ///< (rows, feeders): the next operand.
  std::vector<Stream<const Operand>> streams_;  ///< (rows, feeders, members): those of the feeder's fold.
  Plane<TokenWord> tokens_;
  std::vector<RowWork> work_;
  std::vector<std::uint64_t> injects_;
  Plane<Lane> x_, entering_, injected_;
};

}  // namespace pysim
