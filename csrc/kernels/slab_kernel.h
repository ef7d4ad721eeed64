// The innermost work of every product: one slab of output rows against a few vectors of columns.
#pragma once

#include <cstdint>

#include "base/isa.h"
#include "kernels/norm_kernel.h"

namespace pysim {

/// Rows of a slab at most. Four rows share each vector of X; taller slabs would not leave registers for
/// columns.
inline constexpr int kSlabRows = 4;

/// See SlabPlace::side_by_side.
inline constexpr int kMostSideBySide = 16;

/// Offsets that a ColumnKernel may look at behind a slab's own. What they say is not used, but it is read.
inline constexpr int kIndexSlack = 64;

/// One slab of W: up to kSlabRows output rows and the reduction elements that any of them keeps.
///
/// weights[e * rows + r] is the weight of row r for the slab's e-th element; offsets[e] says where that
/// element's row of X starts, in units of the caller's `pitch`.
struct Slab {
  const float* weights;
  const std::int32_t* offsets;
  std::int64_t elements;
  int rows;  ///< 1..kSlabRows.
};

/// A run of consecutive columns of X and Y that is computed together.
struct ColumnRun {
  std::int64_t x;      ///< First column, in elements from the base of X.
  std::int64_t y;      ///< The same in Y.
  std::int64_t count;  ///< Columns; at least 1.
};

/// What is done to a finished sum before it is written: bias, then residual, then ReLU.
struct Epilogue {
  const float* bias = nullptr;  ///< One for each row of the slab, or null.
  const float* residual =
      nullptr;  ///< Where the slab's first row of the residual starts, or null. Runs as in Y.
  std::int64_t residual_pitch = 0;
  bool relu = false;  ///< Negative values become zero; NaN and -0 stay.

  /// The same for what starts `row` rows further on.
  Epilogue from_row(std::int64_t row) const {
    return {bias == nullptr ? nullptr : bias + row,
            residual == nullptr ? nullptr : residual + row * residual_pitch, residual_pitch, relu};
  }
};

/// Y[r][y + j] = epilogue(sum over e of weights[e][r] * X[offsets[e] * pitch + x + j]), for every run of
/// columns.
///
/// `readable` columns behind the end of a run may be read in X (their values do not matter); nothing but the
/// run is written, or read in the residual. The sum starts at zero and takes the elements in order.
using SlabKernel = void (*)(const Slab& slab, const float* x, std::int64_t pitch, const ColumnRun* runs,
                            std::int64_t run_count, std::int64_t readable, const Epilogue& epilogue, float* y,
                            std::int64_t y_pitch);

/// The same for the n columns from x and y on, n from 1 to the table's `lanes`, offsets in units of `pitch`.
/// Only those columns are read and written. The order of the sum depends on n and on the slab alone.
using NarrowKernel = void (*)(const Slab& slab, const float* x, std::int64_t pitch, int n,
                              const Epilogue& epilogue, float* y, std::int64_t y_pitch);

/// A slab among others of one matrix: where its part of the shared arrays begins.
struct SlabPlace {
  std::int64_t first_row;
  std::int64_t weight_begin;
  std::int64_t element_begin;
  std::int64_t elements;
  int rows;  ///< As in Slab.
  /// Up to kMostSideBySide: in groups of this many elements, or of any smaller power of two, from the first
  /// on, offsets follow each other. What does not fill a group at the end does not count.
  int side_by_side;
};

/// y[(first_row + r) * y_pitch] = epilogue(sum over e of weight e of row r * x[offset e]), for each of
/// `count` slabs: the product with one column whose elements lie at `offsets`, followed by kIndexSlack
/// offsets at which x can be read too. `most_side_by_side` bounds what the slabs say of it. In the epilogue,
/// bias and residual are those of row 0; so is y. The order of a sum depends on its slab and
/// `most_side_by_side` alone.
using ColumnKernel = void (*)(const SlabPlace* slabs, std::int64_t count, const float* weights,
                              const std::int32_t* offsets, int most_side_by_side, const float* x,
                              const Epilogue& epilogue, float* y, std::int64_t y_pitch);

/// The gradient of a slab's weights: sums[e * rows + r] += sum over runs and their columns j of
/// dY[r][y + j] * X[offsets[e] * pitch + x + j].
///
/// Nothing outside the runs is read. The order of the sum is fixed by the runs and the instruction set.
using GradientKernel = void (*)(const Slab& slab, const float* x, std::int64_t pitch, const ColumnRun* runs,
                                std::int64_t run_count, const float* dy, std::int64_t dy_pitch, float* sums);

/// to[r * to_pitch + c] = from[r * from_pitch + c] for r < rows and c < width. Exactly those are read and
/// written; the two do not overlap. For rows too short to be worth a call of memcpy each.
using RowCopy = void (*)(const float* from, std::int64_t from_pitch, float* to, std::int64_t to_pitch,
                         std::int64_t rows, std::int64_t width);

/// `rounds` times some multiply-adds x = x * factor + term in registers, to measure the rate; returns one of
/// the sums.
using FmaLoop = float (*)(std::int64_t rounds, float factor, float term);

/// The entry points of one instruction set. A table starts from the next slower one, so it never has a hole.
struct KernelTable {
  SlabKernel slab;
  NarrowKernel narrow;
  ColumnKernel column;
  GradientKernel gradient;
  RowCopy copy_rows;
  FmaLoop fma_loop;
  int lanes;                ///< Columns of one vector; runs that are a multiple of it waste nothing.
  int tile_columns;         ///< Columns that a slab of kSlabRows rows computes at one time.
  const int* tile_vectors;  ///< By the rows of a slab: vectors of columns that it computes at one time.
  std::int64_t fma_flops;   ///< Of one round of fma_loop; a multiply-add is two.
  const NormKernels* norm;
};

extern const KernelTable kScalarKernels;
#if defined(__x86_64__)
extern const KernelTable kAvx2Kernels;
extern const KernelTable kAvx512Kernels;
/// The AVX-512 body on 16 lanes of AVX2, for tests on CPUs without AVX-512.
extern const KernelTable kEmulated16Kernels;
#endif

/// The table of an instruction set that is available. Throws std::logic_error if it was not compiled.
const KernelTable& kernel_table(Isa isa);

}  // namespace pysim
