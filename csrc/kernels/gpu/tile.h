// Tiles of the GPU kernels: what a step of the reduction is, and which lane holds which of its elements.
// Everything here is plain arithmetic on lane numbers, the same for packing, kernels and emulation.
#pragma once

#include <cstdint>

#include "kernels/gpu/target.h"

namespace pysim::gpu {

/// How products are formed. Sums are float32, in i8 integers of 32 bits.
enum class Math : std::int32_t {
  f32,   ///< Float32 on CUDA cores: exact products, fused adds.
  tf32,  ///< Float32 in memory, rounded to 10 bits of fraction for the tensor cores.
  f16,
  bf16,
  i8  ///< Bytes: of W signed, of X unsigned. An element is a quad, four bytes that follow each other along k.
};

constexpr int kLanes = 32;
constexpr int kMaxWarps = 16;
constexpr int kDecodeWarps = 8;
/// Rows of X are gathered in runs of this many, aligned: 16 bytes of the narrowest type.
constexpr int kOctet = 8;
/// Products of at most this many columns take the kernel that streams W once.
constexpr int kDecodeColumns = 16;
/// Registers in which a lane of that kernel holds sums.
PYSIM_HD constexpr int decode_sums(Math math, int height) {
  return math == Math::f32 ? height : height * kDecodeColumns / kLanes;
}

PYSIM_HD constexpr bool on_tensor_cores(Math math) { return math != Math::f32; }
PYSIM_HD constexpr int element_bytes(Math math) { return math == Math::f16 || math == Math::bf16 ? 2 : 4; }
/// Elements of four bytes on tensor cores: their fragments are the same whatever the bytes mean.
PYSIM_HD constexpr bool in_words(Math math) { return math == Math::tf32 || math == Math::i8; }
/// Reduction elements that one step of a slab takes: the depth of the mma instruction.
PYSIM_HD constexpr int step_depth(Math math) { return math == Math::f32 ? 1 : in_words(math) ? 8 : 16; }
/// Columns of X in a panel, and in one that the CTAs of a cluster share.
PYSIM_HD constexpr int panel_columns(Math math) { return math == Math::f32 ? 128 : 64; }
constexpr int kClusterColumns = 128;
constexpr int kMostPanelColumns = 128;
/// Bytes from one row of a panel to the next. On tensor cores 16 or 32 more than a row has, so that the
/// eight rows of an access lie in different banks if they follow each other.
PYSIM_HD constexpr int row_pitch(Math math, int columns) {
  return columns * element_bytes(math) + (math == Math::f32 ? 0 : in_words(math) ? 32 : 16);
}
PYSIM_HD constexpr int panel_pitch(Math math) { return row_pitch(math, panel_columns(math)); }
/// Slabs whose sums one warp holds at a time: 64 registers each way.
PYSIM_HD constexpr int slots_per_warp(Math math, int height) {
  return !on_tensor_cores(math) ? 2 : 32 / height;
}
/// The same where columns are twice as many; slabs of 32 rows take 128 registers, and half as many warps.
PYSIM_HD constexpr int cluster_slots_per_warp(int height) { return height == 8 ? 2 : 1; }
PYSIM_HD constexpr int cluster_warps(int height) { return height == 32 ? kMaxWarps / 2 : kMaxWarps; }
/// CTAs of the largest cluster that every GPU with clusters runs.
constexpr int kMostCluster = 8;
/// Barriers of a CTA in a cluster: for each of two stages one that says it is full and one that says it is
/// free; 8 bytes each behind the stages.
constexpr int kClusterBarriers = 4;

/// Rows of a panel that one access reads side by side, so that they have to lie in different banks: eight of
/// an 8 x 8 matrix of two-byte elements, or four that lanes read word by word. Their numbers modulo this
/// differ.
PYSIM_HD constexpr int rows_at_once(Math math) {
  return math == Math::f32 ? 1 : element_bytes(math) == 2 ? 8 : 4;
}

/// A place in a tile: a reduction element of the step and a row of the slab or a column of X.
struct Place {
  int k;
  int at;
};

/// Where the weight of row `row` and reduction element `k` lies among the step's weights, in elements. A lane
/// loads its share of a fragment with a single access, and the lanes' shares lie side by side.
///
/// Slabs of 16 rows are the 16-row operand of the mma, and slabs of 32 rows two of them; slabs of 8 rows are
/// its 8-column operand, and X^T the other. Source: PTX ISA, matrix fragments for mma.m16n8k16 (.f16, .bf16)
/// and mma.m16n8k8 (.tf32); that of mma.m16n8k32 (.s8, .u8) is the latter's, a quad in each register.
PYSIM_HD constexpr int weight_position(Math math, int height, int row, int k) {
  if (math == Math::f32) return row;
  if (in_words(math)) {
    const int lane = (row % 8) * 4 + k % 4;
    return height == 16 ? lane * 4 + row / 8 + 2 * (k / 4) : lane * 2 + k / 4;
  }
  const int lane = (row % 8) * 4 + (k % 8) / 2;
  if (height == 8) return lane * 4 + (k / 8) * 2 + k % 2;
  return row / 16 * (kLanes * 8) + lane * 8 + (row % 16 / 8 + 2 * (k / 8)) * 2 + k % 2;
}

/// Registers of one lane that hold its weights of a step, and its part of a tile of X.
PYSIM_HD constexpr int weight_words(int height) { return height / 4; }
PYSIM_HD constexpr int x_words(int height) { return height == 8 ? 4 : 2; }
/// Columns of X in one mma, and its rows of the slab.
PYSIM_HD constexpr int tile_columns(int height) { return height == 8 ? 16 : 8; }
PYSIM_HD constexpr int tile_rows(int height) { return height == 8 ? 8 : 16; }

/// Reduction elements that one register of a tile of X holds, and the first of those in a lane's `deep`th.
PYSIM_HD constexpr int x_run(Math math) { return in_words(math) ? 1 : 2; }
PYSIM_HD constexpr int x_run_begin(Math math, int lane, int deep) {
  return x_run(math) * (lane % 4 + 4 * deep);
}

/// Element and column that lane `lane` holds in the half `half` of its register `word` of a tile of X.
PYSIM_HD constexpr Place x_place(Math math, int height, int lane, int word, int half) {
  const int deep = height == 8 ? word / 2 : word;
  const int column = height == 8 ? lane / 4 + 8 * (word % 2) : lane / 4;
  return {x_run_begin(math, lane, deep) + half, column};
}

/// Row address that lane `lane` gives to ldmatrix.x4.trans for 16 elements x 16 columns: element and first of
/// eight columns. The four 8 x 8 matrices arrive in the order of x_place's words.
PYSIM_HD constexpr Place ldmatrix_place(int height, int lane) {
  const int matrix = lane / 8;
  const int deep = height == 8 ? matrix / 2 : matrix % 2;
  const int across = height == 8 ? matrix % 2 : matrix / 2;
  return {deep * 8 + lane % 8, across * 8};
}

/// Row and column of the tile of sum `i`, 0 to 3, of lane `lane`; `k` is the row.
PYSIM_HD constexpr Place sum_place(int height, int lane, int i) {
  const int m = lane / 4 + 8 * (i / 2);
  const int n = 2 * (lane % 4) + i % 2;
  return height == 8 ? Place{n, m} : Place{m, n};
}

}  // namespace pysim::gpu
