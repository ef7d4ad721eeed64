#include "base/isa.h"

#include <cstdlib>
#include <stdexcept>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace pysim {
namespace {

#if defined(__x86_64__)
struct CpuidRegisters {
  unsigned a = 0, b = 0, c = 0, d = 0;
};

CpuidRegisters cpuid(unsigned leaf) {
  CpuidRegisters r;
  if (__get_cpuid_count(leaf, 0, &r.a, &r.b, &r.c, &r.d) == 0) return {};
  return r;
}

/// XCR0: which register state the operating system saves. 0 if it does not say.
unsigned saved_state() {
  if ((cpuid(1).c & bit_OSXSAVE) == 0) return 0;
  unsigned low = 0, high = 0;
  __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return low;
}

std::string why_no_avx2() {
  if ((cpuid(1).c & bit_FMA) == 0) return "the CPU lacks FMA";
  if ((cpuid(7).b & bit_AVX2) == 0) return "the CPU lacks AVX2";
  if ((saved_state() & 0x6u) != 0x6u) return "the operating system does not save YMM registers";
  return "";
}

std::string why_no_avx512() {
  if ((cpuid(7).b & bit_AVX512F) == 0) return "the CPU lacks AVX-512F";
  if ((saved_state() & 0xe6u) != 0xe6u) return "the operating system does not save ZMM registers";
  return "";
}
#else
std::string why_no_avx2() { return "not an x86-64 CPU"; }
std::string why_no_avx512() { return "not an x86-64 CPU"; }
#endif

}  // namespace

const char* isa_name(Isa isa) {
  switch (isa) {
    case Isa::scalar:
      return "scalar";
    case Isa::avx2:
      return "avx2";
    case Isa::avx512:
      return "avx512";
  }
  throw std::logic_error("isa_name: not an instruction set");
}

std::vector<IsaStatus> isa_report() {
  // Asked once: a virtual machine may take tens of microseconds to answer CPUID.
  static const std::string no_avx2 = why_no_avx2();
  static const std::string no_avx512 = why_no_avx512();
  std::vector<IsaStatus> report;
  for (const Isa isa : {Isa::scalar, Isa::avx2, Isa::avx512}) {
    std::string reason;
    if (isa == Isa::avx2) reason = no_avx2;
    if (isa == Isa::avx512) reason = no_avx512;
    const bool available = reason.empty();
    report.push_back({isa, isa_name(isa), available, std::move(reason)});
  }
  return report;
}

Isa resolve_isa(std::string_view requested) {
  std::string from = "isa";
  if (requested.empty()) {
    if (const char* forced = std::getenv("PYSIM_ISA"); forced != nullptr && *forced != '\0') {
      requested = forced;
      from = "PYSIM_ISA";
    }
  }
  const std::vector<IsaStatus> report = isa_report();
  std::string usable;
  Isa fastest = Isa::scalar;
  for (const IsaStatus& status : report) {
    if (status.available) {
      fastest = status.isa;
      usable += (usable.empty() ? "" : ", ") + status.name;
    }
  }
  if (requested.empty()) return fastest;
  for (const IsaStatus& status : report) {
    if (status.name != requested) continue;
    if (status.available) return status.isa;
    throw std::invalid_argument(from + ": expected one of " + usable + ", got " + status.name + ": " +
                                status.reason);
  }
  throw std::invalid_argument(from + ": expected one of " + usable + ", got " + std::string(requested));
}

}  // namespace pysim
