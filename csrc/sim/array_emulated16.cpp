// The 16-lane body without 16-lane instructions: what AVX-512 runs is tested on CPUs without it. Slow by
// design.
#include "sim/array_kernels.h"

namespace {
constexpr int kLanes = 16;
}  // namespace

#include "sim/array_kernels-inl.h"

extern const pysim::ArrayKernels pysim::kEmulated16Array = kTable;
