// Block-sparse-row matrices as callers hold them, and the form that the kernels run.
#pragma once

#include <cstdint>
#include <vector>

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
  /// Checks and packs. Throws std::invalid_argument if the view is broken.
  explicit PackedMatrix(const BsrView& matrix);

  std::int64_t slab_count() const { return static_cast<std::int64_t>(slabs_.size()); }
  std::int64_t first_row(std::int64_t slab) const { return slabs_[index(slab)].first_row; }
  /// Weights of the slabs before `slab`, one more for each slab so that empty ones have a cost too.
  std::int64_t cost_before(std::int64_t slab) const;

  /// The reduction index 0 .. K - 1 of every element of every slab, in order.
  const std::vector<std::int32_t>& indices() const { return indices_; }

  /// The slab, with `offsets` (one for each of indices()) in place of its elements' indices.
  Slab slab(std::int64_t slab, const std::int32_t* offsets) const;
  Slab slab(std::int64_t slab) const { return this->slab(slab, indices_.data()); }

 private:
  struct Place {
    std::int64_t first_row;
    std::int64_t weight_begin;
    std::int64_t element_begin;
    std::int64_t elements;
    int rows;
  };

  static std::size_t index(std::int64_t i) { return static_cast<std::size_t>(i); }

  std::vector<Place> slabs_;
  std::vector<float> weights_;
  std::vector<std::int32_t> indices_;
};

/// Cuts [0, slabs) into `parts` ranges of nearly equal cost; returns parts + 1 edges.
std::vector<std::int64_t> split_by_cost(const PackedMatrix& matrix, int parts);

}  // namespace pysim
