#include "kernels/bsr.h"

#include <algorithm>
#include <limits>
#include <stdexcept>
#include <string>

#include "base/check.h"
#include "kernels/bfloat16.h"

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

namespace {

/// See SlabPlace. Smaller groups leave a shorter rest at the end, so each size is looked at by itself.
int side_by_side(const std::int32_t* indices, std::int64_t count) {
  int together = kMostSideBySide;
  for (std::int64_t e = 1; e < count; ++e) {
    if (indices[e] == indices[e - 1] + 1) continue;
    for (int size = 2; size <= together; size *= 2) {
      if (e % size != 0 && e / size < count / size) together = size / 2;
    }
  }
  return together;
}

}  // namespace

void PackedMatrix::begin_slab(std::int64_t first_row, std::int64_t rows, bool shares_indices) {
  slabs_.push_back({first_row, static_cast<std::int64_t>(places_.size()),
                    shares_indices ? slabs_.back().element_begin : static_cast<std::int64_t>(indices_.size()),
                    0, static_cast<int>(std::min<std::int64_t>(kSlabRows, rows)), 1});
}

void PackedMatrix::add_element(std::int64_t reduction, std::int64_t place, std::int64_t step) {
  const SlabPlace& slab = slabs_.back();
  if (slab.element_begin + slab.elements == static_cast<std::int64_t>(indices_.size()))
    indices_.push_back(static_cast<std::int32_t>(reduction));
  for (int r = 0; r < slabs_.back().rows; ++r) places_.push_back(place + r * step);
  ++slabs_.back().elements;
}

void PackedMatrix::finish(const float* values, bool keep_places) {
  weight_count_ = static_cast<std::int64_t>(places_.size());
  weights_.reserve(places_.size());
  for (const std::int64_t place : places_) weights_.push_back(values[place]);
  for (SlabPlace& slab : slabs_)
    slab.side_by_side = pysim::side_by_side(indices_.data() + slab.element_begin, slab.elements);
  if (!indices_.empty()) indices_.insert(indices_.end(), kIndexSlack, 0);
  if (!keep_places) places_ = {};
}

PackedMatrix::PackedMatrix(const BsrView& matrix, bool keep_places) {
  matrix.check();
  const BlockGrid& grid = matrix.grid;
  // At once: a size that cannot be had fails here, not after filling the machine.
  slabs_.reserve(
      index(grid.m / grid.bh * ceil_div(grid.bh, kSlabRows) + ceil_div(grid.m % grid.bh, kSlabRows)));
  for (std::int64_t i = 0; i < grid.block_rows(); ++i) {
    const std::int64_t row_end = grid.row_end(i);
    for (std::int64_t first = grid.row_begin(i); first < row_end; first += kSlabRows) {
      begin_slab(first, row_end - first, first != grid.row_begin(i));
      for (std::int64_t b = matrix.row_ptr[i]; b < matrix.row_ptr[i + 1]; ++b) {
        const std::int64_t col_begin = grid.col_begin(matrix.col_idx[b]);
        const std::int64_t width = grid.col_end(matrix.col_idx[b]) - col_begin;
        const std::int64_t block = (b * grid.bh + first - grid.row_begin(i)) * grid.bw;
        for (std::int64_t c = 0; c < width; ++c) add_element(col_begin + c, block + c, grid.bw);
      }
    }
  }
  finish(matrix.values, keep_places);
}

void PackedMatrix::add_transposed(const BsrView& matrix, const std::vector<std::int64_t>& taps,
                                  std::int64_t first_row) {
  struct Block {
    std::int64_t row, b;
  };
  const BlockGrid& grid = matrix.grid;
  const std::int64_t per = grid.block_cols_per_position();
  // The blocks of every block column of these taps, in rising order of block rows.
  std::vector<std::int64_t> turn(index(grid.positions), -1);
  for (std::size_t t = 0; t < taps.size(); ++t) turn[index(taps[t])] = static_cast<std::int64_t>(t);
  std::vector<std::vector<Block>> columns(taps.size() * index(per));
  for (std::int64_t i = 0; i < grid.block_rows(); ++i) {
    for (std::int64_t b = matrix.row_ptr[i]; b < matrix.row_ptr[i + 1]; ++b) {
      const std::int64_t t = turn[index(matrix.col_idx[b] / per)];
      if (t >= 0) columns[index(t * per + matrix.col_idx[b] % per)].push_back({i, b});
    }
  }
  for (std::int64_t j = 0; j < per; ++j) {
    const std::int64_t begin = grid.col_begin(j);
    const std::int64_t end = grid.col_end(j);
    for (std::int64_t first = begin; first < end; first += kSlabRows) {
      begin_slab(first_row + first, end - first, first != begin);
      for (std::size_t t = 0; t < taps.size(); ++t) {
        for (const Block& block : columns[t * index(per) + index(j)]) {
          const std::int64_t top = grid.row_begin(block.row);
          for (std::int64_t o = top; o < grid.row_end(block.row); ++o) {
            add_element(static_cast<std::int64_t>(t) * grid.m + o,
                        (block.b * grid.bh + o - top) * grid.bw + first - begin, 1);
          }
        }
      }
    }
  }
}

PackedMatrix PackedMatrix::transposed(const BsrView& matrix) {
  matrix.check();
  PackedMatrix packed;
  for (std::int64_t tap = 0; tap < matrix.grid.positions; ++tap)
    packed.add_transposed(matrix, {tap}, tap * matrix.grid.channels());
  packed.finish(matrix.values, false);
  return packed;
}

PackedMatrix PackedMatrix::transposed(const BsrView& matrix, const std::vector<std::int64_t>& taps) {
  matrix.check();
  const std::int64_t most = std::numeric_limits<std::int32_t>::max();
  require(matrix.grid.m <= most / std::max<std::int64_t>(1, static_cast<std::int64_t>(taps.size())), "BSR",
          "m * kernel positions below 2^31", std::to_string(matrix.grid.m));
  PackedMatrix packed;
  packed.add_transposed(matrix, taps, 0);
  packed.finish(matrix.values, true);
  return packed;
}

PackedMatrix PackedMatrix::with_values(const float* values) const {
  if (static_cast<std::int64_t>(places_.size()) != weight_count_)
    throw std::logic_error("BSR: the matrix was packed without the places of its weights");
  PackedMatrix other = *this;
  for (std::size_t i = 0; i < places_.size(); ++i) other.weights_[i] = values[places_[i]];
  return other;
}

Slab PackedMatrix::slab(std::int64_t slab, const std::int32_t* offsets) const {
  const SlabPlace& place = slabs_[index(slab)];
  return {weights_.empty() ? nullptr : weights_.data() + place.weight_begin, offsets + place.element_begin,
          place.elements, place.rows};
}

std::vector<std::uint16_t> PackedMatrix::release_as_bfloat16() {
  std::vector<std::uint16_t> rounded;
  rounded.reserve(weights_.size());
  for (const float weight : weights_) rounded.push_back(to_bfloat16(weight));
  weights_ = {};
  return rounded;
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
