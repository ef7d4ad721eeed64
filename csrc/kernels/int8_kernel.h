// The innermost work of 8-bit products: columns packed four reduction elements at a time, and one slab of
// output rows against them.
#pragma once

#include <cstdint>

#include "base/isa.h"
#include "kernels/int8_finish.h"
#include "kernels/slab_kernel.h"

namespace pysim {

/// Reduction elements that one instruction multiplies and adds in each lane.
inline constexpr int kQuad = 4;

/// Packed columns come in units of this many, kQuad bytes each.
inline constexpr int kPackColumns = 16;
inline constexpr int kPackBytes = kPackColumns * kQuad;

/// One slab of W: up to kSlabRows output rows and the quads of reduction elements that any of them keeps.
struct QuadSlab {
  const std::int8_t* weights;  ///< Of each quad in turn, in the order that the table's `widened` says.
  const std::int32_t* quads;   ///< Where each quad is among the packed ones.
  std::int64_t count;          ///< Of quads.
  int rows;                    ///< 1..kSlabRows.
  const std::int32_t* start;   ///< Where each row's sum starts.
};

/// out[q * quad_pitch + 4 j + i] = x[rows[4 q + i] * pitch + j] ^ flip, for every quad q and column j.
///
/// Reads exactly those columns; writes whole units of kPackColumns. `flip` is 0x80 to add 128 to signed
/// values.
using Int8Pack = void (*)(const std::uint8_t* x, std::int64_t pitch, const std::int32_t* rows,
                          std::int64_t quads, std::int64_t columns, std::uint8_t flip, std::uint8_t* out,
                          std::int64_t quad_pitch);

/// Y[r][j] = finish(start[r] + sum over quads q and i < 4 of weight[q][r][i] * packed[quads[q]][j][i]) for
/// the columns j; packed values are unsigned. Sums wrap at 32 bits. Reads up to one vector behind a packed
/// column; writes the columns of Y alone, whose elements are what finish.output says.
using Int8SlabKernel = void (*)(const QuadSlab& slab, const std::uint8_t* packed, std::int64_t quad_pitch,
                                std::int64_t columns, const Int8Finish& finish, void* y,
                                std::int64_t y_pitch);

/// The entry points of one instruction set.
struct Int8Kernels {
  Int8Pack pack;
  Int8SlabKernel slab;
  /// The slab kernel for a single column, packed with a quad_pitch of kQuad.
  Int8SlabKernel column;
  /// Columns packed at one time: a multiple of kPackColumns and of the slab kernel's tiles.
  int panel_columns;
  /// Weights of a quad are bytes (rows x 4); or, if set, 16 bits wide, the first and third of each quad for
  /// all rows and then the second and fourth.
  bool widened;
};

extern const Int8Kernels kScalarInt8;
#if defined(__x86_64__)
extern const Int8Kernels kAvx2Int8;
extern const Int8Kernels kAvxVnniInt8;
extern const Int8Kernels kAvx512VnniInt8;
/// The AVX-512 body on 16 lanes of AVX2, for tests on CPUs without AVX-512.
extern const Int8Kernels kEmulated16Int8;
#endif

/// The table of an instruction set that is available. Throws std::logic_error if it was not compiled.
const Int8Kernels& int8_kernels(Int8Isa isa);

}  // namespace pysim
