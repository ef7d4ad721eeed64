// Bindings of csrc/kernels.
#include "bindings/bindings.h"

namespace pysim {

void bind_kernels(pybind11::module_& m) { (void)m; }

}  // namespace pysim
