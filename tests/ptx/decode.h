// From the words of one instruction to what machine.cpp performs.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "ptx/program.h"

namespace ptx {

using Parts = std::vector<std::string_view>;

std::string_view trimmed(std::string_view s);
/// Cuts at `separator`, but not inside brackets and braces.
Parts cut(std::string_view s, char separator);

/// What words mean at some place of a program.
struct Names {
  std::vector<std::map<std::string, int, std::less<>>> scopes;  ///< Registers, innermost last.
  std::map<std::string, std::uint64_t, std::less<>> symbols;    ///< Parameters and shared memory.

  int find_register(std::string_view name) const;  ///< -1: none.
};

/// Decodes an instruction without its predicate; a jump's target stays open. Throws Fault.
void decode(Instruction& i, std::string_view text, const Names& names);

}  // namespace ptx
