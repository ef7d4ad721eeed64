// Bindings of the 8-bit products: checks arrays with the GIL, multiplies without it, copies nothing silently.
#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "base/check.h"
#include "base/isa.h"
#include "bindings/bindings.h"
#include "kernels/gpu/launch.h"
#include "kernels/int8_conv.h"
#include "kernels/int8_spmm.h"

namespace py = pybind11;

namespace pysim {
namespace {

using F32 = py::array_t<float>;
using I32 = py::array_t<std::int32_t>;
using I64 = py::array_t<std::int64_t>;
using GridTuple = std::tuple<std::int64_t, std::int64_t, std::int64_t, std::int64_t, std::int64_t>;
using I8 = py::array_t<std::int8_t>;
using U8 = py::array_t<std::uint8_t>;

constexpr const char* kEmulated16 = "emulated16";

// These run before every product: text is made only when there is something to say.
void require_aligned(const py::array& array, const char* where) {
  const auto bytes = static_cast<std::uintptr_t>(array.itemsize());
  if (reinterpret_cast<std::uintptr_t>(array.data()) % bytes != 0)
    require(false, where, "aligned memory", "an address that is not a multiple of " + std::to_string(bytes));
}

void require_contiguous(const py::array& array, int ndim, const char* where) {
  if (array.ndim() != ndim) {
    require(false, where, std::to_string(ndim) + " dimensions", std::to_string(array.ndim()));
  }
  if ((array.flags() & py::array::c_style) == 0)
    require(false, where, "a C-contiguous array", "another layout");
}

std::string shape_text(const std::int64_t* sizes, std::size_t count) {
  std::string text = "(";
  for (std::size_t i = 0; i < count; ++i) text.append(i == 0 ? "" : ", ").append(std::to_string(sizes[i]));
  return text.append(")");
}

void require_shape(const py::array& array, const std::array<std::int64_t, 4>& shape, const char* where) {
  if (!std::equal(shape.begin(), shape.end(), array.shape())) {
    const std::array<std::int64_t, 4> got{array.shape(0), array.shape(1), array.shape(2), array.shape(3)};
    require(false, where, shape_text(shape.data(), 4), shape_text(got.data(), 4));
  }
}

/// Elements from one row to the next of a matrix whose rows are contiguous and do not overlap.
std::int64_t row_pitch(const py::array& a, std::int64_t rows, const char* where) {
  if (a.ndim() != 2 || a.shape(0) != rows) {
    require(false, where, "shape (" + std::to_string(rows) + ", n)",
            a.ndim() == 2 ? std::to_string(a.shape(0)) + " rows" : std::to_string(a.ndim()) + " dimensions");
  }
  require_aligned(a, where);
  const std::int64_t n = a.shape(1);
  const py::ssize_t bytes = a.itemsize();
  if (n > 1 && a.strides(1) != bytes) {
    require(false, where, "contiguous rows", "a stride of " + std::to_string(a.strides(1)) + " bytes");
  }
  if (rows <= 1) return n;
  const py::ssize_t stride = a.strides(0);
  if (stride % bytes != 0 || stride < n * bytes) {
    require(false, where, "rows that do not overlap", "a stride of " + std::to_string(stride) + " bytes");
  }
  return stride / bytes;
}

bool overlap(const py::array& a, const py::array& b) {
  const auto range = [](const py::array& x) {
    const char* const begin = static_cast<const char*>(x.data());
    py::ssize_t last = 0;
    for (py::ssize_t i = 0; i < x.ndim(); ++i) last += (x.shape(i) - 1) * x.strides(i);
    return std::pair(begin, begin + last + x.itemsize());
  };
  if (a.size() == 0 || b.size() == 0) return false;
  const auto [a_begin, a_end] = range(a);
  const auto [b_begin, b_end] = range(b);
  return a_begin < b_end && b_begin < a_end;
}

void require_apart(const py::array& a, const py::array& b, const char* where, const char* expected) {
  if (overlap(a, b)) require(false, where, expected, "an overlap");
}

/// All but the values. The view lives as long as the arrays do. Shapes are checked here, indices by the plan.
BsrView view_blocks(const GridTuple& grid, const I64& row_ptr, const I32& col_idx, const py::array& values) {
  const auto [m, k, positions, bh, bw] = grid;
  const BsrView view{{m, k, positions, bh, bw}, row_ptr.data(), col_idx.data(), nullptr, col_idx.size()};
  view.grid.check();
  require_contiguous(row_ptr, 1, "BSR row_ptr");
  require_contiguous(col_idx, 1, "BSR col_idx");
  require_contiguous(values, 3, "BSR values");
  require_aligned(values, "BSR values");
  require(row_ptr.size() == view.grid.block_rows() + 1, "BSR row_ptr",
          "length " + std::to_string(view.grid.block_rows() + 1), std::to_string(row_ptr.size()));
  require(values.shape(0) == col_idx.size() && values.shape(1) == bh && values.shape(2) == bw, "BSR values",
          "shape (" + std::to_string(col_idx.size()) + ", " + std::to_string(bh) + ", " + std::to_string(bw) +
              ")",
          "another");
  return view;
}

const Int8Kernels& table_of(const std::string& isa) {
#if defined(__x86_64__)
  if (isa == kEmulated16) {
    resolve_isa("avx2");
    return kEmulated16Int8;
  }
#endif
  return int8_kernels(resolve_int8_isa(isa));
}

Int8View view_int8(const GridTuple& grid, const I64& row_ptr, const I32& col_idx, const I8& values) {
  return {view_blocks(grid, row_ptr, col_idx, values), values.data()};
}

Int8Output output_of(const std::string& name) {
  if (name == "int32") return Int8Output::int32;
  if (name == "float32") return Int8Output::float32;
  if (name == "uint8") return Int8Output::uint8;
  if (name == "int8") return Int8Output::int8;
  throw std::invalid_argument("int8 spmm output: expected int32, float32, uint8 or int8, got " + name);
}

bool holds(const py::array& y, Int8Output output) {
  switch (output) {
    case Int8Output::int32:
      return py::isinstance<I32>(y);
    case Int8Output::float32:
      return py::isinstance<F32>(y);
    case Int8Output::uint8:
      return py::isinstance<U8>(y);
    case Int8Output::int8:
      return py::isinstance<I8>(y);
  }
  return false;
}

/// What stands around the product, as Python says it: see pysim.sparse.Int8SpmmPlan.
using OptionsTuple = std::tuple<bool, std::int32_t, std::vector<std::int32_t>, std::vector<float>,
                                std::vector<float>, std::string, std::int32_t, bool>;

Int8Options options_of(const OptionsTuple& given) {
  Int8Options options;
  std::string output;
  std::tie(options.signed_input, options.input_zero_point, options.sum_bias, options.scale, options.bias,
           output, options.output_zero_point, options.relu) = given;
  options.output = output_of(output);
  return options;
}

std::string name_of(const std::string& isa) {
  return isa == kEmulated16 ? isa : std::string(isa_name(resolve_int8_isa(isa)));
}

template <class Plan>
void require_types(const Plan& plan, const py::array& x, const py::array& y, const char* input,
                   const char* output) {
  if (!(plan.signed_input() ? py::isinstance<I8>(x) : py::isinstance<U8>(x)))
    require(false, input, plan.signed_input() ? "int8" : "uint8", "another type");
  if (!holds(y, plan.output())) require(false, output, "the plan's type", "another");
}

struct BoundInt8Spmm {
  Int8SpmmPlan plan;
  std::string isa;

  void run(const py::array& x, py::array& y) const {
    require_types(plan, x, y, "int8 spmm input", "int8 spmm output");
    const std::int64_t x_pitch = row_pitch(x, plan.k(), "int8 spmm input");
    const std::int64_t n = x.shape(1);
    const std::int64_t y_pitch = row_pitch(y, plan.m(), "int8 spmm output");
    if (y.shape(1) != n)
      require(false, "int8 spmm output", std::to_string(n) + " columns", std::to_string(y.shape(1)));
    require_apart(x, y, "int8 spmm output", "memory apart from the input");
    const auto* const from = static_cast<const std::uint8_t*>(x.data());
    void* const to = y.mutable_data();
    const py::gil_scoped_release nogil;
    plan.run(from, x_pitch, n, to, y_pitch);
  }
};

struct BoundInt8Conv {
  Int8ConvPlan plan;
  std::string isa;

  void run(const py::array& x, py::array& y) const {
    require_types(plan, x, y, "int8 convolution input", "int8 convolution output");
    require_contiguous(x, 4, "int8 convolution input");
    require_contiguous(y, 4, "int8 convolution output");
    require_aligned(y, "int8 convolution output");
    require_shape(x, plan.in_shape(x.shape(0)), "int8 convolution input");
    require_shape(y, plan.out_shape(x.shape(0)), "int8 convolution output");
    require_apart(x, y, "int8 convolution output", "memory apart from the input");
    const std::int64_t batch = x.shape(0);
    const auto* const from = static_cast<const std::uint8_t*>(x.data());
    void* const to = y.mutable_data();
    const py::gil_scoped_release nogil;
    plan.run(from, batch, to);
  }
};

}  // namespace

void bind_int8(py::module_& m) {
  py::class_<BoundInt8Spmm>(m, "Int8SpmmPlan", "See pysim.sparse.Int8SpmmPlan.")
      .def(py::init([](const GridTuple& grid, const I64& row_ptr, const I32& col_idx, const I8& values,
                       const OptionsTuple& options, const std::string& isa, int threads) {
             const Int8View view = view_int8(grid, row_ptr, col_idx, values);
             return BoundInt8Spmm{Int8SpmmPlan(view, options_of(options), table_of(isa), threads),
                                  name_of(isa)};
           }),
           py::arg("grid"), py::arg("row_ptr").noconvert(), py::arg("col_idx").noconvert(),
           py::arg("values").noconvert(), py::kw_only(), py::arg("options"), py::arg("isa"),
           py::arg("threads"))
      .def("run", &BoundInt8Spmm::run, py::arg("x"), py::arg("y"))
      .def_readonly("isa", &BoundInt8Spmm::isa);

  py::class_<BoundInt8Conv>(m, "Int8ConvPlan",
                            "A convolution for one image size. See pysim.sparse.Int8ConvPlan.")
      .def(py::init([](const std::vector<std::tuple<GridTuple, I64, I32, I8>>& groups, const Pair& size,
                       const Pair& kernel, const Pair& stride, const Pair& padding, const Pair& dilation,
                       const OptionsTuple& options, const std::string& isa, int threads) {
             std::vector<Int8View> views;
             for (const auto& [grid, row_ptr, col_idx, values] : groups)
               views.push_back(view_int8(grid, row_ptr, col_idx, values));
             const ConvWindow window{kernel, stride, padding, dilation};
             return BoundInt8Conv{
                 Int8ConvPlan(views, window, options_of(options), size[0], size[1], table_of(isa), threads),
                 name_of(isa)};
           }),
           py::arg("groups"), py::kw_only(), py::arg("size"), py::arg("kernel"), py::arg("stride"),
           py::arg("padding"), py::arg("dilation"), py::arg("options"), py::arg("isa"), py::arg("threads"))
      .def("run", &BoundInt8Conv::run, py::arg("x"), py::arg("y"))
      .def("out_shape",
           [](const BoundInt8Conv& conv, std::int64_t batch) { return conv.plan.out_shape(batch); });

  py::class_<Int8Epilogue>(m, "Int8Epilogue",
                           "What a GPU does around the sums: see Int8Epilogue in the core.")
      .def(py::init([](const std::vector<std::tuple<GridTuple, I64, I32, I8>>& groups,
                       const OptionsTuple& options) {
             std::vector<Int8View> views;
             for (const auto& [grid, row_ptr, col_idx, values] : groups)
               views.push_back(view_int8(grid, row_ptr, col_idx, values));
             return Int8Epilogue(views, options_of(options));
           }),
           py::arg("groups"), py::kw_only(), py::arg("options"))
      .def_property_readonly("table", [](const Int8Epilogue& epilogue) {
        const std::vector<std::int32_t> table = gpu::epilogue_table(epilogue);
        return I32(static_cast<py::ssize_t>(table.size()), table.data());
      });

  m.def(
      "check_int8_bsr",
      [](const GridTuple& grid, const I64& row_ptr, const I32& col_idx, const I8& values) {
        view_int8(grid, row_ptr, col_idx, values).blocks.check();
      },
      py::arg("grid"), py::arg("row_ptr").noconvert(), py::arg("col_idx").noconvert(),
      py::arg("values").noconvert());
  m.def("int8_isa_report", [] {
    std::vector<std::tuple<std::string, bool, std::string>> rows;
    for (const Int8IsaStatus& status : int8_isa_report())
      rows.emplace_back(status.name, status.available, status.reason);
    return rows;
  });
  m.def(
      "resolve_int8_isa",
      [](const std::string& requested, const std::vector<std::string>& missing) {
        std::vector<Int8IsaStatus> report = int8_isa_report();
        for (Int8IsaStatus& status : report) {
          for (const std::string& name : missing) {
            if (status.name == name) status = {status.isa, status.name, false, "left out"};
          }
        }
        return std::string(isa_name(resolve_int8_isa(requested, report)));
      },
      py::arg("requested"), py::kw_only(), py::arg("missing") = std::vector<std::string>{},
      "The name of the one to use, as if those in `missing` were not there.");
}

}  // namespace pysim
