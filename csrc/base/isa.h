// Which instruction sets the kernels were compiled for, which of them this CPU and OS can run, and which one
// to use.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace pysim {

/// Instruction sets in rising order of speed.
enum class Isa { scalar, avx2, avx512 };

/// One instruction set on this machine.
struct IsaStatus {
  Isa isa;
  std::string name;
  bool available;
  std::string reason;  ///< Why it is off; empty if available.
};

const char* isa_name(Isa isa);

/// All instruction sets, slowest first, as CPUID, the operating system and the build allow.
std::vector<IsaStatus> isa_report();

/// The one to use: `requested` if not empty, else the environment's PYSIM_ISA, else the fastest available.
///
/// Throws std::invalid_argument if the name is unknown or that instruction set is not available here.
Isa resolve_isa(std::string_view requested);

/// Instruction sets of the 8-bit products in rising order of speed. AVX-512 without VNNI is not among them:
/// it has no 8-bit product, so such a CPU runs avx2.
enum class Int8Isa { scalar, avx2, avx_vnni, avx512_vnni };

/// One of them on this machine.
struct Int8IsaStatus {
  Int8Isa isa;
  std::string name;
  bool available;
  std::string reason;  ///< Why it is off; empty if available.
};

const char* isa_name(Int8Isa isa);

/// As isa_report().
std::vector<Int8IsaStatus> int8_isa_report();

/// The one of `report` to use: `requested` if not empty, else the environment's PYSIM_ISA, else the fastest
/// available. `avx512` means avx512_vnni where that is available and avx2 elsewhere.
///
/// Throws std::invalid_argument as resolve_isa().
Int8Isa resolve_int8_isa(std::string_view requested,
                         const std::vector<Int8IsaStatus>& report = int8_isa_report());

}  // namespace pysim
