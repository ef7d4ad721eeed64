// Linked where no CUDA compiler was found, so that callers need no conditional code.
#include "kernels/cuda_backend.h"

#include <stdexcept>

namespace pysim {

CudaStatus cuda_status() { return {false, {}, "off: built without a CUDA compiler"}; }

void cuda_launch(const gpu::Launches&, int, std::uintptr_t) {
  throw std::runtime_error("CUDA: expected a build with a CUDA compiler, got one without");
}

}  // namespace pysim
