#include "kernels/cuda/kernels-inl.h"
#include "kernels/cuda/kernels.h"

namespace pysim::gpu {

const void* kernel_f32(Launch::Kernel kernel, int height) { return kernel_with<Math::f32>(kernel, height); }

}  // namespace pysim::gpu
