// Linked where no CUDA compiler was found, so that callers need no conditional code.
#include "kernels/cuda_backend.h"

namespace pysim {

CudaStatus cuda_status() { return {false, {}, "off: built without a CUDA compiler"}; }

}  // namespace pysim
