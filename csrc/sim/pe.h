// What the cycle engine's registers are made of: planes of values, rows of control tokens, and the ports
// through which operands enter.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <new>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "sim/array_kernels.h"

namespace pysim {

/// What an operand's register holds: float32, or an int8 value widened to 32 bits that wrap.
template <class Operand>
using LaneOf = std::conditional_t<std::is_same_v<Operand, float>, float, std::uint32_t>;

inline float to_lane(float value) { return value; }
inline std::uint32_t to_lane(std::int8_t value) {
  return static_cast<std::uint32_t>(static_cast<std::int32_t>(value));
}

/// sum + value, wrapping for integers.
inline float add(float sum, float value) { return sum + value; }
inline std::int32_t add(std::int32_t sum, std::uint32_t value) {
  return static_cast<std::int32_t>(static_cast<std::uint32_t>(sum) + value);
}

template <class T>
struct CacheAligned {
  using value_type = T;
  static constexpr std::align_val_t alignment{64};
  CacheAligned() = default;
  template <class U>
  explicit CacheAligned(const CacheAligned<U>& /*other*/) {}
  T* allocate(std::size_t count) { return static_cast<T*>(::operator new(count * sizeof(T), alignment)); }
  void deallocate(T* at, std::size_t /*count*/) { ::operator delete(at, alignment); }
  bool operator==(const CacheAligned&) const = default;
};

/// One register of every PE, row by row; a row has `pitch` places, whole vectors of them.
template <class T>
class Plane {
 public:
  Plane(std::int64_t rows, std::int64_t pitch, T fill = T{})
      : rows_(rows), pitch_(pitch), values_(static_cast<std::size_t>(rows * pitch), fill) {}

  T* data() { return values_.data(); }
  T* row(std::int64_t r) { return values_.data() + r * pitch_; }

  /// Every row takes over the values of the row above; row 0 keeps its own until it is written.
  void shift_down() { std::copy_backward(values_.begin(), values_.end() - pitch_, values_.end()); }

 private:
  std::int64_t rows_;
  std::int64_t pitch_;
  std::vector<T, CacheAligned<T>> values_;
};

constexpr std::int64_t word_bits = 64;

inline std::uint64_t bit_of(std::int64_t col) { return std::uint64_t{1} << (col % word_bits); }

/// Calls visit(column) for every bit that is set, from the left; `word` is the index of `bits` in its row.
template <class Visit>
void each_col(std::uint64_t bits, std::int64_t word, Visit&& visit) {
  const std::int64_t begin = word * word_bits;
  const int run = std::countr_one(bits);  // Mostly all columns are set: no need to look for the next one.
  for (int i = 0; i < run; ++i) visit(begin + i);
  bits = run == word_bits ? 0 : bits >> run << run;
  for (; bits != 0; bits &= bits - 1) visit(begin + std::countr_zero(bits));
}

/// std::popcount would be a call into a library where the build is for CPUs without the instruction.
inline std::int64_t count_ones(std::uint64_t word) {
  word -= word >> 1 & 0x5555555555555555;
  word = (word & 0x3333333333333333) + (word >> 2 & 0x3333333333333333);
  word = (word + (word >> 4)) & 0x0f0f0f0f0f0f0f0f;
  return static_cast<std::int64_t>(word * 0x0101010101010101 >> 56);
}

/// MACs and MAC slots that all PEs use in a cycle, kept up to date word by word.
class WorkCount {
 public:
  /// words: token words of the whole array.
  explicit WorkCount(std::int64_t words) : words_(static_cast<std::size_t>(words)) {}

  /// valid, macs: the PEs of one word that hold an operand, and those of which it is a MAC.
  void set(std::int64_t word, std::uint64_t valid, std::uint64_t macs) {
    Word& was = words_[static_cast<std::size_t>(word)];
    if (valid != was.valid) slots_ += count_ones(valid) - count_ones(was.valid);
    if (macs != was.macs) macs_ += count_ones(macs) - count_ones(was.macs);
    was = {valid, macs};
  }

  std::int64_t macs() const { return macs_; }
  std::int64_t padded() const { return slots_ - macs_; }

 private:
  struct Word {
    std::uint64_t valid = 0;
    std::uint64_t macs = 0;
  };
  std::vector<Word> words_;
  std::int64_t slots_ = 0;
  std::int64_t macs_ = 0;
};

/// An operand that enters a port, and of which fold it is. No operand if `fold` is below 0.
struct Beat {
  std::int64_t fold = -1;
  bool first = false;
  bool last = false;
  bool inner = false;  ///< An operand, but neither the first nor the last of its fold.
};

/// When operands enter the ports along one edge of the array. Port 0 takes operand j of a fold j cycles after
/// the fold's start; port i does what port 0 did i cycles before.
class Edge {
 public:
  /// starts, depths: first cycle and number of operands of each fold.
  Edge(std::vector<std::int64_t> starts, std::vector<std::int64_t> depths, std::int64_t ports)
      : starts_(std::move(starts)),
        depths_(std::move(depths)),
        beats_(std::bit_ceil(static_cast<std::size_t>(ports))) {}

  /// Must be called once for every cycle, from 0 on.
  ///
  /// Throws std::logic_error if two folds need a port in the same cycle.
  void advance(std::int64_t cycle) {
    at_ = (at_ + 1) & (beats_.size() - 1);
    beats_[at_] = {};
    if (fold_ == starts_.size()) return;
    const std::int64_t due = starts_[fold_] + index_;
    if (cycle < due) return;
    if (cycle > due) {
      throw std::logic_error("cycle engine: two operands enter one port in a cycle: fold " +
                             std::to_string(fold_) + " starts too early");
    }
    const std::int64_t depth = depths_[fold_];
    const bool first = index_ == 0;
    const bool last = index_ == depth - 1;
    beats_[at_] = {static_cast<std::int64_t>(fold_), first, last, !first && !last};
    if (++index_ == depth) {
      ++fold_;
      index_ = 0;
    }
  }

  /// What enters port `port` in this cycle.
  const Beat& beat(std::int64_t port) const {
    return beats_[(at_ - static_cast<std::size_t>(port)) & (beats_.size() - 1)];
  }

 private:
  std::vector<std::int64_t> starts_, depths_;
  std::vector<Beat> beats_;  ///< Of the last cycles, a ring.
  std::size_t at_ = 0;
  std::size_t fold_ = 0;
  std::int64_t index_ = 0;
};

}  // namespace pysim
