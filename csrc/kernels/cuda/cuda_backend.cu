// Asks the CUDA runtime for devices.
#include <cuda_runtime_api.h>

#include "kernels/cuda_backend.h"

namespace pysim {

CudaStatus cuda_status() {
  CudaStatus status{true, {}, ""};
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error != cudaSuccess) {
    // Without a driver this is error 35, "driver version is insufficient": no device, not a failure.
    (void)cudaGetLastError();
    status.text = std::string("built, no usable device: ") + cudaGetErrorString(error) + " (error " +
                  std::to_string(static_cast<int>(error)) + ")";
    return status;
  }
  for (int i = 0; i < count; ++i) {
    cudaDeviceProp properties;
    if (cudaGetDeviceProperties(&properties, i) == cudaSuccess) {
      status.devices.push_back(std::string(properties.name) + ", sm_" + std::to_string(properties.major) +
                               std::to_string(properties.minor));
    }
  }
  for (const std::string& device : status.devices) status.text += (status.text.empty() ? "" : "; ") + device;
  if (status.text.empty()) status.text = "built, no device";
  status.text += " (no CUDA kernels yet)";
  return status;
}

}  // namespace pysim
