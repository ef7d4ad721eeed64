// `ws` and `is`, register by register: x moves right, transit and psum move down, shadow waits for the next
// fold, active multiplies. One call of step() is one clock edge for every PE.
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

/// An array whose PEs hold weights or inputs. `Ops` is WeightStationaryOperands or InputStationaryOperands.
///
/// Within a cycle every read of a register comes before its write: rows are stepped from the bottom up, and
/// the preload writes shadow registers after the stream has read them. First all control tokens move and
/// every rule is checked, then all values move.
template <class Operand, class Sum, class Ops>
class StationaryArray {
 public:
  using Lane = LaneOf<Operand>;

  StationaryArray(const Ops& operands, const std::vector<FoldStart>& starts, const ArrayKernels& kernels)
      : ops_(operands),
        kernels_(kernels),
        rows_(operands.array.rows),
        cols_(operands.array.cols),
        folds_(static_cast<std::int64_t>(starts.size())),
        selected_(operands.array.slot_members() > 1),
        left_(operands, Edge(stream_starts(starts), depths(operands), rows_), kernels.lanes),
        top_(operands, preload_starts(starts), std::vector<std::int64_t>(starts.size(), rows_),
             left_.words()),
        leaving_(static_cast<std::size_t>(cols_)),
        work_(rows_ * left_.words()),
        transit_(rows_, left_.pitch()),
        shadow_(rows_, left_.pitch()),
        active_(rows_, left_.pitch()),
        transit_select_(selected_ ? rows_ : 0, left_.pitch()),
        shadow_select_(selected_ ? rows_ : 0, left_.pitch()),
        active_select_(selected_ ? rows_ : 0, left_.pitch()),
        transit_token_(rows_, left_.words()),
        held_(rows_, left_.words()),
        psum_(rows_ + 1, left_.pitch()) {}

  /// Whether every result of every fold has left.
  bool done() const { return columns_done_ == cols_ || folds_ == 0; }

  /// Words taken from the buffers and put there so far; zero if they are not counted.
  ArrayAccesses accesses() const {
    ArrayAccesses found;
    Ops::streamed_reads(found) = left_.reads();
    Ops::pushed_reads(found) = top_.reads();
    found.output_reads = output_reads_;
    found.output_writes = output_writes_;
    return found;
  }

  /// One clock edge; cycles are counted from 0 and none is left out. Throws std::logic_error if a register is
  /// overwritten before it has been read.
  void step(std::int64_t cycle, Counts& counts) {
    left_.advance(cycle);
    // Sums that come down from a steady row to a steady row are of the same elements as before.
    const auto above_is_steady = [this](std::int64_t r) { return r == 0 || left_.is_steady(r - 1); };
    for (std::int64_t r = left_.enter_steady_rows(rows_ - 1, above_is_steady); r >= 0;
         r = left_.enter_steady_rows(r - 1, above_is_steady)) {
      step_tokens(r);
    }
    counts.macs += work_.macs();
    counts.padded_macs += work_.padded();
    kernels_.step(StationaryStep<Lane>{left_.inputs(), active_.data(), shadow_.data(), active_select_.data(),
                                       shadow_select_.data(), psum_.data()});
    ops_.summed == nullptr ? collect<false>(cycle, counts) : collect<true>(cycle, counts);
    preload(cycle);
  }

 private:
  /// What a PE holds for folds to come, for 64 neighbours.
  struct HeldWord {
    std::uint64_t shadow_full = 0;  ///< shadow waits to be taken over.
    std::uint64_t shadow_real = 0;  ///< It is not padding.
    std::uint64_t active_real = 0;
  };

  /// The results of one column that leave the array.
  struct Leaving {
    std::int64_t fold = -1;
    std::int64_t next = 0;
    std::int64_t depth = 0;
    Stream<Sum> to;
  };

  void step_tokens(std::int64_t r) {
    // A sum from above was made of the operand that this row's PE meets now. Nothing comes from above row 0.
    const auto entered = left_.enter(r, left_.tokens(std::max<std::int64_t>(0, r - 1)));
    if (r > 0 && !entered.met) {
      throw std::logic_error("cycle engine: an input meets a sum of another element in row " +
                             std::to_string(r));
    }
    if (entered.work == RowWork::edge) take_over(r);
    count(r);
  }

  /// The first operand of a fold makes its PE copy shadow to active.
  void take_over(std::int64_t r) {
    const TokenWord* const word = left_.tokens(r);
    HeldWord* const held = held_.row(r);
    for (std::int64_t i = 0; i < left_.words(); ++i) {
      const std::uint64_t first = word[i].first;
      if ((first & ~held[i].shadow_full) != 0) {
        throw std::logic_error("cycle engine: a fold streams through row " + std::to_string(r) +
                               " before its shadow registers hold the fold");
      }
      held[i].shadow_full &= ~first;
      held[i].active_real = (held[i].active_real & ~first) | (held[i].shadow_real & first);
    }
  }

  void count(std::int64_t r) {
    const TokenWord* const word = left_.tokens(r);
    const HeldWord* const held = held_.row(r);
    for (std::int64_t i = 0; i < left_.words(); ++i) {
      work_.set(r * left_.words() + i, word[i].valid, word[i].real & held[i].active_real);
    }
  }

  /// Results leave the bottom row in the cycle in which its PEs have made them.
  template <bool kCounted>
  void collect(std::int64_t cycle, Counts& counts) {
    const TokenWord* const tokens = left_.tokens(rows_ - 1);
    const Lane* const psum = psum_.row(rows_);
    for (std::int64_t i = 0; i < left_.words(); ++i) {
      if (tokens[i].valid == 0) continue;
      counts.cycles = std::max(counts.cycles, cycle + 1);
      each_col(tokens[i].first, i, [&](std::int64_t c) { begin_fold(c); });
      each_col(tokens[i].valid, i, [&](std::int64_t c) {
        Leaving& column = leaving_[static_cast<std::size_t>(c)];
        Sum* const result = column.to.at(column.next++);
        if (result == nullptr) return;
        *result = add(*result, psum[c]);
        if constexpr (kCounted) count_sum(result - ops_.y);
      });
      each_col(tokens[i].last, i, [&](std::int64_t c) { end_fold(c, counts); });
    }
  }

  /// A result goes into the output buffer, added to what is there.
  void count_sum(std::int64_t index) {
    output_reads_ += ops_.summed[index];
    ++output_writes_;
    ops_.summed[index] = 1;
  }

  void begin_fold(std::int64_t c) {
    Leaving& column = leaving_[static_cast<std::size_t>(c)];
    if (column.next != column.depth) throw_disorder();
    ++column.fold;
    column = {column.fold, 0, ops_.fold(column.fold).depth, ops_.results(column.fold, c)};
  }

  void end_fold(std::int64_t c, Counts& counts) {
    const Leaving& column = leaving_[static_cast<std::size_t>(c)];
    if (column.next != column.depth) throw_disorder();
    if (c == cols_ - 1) ++counts.folds;
    if (column.fold == folds_ - 1) ++columns_done_;
  }

  [[noreturn]] static void throw_disorder() {
    throw std::logic_error("cycle engine: results left out of order");
  }

  /// The next fold moves down the transit registers; its last push completes a column's shadow registers.
  void preload(std::int64_t cycle) {
    if (!top_.advance(cycle)) return;
    transit_.shift_down();
    transit_token_.shift_down();
    if (selected_) transit_select_.shift_down();
    top_.enter(cycle, transit_.row(0), transit_select_.row(0), transit_token_.row(0));
    for (std::int64_t i = 0; i < left_.words(); ++i) {
      each_col(transit_token_.row(0)[i].last, i, [&](std::int64_t c) { fill_shadow(c); });
    }
  }

  void fill_shadow(std::int64_t c) {
    const std::int64_t fold = filled_[static_cast<std::size_t>(c)]++;
    const std::uint64_t here = bit_of(c);
    for (std::int64_t r = 0; r < rows_; ++r) {
      HeldWord& held = held_.row(r)[c / word_bits];
      if ((held.shadow_full & here) != 0) {
        throw std::logic_error("cycle engine: the preload of fold " + std::to_string(fold) +
                               " overwrites a shadow register that PE (" + std::to_string(r) + ", " +
                               std::to_string(c) + ") has not taken over yet");
      }
      shadow_.row(r)[c] = transit_.row(r)[c];
      if (selected_) shadow_select_.row(r)[c] = transit_select_.row(r)[c];
      held.shadow_full |= here;
      held.shadow_real = (held.shadow_real & ~here) | (transit_token_.row(r)[c / word_bits].real & here);
    }
  }

  const Ops& ops_;
  const ArrayKernels& kernels_;
  std::int64_t rows_, cols_, folds_;
  bool selected_;  ///< PEs have multiplexers.
  LeftEdge<Operand, Ops> left_;
  TopEdge<Operand, Ops> top_;

  std::vector<Leaving> leaving_;
  std::int64_t columns_done_ = 0;
  std::int64_t output_reads_ = 0, output_writes_ = 0;
  std::vector<std::int64_t> filled_ = std::vector<std::int64_t>(static_cast<std::size_t>(cols_), 0);
  WorkCount work_;

  Plane<Lane> transit_, shadow_, active_;
  Plane<std::int32_t> transit_select_, shadow_select_, active_select_;
  Plane<TokenWord> transit_token_;
  Plane<HeldWord> held_;
  Plane<Lane> psum_;  ///< (rows + 1): zeros, for nothing comes from above row 0; then each row's.
};

}  // namespace pysim
