// What the register planes of the cycle engine are made of: planes, control tokens, input ports, the MAC.
#pragma once

#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

namespace pysim {

/// One register of every PE, row by row; moving a row or a plane is what one clock edge does.
template <class T>
class Plane {
 public:
  Plane(std::int64_t rows, std::int64_t cols, T fill)
      : rows_(rows), cols_(cols), values_(static_cast<std::size_t>(rows * cols), fill) {}

  T* row(std::int64_t r) { return values_.data() + r * cols_; }

  /// Every column of row r takes over its left neighbour's value; column 0 takes `entering`.
  void shift_right(std::int64_t r, T entering) {
    T* const at = row(r);
    std::memmove(at + 1, at, static_cast<std::size_t>(cols_ - 1) * sizeof(T));
    at[0] = entering;
  }

  /// Every row takes over the values of the row above; row 0 keeps its own until it is written.
  void shift_down() {
    std::memmove(row(0) + cols_, row(0), static_cast<std::size_t>((rows_ - 1) * cols_) * sizeof(T));
  }

 private:
  std::int64_t rows_;
  std::int64_t cols_;
  std::vector<T> values_;
};

/// The control word that travels with a streamed operand: its running number over all folds, whether it is
/// the first or last of its fold, and whether it is real (not padding).
namespace token {
constexpr std::int32_t first = 1;
constexpr std::int32_t last = 2;
constexpr std::int32_t real = 4;
constexpr std::int32_t number_shift = 3;
constexpr std::int32_t bubble = -8;  ///< No operand: negative, with none of the bits above.
constexpr std::int64_t max_number = (std::int64_t{1} << 28) - 1;
}  // namespace token

/// The input of one row or column: hands out, cycle by cycle, the operand that enters in this cycle.
class Port {
 public:
  struct Beat {
    std::int64_t fold;
    std::int64_t index;
  };

  /// Whether an operand enters in cycle `now`, and which. Must be asked in every cycle.
  ///
  /// starts, lengths: first cycle and number of operands of each fold.
  /// Throws std::logic_error if two folds need the port in the same cycle.
  bool next(std::int64_t now, const std::vector<std::int64_t>& starts,
            const std::vector<std::int64_t>& lengths, Beat& beat) {
    if (fold_ == starts.size()) return false;
    const std::int64_t due = starts[fold_] + index_;
    if (now < due) return false;
    if (now > due) {
      throw std::logic_error("cycle engine: two operands enter one port in a cycle: fold " +
                             std::to_string(fold_) + " starts too early");
    }
    beat = {static_cast<std::int64_t>(fold_), index_};
    if (++index_ == lengths[fold_]) {
      ++fold_;
      index_ = 0;
    }
    return true;
  }

 private:
  std::size_t fold_ = 0;
  std::int64_t index_ = 0;
};

/// sum + a * b: float32 rounded after the product and after the sum, int32 wrapping as hardware does.
inline float multiply_add(float sum, float a, float b) { return sum + a * b; }
inline std::int32_t multiply_add(std::int32_t sum, std::int8_t a, std::int8_t b) {
  const std::int32_t product = static_cast<std::int32_t>(a) * static_cast<std::int32_t>(b);
  return static_cast<std::int32_t>(static_cast<std::uint32_t>(sum) + static_cast<std::uint32_t>(product));
}

/// sum + value, wrapping for integers.
inline float add(float sum, float value) { return sum + value; }
inline std::int32_t add(std::int32_t sum, std::int32_t value) {
  return static_cast<std::int32_t>(static_cast<std::uint32_t>(sum) + static_cast<std::uint32_t>(value));
}

/// What a PE's multiplexer puts out: for each column the member that `select` names.
///
/// members: one row pointer per multiplexer input; select below 0 (padding) takes member 0, whose partner
/// is then a zero weight.
template <class Operand>
void select_members(const std::vector<Operand*>& members, const std::int32_t* select, std::int64_t cols,
                    Operand* chosen) {
  std::memcpy(chosen, members[0], static_cast<std::size_t>(cols) * sizeof(Operand));
  for (std::size_t i = 1; i < members.size(); ++i) {
    const Operand* const member = members[i];
    for (std::int64_t c = 0; c < cols; ++c) {
      chosen[c] = select[c] == static_cast<std::int32_t>(i) ? member[c] : chosen[c];
    }
  }
}

}  // namespace pysim
