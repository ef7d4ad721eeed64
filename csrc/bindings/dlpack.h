// The part of DLPack's C exchange interface that is read here. A framework that has it (torch from 2.10 on)
// describes its tensors through a table of functions that hangs on the tensor type; without it tensors are
// read through Tensor.numpy(). Source: DLPack 1.3, https://dmlc.github.io/dlpack/latest/c_api.html
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>

namespace pysim {

enum : std::int32_t { kDLCPU = 1 };
enum : std::uint8_t { kDLFloat = 2 };

struct DLDevice {
  std::int32_t device_type;
  std::int32_t device_id;
};

struct DLDataType {
  std::uint8_t code;
  std::uint8_t bits;
  std::uint16_t lanes;
};

struct DLTensor {
  void* data;
  DLDevice device;
  std::int32_t ndim;
  DLDataType dtype;
  std::int64_t* shape;
  std::int64_t* strides;  ///< In elements; never null since version 1.2.
  std::uint64_t byte_offset;
};

/// Fills in a description that lives as long as the tensor; returns 0, or -1 with a Python exception set.
using DltensorFromPyObject = int (*)(void* tensor, DLTensor* out);

struct DLPackExchangeAPI {
  struct {
    std::uint32_t major, minor;
  } version;
  DLPackExchangeAPI* previous;
  void (*managed_tensor_allocator)();
  void (*managed_tensor_from_py_object)();
  void (*managed_tensor_to_py_object)();
  DltensorFromPyObject dltensor_from_py_object;  ///< May be null.
  void (*current_work_stream)();
};

/// That function of a tensor type, or null.
inline DltensorFromPyObject find_dltensor_from_py_object(pybind11::handle type) {
  constexpr const char* attribute = "__dlpack_c_exchange_api__";
  constexpr const char* name = "dlpack_exchange_api";
  if (!pybind11::hasattr(type, attribute)) return nullptr;
  const pybind11::object capsule = type.attr(attribute);
  if (PyCapsule_IsValid(capsule.ptr(), name) == 0) return nullptr;
  const auto* const api = static_cast<const DLPackExchangeAPI*>(PyCapsule_GetPointer(capsule.ptr(), name));
  const bool known = api->version.major == 1 && api->version.minor >= 2;
  return known ? api->dltensor_from_py_object : nullptr;
}

}  // namespace pysim
