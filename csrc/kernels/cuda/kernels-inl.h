// The panel kernel and the one for few columns. Each arithmetic has a source file of its own, so that they
// are compiled side by side.
#pragma once

#include "kernels/cuda/device.h"
#include "kernels/gpu/kernels.h"
#include "kernels/gpu/launch.h"

namespace pysim::gpu {

template <Math kMath, int kHeight>
__global__ void __launch_bounds__(kMaxWarps* kLanes, 1) panel_kernel(const __grid_constant__ Arguments a) {
  extern __shared__ __align__(16) char shared[];
  DeviceCta cta;
  panel_body<kMath, kHeight>(cta, a, static_cast<std::int64_t>(blockIdx.x), shared);
}

template <Math kMath, int kHeight>
__global__ void __launch_bounds__(kDecodeWarps* kLanes) decode_kernel(const __grid_constant__ Arguments a) {
  extern __shared__ __align__(16) char shared[];
  DeviceCta cta;
  decode_body<kMath, kHeight>(cta, a, static_cast<std::int64_t>(blockIdx.x), shared);
}

template <Math kMath>
const void* kernel_with(Launch::Kernel kernel, int height) {
  const void* found = nullptr;
  (void)with_kind(kMath, height, [&](auto kind) {
    using Of = decltype(kind);
    if constexpr (Of::math == kMath) {
      found = kernel == Launch::Kernel::panel
                  ? reinterpret_cast<const void*>(&panel_kernel<Of::math, Of::height>)
                  : reinterpret_cast<const void*>(&decode_kernel<Of::math, Of::height>);
    }
  });
  return found;
}

}  // namespace pysim::gpu
