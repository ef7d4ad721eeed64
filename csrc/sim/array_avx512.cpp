// AVX-512. Compiled with -mavx512f; exports its table and nothing else.
#include "sim/array_kernels.h"

namespace {
constexpr int kLanes = 16;
}  // namespace

#include "sim/array_kernels-inl.h"

extern const pysim::ArrayKernels pysim::kAvx512Array = kTable;
