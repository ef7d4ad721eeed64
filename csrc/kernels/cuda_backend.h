// The CUDA backend as the rest of the program sees it. Two implementations: cuda/ and, without a compiler,
// no_cuda/.
#pragma once

#include <string>
#include <vector>

namespace pysim {

/// What CUDA offers here. There are no CUDA kernels yet; this says only whether any could run.
struct CudaStatus {
  bool built;                        ///< Whether the backend was compiled.
  std::vector<std::string> devices;  ///< Names of the usable GPUs.
  std::string text;                  ///< One line for people: the devices, or why there are none.
};

/// Never throws for want of a GPU or a driver: that is a status.
CudaStatus cuda_status();

}  // namespace pysim
