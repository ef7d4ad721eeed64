#include "ptx/arithmetic.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <string>

namespace ptx {

namespace {

float real(std::uint64_t bits) { return std::bit_cast<float>(static_cast<std::uint32_t>(bits)); }
std::uint64_t bits_of(float value) { return std::bit_cast<std::uint32_t>(value); }

[[noreturn]] void fail(const Instruction& i, const std::string& what) {
  throw Fault("PTX line " + std::to_string(i.line) + ": " + what);
}

float from_half(std::uint16_t bits) { return static_cast<float>(std::bit_cast<_Float16>(bits)); }
float from_bfloat(std::uint16_t bits) { return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16); }
/// Tensor cores read the upper 19 bits of a register.
float from_tf32(std::uint32_t bits) { return std::bit_cast<float>(bits & 0xffffe000U); }

/// Keeps the highest `kept` bits of a float32's fraction.
std::uint64_t rounded(float value, int kept, bool ties_away) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  if (std::isnan(value)) return bits | 0x400000U;
  if (std::isinf(value)) return bits;
  const int dropped = 23 - kept;
  const std::uint32_t half = 1U << (dropped - 1);
  const std::uint32_t last = (bits >> dropped) & 1U;
  const std::uint32_t up = ties_away ? half : half - 1 + last;
  return (bits + up) & ~((1U << dropped) - 1);  // A carry may go into the exponent, up to infinity.
}

std::uint64_t convert(const Instruction& i, std::uint64_t source) {
  const bool whole = i.from.kind == Kind::whole;
  if (i.from.kind == Kind::real && i.from.bits == 32) {
    const float value = real(source);
    if (i.round == Round::away) return rounded(value, 10, true);
    if (i.type.kind == Kind::bfloat) return rounded(value, 7, false) >> 16;
    if (i.type.kind == Kind::real && i.type.bits == 16)
      return std::bit_cast<std::uint16_t>(static_cast<_Float16>(value));
    if (i.type.kind == Kind::real)  // to a whole number that stays a float
      return bits_of(i.round == Round::even_integer ? std::nearbyint(value) : std::trunc(value));
    // To the nearest or the next integer towards zero, and into the type's range; a NaN becomes 0.
    if (std::isnan(value)) return 0;
    const double integer = i.round == Round::even_integer ? std::nearbyint(static_cast<double>(value))
                                                          : std::trunc(static_cast<double>(value));
    const bool natural = i.type.kind == Kind::natural;
    const double low = natural ? 0 : -std::ldexp(1.0, i.type.bits - 1);
    const double high = std::ldexp(1.0, i.type.bits - (natural ? 0 : 1));
    if (integer <= low)
      return natural
                 ? 0
                 : static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::min() >> (64 - i.type.bits));
    if (integer >= high) return cut_to(~std::uint64_t{0}, i.type.bits - (natural ? 0 : 1));
    return natural ? static_cast<std::uint64_t>(integer)
                   : static_cast<std::uint64_t>(static_cast<std::int64_t>(integer));
  }
  if (i.from.kind == Kind::real) return bits_of(from_half(static_cast<std::uint16_t>(source)));
  if (i.from.kind == Kind::bfloat) return bits_of(from_bfloat(static_cast<std::uint16_t>(source)));
  const std::uint64_t value =
      whole ? static_cast<std::uint64_t>(signed_of(source, i.from.bits)) : cut_to(source, i.from.bits);
  if (i.type.kind == Kind::real)
    return bits_of(whole ? static_cast<float>(static_cast<std::int64_t>(value)) : static_cast<float>(value));
  if (!i.saturate) return value;
  // From a whole number into the range of another type.
  const auto number = static_cast<std::int64_t>(value);
  if (!whole || i.from.bits > 32 || i.type.bits > 32) fail(i, "a conversion that this machine does not know");
  const bool natural = i.type.kind == Kind::natural;
  const std::int64_t low = natural ? 0 : -(std::int64_t{1} << (i.type.bits - 1));
  const std::int64_t high = (std::int64_t{1} << (i.type.bits - (natural ? 0 : 1))) - 1;
  return static_cast<std::uint64_t>(std::clamp(number, low, high));
}

bool compare(const Instruction& i, std::uint64_t a, std::uint64_t b) {
  const auto holds = [&](auto x, auto y) {
    switch (i.compare) {
      case Compare::eq:
        return x == y;
      case Compare::ne:
        return x != y;
      case Compare::lt:
        return x < y;
      case Compare::le:
        return x <= y;
      case Compare::gt:
        return x > y;
      default:
        return x >= y;
    }
  };
  if (i.type.kind == Kind::real) {
    if (std::isnan(real(a)) || std::isnan(real(b))) return i.unordered;
    return holds(real(a), real(b));
  }
  if (i.type.kind == Kind::whole) return holds(signed_of(a, i.type.bits), signed_of(b, i.type.bits));
  return holds(cut_to(a, i.type.bits), cut_to(b, i.type.bits));
}

std::uint64_t on_reals(const Instruction& i, float a, float b, float c) {
  if (i.type.bits != 32) fail(i, "arithmetic of a type that this machine does not know");
  switch (i.op) {
    case Op::add:
      return bits_of(a + b);
    case Op::sub:
      return bits_of(a - b);
    case Op::mul:
      return bits_of(a * b);
    case Op::div:
      return bits_of(a / b);
    case Op::fma:
      return bits_of(std::fma(a, b, c));
    case Op::neg:
      return bits_of(-a);
    case Op::abs:
      return bits_of(std::fabs(a));
    case Op::min:
    case Op::max: {
      if (std::isnan(a)) return bits_of(b);
      if (std::isnan(b)) return bits_of(a);
      const bool first = a < b || (a == b && std::signbit(a));
      return bits_of(first == (i.op == Op::min) ? a : b);
    }
    default:
      fail(i, "an operation that reals do not have");
  }
}

std::uint64_t on_integers(const Instruction& i, std::uint64_t a, std::uint64_t b, std::uint64_t c) {
  const int bits = i.type.bits;
  const bool whole = i.type.kind == Kind::whole;
  const auto both = [&](auto f) {
    if (whole) return static_cast<std::uint64_t>(f(signed_of(a, bits), signed_of(b, bits)));
    return static_cast<std::uint64_t>(f(cut_to(a, bits), cut_to(b, bits)));
  };
  switch (i.op) {
    case Op::add:
      return a + b;
    case Op::sub:
      return a - b;
    case Op::mul:
      return a * b;
    case Op::mad:
      if (bits == 2 * i.from.bits) break;
      return a * b + c;
    case Op::mul_hi:
      if (bits != 32) fail(i, "mul.hi of a type that this machine does not know");
      return whole ? static_cast<std::uint64_t>((signed_of(a, 32) * signed_of(b, 32)) >> 32)
                   : (cut_to(a, 32) * cut_to(b, 32)) >> 32;
    case Op::div:
    case Op::rem:
      if (cut_to(b, bits) == 0) fail(i, "a division by zero");
      if (whole && signed_of(b, bits) == -1) return i.op == Op::div ? ~a + 1 : 0;
      return i.op == Op::div ? both([](auto x, auto y) { return x / y; })
                             : both([](auto x, auto y) { return x % y; });
    case Op::min:
      return both([](auto x, auto y) { return std::min(x, y); });
    case Op::max:
      return both([](auto x, auto y) { return std::max(x, y); });
    case Op::neg:
      return ~a + 1;
    case Op::abs:
      return signed_of(a, bits) < 0 ? ~a + 1 : a;
    case Op::bit_not:
      return ~a;
    case Op::bit_and:
      return a & b;
    case Op::bit_or:
      return a | b;
    case Op::bit_xor:
      return a ^ b;
    case Op::shl: {
      const std::uint64_t by = cut_to(b, 32);
      return by >= static_cast<std::uint64_t>(bits) ? 0 : a << by;
    }
    case Op::shr: {
      const std::uint64_t by = std::min<std::uint64_t>(cut_to(b, 32), static_cast<std::uint64_t>(bits));
      if (whole)
        return static_cast<std::uint64_t>(signed_of(a, bits) >>
                                          std::min<std::uint64_t>(by, static_cast<std::uint64_t>(bits) - 1));
      return by >= static_cast<std::uint64_t>(bits) ? 0 : cut_to(a, bits) >> by;
    }
    default:
      break;
  }
  // Factors of half the width.
  const int half = i.from.bits;
  const std::uint64_t wide = whole ? static_cast<std::uint64_t>(signed_of(a, half) * signed_of(b, half))
                                   : cut_to(a, half) * cut_to(b, half);
  if (i.op == Op::mul_wide) return wide;
  if (i.op == Op::mad) return wide + c;
  fail(i, "an operation that integers do not have");
}

std::uint64_t insert_bits(std::uint64_t a, std::uint64_t b, std::uint64_t begin, std::uint64_t length,
                          int bits) {
  begin &= 0xff;
  length &= 0xff;
  if (begin >= static_cast<std::uint64_t>(bits) || length == 0) return b;
  const std::uint64_t field = cut_to(~std::uint64_t{0}, static_cast<int>(std::min<std::uint64_t>(length, 64)))
                              << begin;
  return (b & ~field) | ((a << begin) & field);
}

std::uint64_t extract_bits(const Instruction& i, std::uint64_t a, std::uint64_t begin, std::uint64_t length) {
  const int bits = i.type.bits;
  begin = std::min<std::uint64_t>(begin & 0xff, static_cast<std::uint64_t>(bits));
  length = std::min<std::uint64_t>(length & 0xff, static_cast<std::uint64_t>(bits) - begin);
  if (length == 0) return 0;
  const std::uint64_t field = cut_to(cut_to(a, bits) >> begin, static_cast<int>(length));
  return i.type.kind == Kind::whole ? static_cast<std::uint64_t>(signed_of(field, static_cast<int>(length)))
                                    : field;
}

std::uint64_t permute_bytes(std::uint64_t a, std::uint64_t b, std::uint64_t select) {
  const std::uint64_t bytes = (cut_to(b, 32) << 32) | cut_to(a, 32);
  std::uint64_t result = 0;
  for (int j = 0; j < 4; ++j) {
    const std::uint64_t chosen = (select >> (4 * j)) & 0xf;
    std::uint64_t byte = (bytes >> (8 * (chosen & 7))) & 0xff;
    if ((chosen & 8) != 0) byte = (byte & 0x80) != 0 ? 0xff : 0;
    result |= byte << (8 * j);
  }
  return result;
}

std::uint64_t any_logic(std::uint64_t a, std::uint64_t b, std::uint64_t c, std::uint64_t table) {
  std::uint64_t result = 0;
  for (int bit = 0; bit < 32; ++bit) {
    const auto of = [&](std::uint64_t x) { return (x >> bit) & 1; };
    result |= ((table >> (of(a) * 4 + of(b) * 2 + of(c))) & 1) << bit;
  }
  return result;
}

std::int64_t byte_of(std::uint64_t word, int which, bool natural) {
  const std::uint64_t byte = (word >> (8 * which)) & 0xff;
  return natural ? static_cast<std::int64_t>(byte) : signed_of(byte, 8);
}

}  // namespace

std::uint64_t compute(const Instruction& i, const std::array<std::uint64_t, 4>& s) {
  switch (i.op) {
    case Op::mov:
    case Op::cvta:
      return s[0];
    case Op::cvt:
      return convert(i, s[0]);
    case Op::setp:
      return compare(i, s[0], s[1]) ? 1 : 0;
    case Op::selp:
      return (s[2] & 1) != 0 ? s[0] : s[1];
    case Op::bfi:
      return insert_bits(s[0], s[1], s[2], s[3], i.type.bits);
    case Op::bfe:
      return extract_bits(i, s[0], s[1], s[2]);
    case Op::prmt:
      return permute_bytes(s[0], s[1], s[2]);
    case Op::lop3:
      return any_logic(s[0], s[1], s[2], s[3]);
    case Op::dp4a: {
      std::int64_t sum = signed_of(s[2], 32);
      for (int j = 0; j < 4; ++j) sum += byte_of(s[0], j, i.left_natural) * byte_of(s[1], j, i.right_natural);
      return static_cast<std::uint64_t>(sum);
    }
    default:
      break;
  }
  if (i.type.kind == Kind::real) return on_reals(i, real(s[0]), real(s[1]), real(s[2]));
  if (i.type.kind == Kind::pred && i.op == Op::bit_not) return ~s[0] & 1;
  return on_integers(i, s[0], s[1], s[2]);
}

// Source: PTX ISA 9.0, matrix fragments for mma.m16n8k16 (.f16, .bf16), .m16n8k8 (.tf32), .m16n8k32 (.s8,
// .u8).
void multiply(const Instruction& i, Registers& lanes) {
  const bool integers = i.type.kind != Kind::real;
  const int depth = i.from.bits == 8 ? 32 : i.from.bits == 16 ? 16 : 8;
  const int together = 32 / i.from.bits;  // elements of a register
  std::array<std::array<double, 32>, 16> a{};
  std::array<std::array<double, 8>, 32> b{};
  const auto element = [&](std::uint32_t word, int which, bool natural) -> double {
    if (i.from.bits == 8) return static_cast<double>(byte_of(word, which, natural));
    if (i.from.bits == 32) return from_tf32(word);
    const auto half = static_cast<std::uint16_t>(word >> (16 * which));
    return i.from.kind == Kind::bfloat ? from_bfloat(half) : from_half(half);
  };
  for (std::size_t lane = 0; lane < 32; ++lane) {
    const std::size_t group = lane / 4, thread = lane % 4;
    for (int e = 0; e < together; ++e) {
      const std::size_t k = thread * static_cast<std::size_t>(together) + static_cast<std::size_t>(e);
      const auto half = static_cast<std::size_t>(depth / 2);
      for (std::size_t r = 0; r < 4; ++r)  // rows group and group + 8, then the second half of the reduction
        a[group + 8 * (r % 2)][k + half * (r / 2)] = element(lanes[lane][4 + r], e, i.left_natural);
      for (std::size_t r = 0; r < 2; ++r)
        b[k + half * r][group] = element(lanes[lane][8 + r], e, i.right_natural);
    }
  }
  for (std::size_t lane = 0; lane < 32; ++lane) {
    for (std::size_t r = 0; r < 4; ++r) {
      const std::size_t row = lane / 4 + 8 * (r / 2), column = 2 * (lane % 4) + r % 2;
      const std::uint32_t before = lanes[lane][10 + r];
      if (integers) {
        auto sum = static_cast<std::int64_t>(std::bit_cast<std::int32_t>(before));
        for (std::size_t k = 0; k < static_cast<std::size_t>(depth); ++k)
          sum += static_cast<std::int64_t>(a[row][k] * b[k][column]);
        if (i.saturate)
          sum = std::clamp<std::int64_t>(sum, std::numeric_limits<std::int32_t>::min(),
                                         std::numeric_limits<std::int32_t>::max());
        lanes[lane][r] = static_cast<std::uint32_t>(sum);
      } else {
        // One addition after another; a tensor core may add in another order and cut off.
        auto sum = std::bit_cast<float>(before);
        for (std::size_t k = 0; k < static_cast<std::size_t>(depth); ++k)
          sum += static_cast<float>(a[row][k] * b[k][column]);
        lanes[lane][r] = std::bit_cast<std::uint32_t>(sum);
      }
    }
  }
}

}  // namespace ptx
