// What moves and multiplies in one cycle, for all columns of a row at a time: compiled once for each
// instruction set. Which registers hold what, and whether they may be written, is decided before, in
// stationary_array.h and output_stationary_array.h.
#pragma once

#include <cstdint>

#include "base/isa.h"

namespace pysim {

/// The control tokens of 64 neighbouring PEs of a row, one bit each: whether there is an operand, whether it
/// is the first or the last of its fold, and whether it is real (not padding).
struct TokenWord {
  std::uint64_t valid = 0;
  std::uint64_t first = 0;
  std::uint64_t last = 0;
  std::uint64_t real = 0;

  bool operator==(const TokenWord&) const = default;
};

/// What a row does in this cycle.
enum class RowWork : std::uint8_t {
  none,      ///< It holds no operand: nothing that could be read later changes.
  multiply,  ///< Operands move and every PE multiplies.
  edge,      ///< As `multiply`, and some PE meets the first or last operand of a fold.
};

/// Inputs that move right: the same for all dataflows. Planes are row by row, `pitch` places each.
template <class Lane>
struct MovingInputs {
  std::int64_t rows;
  std::int64_t pitch;    ///< Columns rounded up to whole vectors.
  std::int64_t words;    ///< Token words of a row.
  std::int64_t members;  ///< Multiplexer inputs, each with a plane of its own.
  Lane* x;               ///< (members, rows, pitch).
  const Lane* entering;  ///< (members, rows): what enters column 0.
  const Lane* injected;  ///< (rows, pitch): what enters at the first columns of groups; null without groups.
  const std::uint64_t* fed;  ///< (words): those columns.
  const TokenWord* tokens;   ///< (rows, words): those of this cycle.
  const RowWork* work;       ///< (rows).
};

/// `ws`, `is`. psum' = psum from above + active * x; at a first operand active' = shadow before that.
template <class Lane>
struct StationaryStep {
  MovingInputs<Lane> inputs;
  Lane* active;
  const Lane* shadow;
  std::int32_t* active_select;  ///< Multiplexer input that a PE listens to; read if there are several.
  const std::int32_t* shadow_select;
  Lane* psum;  ///< (rows + 1, pitch): what comes from above row 0, then each row's.
};

/// `os`. acc' = acc + w * x, from zero at a first operand; at a last one hold' = acc'.
template <class Lane>
struct OutputStep {
  MovingInputs<Lane> inputs;
  Lane* w;                 ///< (rows + 1, pitch): what enters row 0, then each row's.
  std::int32_t* w_select;  ///< (rows + 1, pitch): the same; read if there are several multiplexer inputs.
  Lane* acc;
  Lane* hold;
};

/// One clock edge of every PE's data registers, rows from the bottom up so that each is read before it is
/// written. Every product and every sum is rounded; integers wrap.
struct ArrayKernels {
  int lanes;  ///< Columns of one vector; `pitch` is a multiple of it.
  void (*stationary_f32)(const StationaryStep<float>&);
  void (*stationary_i32)(const StationaryStep<std::uint32_t>&);
  void (*output_f32)(const OutputStep<float>&);
  void (*output_i32)(const OutputStep<std::uint32_t>&);

  void step(const StationaryStep<float>& state) const { stationary_f32(state); }
  void step(const StationaryStep<std::uint32_t>& state) const { stationary_i32(state); }
  void step(const OutputStep<float>& state) const { output_f32(state); }
  void step(const OutputStep<std::uint32_t>& state) const { output_i32(state); }
};

extern const ArrayKernels kScalarArray;
/// The 16-lane body without 16-lane instructions, for tests on CPUs without AVX-512.
extern const ArrayKernels kEmulated16Array;
#if defined(__x86_64__)
extern const ArrayKernels kAvx2Array;
extern const ArrayKernels kAvx512Array;
#endif

/// The kernels of an instruction set that is available. Throws std::logic_error if it was not compiled.
const ArrayKernels& array_kernels(Isa isa);

}  // namespace pysim
