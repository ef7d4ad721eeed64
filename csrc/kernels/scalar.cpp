// The reference: plain loops, no vector instructions asked for, nothing clever. What the others are tested
// against.
#include <stdexcept>
#include <string>

#include "kernels/slab_kernel.h"

namespace pysim {
namespace {

constexpr int kTileVectors[kSlabRows + 1] = {0, 8, 8, 8, 8};

void compute_slab(const Slab& slab, const float* x, std::int64_t pitch, const ColumnRun* runs,
                  std::int64_t run_count, std::int64_t /*readable*/, const Epilogue& epilogue, float* y,
                  std::int64_t y_pitch) {
  for (std::int64_t i = 0; i < run_count; ++i) {
    for (int r = 0; r < slab.rows; ++r) {
      for (std::int64_t j = 0; j < runs[i].count; ++j) {
        float sum = 0.0F;
        for (std::int64_t e = 0; e < slab.elements; ++e) {
          sum += slab.weights[e * slab.rows + r] * x[slab.offsets[e] * pitch + runs[i].x + j];
        }
        if (epilogue.bias != nullptr) sum += epilogue.bias[r];
        const std::int64_t place = runs[i].y + j;
        if (epilogue.residual != nullptr) sum += epilogue.residual[r * epilogue.residual_pitch + place];
        if (epilogue.relu && sum < 0.0F) sum = 0.0F;
        y[r * y_pitch + place] = sum;
      }
    }
  }
}

void compute_narrow(const Slab& slab, const float* x, std::int64_t pitch, int n, const Epilogue& epilogue,
                    float* y, std::int64_t y_pitch) {
  const ColumnRun run{0, 0, n};
  compute_slab(slab, x, pitch, &run, 1, 0, epilogue, y, y_pitch);
}

void compute_column(const SlabPlace* slabs, std::int64_t count, const float* weights,
                    const std::int32_t* offsets, int /*most_side_by_side*/, const float* x,
                    const Epilogue& epilogue, float* y, std::int64_t y_pitch) {
  for (std::int64_t i = 0; i < count; ++i) {
    const SlabPlace& place = slabs[i];
    const Slab slab{weights + place.weight_begin, offsets + place.element_begin, place.elements, place.rows};
    const std::int64_t row = place.first_row;
    compute_narrow(slab, x, 1, 1, epilogue.from_row(row), y + row * y_pitch, y_pitch);
  }
}

void compute_gradient(const Slab& slab, const float* x, std::int64_t pitch, const ColumnRun* runs,
                      std::int64_t run_count, const float* dy, std::int64_t dy_pitch, float* sums) {
  for (std::int64_t e = 0; e < slab.elements; ++e) {
    for (int r = 0; r < slab.rows; ++r) {
      float sum = 0.0F;
      for (std::int64_t i = 0; i < run_count; ++i) {
        for (std::int64_t j = 0; j < runs[i].count; ++j) {
          sum += dy[r * dy_pitch + runs[i].y + j] * x[slab.offsets[e] * pitch + runs[i].x + j];
        }
      }
      sums[e * slab.rows + r] += sum;
    }
  }
}

void copy_rows(const float* from, std::int64_t from_pitch, float* to, std::int64_t to_pitch,
               std::int64_t rows, std::int64_t width) {
  for (std::int64_t r = 0; r < rows; ++r) {
    for (std::int64_t c = 0; c < width; ++c) to[r * to_pitch + c] = from[r * from_pitch + c];
  }
}

float run_fma(std::int64_t rounds, float factor, float term) {
  constexpr int sums = 4;
  float sum[sums] = {0.0F, factor, term, factor + term};  // equal sums would be computed once
  for (std::int64_t i = 0; i < rounds; ++i) {
    for (float& one : sum) one = one * factor + term;
  }
  return sum[0] + sum[1] + sum[2] + sum[3];
}

}  // namespace

extern const KernelTable kScalarKernels = {compute_slab,
                                           compute_narrow,
                                           compute_column,
                                           compute_gradient,
                                           copy_rows,
                                           run_fma,
                                           1,
                                           8,
                                           kTileVectors,
                                           8,
                                           &kScalarNormKernels};

const KernelTable& kernel_table(Isa isa) {
  switch (isa) {
    case Isa::scalar:
      return kScalarKernels;
#if defined(__x86_64__)
    case Isa::avx2:
      return kAvx2Kernels;
    case Isa::avx512:
      return kAvx512Kernels;
#else
    default:
      break;
#endif
  }
  throw std::logic_error(std::string("kernel_table: not compiled for ") + isa_name(isa));
}

}  // namespace pysim
