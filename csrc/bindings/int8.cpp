// Bindings of the 8-bit products: checks arrays with the GIL, multiplies without it, copies nothing silently.
#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <string>
#include <utility>
#include <vector>

#include "base/check.h"
#include "base/isa.h"
#include "bindings/arrays.h"
#include "bindings/bindings.h"
#include "kernels/int8_spmm.h"

namespace py = pybind11;

namespace pysim {
namespace {

using I8 = py::array_t<std::int8_t>;
using U8 = py::array_t<std::uint8_t>;

constexpr const char* kEmulated16 = "emulated16";

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

struct BoundInt8Spmm {
  Int8SpmmPlan plan;
  std::string isa;

  void run(const py::array& x, py::array& y) const {
    if (!(plan.signed_input() ? py::isinstance<I8>(x) : py::isinstance<U8>(x)))
      require(false, "int8 spmm input", plan.signed_input() ? "int8" : "uint8", "another type");
    if (!holds(y, plan.output())) require(false, "int8 spmm output", "the plan's type", "another");
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

}  // namespace

void bind_int8(py::module_& m) {
  py::class_<BoundInt8Spmm>(m, "Int8SpmmPlan", "See pysim.sparse.Int8SpmmPlan.")
      .def(py::init([](const GridTuple& grid, const I64& row_ptr, const I32& col_idx, const I8& values,
                       bool signed_input, std::int32_t input_zero_point, std::vector<std::int32_t> sum_bias,
                       std::vector<float> scale, std::vector<float> bias, const std::string& output,
                       std::int32_t output_zero_point, bool relu, const std::string& isa, int threads) {
             Int8Options options;
             options.signed_input = signed_input;
             options.input_zero_point = input_zero_point;
             options.sum_bias = std::move(sum_bias);
             options.scale = std::move(scale);
             options.bias = std::move(bias);
             options.output = output_of(output);
             options.output_zero_point = output_zero_point;
             options.relu = relu;
             const Int8View view = view_int8(grid, row_ptr, col_idx, values);
             return BoundInt8Spmm{Int8SpmmPlan(view, std::move(options), table_of(isa), threads),
                                  isa == kEmulated16 ? isa : std::string(isa_name(resolve_int8_isa(isa)))};
           }),
           py::arg("grid"), py::arg("row_ptr").noconvert(), py::arg("col_idx").noconvert(),
           py::arg("values").noconvert(), py::kw_only(), py::arg("signed_input"), py::arg("input_zero_point"),
           py::arg("sum_bias"), py::arg("scale"), py::arg("bias"), py::arg("output"),
           py::arg("output_zero_point"), py::arg("relu"), py::arg("isa"), py::arg("threads"))
      .def("run", &BoundInt8Spmm::run, py::arg("x"), py::arg("y"))
      .def_readonly("isa", &BoundInt8Spmm::isa);

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
