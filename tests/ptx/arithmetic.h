// What single instructions compute, lane by lane: bits in, bits out.
#pragma once

#include <array>
#include <cstdint>

#include "ptx/program.h"

namespace ptx {

/// The lowest bits of a register, without sign.
constexpr std::uint64_t cut_to(std::uint64_t value, int bits) {
  return bits == 64 ? value : value & ((std::uint64_t{1} << bits) - 1);
}
constexpr std::int64_t signed_of(std::uint64_t value, int bits) {
  return static_cast<std::int64_t>(value << (64 - bits)) >> (64 - bits);
}

/// The result of an instruction on one lane's sources. Throws Fault for a division by zero.
std::uint64_t compute(const Instruction& i, const std::array<std::uint64_t, 4>& source);

/// D = A B + C of one warp. Registers are [lane][register], as the instruction names them.
using Registers = std::array<std::array<std::uint32_t, 14>, 32>;  // 4 sums to, 4 of A, 2 of B, 4 of C
void multiply(const Instruction& i, Registers& lanes);

}  // namespace ptx
