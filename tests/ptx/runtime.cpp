// A CUDA runtime over the machine of machine.h: what cuda_backend.cu and the host code that nvcc adds to
// kernels call. The objects are those that nvcc makes; kernels are found by the names under which they
// register.
#include <cuda_runtime_api.h>

#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "kernels/cuda_backend.h"
#include "ptx/machine.h"

namespace {

constexpr int kProcessors = 132;
constexpr int kSharedBytes = 227 * 1024;
constexpr int kSharedWithoutAsking = 48 * 1024;

struct Device {
  std::map<std::string, ptx::Entry> entries;
  std::map<const void*, std::string> registered;
  std::map<const void*, int> shared_bytes;  ///< Asked for.
  std::vector<ptx::Region> regions;
  std::uint64_t seed = 0;
  ptx::Counts counts;
  std::vector<std::string> launched;
  std::string fault;
};

/// Made at the first use: kernels register before main's statics are sure to exist.
Device& device() {
  static Device the;
  return the;
}

cudaError_t launch(const cudaLaunchConfig_t& config, const void* function, void** arguments) {
  Device& d = device();
  const auto name = d.registered.find(function);
  if (name == d.registered.end()) return cudaErrorInvalidDeviceFunction;
  const auto entry = d.entries.find(name->second);
  if (entry == d.entries.end()) return cudaErrorInvalidDeviceFunction;
  ptx::Grid grid{&entry->second,
                 static_cast<const std::uint8_t*>(arguments[0]),
                 config.gridDim.x,
                 static_cast<int>(config.blockDim.x),
                 static_cast<std::int64_t>(config.dynamicSmemBytes),
                 1};
  for (unsigned a = 0; a < config.numAttrs; ++a) {
    if (config.attrs[a].id != cudaLaunchAttributeClusterDimension) return cudaErrorInvalidValue;
    grid.cluster = static_cast<int>(config.attrs[a].val.clusterDim.x);
    if (config.attrs[a].val.clusterDim.y != 1 || config.attrs[a].val.clusterDim.z != 1)
      return cudaErrorInvalidValue;
  }
  const auto asked = d.shared_bytes.find(function);
  const int allowed =
      asked == d.shared_bytes.end() ? kSharedWithoutAsking : std::max(asked->second, kSharedWithoutAsking);
  const bool flat =
      config.gridDim.y == 1 && config.gridDim.z == 1 && config.blockDim.y == 1 && config.blockDim.z == 1;
  if (!flat || grid.ctas < 1 || grid.shared_bytes > allowed) return cudaErrorInvalidConfiguration;
  try {
    ptx::run(grid, d.regions, d.seed++, d.counts);
  } catch (const ptx::Fault& fault) {
    d.fault = entry->second.name + ": " + fault.what();
    return cudaErrorLaunchFailure;
  }
  d.launched.push_back(entry->second.name);
  return cudaSuccess;
}

/// Null, or what went wrong; the text lives until the next call.
template <class F>
const char* attempt(F f) {
  static std::string text;
  try {
    f();
    return nullptr;
  } catch (const std::exception& error) {
    text = error.what();
    return text.c_str();
  }
}

}  // namespace

extern "C" {

// ---- What nvcc's host code calls. Signatures: crt/host_runtime.h.

void** __cudaRegisterFatBinary(void*) {
  static void* handle = nullptr;
  return &handle;
}
void __cudaRegisterFatBinaryEnd(void**) {}
void __cudaUnregisterFatBinary(void**) {}
void __cudaRegisterFunction(void**, const char* function, char*, const char* name, int, uint3*, uint3*, dim3*,
                            dim3*, int*) {
  device().registered[function] = name;
}
unsigned __cudaPushCallConfiguration(dim3, dim3, std::size_t, cudaStream_t) { return 0; }
cudaError_t __cudaPopCallConfiguration(dim3*, dim3*, std::size_t*, void*) { return cudaErrorNotSupported; }
char __cudaInitModule(void**) { return 1; }
// Of launches written as kernel<<<...>>>, of which there are none.
cudaError_t __cudaGetKernel(cudaKernel_t*, const void*) { return cudaErrorNotSupported; }
cudaError_t __cudaLaunchKernel(cudaKernel_t, dim3, dim3, void**, std::size_t, cudaStream_t) {
  return cudaErrorNotSupported;
}
cudaError_t cudaLaunchKernel(const void*, dim3, dim3, void**, std::size_t, cudaStream_t) {
  return cudaErrorNotSupported;
}

// ---- What cuda_backend.cu calls

cudaError_t cudaGetDeviceCount(int* count) {
  *count = 1;
  return cudaSuccess;
}
cudaError_t cudaGetDevice(int* which) {
  *which = 0;
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int which) { return which == 0 ? cudaSuccess : cudaErrorInvalidDevice; }
cudaError_t cudaGetLastError() { return cudaSuccess; }
const char* cudaGetErrorString(cudaError_t error) {
  return error == cudaErrorLaunchFailure ? device().fault.c_str() : "refused";
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int) {
  *properties = {};
  std::strcpy(properties->name, "PTX in software");
  properties->major = 9;
  return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr which, int) {
  *value = which == cudaDevAttrMultiProcessorCount ? kProcessors : kSharedBytes;
  return cudaSuccess;
}
cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void* pointer) {
  *attributes = {};
  const auto address = reinterpret_cast<std::uint64_t>(pointer);
  for (const ptx::Region& region : device().regions) {
    if (address >= region.address && address < region.address + static_cast<std::uint64_t>(region.bytes))
      attributes->type = cudaMemoryTypeDevice;
  }
  return cudaSuccess;
}
cudaError_t cudaFuncSetAttribute(const void* function, cudaFuncAttribute which, int value) {
  if (which != cudaFuncAttributeMaxDynamicSharedMemorySize || value > kSharedBytes)
    return cudaErrorInvalidValue;
  device().shared_bytes[function] = value;
  return cudaSuccess;
}
cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t* config, const void* function, void** arguments) {
  return launch(*config, function, arguments);
}

// ---- For simulated.py. Each answers null, or what went wrong.

struct RegionEntry {
  std::uint64_t address;
  std::int64_t bytes;
  std::int32_t writable;
  const char* name;
};

/// Adds a module's entries, in place of those of the same names.
const char* ptx_load(const char* text) {
  return attempt([&] {
    for (auto& [name, entry] : ptx::parse(text)) device().entries[name] = std::move(entry);
  });
}

static void begin(std::uint64_t seed, const RegionEntry* regions, std::int32_t count) {
  Device& d = device();
  d.seed = seed;
  d.counts = {};
  d.launched.clear();
  d.regions.clear();
  for (std::int32_t r = 0; r < count; ++r)
    d.regions.push_back({regions[r].address, regions[r].bytes, regions[r].writable != 0, regions[r].name});
}

/// A whole product, through the launches of cuda_backend.cu.
const char* ptx_product(const void* launches, std::int64_t bytes, const RegionEntry* regions,
                        std::int32_t count, std::uint64_t seed) {
  return attempt([&] {
    pysim::gpu::Launches copy{};
    if (bytes != sizeof(copy)) throw ptx::Fault("launches of another size: rebuild");
    std::memcpy(&copy, launches, sizeof(copy));
    begin(seed, regions, count);
    for (ptx::Region& region : device().regions) {  // X may be part of a larger storage
      if (region.address == reinterpret_cast<std::uint64_t>(copy.arguments.x.data))
        region.bytes = copy.arguments.x_bytes;
    }
    pysim::cuda_launch(copy, 0, 0);
  });
}

/// One entry with parameters of its own.
const char* ptx_run(const char* name, const void* parameters, std::int64_t ctas, std::int32_t threads,
                    std::int64_t shared_bytes, std::int32_t cluster, const RegionEntry* regions,
                    std::int32_t count, std::uint64_t seed) {
  return attempt([&] {
    begin(seed, regions, count);
    const auto entry = device().entries.find(name);
    if (entry == device().entries.end()) throw ptx::Fault(std::string("no entry ") + name);
    ptx::run(
        {&entry->second, static_cast<const std::uint8_t*>(parameters), ctas, threads, shared_bytes, cluster},
        device().regions, seed, device().counts);
  });
}

ptx::Counts ptx_counts() { return device().counts; }

/// Names of the kernels that the last product launched, one a line.
const char* ptx_launched() {
  static std::string text;
  text.clear();
  for (const std::string& name : device().launched) text += name + "\n";
  return text.c_str();
}

}  // extern "C"
