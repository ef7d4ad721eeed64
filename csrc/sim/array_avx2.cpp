// AVX2. Compiled with -mavx2; exports its table and nothing else.
#include "sim/array_kernels.h"

namespace {
constexpr int kLanes = 8;
}  // namespace

#include "sim/array_kernels-inl.h"

extern const pysim::ArrayKernels pysim::kAvx2Array = kTable;
