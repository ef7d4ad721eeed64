// The kernels' entry points, for cudaLaunchKernel. The only argument of each is an Arguments.
#pragma once

#include "kernels/gpu/launch.h"

namespace pysim::gpu {

/// The entry point, or null if there is none for this arithmetic and slab height.
const void* kernel_of(Launch::Kernel kernel, Math math, int height);

}  // namespace pysim::gpu
