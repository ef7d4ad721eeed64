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

}  // namespace pysim
