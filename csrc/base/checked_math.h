// Integer arithmetic on counts that refuses to overflow instead of wrapping round.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>

namespace pysim {

/// a * b. Throws std::invalid_argument if the product does not fit in 64 bits.
inline std::int64_t checked_mul(std::int64_t a, std::int64_t b, const char* where) {
  std::int64_t product = 0;
  if (__builtin_mul_overflow(a, b, &product)) {
    throw std::invalid_argument(std::string(where) + ": expected a count that fits in 64 bits, got " +
                                std::to_string(a) + " * " + std::to_string(b));
  }
  return product;
}

/// a + b. Throws std::invalid_argument if the sum does not fit in 64 bits.
inline std::int64_t checked_add(std::int64_t a, std::int64_t b, const char* where) {
  std::int64_t sum = 0;
  if (__builtin_add_overflow(a, b, &sum)) {
    throw std::invalid_argument(std::string(where) + ": expected a count that fits in 64 bits, got " +
                                std::to_string(a) + " + " + std::to_string(b));
  }
  return sum;
}

}  // namespace pysim
