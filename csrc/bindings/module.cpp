// The extension module pysim._core. The only folder that includes pybind11.
#include "bindings/bindings.h"

PYBIND11_MODULE(_core, m) {
  m.doc() = "C++ core of pysim: block-sparse kernels and the simulated machine.";
  pysim::bind_kernels(m);
  pysim::bind_int8(m);
  pysim::bind_gpu(m);
  pysim::bind_sim(m);
  pysim::bind_training(m);
}
