// Block-sparse matrices of 8-bit weights, and the form that the 8-bit kernels run.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "kernels/int8_epilogue.h"
#include "kernels/int8_kernel.h"

namespace pysim {

/// Quads that are packed together, and the slabs that read them.
struct QuadGroup {
  std::int64_t quad_begin;  ///< In QuadMatrix::rows(), in quads.
  std::int64_t quads;
  std::int64_t slab_begin;
  std::int64_t slab_end;
  bool side_by_side;  ///< Their rows of X follow each other.
};

/// W cut into slabs of at most kSlabRows output rows, each with the quads of reduction elements it keeps.
/// Immutable.
///
/// Quads are cut in one of two ways, whichever takes less work. Aligned: elements 4 q .. 4 q + 3 of the
/// reduction are a quad, packed once for all slabs; a slab keeps whole quads, with zeros for what its blocks
/// do not cover. Gathered: every block row packs the elements that it keeps, four by four, for itself.
class QuadMatrix {
 public:
  /// Checks and packs W. Throws std::invalid_argument if the view is broken.
  QuadMatrix(const Int8View& matrix, bool widened);

  /// Reads row place(k) of X wherever it would read row k.
  void place_rows(const std::function<std::int32_t(std::int64_t)>& place);

  const std::vector<QuadGroup>& groups() const { return groups_; }
  /// Rows of X, kQuad for each packed quad. Places that no weight covers repeat some row; their weights are
  /// zero.
  const std::int32_t* rows(const QuadGroup& group) const { return rows_.data() + kQuad * group.quad_begin; }

  std::int64_t slab_count() const { return static_cast<std::int64_t>(slabs_.size()); }
  std::int64_t first_row(std::int64_t slab) const { return slabs_[index(slab)].first_row; }
  /// Multiply-adds for one column of the slabs before `slab`, and some more for each slab.
  std::int64_t cost_before(std::int64_t slab) const;
  /// The slab, its sums starting at `start`, one for each row of W.
  QuadSlab slab(std::int64_t slab, const std::int32_t* start) const;

 private:
  struct Place {
    std::int64_t first_row;
    std::int64_t weight_begin;
    std::int64_t quad_begin;
    std::int64_t count;
    int rows;
  };
  /// One element that a block row keeps: its place in the reduction, and that of its first row in the values.
  struct Element {
    std::int64_t k;
    std::int64_t place;
  };

  static std::size_t index(std::int64_t i) { return static_cast<std::size_t>(i); }
  static void list_elements(const BsrView& matrix, std::int64_t block_row, std::vector<Element>& elements);
  bool gathering_pays(const BsrView& matrix);
  void pack_rows(const std::vector<std::int64_t>& used, std::int64_t k);
  void add_slab(const Int8View& matrix, const std::vector<Element>& elements,
                const std::vector<std::int32_t>& quads, std::int64_t first_row, std::int64_t rows,
                std::int64_t down);

  bool gathered_ = false;
  int quad_bytes_;
  std::vector<QuadGroup> groups_;
  std::vector<std::int32_t> rows_;
  std::vector<Place> slabs_;
  std::vector<std::int8_t> weights_;
  std::vector<std::int32_t> quads_;
};

}  // namespace pysim
