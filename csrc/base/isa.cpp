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

CpuidRegisters cpuid(unsigned leaf, unsigned part = 0) {
  CpuidRegisters r;
  if (__get_cpuid_count(leaf, part, &r.a, &r.b, &r.c, &r.d) == 0) return {};
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

std::string why_no_avx_vnni() {
  constexpr unsigned avx_vnni = 1u << 4;
  if (std::string reason = why_no_avx2(); !reason.empty()) return reason;
  if (cpuid(7).a < 1 || (cpuid(7, 1).a & avx_vnni) == 0) return "the CPU lacks AVX-VNNI";
  return "";
}

std::string why_no_avx512_vnni() {
  if (std::string reason = why_no_avx512(); !reason.empty()) return reason;
  if ((cpuid(7).b & bit_AVX512BW) == 0) return "the CPU lacks AVX-512BW";
  if ((cpuid(7).b & bit_AVX512VL) == 0) return "the CPU lacks AVX-512VL";
  if ((cpuid(7).c & bit_AVX512VNNI) == 0) return "the CPU lacks AVX-512 VNNI";
  return "";
}
#else
std::string why_no_avx2() { return "not an x86-64 CPU"; }
std::string why_no_avx512() { return why_no_avx2(); }
std::string why_no_avx_vnni() { return why_no_avx2(); }
std::string why_no_avx512_vnni() { return why_no_avx2(); }
#endif

/// `requested` if not empty, else what PYSIM_ISA says; `from` becomes the name of that in messages.
std::string_view or_environment(std::string_view requested, std::string& from) {
  from = "isa";
  if (!requested.empty()) return requested;
  const char* const forced = std::getenv("PYSIM_ISA");
  if (forced == nullptr) return requested;
  from = "PYSIM_ISA";
  return forced;
}

/// The entry of `report` that is asked for, or the fastest available if `requested` is empty.
template <class Status>
auto choose(const std::vector<Status>& report, std::string_view requested, const std::string& from) {
  std::string usable;
  auto fastest = report.front().isa;
  for (const Status& status : report) {
    if (status.available) {
      fastest = status.isa;
      usable += (usable.empty() ? "" : ", ") + status.name;
    }
  }
  if (requested.empty()) return fastest;
  for (const Status& status : report) {
    if (status.name != requested) continue;
    if (status.available) return status.isa;
    throw std::invalid_argument(from + ": expected one of " + usable + ", got " + status.name + ": " +
                                status.reason);
  }
  throw std::invalid_argument(from + ": expected one of " + usable + ", got " + std::string(requested));
}

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
  std::string from;
  requested = or_environment(requested, from);
  return choose(isa_report(), requested, from);
}

const char* isa_name(Int8Isa isa) {
  switch (isa) {
    case Int8Isa::scalar:
      return "scalar";
    case Int8Isa::avx2:
      return "avx2";
    case Int8Isa::avx_vnni:
      return "avx_vnni";
    case Int8Isa::avx512_vnni:
      return "avx512_vnni";
  }
  throw std::logic_error("isa_name: not an instruction set");
}

std::vector<Int8IsaStatus> int8_isa_report() {
  static const std::string reasons[] = {"", why_no_avx2(), why_no_avx_vnni(), why_no_avx512_vnni()};
  std::vector<Int8IsaStatus> report;
  for (const Int8Isa isa : {Int8Isa::scalar, Int8Isa::avx2, Int8Isa::avx_vnni, Int8Isa::avx512_vnni}) {
    const std::string& reason = reasons[static_cast<std::size_t>(isa)];
    report.push_back({isa, isa_name(isa), reason.empty(), reason});
  }
  return report;
}

Int8Isa resolve_int8_isa(std::string_view requested, const std::vector<Int8IsaStatus>& report) {
  std::string from;
  requested = or_environment(requested, from);
  if (requested == isa_name(Isa::avx512)) {
    bool vnni = false;
    for (const Int8IsaStatus& status : report)
      vnni = vnni || (status.isa == Int8Isa::avx512_vnni && status.available);
    if (!vnni) choose(isa_report(), requested, from);
    requested = isa_name(vnni ? Int8Isa::avx512_vnni : Int8Isa::avx2);
  }
  return choose(report, requested, from);
}

}  // namespace pysim
