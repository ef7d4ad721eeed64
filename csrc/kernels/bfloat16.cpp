#include "kernels/bfloat16.h"

namespace pysim {
namespace {

void widen(const std::uint16_t* from, std::int64_t count, float* to) {
  for (std::int64_t i = 0; i < count; ++i) to[i] = std::bit_cast<float>(std::uint32_t{from[i]} << 16);
}

bool compute_narrow(const Slab&, const std::uint16_t*, const float*, std::int64_t, int, const Epilogue&,
                    float*, std::int64_t) {
  return false;
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

}  // namespace pysim
