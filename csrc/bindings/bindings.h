// Each function fills its part of the module _core.
#pragma once

#include <pybind11/pybind11.h>

#include <string>

namespace pysim {

struct KernelTable;

/// The kernels of an instruction set, of the fastest one for "", or "emulated16". Throws
/// std::invalid_argument if they cannot run here.
const KernelTable& kernels_of(const std::string& isa);

void bind_gpu(pybind11::module_& m);
void bind_kernels(pybind11::module_& m);
void bind_int8(pybind11::module_& m);
void bind_sim(pybind11::module_& m);
void bind_training(pybind11::module_& m);

}  // namespace pysim
