#include "kernels/bfloat16.h"

#include <algorithm>

#include "kernels/spmm.h"
#include "kernels/thread_pool.h"

namespace pysim {
namespace {

void widen(const std::uint16_t* from, std::int64_t count, float* to) {
  for (std::int64_t i = 0; i < count; ++i) to[i] = std::bit_cast<float>(std::uint32_t{from[i]} << 16);
}

bool compute_narrow(const Slab&, const std::uint16_t*, int, const float*, std::int64_t, int, const Epilogue&,
                    float*, std::int64_t) {
  return false;
}

/// The largest of 4, 2 and 1 that holds for all whole groups.
int groups_side_by_side(const Slab& slab) {
  int together = 4;
  for (std::int64_t e = 1; e < slab.elements; ++e) {
    if (slab.offsets[e] == slab.offsets[e - 1] + 1) continue;
    for (int size = 2; size <= together; size *= 2) {
      if (e % size != 0 && e / size < slab.elements / size) together = size / 2;
    }
  }
  return together;
}

}  // namespace

extern const Bfloat16Kernels kScalarBfloat16 = {widen, compute_narrow};

const Bfloat16Kernels& bfloat16_kernels([[maybe_unused]] const KernelTable& kernels) {
#if defined(__x86_64__)
  if (&kernels == &kAvx512Kernels) return kAvx512Bfloat16;
  if (&kernels == &kAvx2Kernels || &kernels == &kEmulated16Kernels) return kAvx2Bfloat16;
#endif
  return kScalarBfloat16;
}

Bfloat16Weights::Bfloat16Weights(PackedMatrix& matrix) {
  for (std::int64_t s = 0; s < matrix.slab_count(); ++s)
    side_by_side_.push_back(static_cast<std::uint8_t>(groups_side_by_side(matrix.slab(s))));
  values_ = matrix.release_as_bfloat16();
}

/// As run(). Weights are widened slab by slab, just before they are multiplied: so every kernel takes them,
/// and only half the bytes come from memory.
void SpmmPlan::run_bfloat16(const float* x, std::int64_t x_pitch, std::int64_t n, const float* residual,
                            std::int64_t residual_pitch, float* y, std::int64_t y_pitch) const {
  const Bfloat16Kernels& kernels = bfloat16_kernels(kernels_);
  const bool few = n <= kernels_.lanes;
  const Epilogue whole{bias_.empty() ? nullptr : bias_.data(), residual, residual_pitch, relu_};
  const auto multiply = [&](const Panel& panel, std::int64_t slab_begin, std::int64_t slab_end) {
    thread_local std::vector<float> widened;
    for (std::int64_t s = slab_begin; s < slab_end; ++s) {
      const std::int64_t row = matrix_.first_row(s);
      const Epilogue epilogue = whole.from_row(row);
      float* const to = y + row * y_pitch;
      Slab slab = matrix_.slab(s);
      const std::uint16_t* const weights = bfloat16_.from(matrix_.weights_before(s));
      if (few && kernels.narrow(slab, weights, bfloat16_.side_by_side(s), x, x_pitch, static_cast<int>(n),
                                epilogue, to, y_pitch))
        continue;
      const std::int64_t count = slab.elements * slab.rows;
      if (static_cast<std::int64_t>(widened.size()) < count) widened.resize(static_cast<std::size_t>(count));
      kernels.widen(weights, count, widened.data());
      slab.weights = widened.data();
      if (few) {
        kernels_.narrow(slab, x, x_pitch, static_cast<int>(n), epilogue, to, y_pitch);
      } else {
        kernels_.slab(slab, panel.x, panel.pitch, &panel.run, 1, panel.readable, epilogue, to, y_pitch);
      }
    }
  };
  if (!few) return for_panels(x, x_pitch, n, multiply);
  for_parts(threads_for(n),
            [&](std::int64_t slab_begin, std::int64_t slab_end) { multiply({}, slab_begin, slab_end); });
}

}  // namespace pysim
