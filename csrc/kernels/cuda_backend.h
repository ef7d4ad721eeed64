// The CUDA backend as the rest of the program sees it. Two implementations: cuda/ and, without a compiler,
// no_cuda/.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/gpu/launch.h"

namespace pysim {

/// One GPU.
struct CudaDevice {
  std::string name;
  int major;  ///< Compute capability, major and minor.
  int minor;
  std::int64_t processors;    ///< Streaming multiprocessors.
  std::int64_t shared_bytes;  ///< Most dynamic shared memory of a block after opting in.
};

/// What CUDA offers here.
struct CudaStatus {
  bool built;                       ///< Whether the backend was compiled.
  std::vector<CudaDevice> devices;  ///< All GPUs, also those that are too old, by index.
  std::string text;                 ///< One line for people: the devices, or why there are none.
};

/// Never throws for want of a GPU or a driver: that is a status.
CudaStatus cuda_status();

/// Puts the kernels on a stream of a device and does not wait for them. Allocates nothing and may be captured
/// in a CUDA graph.
///
/// Throws std::runtime_error if CUDA refuses, std::invalid_argument if X or Y is not memory of that device.
void cuda_launch(const gpu::Launches& launches, int device, std::uintptr_t stream);

}  // namespace pysim
