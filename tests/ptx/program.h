// PTX text as instructions that machine.cpp runs. What it does not know it refuses.
// Source: NVIDIA, PTX ISA 9.0.
#pragma once

#include <cstdint>
#include <map>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace ptx {

/// What a GPU would not allow, or what this machine does not know.
struct Fault : std::runtime_error {
  using std::runtime_error::runtime_error;
};

enum class Kind : std::uint8_t { pred, bits, natural, whole, real, bfloat };

struct Type {
  Kind kind = Kind::bits;
  int bits = 32;
};

enum class Op : std::uint8_t {
  add,
  sub,
  mul,
  mul_hi,
  mul_wide,
  mad,
  fma,
  div,
  rem,
  min,
  max,
  neg,
  abs,
  bit_not,
  bit_and,
  bit_or,
  bit_xor,
  shl,
  shr,
  bfi,
  bfe,
  prmt,
  lop3,
  dp4a,
  mov,
  cvt,
  selp,
  setp,
  bra,
  ret,
  ld,
  st,
  cvta,
  mapa,
  shfl,
  mma,
  ldmatrix,
  warp_sync,
  cta_sync,
  cluster_arrive,
  cluster_wait,
  fence_init,
  fence,
  copy,
  copy_commit,
  copy_wait,
  bulk_copy,
  barrier_init,
  barrier_arrive,
  barrier_expect,
  barrier_wait
};

enum class Space : std::uint8_t { none, param, global, shared, cluster };
enum class Compare : std::uint8_t { eq, ne, lt, le, gt, ge };
enum class Round : std::uint8_t { none, even, zero, down, up, away, even_integer, zero_integer };

struct Operand {
  enum class Is : std::uint8_t { nothing, reg, number, tid, ntid, ctaid, nctaid, lane, rank };
  Is is = Is::nothing;
  std::int32_t reg = -1;
  std::uint64_t number = 0;
};

struct Instruction {
  Op op{};
  Type type{};  ///< Of the result or of what is moved.
  Type from{};  ///< Of the sources of cvt, set, and of mma's factors.
  Space space = Space::none;
  Compare compare = Compare::eq;
  Round round = Round::none;
  bool unordered = false;  ///< A comparison that a NaN fulfils.
  bool read_only = false;  ///< ld.global.nc
  bool saturate = false;
  bool cluster_scope = false;
  bool transposed = false;
  bool left_natural = false, right_natural = false;  ///< u8 factors of an integer mma.
  int guard = -1;                                    ///< Register of the predicate that must hold.
  bool guard_not = false;
  std::vector<Operand> to;
  std::vector<Operand> of;  ///< Sources; for memory the address first.
  std::int64_t offset = 0;  ///< Of the address.
  std::int32_t target = -1;
  int line = 0;
};

struct Entry {
  std::string name;
  std::vector<Instruction> code;
  int registers = 0;
  std::int64_t parameter_bytes = 0;
  int most_threads = 1024;
};

/// Where symbols lie: parameters and dynamic shared memory have addresses that nothing else has.
constexpr std::uint64_t kParameters = std::uint64_t{1} << 48;
constexpr std::uint32_t kShared = 1024;

/// Entries by name. Throws Fault with the line if there is something else than expected.
std::map<std::string, Entry> parse(const std::string& text);

}  // namespace ptx
