#include "kernels/cuda/kernels-inl.h"
#include "kernels/cuda/kernels.h"

namespace pysim::gpu {

const void* kernel_i8(Launch::Kernel kernel, int height) { return kernel_with<Math::i8>(kernel, height); }

}  // namespace pysim::gpu
