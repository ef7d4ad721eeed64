// Four lanes, which every CPU with vectors has; without them the compiler takes the lanes one by one.
#include "sim/array_kernels.h"

namespace {
constexpr int kLanes = 4;
}  // namespace

#include "sim/array_kernels-inl.h"

extern const pysim::ArrayKernels pysim::kScalarArray = kTable;
