// The second pass, and which entry point is which.
#include "kernels/cuda/kernels.h"
#include "kernels/gpu/bodies.h"

namespace pysim::gpu {

namespace {

__global__ void add_partials_kernel(const __grid_constant__ Arguments a) {
  const std::int64_t element = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (element < a.elements) add_partials(a, element);
}

}  // namespace

const void* kernel_of(Launch::Kernel kernel, Math math, int height) {
  if (kernel == Launch::Kernel::add_partials) return reinterpret_cast<const void*>(&add_partials_kernel);
  if (kernel == Launch::Kernel::cluster) return cluster_kernel(math, height);
  switch (math) {
    case Math::f32:
      return kernel_f32(kernel, height);
    case Math::tf32:
      return kernel_tf32(kernel, height);
    case Math::f16:
      return kernel_f16(kernel, height);
    case Math::bf16:
      return kernel_bf16(kernel, height);
    case Math::i8:
      return kernel_i8(kernel, height);
  }
  return nullptr;
}

}  // namespace pysim::gpu
