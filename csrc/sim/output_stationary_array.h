// `os`, register by register: x moves right, w moves down, acc sums, hold keeps a finished sum until its
// column drains through chain. One call of step() is one clock edge for every PE.
#pragma once

#include <algorithm>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "sim/counts.h"
#include "sim/left_edge.h"
#include "sim/operands.h"
#include "sim/pe.h"
#include "sim/schedule.h"
#include "sim/top_edge.h"

namespace pysim {

/// An array whose PEs hold sums. Within a cycle every read of a register comes before its write: columns
/// drain before the PEs step, and rows are stepped from the bottom up. First all control tokens move and
/// every rule is checked, then all values move.
template <class Operand, class Sum>
class OutputStationaryArray {
 public:
  using Lane = LaneOf<Operand>;
  using Ops = OutputStationaryOperands<Operand, Sum>;

  OutputStationaryArray(const Ops& operands, const std::vector<FoldStart>& starts,
                        const ArrayKernels& kernels)
      : ops_(operands),
        kernels_(kernels),
        rows_(operands.array.rows),
        cols_(operands.array.cols),
        folds_(static_cast<std::int64_t>(starts.size())),
        left_(operands, Edge(stream_starts(starts), depths(operands), rows_), kernels.lanes),
        top_(operands, stream_starts(starts), depths(operands), left_.words()),
        columns_(static_cast<std::size_t>(cols_)),
        finished_(static_cast<std::size_t>(left_.words()), 0),
        draining_(static_cast<std::size_t>(left_.words()), 0),
        work_(rows_ * left_.words()),
        w_token_(rows_ + 1, left_.words()),
        w_(rows_ + 1, left_.pitch()),
        w_select_(operands.array.slot_members() > 1 ? rows_ + 1 : 0, left_.pitch()),
        acc_(rows_, left_.pitch()),
        hold_(rows_, left_.pitch()),
        chain_(rows_, left_.pitch()),
        hold_full_(rows_, left_.words()) {}

  /// Whether every result of every fold has left.
  bool done() const { return folds_ == 0 || columns_done_ == cols_; }

  /// Words taken from the buffers and put there so far; reads are zero if they are not counted.
  ArrayAccesses accesses() const {
    ArrayAccesses found;
    Ops::streamed_reads(found) = left_.reads();
    Ops::pushed_reads(found) = top_.reads();
    found.output_writes = output_writes_;
    return found;
  }

  /// One clock edge; cycles are counted from 0 and none is left out. Throws std::logic_error if a register is
  /// overwritten before it has been read.
  void step(std::int64_t cycle, Counts& counts) {
    drain(cycle, counts);
    left_.advance(cycle);
    if (top_.advance(cycle)) {
      top_.enter(cycle, w_.row(0), w_select_.row(0), w_token_.row(0));
    } else {
      std::fill(w_token_.row(0), w_token_.row(1), TokenWord{});
    }
    const auto weights_repeat = [this](std::int64_t r) {
      return std::equal(w_token_.row(r), w_token_.row(r + 1), w_token_.row(r + 1));
    };
    for (std::int64_t r = left_.enter_steady_rows(rows_ - 1, weights_repeat); r >= 0;
         r = left_.enter_steady_rows(r - 1, weights_repeat)) {
      step_tokens(r);
    }
    counts.macs += work_.macs();
    counts.padded_macs += work_.padded();
    kernels_.step(OutputStep<Lane>{left_.inputs(), w_.data(), w_select_.data(), acc_.data(), hold_.data()});
  }

 private:
  /// A column's results on their way out.
  struct Column {
    std::int64_t drained = -1;    ///< Fold that it drains, or drained last.
    std::int64_t chain_left = 0;  ///< Its results that are still in the chain.
    Stream<Sum> to;
  };

  void step_tokens(std::int64_t r) {
    std::copy(w_token_.row(r), w_token_.row(r + 1), w_token_.row(r + 1));  // w follows if the row works.
    const auto entered = left_.enter(r, w_token_.row(r + 1));
    if (!entered.met) {
      throw std::logic_error("cycle engine: an input meets a weight of another element in row " +
                             std::to_string(r));
    }
    if (entered.work == RowWork::edge) finish_sums(r);
    count(r);
  }

  /// Where a fold ends the sum goes to hold; when the bottom one has, the column drains.
  void finish_sums(std::int64_t r) {
    const TokenWord* const word = left_.tokens(r);
    std::uint64_t* const full = hold_full_.row(r);
    for (std::int64_t i = 0; i < left_.words(); ++i) {
      if ((word[i].last & full[i]) != 0) {
        throw std::logic_error("cycle engine: a sum overwrites a hold register of row " + std::to_string(r) +
                               " that has not drained yet");
      }
      full[i] |= word[i].last;
      if (r == rows_ - 1) finished_[static_cast<std::size_t>(i)] = word[i].last;
    }
  }

  void count(std::int64_t r) {
    const TokenWord* const word = left_.tokens(r);
    const TokenWord* const partner = w_token_.row(r + 1);
    for (std::int64_t i = 0; i < left_.words(); ++i) {
      work_.set(r * left_.words() + i, word[i].valid, word[i].real & partner[i].real);
    }
  }

  /// Chains move down one row; a column whose bottom PE has finished moves hold into chain first.
  void drain(std::int64_t cycle, Counts& counts) {
    if (cycle <= chain_busy_until_) chain_.shift_down();
    for (std::int64_t i = 0; i < left_.words(); ++i) {
      const auto at = static_cast<std::size_t>(i);
      each_col(finished_[at], i, [&](std::int64_t c) { load_chain(c, cycle); });
      draining_[at] |= finished_[at];
      finished_[at] = 0;
      if (draining_[at] == 0) continue;
      counts.cycles = std::max(counts.cycles, cycle + 1);
      each_col(draining_[at], i, [&](std::int64_t c) { leave(c, counts); });
    }
  }

  void leave(std::int64_t c, Counts& counts) {
    Column& column = columns_[static_cast<std::size_t>(c)];
    const std::int64_t row = --column.chain_left;
    if (Sum* const result = column.to.at(row)) {
      *result = static_cast<Sum>(chain_.row(rows_ - 1)[c]);
      ++output_writes_;
    }
    if (row > 0) return;
    draining_[static_cast<std::size_t>(c / word_bits)] &= ~bit_of(c);
    if (c == cols_ - 1) ++counts.folds;
    if (column.drained == folds_ - 1) ++columns_done_;
  }

  void load_chain(std::int64_t c, std::int64_t cycle) {
    Column& column = columns_[static_cast<std::size_t>(c)];
    if (column.chain_left != 0) {
      throw std::logic_error("cycle engine: column " + std::to_string(c) +
                             " drains into a chain that still holds " + std::to_string(column.chain_left) +
                             " results");
    }
    for (std::int64_t r = 0; r < rows_; ++r) {
      std::uint64_t& full = hold_full_.row(r)[c / word_bits];
      if ((full & bit_of(c)) == 0) {
        throw std::logic_error("cycle engine: column " + std::to_string(c) + " drains before row " +
                               std::to_string(r) + " has finished");
      }
      full &= ~bit_of(c);
      chain_.row(r)[c] = hold_.row(r)[c];
    }
    ++column.drained;
    column.to = ops_.results(column.drained, c);
    column.chain_left = rows_;
    chain_busy_until_ = cycle + rows_ - 1;
  }

  const Ops& ops_;
  const ArrayKernels& kernels_;
  std::int64_t rows_, cols_, folds_;
  LeftEdge<Operand, Ops> left_;
  TopEdge<Operand, Ops> top_;

  std::vector<Column> columns_;
  std::vector<std::uint64_t> finished_;  ///< (words): columns whose bottom PE has just finished a fold.
  std::vector<std::uint64_t> draining_;  ///< (words): columns with results in the chain.
  std::int64_t chain_busy_until_ = -1;
  std::int64_t columns_done_ = 0;
  std::int64_t output_writes_ = 0;
  WorkCount work_;

  Plane<TokenWord> w_token_;  ///< (rows + 1): what enters row 0, then each row's; as w and w_select.
  Plane<Lane> w_;
  Plane<std::int32_t> w_select_;
  Plane<Lane> acc_, hold_, chain_;
  Plane<std::uint64_t> hold_full_;
};

}  // namespace pysim
