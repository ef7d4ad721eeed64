#include "kernels/bsr.h"

#include <algorithm>
#include <limits>
#include <string>

#include "base/check.h"

namespace pysim {

void BsrView::check() const {
  grid.check();
  // Offsets are 32 bits wide; and whoever claims rows without storing blocks must not cost memory for them.
  constexpr std::int64_t most = std::numeric_limits<std::int32_t>::max();
  require(grid.m <= most, "BSR", "m below 2^31", std::to_string(grid.m));
  require(grid.k <= most, "BSR", "k below 2^31", std::to_string(grid.k));
  const std::int64_t rows = grid.block_rows();
  const std::int64_t cols = grid.block_cols();
  require(row_ptr[0] == 0, "BSR row_ptr", "0 first", std::to_string(row_ptr[0]));
  for (std::int64_t i = 0; i < rows; ++i) {
    if (row_ptr[i] > row_ptr[i + 1] || row_ptr[i + 1] > nnz_blocks) {
      require(false, "BSR row_ptr", "values that rise to " + std::to_string(nnz_blocks),
              std::to_string(row_ptr[i + 1]) + " at " + std::to_string(i + 1));
    }
    for (std::int64_t b = row_ptr[i]; b < row_ptr[i + 1]; ++b) {
      const std::int64_t least = b == row_ptr[i] ? 0 : std::int64_t{col_idx[b - 1]} + 1;
      if (col_idx[b] < least || col_idx[b] >= cols) {
        require(false, "BSR col_idx",
                "strictly rising indices below " + std::to_string(cols) + " in each block row",
                std::to_string(col_idx[b]) + " at " + std::to_string(b));
      }
    }
  }
  require(row_ptr[rows] == nnz_blocks, "BSR row_ptr", std::to_string(nnz_blocks) + " last",
          std::to_string(row_ptr[rows]));
}

PackedMatrix::PackedMatrix(const BsrView& matrix) {
  matrix.check();
  const BlockGrid& grid = matrix.grid;
  // At once: a size that cannot be had fails here, not after filling the machine.
  slabs_.reserve(
      index(grid.m / grid.bh * ceil_div(grid.bh, kSlabRows) + ceil_div(grid.m % grid.bh, kSlabRows)));
  for (std::int64_t i = 0; i < grid.block_rows(); ++i) {
    const std::int64_t row_end = grid.row_end(i);
    for (std::int64_t first = grid.row_begin(i); first < row_end; first += kSlabRows) {
      const auto rows = static_cast<int>(std::min<std::int64_t>(kSlabRows, row_end - first));
      Place place{first, static_cast<std::int64_t>(weights_.size()),
                  static_cast<std::int64_t>(indices_.size()), 0, rows};
      for (std::int64_t b = matrix.row_ptr[i]; b < matrix.row_ptr[i + 1]; ++b) {
        const std::int64_t col_begin = grid.col_begin(matrix.col_idx[b]);
        const std::int64_t width = grid.col_end(matrix.col_idx[b]) - col_begin;
        const float* const block = matrix.values + (b * grid.bh + first - grid.row_begin(i)) * grid.bw;
        for (std::int64_t c = 0; c < width; ++c) {
          indices_.push_back(static_cast<std::int32_t>(col_begin + c));
          for (int r = 0; r < rows; ++r) weights_.push_back(block[r * grid.bw + c]);
        }
        place.elements += width;
      }
      slabs_.push_back(place);
    }
  }
}

std::int64_t PackedMatrix::cost_before(std::int64_t slab) const {
  const std::int64_t weights =
      slab == slab_count() ? static_cast<std::int64_t>(weights_.size()) : slabs_[index(slab)].weight_begin;
  return weights + slab;
}

Slab PackedMatrix::slab(std::int64_t slab, const std::int32_t* offsets) const {
  const Place& place = slabs_[index(slab)];
  return {weights_.data() + place.weight_begin, offsets + place.element_begin, place.elements, place.rows};
}

std::vector<std::int64_t> split_by_cost(const PackedMatrix& matrix, int parts) {
  const std::int64_t slabs = matrix.slab_count();
  const std::int64_t total = matrix.cost_before(slabs);
  std::vector<std::int64_t> edges{0};
  for (int part = 1; part < parts; ++part) {
    const std::int64_t target = total * part / parts;
    std::int64_t low = edges.back();
    std::int64_t high = slabs;
    while (low < high) {
      const std::int64_t middle = low + (high - low) / 2;
      if (matrix.cost_before(middle) < target) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    edges.push_back(low);
  }
  edges.push_back(slabs);
  return edges;
}

}  // namespace pysim
