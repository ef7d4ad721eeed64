// `ws` and `is`, register by register: x moves right, transit and psum move down, shadow waits for the next
// fold, active multiplies. One call of step() is one clock edge for every PE.
#pragma once

#include <algorithm>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "sim/counts.h"
#include "sim/operands.h"
#include "sim/pe.h"
#include "sim/schedule.h"

namespace pysim {

/// An array whose PEs hold weights or inputs. `Ops` is WeightStationaryOperands or InputStationaryOperands.
///
/// Within a cycle every read of a register comes before its write: rows are stepped from the bottom up, and
/// the preload writes shadow registers after the stream has read them.
template <class Operand, class Sum, class Ops>
class StationaryArray {
 public:
  StationaryArray(const Ops& operands, const std::vector<FoldStart>& starts)
      : ops_(operands),
        rows_(operands.array.rows),
        cols_(operands.array.cols),
        feeder_cols_(operands.array.feeder_cols()),
        feeders_(ceil_div(cols_, feeder_cols_)),
        members_(operands.array.slot_members()),
        folds_(static_cast<std::int64_t>(starts.size())),
        stream_ports_(static_cast<std::size_t>(rows_)),
        preload_ports_(static_cast<std::size_t>(cols_)),
        feed_fold_(static_cast<std::size_t>(rows_ * feeders_), -1),
        feed_base_(static_cast<std::size_t>(rows_ * feeders_ * members_), nullptr),
        row_busy_until_(static_cast<std::size_t>(rows_), -1),
        take_over_until_(static_cast<std::size_t>(rows_), -1),
        left_(static_cast<std::size_t>(cols_), 0),
        leaving_fold_(static_cast<std::size_t>(cols_), 0),
        x_(static_cast<std::size_t>(members_), Plane<Operand>(rows_, cols_, Operand{0})),
        token_(rows_, cols_, token::bubble),
        transit_(rows_, cols_, Operand{0}),
        transit_select_(rows_, cols_, -1),
        shadow_(rows_, cols_, Operand{0}),
        shadow_select_(rows_, cols_, -1),
        shadow_full_(rows_, cols_, 0),
        active_(rows_, cols_, Operand{0}),
        active_select_(rows_, cols_, -1),
        psum_(rows_, cols_, Sum{0}),
        above_row0_(static_cast<std::size_t>(cols_), Sum{0}),
        chosen_(static_cast<std::size_t>(cols_), Operand{0}),
        x_row_(static_cast<std::size_t>(members_), nullptr) {
    std::int64_t number = 0;
    for (std::int64_t f = 0; f < folds_; ++f) {
      const auto at = static_cast<std::size_t>(f);
      preload_starts_.push_back(starts[at].preload);
      stream_starts_.push_back(starts[at].stream);
      preload_lengths_.push_back(rows_);
      stream_lengths_.push_back(ops_.fold(f).depth);
      first_number_.push_back(number);
      number += ops_.fold(f).depth;
    }
    first_number_.push_back(number);
  }

  /// Whether every result of every fold has left.
  bool done() const { return columns_done_ == cols_ || folds_ == 0; }

  /// One clock edge. accesses: null if they need not be counted. Throws std::logic_error if a register is
  /// overwritten before it has been read.
  void step(std::int64_t cycle, Counts& counts, ArrayAccesses* accesses) {
    for (std::int64_t r = rows_ - 1; r >= 0; --r) {
      if (!enter_row(r, cycle, accesses)) continue;
      if (cycle <= take_over_until_[static_cast<std::size_t>(r)]) take_over(r);
      multiply(r, counts);
      if (r == rows_ - 1) collect(cycle, counts, accesses);
    }
    preload(cycle, accesses);
  }

 private:
  /// Moves row r's streamed operands one PE on and lets the next one in; false if the row is empty.
  bool enter_row(std::int64_t r, std::int64_t cycle, ArrayAccesses* accesses) {
    const auto at = static_cast<std::size_t>(r);
    Port::Beat beat{};
    std::int32_t entering = token::bubble;
    if (stream_ports_[at].next(cycle - r, stream_starts_, stream_lengths_, beat)) {
      const std::int64_t number = first_number_[static_cast<std::size_t>(beat.fold)] + beat.index;
      entering = static_cast<std::int32_t>(number << token::number_shift);
      if (beat.index == 0) {
        entering |= token::first;
        take_over_until_[at] = cycle + cols_ - 1;
      }
      row_busy_until_[at] = cycle + cols_;  // One step longer than it is needed clears the last column.
    } else if (cycle > row_busy_until_[at]) {
      return false;
    }
    token_.shift_right(r, entering);
    for (std::int64_t i = 0; i < members_; ++i) x_[static_cast<std::size_t>(i)].shift_right(r, Operand{0});
    for (std::int64_t feeder = 0; feeder < feeders_; ++feeder) feed(r, feeder, accesses);
    return true;
  }

  /// A feeder's first column: the operand that belongs to the token there comes from the feeder.
  void feed(std::int64_t r, std::int64_t feeder, ArrayAccesses* accesses) {
    const std::int64_t col = feeder * feeder_cols_;
    std::int32_t& word = token_.row(r)[col];
    word &= ~token::real;
    const auto at = static_cast<std::size_t>(r * feeders_ + feeder);
    const Operand** const base = feed_base_.data() + at * static_cast<std::size_t>(members_);
    std::int64_t offset = 0;
    std::int64_t t = 0;
    if (word >= 0) {
      const std::int64_t number = word >> token::number_shift;
      if ((word & token::first) != 0) {
        ++feed_fold_[at];
        for (std::int64_t i = 0; i < members_; ++i) base[i] = ops_.stream_base(feed_fold_[at], feeder, r, i);
      }
      t = number - first_number_[static_cast<std::size_t>(feed_fold_[at])];
      offset = ops_.stream_offset(feed_fold_[at], t);
    }
    for (std::int64_t i = 0; i < members_; ++i) {
      const bool present = word >= 0 && base[i] != nullptr;
      x_[static_cast<std::size_t>(i)].row(r)[col] = present ? base[i][offset] : Operand{0};
      if (!present) continue;
      word |= token::real;
      if (accesses != nullptr) Ops::streamed(*accesses) += ops_.stream_is_stored(feed_fold_[at], r, t);
    }
  }

  /// The first operand of a fold makes its PE copy shadow to active.
  void take_over(std::int64_t r) {
    const std::int32_t* const word = token_.row(r);
    const Operand* const shadow = shadow_.row(r);
    const std::int32_t* const shadow_select = shadow_select_.row(r);
    std::int32_t* const full = shadow_full_.row(r);
    Operand* const active = active_.row(r);
    std::int32_t* const active_select = active_select_.row(r);
    std::int32_t missing = 0;
    for (std::int64_t c = 0; c < cols_; ++c) {
      const std::int32_t first = word[c] & token::first;
      missing |= first & (full[c] ^ 1);
      full[c] &= first ^ 1;
      active[c] = first != 0 ? shadow[c] : active[c];
      active_select[c] = first != 0 ? shadow_select[c] : active_select[c];
    }
    if (missing != 0) {
      throw std::logic_error("cycle engine: a fold streams through row " + std::to_string(r) +
                             " before its shadow registers hold the fold");
    }
  }

  /// psum' = psum from above + active * x, and the counts of what the row did.
  void multiply(std::int64_t r, Counts& counts) {
    const Operand* x = x_[0].row(r);
    const std::int32_t* const select = active_select_.row(r);
    if (members_ > 1) {
      for (std::int64_t i = 0; i < members_; ++i) {
        x_row_[static_cast<std::size_t>(i)] = x_[static_cast<std::size_t>(i)].row(r);
      }
      select_members(x_row_, select, cols_, chosen_.data());
      x = chosen_.data();
    }
    const Operand* const active = active_.row(r);
    const Sum* const above = r > 0 ? psum_.row(r - 1) : above_row0_.data();
    Sum* const psum = psum_.row(r);
    for (std::int64_t c = 0; c < cols_; ++c) psum[c] = multiply_add(above[c], active[c], x[c]);

    const std::int32_t* const word = token_.row(r);
    std::int32_t real = 0;
    std::int32_t busy = 0;
    for (std::int64_t c = 0; c < cols_; ++c) {
      busy += 1 + (word[c] >> 31);
      real += ((word[c] & token::real) >> 2) & (1 + (select[c] >> 31));
    }
    counts.macs += real;
    counts.padded_macs += busy - real;
  }

  /// Results leave the bottom row in the cycle in which its PEs have made them.
  void collect(std::int64_t cycle, Counts& counts, ArrayAccesses* accesses) {
    const std::int32_t* const word = token_.row(rows_ - 1);
    const Sum* const psum = psum_.row(rows_ - 1);
    for (std::int64_t c = 0; c < cols_; ++c) {
      if (word[c] < 0) continue;
      const auto at = static_cast<std::size_t>(c);
      const std::int64_t number = word[c] >> token::number_shift;
      if (number != left_[at]) throw std::logic_error("cycle engine: results left out of order");
      ++left_[at];
      while (number >= first_number_[static_cast<std::size_t>(leaving_fold_[at]) + 1]) ++leaving_fold_[at];
      const std::int64_t f = leaving_fold_[at];
      const std::int64_t t = number - first_number_[static_cast<std::size_t>(f)];
      if (c == cols_ - 1 && t == ops_.fold(f).depth - 1) ++counts.folds;
      if (left_[at] == first_number_.back()) ++columns_done_;
      counts.cycles = std::max(counts.cycles, cycle + 1);
      Sum* const result = ops_.result(f, t, c);
      if (result == nullptr) continue;
      *result = add(*result, psum[c]);
      if (accesses != nullptr) count_sum(static_cast<std::size_t>(result - ops_.y), *accesses);
    }
  }

  /// A result of output `index` goes into the output buffer, added to what is there.
  void count_sum(std::size_t index, ArrayAccesses& accesses) {
    if (summed_.empty()) {
      summed_.assign(static_cast<std::size_t>(ops_.layer.grid.m * ops_.layer.n), 0);
    }
    accesses.output_reads += summed_[index];
    ++accesses.output_writes;
    summed_[index] = 1;
  }

  /// The next fold moves down the transit registers; its last push completes a column's shadow registers.
  void preload(std::int64_t cycle, ArrayAccesses* accesses) {
    if (preloads_in_flight(cycle)) {
      transit_.shift_down();
      transit_select_.shift_down();
    }
    for (std::int64_t c = 0; c < cols_; ++c) {
      Port::Beat beat{};
      if (!preload_ports_[static_cast<std::size_t>(c)].next(cycle - c, preload_starts_, preload_lengths_,
                                                            beat)) {
        continue;
      }
      const Held<Operand> pushed = ops_.held(beat.fold, rows_ - 1 - beat.index, c);
      transit_.row(0)[c] = pushed.value;
      transit_select_.row(0)[c] = pushed.select;
      if (accesses != nullptr) Ops::preloaded(*accesses) += pushed.stored;
      preload_busy_until_ = cycle + rows_;
      if (beat.index == rows_ - 1) fill_shadow(c, beat.fold);
    }
  }

  bool preloads_in_flight(std::int64_t cycle) const { return cycle <= preload_busy_until_; }

  void fill_shadow(std::int64_t c, std::int64_t fold) {
    for (std::int64_t r = 0; r < rows_; ++r) {
      if (shadow_full_.row(r)[c] != 0) {
        throw std::logic_error("cycle engine: the preload of fold " + std::to_string(fold) +
                               " overwrites a shadow register that PE (" + std::to_string(r) + ", " +
                               std::to_string(c) + ") has not taken over yet");
      }
      shadow_.row(r)[c] = transit_.row(r)[c];
      shadow_select_.row(r)[c] = transit_select_.row(r)[c];
      shadow_full_.row(r)[c] = 1;
    }
  }

  const Ops& ops_;
  std::int64_t rows_;
  std::int64_t cols_;
  std::int64_t feeder_cols_;
  std::int64_t feeders_;
  std::int64_t members_;
  std::int64_t folds_;

  std::vector<std::int64_t> preload_starts_, preload_lengths_, stream_starts_, stream_lengths_;
  std::vector<std::int64_t> first_number_;  ///< (folds + 1): token number of each fold's first operand.
  std::vector<Port> stream_ports_, preload_ports_;
  std::vector<std::int64_t> feed_fold_;    ///< (rows, feeders): fold that the feeder is in.
  std::vector<const Operand*> feed_base_;  ///< (rows, feeders, members): where its operands start.
  std::vector<std::int64_t> row_busy_until_, take_over_until_;
  std::int64_t preload_busy_until_ = -1;
  std::vector<std::int64_t> left_, leaving_fold_;  ///< (cols): results gone, and the fold of the next.
  std::int64_t columns_done_ = 0;

  std::vector<Plane<Operand>> x_;
  Plane<std::int32_t> token_;
  Plane<Operand> transit_;
  Plane<std::int32_t> transit_select_;
  Plane<Operand> shadow_;
  Plane<std::int32_t> shadow_select_, shadow_full_;
  Plane<Operand> active_;
  Plane<std::int32_t> active_select_;
  Plane<Sum> psum_;
  std::vector<Sum> above_row0_;  ///< Zeros: nothing comes from above row 0.
  std::vector<std::uint8_t>
      summed_;  ///< (m, n): whether the output has a result already; counted with memory alone.
  std::vector<Operand> chosen_;
  std::vector<Operand*> x_row_;
};

}  // namespace pysim
