#include "kernels/cuda/kernels-inl.h"
#include "kernels/cuda/kernels.h"

namespace pysim::gpu {

const void* kernel_tf32(Launch::Kernel kernel, int height) { return kernel_with<Math::tf32>(kernel, height); }

}  // namespace pysim::gpu
