// Argument checks that name the place, what was expected and what came.
#pragma once

#include <stdexcept>
#include <string>

namespace pysim {

/// Throws std::invalid_argument("where: expected X, got Y") unless `holds`.
inline void require(bool holds, const char* where, const std::string& expected, const std::string& got) {
  if (!holds) {
    throw std::invalid_argument(std::string(where) + ": expected " + expected + ", got " + got);
  }
}

}  // namespace pysim
