// `os`, register by register: x moves right, w moves down, acc sums, hold keeps a finished sum until its
// column drains through chain. One call of step() is one clock edge for every PE.
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

/// An array whose PEs hold sums. Within a cycle every read of a register comes before its write: columns
/// drain before the PEs step, and rows are stepped from the bottom up.
template <class Operand, class Sum>
class OutputStationaryArray {
 public:
  using Ops = OutputStationaryOperands<Operand, Sum>;

  OutputStationaryArray(const Ops& operands, const std::vector<FoldStart>& starts)
      : ops_(operands),
        rows_(operands.array.rows),
        cols_(operands.array.cols),
        feeder_cols_(operands.array.feeder_cols()),
        feeders_(ceil_div(cols_, feeder_cols_)),
        members_(operands.array.slot_members()),
        folds_(static_cast<std::int64_t>(starts.size())),
        x_ports_(static_cast<std::size_t>(rows_)),
        w_ports_(static_cast<std::size_t>(cols_)),
        feed_fold_(static_cast<std::size_t>(rows_ * feeders_), -1),
        row_busy_until_(static_cast<std::size_t>(rows_), -1),
        edge_until_(static_cast<std::size_t>(rows_), -1),
        drain_in_(static_cast<std::size_t>(cols_), -1),
        chain_left_(static_cast<std::size_t>(cols_), 0),
        drained_(static_cast<std::size_t>(cols_), 0),
        x_(static_cast<std::size_t>(members_), Plane<Operand>(rows_, cols_, Operand{0})),
        token_(rows_, cols_, token::bubble),
        w_(rows_, cols_, Operand{0}),
        w_select_(rows_, cols_, -1),
        w_token_(rows_, cols_, token::bubble),
        acc_(rows_, cols_, Sum{0}),
        hold_(rows_, cols_, Sum{0}),
        hold_full_(rows_, cols_, 0),
        chain_(rows_, cols_, Sum{0}),
        chosen_(static_cast<std::size_t>(cols_), Operand{0}),
        x_row_(static_cast<std::size_t>(members_), nullptr) {
    std::int64_t number = 0;
    for (std::int64_t f = 0; f < folds_; ++f) {
      starts_.push_back(starts[static_cast<std::size_t>(f)].stream);
      lengths_.push_back(ops_.fold(f).depth);
      first_number_.push_back(number);
      number += ops_.fold(f).depth;
    }
  }

  /// Whether every result of every fold has left.
  bool done() const { return folds_ == 0 || columns_done_ == cols_; }

  /// One clock edge. accesses: null if they need not be counted. Throws std::logic_error if a register is
  /// overwritten before it has been read.
  void step(std::int64_t cycle, Counts& counts, ArrayAccesses* accesses) {
    drain(cycle, counts, accesses);
    for (std::int64_t r = rows_ - 1; r >= 0; --r) {
      if (!enter_row(r, cycle, accesses)) continue;
      move_weights(r, cycle, accesses);
      const Operand* const x = meet_inputs(r);
      if (cycle <= edge_until_[static_cast<std::size_t>(r)]) {
        accumulate_at_edges(r, x, cycle);
      } else {
        const Operand* const w = w_.row(r);
        Sum* const acc = acc_.row(r);
        for (std::int64_t c = 0; c < cols_; ++c) acc[c] = multiply_add(acc[c], w[c], x[c]);
      }
      count(r, counts);
    }
  }

 private:
  std::int32_t word_of(const Port::Beat& beat) const {
    const auto at = static_cast<std::size_t>(beat.fold);
    auto word = static_cast<std::int32_t>((first_number_[at] + beat.index) << token::number_shift);
    if (beat.index == 0) word |= token::first;
    if (beat.index == lengths_[at] - 1) word |= token::last;
    return word;
  }

  /// Moves row r's inputs one PE on and lets the next one in; false if the row is empty.
  bool enter_row(std::int64_t r, std::int64_t cycle, ArrayAccesses* accesses) {
    const auto at = static_cast<std::size_t>(r);
    Port::Beat beat{};
    std::int32_t entering = token::bubble;
    if (x_ports_[at].next(cycle - r, starts_, lengths_, beat)) {
      entering = word_of(beat);
      if ((entering & (token::first | token::last)) != 0) edge_until_[at] = cycle + cols_ - 1;
      row_busy_until_[at] = cycle + cols_;  // One step longer than it is needed clears the last column.
    } else if (cycle > row_busy_until_[at]) {
      return false;
    }
    token_.shift_right(r, entering);
    for (std::int64_t i = 0; i < members_; ++i) x_[static_cast<std::size_t>(i)].shift_right(r, Operand{0});
    for (std::int64_t feeder = 0; feeder < feeders_; ++feeder) feed(r, feeder, accesses);
    return true;
  }

  /// A feeder's first column: the input that belongs to the token there comes from the feeder.
  void feed(std::int64_t r, std::int64_t feeder, ArrayAccesses* accesses) {
    const std::int64_t col = feeder * feeder_cols_;
    std::int32_t& word = token_.row(r)[col];
    word &= ~token::real;
    const auto at = static_cast<std::size_t>(r * feeders_ + feeder);
    if (word >= 0 && (word & token::first) != 0) ++feed_fold_[at];
    const std::int64_t f = feed_fold_[at];
    std::int64_t t = 0;
    if (word >= 0) {
      t = (word >> token::number_shift) - first_number_[static_cast<std::size_t>(f)];
      if (ops_.row_is_real(f, feeder, r, t)) word |= token::real;
    }
    for (std::int64_t i = 0; i < members_; ++i) {
      x_[static_cast<std::size_t>(i)].row(r)[col] =
          (word & token::real) != 0 ? ops_.input(f, feeder, r, t, i) : Operand{0};
      if (accesses != nullptr && (word & token::real) != 0) {
        accesses->input_reads += ops_.has_input(f, feeder, t, i);
      }
    }
  }

  /// Weights come down from row r - 1, or from the top.
  void move_weights(std::int64_t r, std::int64_t cycle, ArrayAccesses* accesses) {
    if (r > 0) {
      const auto count = static_cast<std::size_t>(cols_);
      std::memcpy(w_.row(r), w_.row(r - 1), count * sizeof(Operand));
      std::memcpy(w_select_.row(r), w_select_.row(r - 1), count * sizeof(std::int32_t));
      std::memcpy(w_token_.row(r), w_token_.row(r - 1), count * sizeof(std::int32_t));
    } else {
      for (std::int64_t c = 0; c < cols_; ++c) {
        Port::Beat beat{};
        Held<Operand> pushed{Operand{0}, -1};
        std::int32_t word = token::bubble;
        if (w_ports_[static_cast<std::size_t>(c)].next(cycle - c, starts_, lengths_, beat)) {
          pushed = ops_.streamed_weight(beat.fold, c, beat.index);
          word = word_of(beat);
        }
        if (accesses != nullptr) accesses->weight_reads += pushed.stored;
        w_.row(0)[c] = pushed.value;
        w_select_.row(0)[c] = pushed.select;
        w_token_.row(0)[c] = word;
      }
    }
    const std::int32_t* const word = token_.row(r);
    const std::int32_t* const partner = w_token_.row(r);
    std::int32_t differ = 0;
    for (std::int64_t c = 0; c < cols_; ++c) differ |= (word[c] ^ partner[c]) & ~token::real;
    if (differ != 0) {
      throw std::logic_error("cycle engine: an input meets a weight of another element in row " +
                             std::to_string(r));
    }
  }

  /// Row r's inputs after each PE's multiplexer.
  const Operand* meet_inputs(std::int64_t r) {
    if (members_ == 1) return x_[0].row(r);
    for (std::int64_t i = 0; i < members_; ++i) {
      x_row_[static_cast<std::size_t>(i)] = x_[static_cast<std::size_t>(i)].row(r);
    }
    select_members(x_row_, w_select_.row(r), cols_, chosen_.data());
    return chosen_.data();
  }

  /// Where a fold begins acc restarts; where it ends the sum goes to hold.
  void accumulate_at_edges(std::int64_t r, const Operand* x, std::int64_t cycle) {
    const std::int32_t* const word = token_.row(r);
    const Operand* const w = w_.row(r);
    Sum* const acc = acc_.row(r);
    Sum* const hold = hold_.row(r);
    std::int32_t* const full = hold_full_.row(r);
    std::int32_t lost = 0;
    for (std::int64_t c = 0; c < cols_; ++c) {
      const std::int32_t last = (word[c] & token::last) >> 1;
      acc[c] = multiply_add((word[c] & token::first) != 0 ? Sum{0} : acc[c], w[c], x[c]);
      lost |= last & full[c];
      full[c] |= last;
      hold[c] = last != 0 ? acc[c] : hold[c];
    }
    if (lost != 0) {
      throw std::logic_error("cycle engine: a sum overwrites a hold register of row " + std::to_string(r) +
                             " that has not drained yet");
    }
    if (r < rows_ - 1) return;
    for (std::int64_t c = 0; c < cols_; ++c) {
      if ((word[c] & token::last) != 0) drain_in_[static_cast<std::size_t>(c)] = cycle + 1;
    }
  }

  void count(std::int64_t r, Counts& counts) {
    const std::int32_t* const word = token_.row(r);
    const std::int32_t* const select = w_select_.row(r);
    std::int32_t real = 0;
    std::int32_t busy = 0;
    for (std::int64_t c = 0; c < cols_; ++c) {
      busy += 1 + (word[c] >> 31);
      real += ((word[c] & token::real) >> 2) & (1 + (select[c] >> 31));
    }
    counts.macs += real;
    counts.padded_macs += busy - real;
  }

  /// Chains move down one row; a column whose bottom PE has finished moves hold into chain first.
  void drain(std::int64_t cycle, Counts& counts, ArrayAccesses* accesses) {
    if (cycle <= chain_busy_until_) chain_.shift_down();
    for (std::int64_t c = 0; c < cols_; ++c) {
      const auto at = static_cast<std::size_t>(c);
      if (drain_in_[at] == cycle) load_chain(c, cycle);
      if (chain_left_[at] == 0) continue;
      const std::int64_t row = --chain_left_[at];
      Sum* const result = ops_.result(drained_[at], row, c);
      if (result != nullptr) {
        *result = chain_.row(rows_ - 1)[c];
        if (accesses != nullptr) ++accesses->output_writes;
      }
      counts.cycles = std::max(counts.cycles, cycle + 1);
      if (row > 0) continue;
      if (c == cols_ - 1) ++counts.folds;
      if (++drained_[at] == folds_) ++columns_done_;
    }
  }

  void load_chain(std::int64_t c, std::int64_t cycle) {
    const auto at = static_cast<std::size_t>(c);
    if (chain_left_[at] != 0) {
      throw std::logic_error("cycle engine: column " + std::to_string(c) +
                             " drains into a chain that still holds " + std::to_string(chain_left_[at]) +
                             " results");
    }
    for (std::int64_t r = 0; r < rows_; ++r) {
      if (hold_full_.row(r)[c] == 0) {
        throw std::logic_error("cycle engine: column " + std::to_string(c) + " drains before row " +
                               std::to_string(r) + " has finished");
      }
      chain_.row(r)[c] = hold_.row(r)[c];
      hold_full_.row(r)[c] = 0;
    }
    chain_left_[at] = rows_;
    chain_busy_until_ = cycle + rows_ - 1;
  }

  const Ops& ops_;
  std::int64_t rows_;
  std::int64_t cols_;
  std::int64_t feeder_cols_;
  std::int64_t feeders_;
  std::int64_t members_;
  std::int64_t folds_;

  std::vector<std::int64_t> starts_, lengths_;
  std::vector<std::int64_t> first_number_;  ///< (folds): token number of each fold's first operand.
  std::vector<Port> x_ports_, w_ports_;
  std::vector<std::int64_t> feed_fold_;  ///< (rows, feeders): fold that the feeder is in.
  std::vector<std::int64_t> row_busy_until_, edge_until_;
  std::vector<std::int64_t> drain_in_;    ///< (cols): cycle in which the column loads its chain.
  std::vector<std::int64_t> chain_left_;  ///< (cols): results in the chain.
  std::vector<std::int64_t> drained_;     ///< (cols): folds that have left.
  std::int64_t chain_busy_until_ = -1;
  std::int64_t columns_done_ = 0;

  std::vector<Plane<Operand>> x_;
  Plane<std::int32_t> token_;
  Plane<Operand> w_;
  Plane<std::int32_t> w_select_, w_token_;
  Plane<Sum> acc_, hold_;
  Plane<std::int32_t> hold_full_;
  Plane<Sum> chain_;
  std::vector<Operand> chosen_;
  std::vector<Operand*> x_row_;
};

}  // namespace pysim
