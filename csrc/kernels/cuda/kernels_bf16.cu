#include "kernels/cuda/kernels-inl.h"
#include "kernels/cuda/kernels.h"

namespace pysim::gpu {

const void* kernel_bf16(Launch::Kernel kernel, int height) { return kernel_with<Math::bf16>(kernel, height); }

}  // namespace pysim::gpu
