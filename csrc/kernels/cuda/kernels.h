// The kernels' entry points, for cudaLaunchKernel. The only argument of each is an Arguments.
#pragma once

#include "kernels/gpu/launch.h"

namespace pysim::gpu {

/// The entry point, or null if there is none for this arithmetic and slab height.
const void* kernel_of(Launch::Kernel kernel, Math math, int height);

/// The same for one arithmetic, each from a source file of its own: panel kernel or the one for few columns.
const void* kernel_f32(Launch::Kernel kernel, int height);
const void* kernel_tf32(Launch::Kernel kernel, int height);
const void* kernel_f16(Launch::Kernel kernel, int height);
const void* kernel_bf16(Launch::Kernel kernel, int height);
const void* kernel_i8(Launch::Kernel kernel, int height);
/// The kernel for clusters; there is machine code of it for compute capability 9.0 alone.
const void* cluster_kernel(Math math, int height);

}  // namespace pysim::gpu
