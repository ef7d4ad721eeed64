#include "kernels/int8_matrix.h"

#include <algorithm>
#include <cstring>

namespace pysim {
namespace {

// Packing a quad takes as long as this many rows' products with it.
constexpr std::int64_t kPackCost = 4;

}  // namespace

void QuadMatrix::list_elements(const BsrView& matrix, std::int64_t block_row,
                               std::vector<Element>& elements) {
  const BlockGrid& grid = matrix.grid;
  elements.clear();
  for (std::int64_t b = matrix.row_ptr[block_row]; b < matrix.row_ptr[block_row + 1]; ++b) {
    const std::int64_t begin = grid.col_begin(matrix.col_idx[b]);
    const std::int64_t end = grid.col_end(matrix.col_idx[b]);
    for (std::int64_t k = begin; k < end; ++k) elements.push_back({k, b * grid.bh * grid.bw + k - begin});
  }
}

/// Also leaves one group for every block row if so, else one for all.
bool QuadMatrix::gathering_pays(const BsrView& matrix) {
  const BlockGrid& grid = matrix.grid;
  std::vector<Element> elements;
  std::vector<std::int64_t> used;
  std::int64_t aligned = 0, gathered = 0;
  for (std::int64_t i = 0; i < grid.block_rows(); ++i) {
    list_elements(matrix, i, elements);
    const std::int64_t height = grid.row_end(i) - grid.row_begin(i);
    std::int64_t last = -1;
    for (const Element& element : elements) {
      if (element.k / kQuad == last) continue;
      last = element.k / kQuad;
      used.push_back(last);
      aligned += height;
    }
    const std::int64_t quads = ceil_div(static_cast<std::int64_t>(elements.size()), kQuad);
    gathered += quads * (height + kPackCost);
  }
  std::sort(used.begin(), used.end());
  used.erase(std::unique(used.begin(), used.end()), used.end());
  aligned += kPackCost * static_cast<std::int64_t>(used.size());
  if (gathered < aligned) return true;
  pack_rows(used, grid.k);
  return false;
}

void QuadMatrix::pack_rows(const std::vector<std::int64_t>& used, std::int64_t k) {
  rows_.reserve(kQuad * used.size());
  bool follow = true;
  for (const std::int64_t quad : used) {
    follow = follow && quad == used.front() + static_cast<std::int64_t>(rows_.size()) / kQuad;
    for (std::int64_t i = 0; i < kQuad; ++i)
      rows_.push_back(static_cast<std::int32_t>(std::min(kQuad * quad + i, k - 1)));
  }
  follow = follow && (used.empty() || kQuad * (used.back() + 1) <= k);
  groups_.push_back({0, static_cast<std::int64_t>(used.size()), 0, 0, follow});
}

void QuadMatrix::add_slab(const Int8View& matrix, const std::vector<Element>& elements,
                          const std::vector<std::int32_t>& quads, std::int64_t first_row, std::int64_t rows,
                          std::int64_t down) {
  const std::int64_t bw = matrix.blocks.grid.bw;
  slabs_.push_back({first_row, static_cast<std::int64_t>(weights_.size()),
                    static_cast<std::int64_t>(quads_.size()), 0, static_cast<int>(rows)});
  Place& slab = slabs_.back();
  for (std::size_t e = 0; e < elements.size(); ++e) {
    if (e == 0 || quads[e] != quads[e - 1]) {
      quads_.push_back(quads[e]);
      weights_.resize(weights_.size() + index(rows * quad_bytes_), 0);
      ++slab.count;
    }
    std::int8_t* const quad = weights_.data() + weights_.size() - index(rows * quad_bytes_);
    const auto slot = static_cast<std::int64_t>(gathered_ ? e % kQuad : index(elements[e].k % kQuad));
    for (std::int64_t r = 0; r < rows; ++r) {
      const std::int8_t weight = matrix.values[elements[e].place + (down + r) * bw];
      if (quad_bytes_ == kQuad) {
        quad[r * kQuad + slot] = weight;
      } else {
        const std::int16_t wide = weight;
        std::memcpy(quad + 2 * (slot % 2 * 2 * rows + 2 * r + slot / 2), &wide, sizeof(wide));
      }
    }
  }
}

QuadMatrix::QuadMatrix(const Int8View& matrix, bool widened) : quad_bytes_(widened ? 2 * kQuad : kQuad) {
  const BsrView& blocks = matrix.blocks;
  blocks.check();
  const BlockGrid& grid = blocks.grid;
  // At once: a size that cannot be had fails here, not after filling the machine.
  slabs_.reserve(
      index(grid.m / grid.bh * ceil_div(grid.bh, kSlabRows) + ceil_div(grid.m % grid.bh, kSlabRows)));
  gathered_ = gathering_pays(blocks);
  std::vector<std::int32_t> packed;  // Where aligned quads went: the rows of X in front of each.
  if (!gathered_) {
    for (std::size_t q = 0; q < rows_.size(); q += kQuad) packed.push_back(rows_[q] / kQuad);
  }
  std::vector<Element> elements;
  std::vector<std::int32_t> quads;
  for (std::int64_t i = 0; i < grid.block_rows(); ++i) {
    list_elements(blocks, i, elements);
    quads.clear();
    for (std::size_t e = 0; e < elements.size(); ++e) {
      if (gathered_) {
        quads.push_back(static_cast<std::int32_t>(e / kQuad));
      } else if (e > 0 && elements[e].k / kQuad == elements[e - 1].k / kQuad) {
        quads.push_back(quads.back());
      } else {
        const auto quad = static_cast<std::int32_t>(elements[e].k / kQuad);
        quads.push_back(
            static_cast<std::int32_t>(std::lower_bound(packed.begin(), packed.end(), quad) - packed.begin()));
      }
    }
    if (gathered_) {
      const std::int64_t count = ceil_div(static_cast<std::int64_t>(elements.size()), kQuad);
      groups_.push_back({static_cast<std::int64_t>(rows_.size()) / kQuad, count, slab_count(), 0, false});
      for (std::int64_t e = 0; e < count * kQuad; ++e) {
        const std::size_t place = std::min(index(e), elements.size() - 1);
        rows_.push_back(static_cast<std::int32_t>(elements[place].k));
      }
    }
    for (std::int64_t first = grid.row_begin(i); first < grid.row_end(i); first += kSlabRows) {
      const std::int64_t rows = std::min<std::int64_t>(kSlabRows, grid.row_end(i) - first);
      add_slab(matrix, elements, quads, first, rows, first - grid.row_begin(i));
    }
    groups_.back().slab_end = slab_count();
  }
}

void QuadMatrix::place_rows(const std::function<std::int32_t(std::int64_t)>& place) {
  for (std::int32_t& row : rows_) row = place(row);
  for (QuadGroup& group : groups_) group.side_by_side = false;
}

std::int64_t QuadMatrix::cost_before(std::int64_t slab) const {
  const std::int64_t bytes =
      slab == slab_count() ? static_cast<std::int64_t>(weights_.size()) : slabs_[index(slab)].weight_begin;
  return bytes / (quad_bytes_ / kQuad) + kQuad * slab;
}

QuadSlab QuadMatrix::slab(std::int64_t slab, const std::int32_t* start) const {
  const Place& place = slabs_[index(slab)];
  return {weights_.data() + place.weight_begin, quads_.data() + place.quad_begin, place.count, place.rows,
          start + place.first_row};
}

}  // namespace pysim
