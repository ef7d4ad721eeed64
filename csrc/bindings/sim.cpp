// Bindings of csrc/sim: array checks with the GIL, simulation without it.
#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include "base/block_grid.h"
#include "base/check.h"
#include "base/isa.h"
#include "bindings/bindings.h"
#include "sim/array_kernels.h"
#include "sim/config.h"
#include "sim/counts.h"
#include "sim/cycle_engine.h"
#include "sim/event_engine.h"
#include "sim/folding.h"

namespace py = pybind11;

namespace pysim {
namespace {

template <class T>
using Array = py::array_t<T, py::array::c_style>;

/// m, k, positions, block height, block width.
using GridTuple = std::tuple<std::int64_t, std::int64_t, std::int64_t, std::int64_t, std::int64_t>;

/// (preload, stream) of each fold.
using Starts = std::vector<std::pair<std::int64_t, std::int64_t>>;

BlockGrid grid_of(const GridTuple& fields) {
  const auto [m, k, positions, bh, bw] = fields;
  const BlockGrid grid{m, k, positions, bh, bw};
  grid.check();
  // A block larger than the matrix is the matrix; edges then stay within 64 bits whatever was asked for.
  return {m, k, positions, std::min(bh, m), std::min(bw, grid.channels())};
}

void require_shape(const py::array& array, std::int64_t rows, std::int64_t cols, const char* where) {
  const bool matches = array.ndim() == 2 && array.shape(0) == rows && array.shape(1) == cols;
  std::string got;
  for (py::ssize_t axis = 0; axis < array.ndim(); ++axis) {
    got += (axis > 0 ? ", " : "") + std::to_string(array.shape(axis));
  }
  require(matches, where, "shape (" + std::to_string(rows) + ", " + std::to_string(cols) + ")",
          "(" + got + ")");
}

Layer layer_of(const BlockGrid& grid, const Array<bool>& mask, std::int64_t n) {
  require_shape(mask, grid.block_rows(), grid.block_cols(), "block mask");
  require(n >= 1, "layer", "n of at least 1", std::to_string(n));
  return {grid, reinterpret_cast<const std::uint8_t*>(mask.data()), n};
}

std::vector<FoldStart> starts_of(const Starts& pairs) {
  std::vector<FoldStart> starts;
  for (const auto& [preload, stream] : pairs) starts.push_back({preload, stream});
  return starts;
}

/// isa: empty for the one that resolve_isa chooses; "emulated16" for tests.
const ArrayKernels& array_of(const std::string& isa) {
  return isa == "emulated16" ? kEmulated16Array : array_kernels(resolve_isa(isa));
}

template <class Operand, class Sum>
std::pair<Counts, Array<Sum>> run_cycle(const ArrayConfig& array, const GridTuple& fields,
                                        const Array<bool>& mask, const Array<Operand>& w,
                                        const Array<Operand>& x, const std::optional<Starts>& given,
                                        const std::string& isa) {
  const BlockGrid grid = grid_of(fields);
  require_shape(w, grid.m, grid.k, "weights");
  require(x.ndim() == 2, "inputs", "two dimensions", std::to_string(x.ndim()));
  require_shape(x, grid.k, x.shape(1), "inputs");
  const Layer layer = layer_of(grid, mask, x.shape(1));
  const ArrayKernels& kernels = array_of(isa);
  std::vector<FoldStart> starts;
  if (given) starts = starts_of(*given);
  Array<Sum> out({grid.m, layer.n});
  const Operand* const weights = w.data();
  const Operand* const inputs = x.data();
  Sum* const outputs = out.mutable_data();
  Counts counts;
  {
    const py::gil_scoped_release nogil;  // Plain pointers only until the brace closes.
    counts = simulate_cycle(array, layer, weights, inputs, outputs, kernels, given ? &starts : nullptr);
  }
  return {counts, std::move(out)};
}

template <class Operand, class Sum>
void bind_simulate_cycle(py::module_& m) {
  m.def(
      "simulate_cycle",
      [](const ArrayConfig& array, const GridTuple& grid, const Array<bool>& mask, const Array<Operand>& w,
         const Array<Operand>& x) {
        return run_cycle<Operand, Sum>(array, grid, mask, w, x, std::nullopt, "");
      },
      py::arg("array"), py::arg("grid"), py::arg("mask").noconvert(), py::arg("w").noconvert(),
      py::arg("x").noconvert(), "Counts and Y, stepped cycle by cycle. See pysim.sim.simulate_gemm.");
}

template <class Operand, class Sum>
void bind_simulate_cycle_from(py::module_& m) {
  m.def(
      "simulate_cycle_from",
      [](const ArrayConfig& array, const GridTuple& grid, const Array<bool>& mask, const Array<Operand>& w,
         const Array<Operand>& x, const std::optional<Starts>& starts,
         const std::string& isa) { return run_cycle<Operand, Sum>(array, grid, mask, w, x, starts, isa); },
      py::arg("array"), py::arg("grid"), py::arg("mask").noconvert(), py::arg("w").noconvert(),
      py::arg("x").noconvert(), py::arg("starts"), py::arg("isa") = "",
      "simulate_cycle with the folds started as told, to show which starts break a rule, by the instruction "
      "set that is named.");
}

void bind_testing(py::module_& m) {
  m.def(
      "block_edges",
      [](const GridTuple& fields) {
        const BlockGrid grid = grid_of(fields);
        std::vector<std::int64_t> rows{0};
        std::vector<std::int64_t> cols{0};
        for (std::int64_t i = 0; i < grid.block_rows(); ++i) {
          require(grid.row_begin(i) == rows.back(), "block grid", "adjoining block rows", std::to_string(i));
          rows.push_back(grid.row_end(i));
        }
        for (std::int64_t j = 0; j < grid.block_cols(); ++j) {
          require(grid.col_begin(j) == cols.back(), "block grid", "adjoining block columns",
                  std::to_string(j));
          cols.push_back(grid.col_end(j));
        }
        return std::pair(rows, cols);
      },
      py::arg("grid"), "Row and column edges of a block grid, as C++ sees them.");
  m.def(
      "schedule_folds",
      [](const ArrayConfig& array, const GridTuple& grid, const Array<bool>& mask, std::int64_t n) {
        std::vector<std::tuple<std::int64_t, std::int64_t, std::int64_t>> folds;
        for (const ScheduledFold& fold : schedule_folds(array, layer_of(grid_of(grid), mask, n))) {
          folds.emplace_back(fold.start.preload, fold.start.stream, fold.depth);
        }
        return folds;
      },
      py::arg("array"), py::arg("grid"), py::arg("mask").noconvert(), py::arg("n"),
      "(preload, stream, depth) of every fold.");
  bind_simulate_cycle_from<float, float>(m);
  bind_simulate_cycle_from<std::int8_t, std::int32_t>(m);
}

}  // namespace

void bind_sim(py::module_& m) {
  py::class_<ArrayConfig>(m, "ArrayConfig")
      .def(py::init([](std::int64_t rows, std::int64_t cols, std::string_view dataflow, std::string_view skip,
                       std::string_view pipelining, std::int64_t mux, std::int64_t group_cols) {
             const ArrayConfig array{
                 rows, cols,      parse_dataflow(dataflow), parse_skip(skip), parse_pipelining(pipelining),
                 mux,  group_cols};
             array.check();
             return array;
           }),
           py::kw_only(), py::arg("rows"), py::arg("cols"), py::arg("dataflow"), py::arg("skip"),
           py::arg("pipelining"), py::arg("mux"), py::arg("group_cols"));
  py::class_<Counts>(m, "Counts")
      .def_readonly("cycles", &Counts::cycles)
      .def_readonly("folds", &Counts::folds)
      .def_readonly("macs", &Counts::macs)
      .def_readonly("skipped_macs", &Counts::skipped_macs)
      .def_readonly("kept_macs", &Counts::kept_macs)
      .def_readonly("padded_macs", &Counts::padded_macs);
  m.def(
      "simulate_event",
      [](const ArrayConfig& array, const GridTuple& grid, const Array<bool>& mask, std::int64_t n) {
        const Layer layer = layer_of(grid_of(grid), mask, n);
        const py::gil_scoped_release nogil;
        return simulate_event(array, layer);
      },
      py::arg("array"), py::arg("grid"), py::arg("mask").noconvert(), py::arg("n"),
      "Counts, fold by fold. See pysim.sim.simulate_layer.");
  bind_simulate_cycle<float, float>(m);
  bind_simulate_cycle<std::int8_t, std::int32_t>(m);
  py::module_ testing =
      m.def_submodule("_testing", "Hooks for the tests; not part of the package's interface.");
  bind_testing(testing);
}

}  // namespace pysim
