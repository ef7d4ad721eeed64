// Bindings of csrc/sim.
#include "bindings/bindings.h"

namespace pysim {

void bind_sim(pybind11::module_& m) { (void)m; }

}  // namespace pysim
