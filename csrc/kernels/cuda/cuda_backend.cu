// Devices, and the kernels' launches through the CUDA runtime.
#include <cuda_runtime_api.h>

#include <stdexcept>

#include "kernels/cuda/kernels.h"
#include "kernels/cuda_backend.h"

namespace pysim {

namespace {

std::string error_text(cudaError_t error) {
  return std::string(cudaGetErrorString(error)) + " (error " + std::to_string(static_cast<int>(error)) + ")";
}

void require_success(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  (void)cudaGetLastError();  // A sticky error stays; others would be reported again by somebody else's call.
  throw std::runtime_error(std::string("CUDA: expected ") + what + " to succeed, got " + error_text(error));
}

/// The calling thread's current device, put back at the end.
class CurrentDevice {
 public:
  explicit CurrentDevice(int device) {
    require_success(cudaGetDevice(&before_), "cudaGetDevice");
    require_success(cudaSetDevice(device), "cudaSetDevice");
  }
  ~CurrentDevice() { (void)cudaSetDevice(before_); }
  CurrentDevice(const CurrentDevice&) = delete;
  CurrentDevice& operator=(const CurrentDevice&) = delete;

 private:
  int before_ = 0;
};

void require_on_device(const void* address, int device, const char* what) {
  cudaPointerAttributes attributes{};
  require_success(cudaPointerGetAttributes(&attributes, address), "cudaPointerGetAttributes");
  const bool reachable = (attributes.type == cudaMemoryTypeDevice && attributes.device == device) ||
                         attributes.type == cudaMemoryTypeManaged;
  if (!reachable) {
    throw std::invalid_argument(std::string("CUDA: expected ") + what + " in memory of device " +
                                std::to_string(device) + ", got another place");
  }
}

int attribute(cudaDeviceAttr which, int device) {
  int value = 0;
  require_success(cudaDeviceGetAttribute(&value, which, device), "cudaDeviceGetAttribute");
  return value;
}

}  // namespace

CudaStatus cuda_status() {
  CudaStatus status{true, {}, ""};
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error != cudaSuccess) {
    // Without a driver this is error 35, "driver version is insufficient": no device, not a failure.
    (void)cudaGetLastError();
    status.text = "built, no usable device: " + error_text(error);
    return status;
  }
  try {
    for (int i = 0; i < count; ++i) {
      cudaDeviceProp properties;
      require_success(cudaGetDeviceProperties(&properties, i), "cudaGetDeviceProperties");
      status.devices.push_back({properties.name, properties.major, properties.minor,
                                attribute(cudaDevAttrMultiProcessorCount, i),
                                attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin, i)});
      status.text += std::string(status.text.empty() ? "" : "; ") + properties.name + ", sm_" +
                     std::to_string(properties.major) + std::to_string(properties.minor);
    }
  } catch (const std::runtime_error& failure) {
    status.devices.clear();
    status.text = std::string("built, no usable device: ") + failure.what();
  }
  if (status.text.empty()) status.text = "built, no device";
  return status;
}

void cuda_launch(const gpu::Launches& launches, int device, std::uintptr_t stream) {
  const CurrentDevice current(device);
  if (launches.count == 0) return;
  require_on_device(launches.arguments.x.data, device, "X");
  require_on_device(launches.arguments.y.data, device, "Y");
  for (int i = 0; i < launches.count; ++i) {
    const gpu::Launch& launch = launches.launch[i];
    const void* const kernel =
        gpu::kernel_of(launch.kernel, launches.arguments.math, launches.arguments.height);
    if (kernel == nullptr) throw std::logic_error("CUDA: expected a kernel for every plan, got none");
    const auto shared = static_cast<int>(launch.shared_bytes);
    require_success(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared),
                    "cudaFuncSetAttribute");
    gpu::Arguments arguments = launches.arguments;
    void* parameters[] = {&arguments};
    cudaLaunchAttribute cluster{};
    cluster.id = cudaLaunchAttributeClusterDimension;
    cluster.val.clusterDim.x = static_cast<unsigned>(launch.cluster);
    cluster.val.clusterDim.y = cluster.val.clusterDim.z = 1;
    cudaLaunchConfig_t config{};
    config.gridDim = dim3(static_cast<unsigned>(launch.ctas));
    config.blockDim = dim3(static_cast<unsigned>(launch.threads));
    config.dynamicSmemBytes = static_cast<std::size_t>(launch.shared_bytes);
    config.stream = reinterpret_cast<cudaStream_t>(stream);
    config.attrs = &cluster;
    config.numAttrs = launch.kernel == gpu::Launch::Kernel::cluster ? 1 : 0;  // sm_80 knows no clusters.
    require_success(cudaLaunchKernelExC(&config, kernel, parameters), "a kernel's launch");
  }
}

}  // namespace pysim
