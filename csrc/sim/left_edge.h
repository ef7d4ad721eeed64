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
        groups_(ceil_div(cols_, feeder_cols_)),
        lone_(groups_ == 1 && members_ == 1),
        counted_(operands.summed != nullptr),
        edge_(std::move(edge)),
        feed_fold_(static_cast<std::size_t>(rows_ * groups_), -1),
        lines_(static_cast<std::size_t>(rows_ * groups_ * members_)),
        tokens_(rows_, words_),
        in_use_(static_cast<std::size_t>(words_), ~std::uint64_t{0}),
        work_(static_cast<std::size_t>(rows_), RowWork::none),
        steady_(static_cast<std::size_t>(rows_), unsteady),
        fed_(static_cast<std::size_t>(words_), 0),
        x_(members_ * rows_, pitch_),
        entering_(members_, rows_),
        injected_(groups_ > 1 ? rows_ : 0, pitch_) {
    in_use_.back() >>= words_ * word_bits - cols_;
    for (std::int64_t col = 0; col < cols_; col += feeder_cols_) {
      fed_[static_cast<std::size_t>(col / word_bits)] |= bit_of(col);
    }
  }

  std::int64_t words() const { return words_; }
  std::int64_t pitch() const { return pitch_; }
  TokenWord* tokens(std::int64_t r) { return tokens_.row(r); }
  /// Operands that feeders have taken from a buffer so far; 0 if they are not counted.
  std::int64_t reads() const { return reads_; }

  void advance(std::int64_t cycle) { edge_.advance(cycle); }

  /// Whether every PE of row r holds an operand, none the first or last of its fold, and the last cycle left
  /// all tokens as they were.
  bool is_steady(std::int64_t r) const { return steady_[static_cast<std::size_t>(r)] != unsteady; }

  /// Lets operands into row r and those above it for as long as they are steady, stay so, and may(row).
  /// Returns the first row that is not, -1 if there is none.
  template <class May>
  std::int64_t enter_steady_rows(std::int64_t r, May&& may) {
    const std::uint8_t* const steady = steady_.data();
    if (!lone_) {
      while (r >= 0 && steady[r] != unsteady && edge_.beat(r).inner && may(r) && feed_steadily(r)) --r;
      return r;
    }
    return counted_ ? enter_lone_rows<true>(r, may) : enter_lone_rows<false>(r, may);
  }

  /// What became of a row.
  struct Entered {
    RowWork work;
    bool met;  ///< Whether its tokens are those of `partner`.
  };

  /// Moves row r's tokens one PE on and lets in what enters.
  ///
  /// partner: the tokens of what row r's operands meet in this cycle.
  Entered enter(std::int64_t r, const TokenWord* partner) {
    return words_ == 1 ? enter_words(r, partner, 1) : enter_words(r, partner, words_);
  }

  MovingInputs<Lane> inputs() {
    return {rows_,
            pitch_,
            words_,
            members_,
            x_.data(),
            entering_.data(),
            groups_ > 1 ? injected_.data() : nullptr,
            fed_.data(),
            tokens_.data(),
            work_.data()};
  }

 private:
  /// What makes a row steady. Where groups or multiplexers share it, `all_real` says only that no token
  /// changes.
  static constexpr std::uint8_t unsteady = 0, all_real = 1, none_real = 2;

  /// One multiplexer line of a feeder.
  struct Line {
    Stream<const Operand> stream;
    std::int64_t next = 0;

    /// The next operand; null if the line carries none.
    const Operand* peek() const { return stream.at(next); }
    const Operand* take() { return stream.at(next++); }
  };

  /// enter_steady_rows() of rows with one feeder and one line.
  template <bool kCounted, class May>
  std::int64_t enter_lone_rows(std::int64_t r, May& may) {
    const std::uint8_t* const steady = steady_.data();
    Line* const lines = lines_.data();
    Lane* const entering = entering_.data();
    std::int64_t reads = 0;
    for (; r >= 0 && steady[r] != unsteady && edge_.beat(r).inner && may(r); --r) {
      const Operand* const operand = lines[r].peek();
      if ((operand != nullptr) != (steady[r] == all_real)) break;
      ++lines[r].next;
      if (kCounted && operand != nullptr) reads += ops_.is_stored(operand) ? 1 : 0;
      entering[r] = value_of(operand);
    }
    reads_ += reads;
    return r;
  }

  [[gnu::always_inline]] Entered enter_words(std::int64_t r, const TokenWord* partner, std::int64_t words) {
    const Beat& beat = edge_.beat(r);
    TokenWord* const row = tokens_.row(r);
    const std::uint64_t* const in_use = in_use_.data();
    TokenWord left{beat.fold >= 0, beat.first, beat.last, lone_ && feed_lone(r, beat)};  // Bit 0 of each.
    std::uint64_t any = 0, missing = 0, edges = 0, differ = 0, any_real = 0, missing_real = 0;
    for (std::int64_t i = 0; i < words; ++i) {
      const TokenWord was = row[i];
      const std::uint64_t valid = (was.valid << 1 | left.valid) & in_use[i];
      const std::uint64_t first = (was.first << 1 | left.first) & in_use[i];
      const std::uint64_t last = (was.last << 1 | left.last) & in_use[i];
      const std::uint64_t real = (was.real << 1 | left.real) & in_use[i];
      row[i] = {valid, first, last, real};
      left = {was.valid >> 63, was.first >> 63, was.last >> 63, was.real >> 63};
      any |= valid;
      missing |= valid ^ in_use[i];
      edges |= first | last;
      differ |= (valid ^ partner[i].valid) | (first ^ partner[i].first) | (last ^ partner[i].last);
      any_real |= real;
      missing_real |= real ^ in_use[i];
    }
    const RowWork work = any == 0 ? RowWork::none : edges == 0 ? RowWork::multiply : RowWork::edge;
    work_[static_cast<std::size_t>(r)] = work;
    std::uint8_t& steady = steady_[static_cast<std::size_t>(r)];
    steady = missing_real == 0 ? all_real : any_real == 0 ? none_real : unsteady;
    if (!lone_ && any != 0) steady = feed_groups(r) ? all_real : unsteady;
    if ((missing | edges) != 0) steady = unsteady;
    return {work, differ == 0};
  }

  static Lane value_of(const Operand* operand) { return operand != nullptr ? to_lane(*operand) : Lane{0}; }

  [[gnu::always_inline]] void count(const Operand* operand) {
    if (counted_ && operand != nullptr && ops_.is_stored(operand)) ++reads_;
  }

  /// A row's only feeder, without multiplexers. Whether its operand is real.
  bool feed_lone(std::int64_t r, const Beat& beat) {
    Line& line = lines_[static_cast<std::size_t>(r)];
    if (beat.first) line = {ops_.stream(beat.fold, 0, r, 0), 0};
    const Operand* const operand = beat.fold >= 0 ? line.take() : nullptr;
    count(operand);
    entering_.row(0)[r] = value_of(operand);
    return operand != nullptr;
  }

  /// What belongs to the token at each feeder's first column. Whether all of a group's tokens are then alike
  /// in being real, or all padding.
  bool feed_groups(std::int64_t r) {
    for (std::int64_t group = 0; group < groups_; ++group) {
      const std::int64_t col = group * feeder_cols_;
      TokenWord& word = tokens_.row(r)[col / word_bits];
      const std::uint64_t here = bit_of(col);
      const std::int64_t feeder = r * groups_ + group;
      Line* const lines = lines_.data() + feeder * members_;
      if ((word.first & here) != 0) {
        const std::int64_t fold = ++feed_fold_[static_cast<std::size_t>(feeder)];
        for (std::int64_t i = 0; i < members_; ++i) lines[i] = {ops_.stream(fold, group, r, i), 0};
      }
      const bool valid = (word.valid & here) != 0;
      const bool real = put(r, group, [valid](Line& line) { return valid ? line.take() : nullptr; });
      word.real = (word.real & ~here) | (real ? here : 0);
    }
    bool alike = true;
    std::uint64_t carry = 0;
    for (std::int64_t i = 0; i < words_; ++i) {
      const std::uint64_t real = tokens_.row(r)[i].real;
      const std::uint64_t inside = in_use_[static_cast<std::size_t>(i)] & ~fed_[static_cast<std::size_t>(i)];
      alike = alike && ((real ^ (real << 1 | carry)) & inside) == 0;
      carry = real >> 63;
    }
    return alike;
  }

  /// As feed_groups() where no token changes. False, and nothing done, if one would.
  bool feed_steadily(std::int64_t r) {
    const std::int64_t reads = reads_;
    for (std::int64_t group = 0; group < groups_; ++group) {
      const bool real = put(r, group, [](Line& line) { return line.take(); });
      if (real == is_real(r, group * feeder_cols_)) continue;
      for (Line* line = &lines_[static_cast<std::size_t>(r * groups_ * members_)];
           line < lines_.data() + (r * groups_ + group + 1) * members_; ++line) {
        --line->next;
      }
      reads_ = reads;
      return false;
    }
    return true;
  }

  /// Puts take(line) of each of a feeder's lines where the group's first column finds it. Whether there was
  /// any.
  template <class Take>
  bool put(std::int64_t r, std::int64_t group, Take&& take) {
    Line* const lines = lines_.data() + (r * groups_ + group) * members_;
    bool real = false;
    for (std::int64_t i = 0; i < members_; ++i) {
      const Operand* const operand = take(lines[i]);
      real = real || operand != nullptr;
      count(operand);
      (groups_ == 1 ? entering_.row(i)[r] : injected_.row(r)[group * feeder_cols_]) = value_of(operand);
    }
    return real;
  }

  bool is_real(std::int64_t r, std::int64_t col) {
    return (tokens_.row(r)[col / word_bits].real & bit_of(col)) != 0;
  }

  const Ops& ops_;
  std::int64_t rows_, cols_, words_, pitch_, members_, feeder_cols_, groups_;
  bool lone_;     ///< Rows have one feeder with one line.
  bool counted_;  ///< Buffer accesses are.
  Edge edge_;
  std::vector<std::int64_t> feed_fold_;  ///< (rows, groups): fold that the feeder is in.
  std::vector<Line> lines_;              ///< (rows, groups, members).
  Plane<TokenWord> tokens_;
  std::vector<std::uint64_t> in_use_;  ///< (words): the bits that have a column.
  std::vector<RowWork> work_;
  std::vector<std::uint8_t> steady_;
  std::vector<std::uint64_t> fed_;  ///< (words): the first columns of the groups.
  Plane<Lane> x_, entering_, injected_;
  std::int64_t reads_ = 0;
};

}  // namespace pysim
