// Each function fills its part of the module _core.
#pragma once

#include <pybind11/pybind11.h>

namespace pysim {

void bind_gpu(pybind11::module_& m);
void bind_kernels(pybind11::module_& m);
void bind_int8(pybind11::module_& m);
void bind_sim(pybind11::module_& m);

}  // namespace pysim
