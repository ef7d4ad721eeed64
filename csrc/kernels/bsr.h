// Block-sparse-row matrices as callers hold them, and the form that the kernels run.
#pragma once

#include <cstdint>
#include <vector>

#include "base/aligned.h"
#include "base/block_grid.h"
#include "kernels/slab_kernel.h"

namespace pysim {

/// A BSR matrix in somebody else's memory. Ragged blocks are stored whole; what lies outside W is never read.
struct BsrView {
  BlockGrid grid;
  const std::int64_t*
      row_ptr;  ///< (block rows + 1): block row i owns blocks row_ptr[i] .. row_ptr[i + 1] - 1.
  const std::int32_t* col_idx;  ///< (nnz_blocks): block column of each block, strictly rising within a row.
  const float* values;          ///< (nnz_blocks, bh, bw), row-major.
  std::int64_t nnz_blocks;

  /// O(nnz_blocks + block rows). Throws std::invalid_argument at the first index that is out of place, or if
  /// M or K is beyond 2^31 - 1.
  void check() const;
};

/// W cut into slabs of at most kSlabRows output rows, each with the reduction elements that its block row
/// keeps, weights in the order in which the kernel reads them. Immutable.
class PackedMatrix {
 public:
  /// Checks and packs W. Throws std::invalid_argument if the view is broken.
  explicit PackedMatrix(const BsrView& matrix, bool keep_places = false);

  /// W^T (k, m).
  static PackedMatrix transposed(const BsrView& matrix);

  /// (channels, taps * m): W^T of the kernel positions `taps` side by side, places kept. Reduction index t *
  /// m + o is output feature o at taps[t]. Throws std::invalid_argument also if that index may exceed 31
  /// bits.
  static PackedMatrix transposed(const BsrView& matrix, const std::vector<std::int64_t>& taps);

  /// The same blocks of other values. Throws std::logic_error unless places are kept.
  PackedMatrix with_values(const float* values) const;

  std::int64_t slab_count() const { return static_cast<std::int64_t>(slabs_.size()); }
  std::int64_t first_row(std::int64_t slab) const { return slabs_[index(slab)].first_row; }
  /// Weights of the slabs before `slab`.
  std::int64_t weights_before(std::int64_t slab) const {
    return slab == slab_count() ? weight_count_ : slabs_[index(slab)].weight_begin;
  }
  /// The same, and one more for each slab so that empty ones have a cost too.
  std::int64_t cost_before(std::int64_t slab) const { return weights_before(slab) + slab; }

  /// The reduction index of every element, in order, then kIndexSlack times 0 if there are any. Slabs of one
  /// block row have the same and share them.
  const std::vector<std::int32_t>& indices() const { return indices_; }
  /// Where every packed weight came from: its index in the view's values. Empty unless kept.
  const std::vector<std::int64_t>& places() const { return places_; }

  /// All weights in order, rounded to bfloat16. This matrix then has none: `weights` of its slabs mean
  /// nothing.
  std::vector<std::uint16_t> release_as_bfloat16();

  /// The slab, with `offsets` (one for each of indices()) in place of its elements' indices.
  Slab slab(std::int64_t slab, const std::int32_t* offsets) const;
  Slab slab(std::int64_t slab) const { return this->slab(slab, indices_.data()); }

  const SlabPlace* places_of_slabs() const { return slabs_.data(); }
  const float* weights() const { return weights_.data(); }

 private:
  PackedMatrix() = default;
  static std::size_t index(std::int64_t i) { return static_cast<std::size_t>(i); }

  /// A slab that shares indices has the same as the one before: it is of the same block row.
  void begin_slab(std::int64_t first_row, std::int64_t rows, bool shares_indices);
  /// One more element of the newest slab: its first row's weight is values[place], the next `step` further
  /// on.
  void add_element(std::int64_t reduction, std::int64_t place, std::int64_t step);
  void add_transposed(const BsrView& matrix, const std::vector<std::int64_t>& taps, std::int64_t first_row);
  void finish(const float* values, bool keep_places);

  std::vector<SlabPlace> slabs_;
  AlignedFloats weights_;
  std::int64_t weight_count_ = 0;
  std::vector<std::int32_t> indices_;
  std::vector<std::int64_t> places_;
};

/// Cuts [0, slabs) into `parts` ranges of nearly equal cost; returns parts + 1 edges.
std::vector<std::int64_t> split_by_cost(const PackedMatrix& matrix, int parts);

}  // namespace pysim
