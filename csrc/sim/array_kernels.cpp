#include "sim/array_kernels.h"

#include <stdexcept>
#include <string>

namespace pysim {

const ArrayKernels& array_kernels(Isa isa) {
  switch (isa) {
    case Isa::scalar:
      return kScalarArray;
#if defined(__x86_64__)
    case Isa::avx2:
      return kAvx2Array;
    case Isa::avx512:
      return kAvx512Array;
#else
    default:
      break;
#endif
  }
  throw std::logic_error(std::string("array_kernels: not compiled for ") + isa_name(isa));
}

}  // namespace pysim
