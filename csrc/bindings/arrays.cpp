#include "bindings/arrays.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "base/check.h"
#include "bindings/dlpack.h"

namespace py = pybind11;

namespace pysim {
namespace {

constexpr auto kBytes = static_cast<std::int64_t>(sizeof(float));

/// What is looked up once in Python. Never freed: the interpreter may be gone before static objects are.
struct Python {
  py::handle tensor;     ///< torch.Tensor
  py::handle parameter;  ///< torch.nn.Parameter
  py::handle empty;
  py::handle empty_strided;
  py::handle float32;
  py::handle keywords;  ///< ("dtype",)
  py::handle is_neg;    ///< The name.
  py::handle as_numpy;  ///< pysim.sparse.arrays.as_numpy
  DltensorFromPyObject dltensor = nullptr;

  Python() {
    const py::module_ torch = py::module_::import("torch");
    tensor = torch.attr("Tensor").cast<py::object>().release();
    parameter = torch.attr("nn").attr("Parameter").cast<py::object>().release();
    empty_strided = torch.attr("empty_strided").cast<py::object>().release();
    empty = torch.attr("empty").cast<py::object>().release();
    float32 = torch.attr("float32").cast<py::object>().release();
    keywords = py::make_tuple("dtype").release();
    is_neg = py::str("is_neg").release();
    as_numpy = py::module_::import("pysim.sparse.arrays").attr("as_numpy").cast<py::object>().release();
    dltensor = find_dltensor_from_py_object(tensor);
  }
};

const Python& python() {
  static const Python* const found = new Python;
  return *found;
}

bool is_plain_tensor(py::handle array) {
  const auto* const type = reinterpret_cast<const PyObject*>(Py_TYPE(array.ptr()));
  return type == python().tensor.ptr() || type == python().parameter.ptr();
}

/// torch's own description of a tensor, a tenth of the time of Tensor.numpy(). False if this is not a plain
/// float32 tensor on the CPU: then Tensor.numpy() knows what to say.
bool read_tensor(py::handle array, FloatArray& found) {
  if (python().dltensor == nullptr || !is_plain_tensor(array)) return false;
  DLTensor view{};
  if (python().dltensor(array.ptr(), &view) != 0) {
    PyErr_Clear();
    return false;
  }
  const bool float32 = view.dtype.code == kDLFloat && view.dtype.bits == 32 && view.dtype.lanes == 1;
  if (!float32 || view.device.device_type != kDLCPU) return false;
  // A lazily negated view holds the opposite of its values.
  const auto negated =
      py::reinterpret_steal<py::object>(PyObject_CallMethodNoArgs(array.ptr(), python().is_neg.ptr()));
  if (!negated) throw py::error_already_set();
  if (negated.ptr() != Py_False) return false;
  found.data = reinterpret_cast<float*>(static_cast<char*>(view.data) + view.byte_offset);
  found.ndim = view.ndim;
  const int dims = std::min(view.ndim, FloatArray::kMostDims);
  for (int i = 0; i < dims; ++i) {
    found.shape[static_cast<std::size_t>(i)] = view.shape[i];
    found.strides[static_cast<std::size_t>(i)] = view.strides[i] * kBytes;
  }
  found.owner = py::reinterpret_borrow<py::object>(array);
  return true;
}

FloatArray of_numpy(py::array array) {
  FloatArray found;
  found.data = static_cast<float*>(const_cast<void*>(array.data()));
  found.ndim = static_cast<int>(array.ndim());
  const int dims = std::min(found.ndim, FloatArray::kMostDims);
  std::copy(array.shape(), array.shape() + dims, found.shape.begin());
  std::copy(array.strides(), array.strides() + dims, found.strides.begin());
  found.writeable = array.writeable();
  found.owner = std::move(array);
  return found;
}

}  // namespace

std::int64_t FloatArray::size() const {
  std::int64_t count = 1;
  for (int i = 0; i < ndim; ++i) count *= shape[static_cast<std::size_t>(i)];
  return count;
}

std::string FloatArray::shape_text() const {
  return py::str(py::tuple(py::list(owner.attr("shape")))).cast<std::string>();  // not "torch.Size"
}

bool FloatArray::follows(const std::array<int, kMostDims>& axes) const {
  if (size() == 0) return true;
  std::int64_t step = kBytes;
  for (int i = kMostDims - 1; i >= 0; --i) {
    const int axis = axes[static_cast<std::size_t>(i)];
    if (axis >= ndim) continue;
    const auto a = static_cast<std::size_t>(axis);
    if (shape[a] != 1 && strides[a] != step) return false;
    step *= shape[a];
  }
  return true;
}

FloatArray read_array(py::handle array, int ndim, const char* where, const char* shape) {
  FloatArray found;
  if (py::isinstance<py::array_t<float>>(array)) {
    found = of_numpy(py::reinterpret_borrow<py::array>(array));
  } else if (!read_tensor(array, found)) {
    found = of_numpy(python().as_numpy(array, where).cast<py::array>());
  }
  if (found.ndim != ndim) require(false, where, std::string("shape ") + shape, found.shape_text());
  if (reinterpret_cast<std::uintptr_t>(found.data) % alignof(float) != 0)
    require(false, where, "aligned memory", "an address that is not a multiple of 4");
  return found;
}

void require_writeable(const FloatArray& array, const char* where) {
  if (!array.writeable) require(false, where, "a writeable array", "one that is not writeable");
}

FloatArray new_array(py::handle like, int ndim, const std::array<std::int64_t, FloatArray::kMostDims>& shape,
                     const std::array<int, FloatArray::kMostDims>& axes) {
  std::array<std::int64_t, FloatArray::kMostDims> strides{};
  std::int64_t step = 1;
  for (int i = FloatArray::kMostDims - 1; i >= 0; --i) {
    const int axis = axes[static_cast<std::size_t>(i)];
    if (axis >= ndim) continue;
    strides[static_cast<std::size_t>(axis)] = step;
    step *= std::max<std::int64_t>(1, shape[static_cast<std::size_t>(axis)]);
  }
  const auto dims = static_cast<std::size_t>(ndim);
  if (py::isinstance<py::array>(like)) {
    std::vector<py::ssize_t> bytes(dims);
    for (std::size_t i = 0; i < dims; ++i) bytes[i] = strides[i] * kBytes;
    return of_numpy(py::array_t<float>(std::vector<py::ssize_t>(shape.begin(), shape.begin() + ndim), bytes));
  }
  // The quickest forms of these calls, which cost as much as a small product: sizes one by one if possible.
  std::array<py::object, FloatArray::kMostDims> sizes;
  std::array<PyObject*, FloatArray::kMostDims + 1> arguments{};
  std::size_t count = 0;
  py::handle make = python().empty;
  if (axes[1] == 1) {
    for (std::size_t i = 0; i < dims; ++i) arguments[count++] = (sizes[i] = py::int_(shape[i])).ptr();
  } else {
    py::tuple all(dims);
    py::tuple steps(dims);
    for (std::size_t i = 0; i < dims; ++i) {
      all[i] = shape[i];
      steps[i] = strides[i];
    }
    arguments[count++] = (sizes[0] = std::move(all)).ptr();
    arguments[count++] = (sizes[1] = std::move(steps)).ptr();
    make = python().empty_strided;
  }
  arguments[count] = python().float32.ptr();
  auto made = py::reinterpret_steal<py::object>(
      PyObject_Vectorcall(make.ptr(), arguments.data(), count, python().keywords.ptr()));
  if (!made) throw py::error_already_set();
  FloatArray found;
  if (!read_tensor(made, found)) found = of_numpy(python().as_numpy(made, "result").cast<py::array>());
  found.owner = std::move(made);
  return found;
}

void require_apart(const FloatArray& a, const FloatArray& b, const char* where, const char* expected) {
  if (a.size() == 0 || b.size() == 0) return;
  const auto range = [](const FloatArray& x) {
    const char* const begin = reinterpret_cast<const char*>(x.data);
    std::int64_t last = 0;
    for (std::size_t i = 0; i < static_cast<std::size_t>(x.ndim); ++i)
      last += (x.shape[i] - 1) * x.strides[i];
    return std::pair(begin, begin + last + kBytes);
  };
  const auto [a_begin, a_end] = range(a);
  const auto [b_begin, b_end] = range(b);
  if (a_begin < b_end && b_begin < a_end) require(false, where, expected, "an overlap");
}

}  // namespace pysim
