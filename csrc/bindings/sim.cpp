// Bindings of csrc/sim: array checks with the GIL, simulation without it.
#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include "base/block_grid.h"
#include "base/check.h"
#include "base/interrupt.h"
#include "base/isa.h"
#include "bindings/bindings.h"
#include "sim/array_kernels.h"
#include "sim/config.h"
#include "sim/counts.h"
#include "sim/cycle_engine.h"
#include "sim/dram.h"
#include "sim/event_engine.h"
#include "sim/folding.h"
#include "sim/memory_config.h"
#include "sim/timeline.h"

namespace py = pybind11;

namespace pysim {
namespace {

template <class T>
using Array = py::array_t<T, py::array::c_style>;

/// m, k, positions, block height, block width.
using GridTuple = std::tuple<std::int64_t, std::int64_t, std::int64_t, std::int64_t, std::int64_t>;

/// (preload, stream) of each fold.
using Starts = std::vector<std::pair<std::int64_t, std::int64_t>>;

/// Input height and width, output height and width, then (y, x) of kernel, stride, padding and dilation.
using ConvTuple = std::array<std::int64_t, 12>;

/// Banks, bytes of a row and of a burst, then t_cl, t_rcd, t_rp, t_rfc and t_refi.
using DramTuple = std::array<std::int64_t, 8>;

DramConfig dram_of(const std::optional<DramTuple>& given) {
  if (!given) return {};
  const DramTuple& at = *given;
  require(at[0] >= 1, "memory dram banks", "at least 1", std::to_string(at[0]));
  return {at[0], at[1], at[2], at[3], at[4], at[5], at[6], at[7]};
}

ConvShape conv_of(const std::optional<ConvTuple>& given) {
  if (!given) return {};
  const ConvTuple& at = *given;
  return {at[0], at[1], at[2], at[3], at[4], at[5], at[6], at[7], at[8], at[9], at[10], at[11]};
}

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
    got.append(axis > 0 ? ", " : "(").append(std::to_string(array.shape(axis)));
  }
  std::string expected = "shape (";
  expected.append(std::to_string(rows)).append(", ").append(std::to_string(cols)).append(")");
  require(matches, where, expected, array.ndim() > 0 ? got.append(")") : "()");
}

Layer layer_of(const BlockGrid& grid, const Array<bool>& mask, std::int64_t n,
               const std::optional<ConvTuple>& conv = std::nullopt) {
  require_shape(mask, grid.block_rows(), grid.block_cols(), "block mask");
  require(n >= 1, "layer", "n of at least 1", std::to_string(n));
  if (conv) require((*conv)[0] >= 1, "convolution height", "at least 1", std::to_string((*conv)[0]));
  return {grid, reinterpret_cast<const std::uint8_t*>(mask.data()), n, conv_of(conv)};
}

std::vector<FoldStart> starts_of(const Starts& pairs) {
  std::vector<FoldStart> starts;
  for (const auto& [preload, stream] : pairs) starts.push_back({preload, stream});
  return starts;
}

/// Ends a run that the user has interrupted. Python gives signals to the main thread alone; a run in another
/// thread ends while the main thread handles its KeyboardInterrupt, which may be waiting for that very run.
void raise_interrupt() {
  const py::gil_scoped_acquire gil;
  if (PyErr_CheckSignals() != 0) throw py::error_already_set();
  const py::module_ threading = py::module_::import("threading");
  const py::object main = threading.attr("main_thread")().attr("ident");
  if (main.equal(threading.attr("get_ident")())) return;
  const py::dict handled = py::module_::import("sys").attr("_current_exceptions")();
  if (!handled.contains(main)) return;
  py::object exception = handled[main];
  if (py::isinstance<py::tuple>(exception)) exception = py::tuple(exception)[1];  // Python 3.11.
  if (PyErr_GivenExceptionMatches(exception.ptr(), PyExc_KeyboardInterrupt) == 0) return;
  PyErr_SetNone(PyExc_KeyboardInterrupt);
  throw py::error_already_set();
}

/// isa: empty for the one that resolve_isa chooses; "emulated16" for tests.
const ArrayKernels& array_of(const std::string& isa) {
  return isa == "emulated16" ? kEmulated16Array : array_kernels(resolve_isa(isa));
}

template <class Operand, class Sum>
std::pair<Counts, Array<Sum>> run_cycle(const ArrayConfig& array, const GridTuple& fields,
                                        const Array<bool>& mask, const Array<Operand>& w,
                                        const Array<Operand>& x, const MemoryConfig* memory,
                                        const std::optional<ConvTuple>& conv,
                                        const std::optional<Starts>& given, const std::string& isa) {
  const BlockGrid grid = grid_of(fields);
  require_shape(w, grid.m, grid.k, "weights");
  require(x.ndim() == 2, "inputs", "two dimensions", std::to_string(x.ndim()));
  require_shape(x, grid.k, x.shape(1), "inputs");
  const Layer layer = layer_of(grid, mask, x.shape(1), conv);
  const ArrayKernels& kernels = array_of(isa);
  std::vector<FoldStart> starts;
  if (given) starts = starts_of(*given);
  Array<Sum> out({grid.m, layer.n});
  const Operand* const weights = w.data();
  const Operand* const inputs = x.data();
  Sum* const outputs = out.mutable_data();
  Counts counts;
  {
    const Interruptible watched(raise_interrupt);
    const py::gil_scoped_release nogil;  // Plain pointers only until the brace closes.
    counts =
        simulate_cycle(array, layer, weights, inputs, outputs, {kernels, memory, given ? &starts : nullptr});
  }
  return {counts, std::move(out)};
}

template <class Operand, class Sum>
void bind_simulate_cycle(py::module_& m) {
  m.def(
      "simulate_cycle",
      [](const ArrayConfig& array, const GridTuple& grid, const Array<bool>& mask, const Array<Operand>& w,
         const Array<Operand>& x, const MemoryConfig* memory, const std::optional<ConvTuple>& conv) {
        return run_cycle<Operand, Sum>(array, grid, mask, w, x, memory, conv, std::nullopt, "");
      },
      py::arg("array"), py::arg("grid"), py::arg("mask").noconvert(), py::arg("w").noconvert(),
      py::arg("x").noconvert(), py::arg("memory") = nullptr, py::arg("conv") = std::nullopt,
      "Counts and Y, stepped cycle by cycle. See pysim.sim.simulate_gemm.");
}

void bind_memory(py::module_& m) {
  py::class_<MemoryConfig>(m, "MemoryConfig")
      .def(
          py::init([](std::int64_t input_capacity, std::int64_t weight_capacity, std::int64_t output_capacity,
                      std::int64_t bandwidth, std::int64_t latency, std::int64_t input_bits,
                      std::int64_t weight_bits, std::int64_t output_bits, std::int64_t accumulator_bits,
                      std::int64_t index_bits, const std::optional<DramTuple>& dram) {
            const MemoryConfig memory{input_capacity,   weight_capacity, output_capacity, bandwidth,
                                      latency,          input_bits,      weight_bits,     output_bits,
                                      accumulator_bits, index_bits,      dram_of(dram)};
            memory.check();
            return memory;
          }),
          py::kw_only(), py::arg("input_capacity"), py::arg("weight_capacity"), py::arg("output_capacity"),
          py::arg("bandwidth"), py::arg("latency"), py::arg("input_bits"), py::arg("weight_bits"),
          py::arg("output_bits"), py::arg("accumulator_bits"), py::arg("index_bits"),
          py::arg("dram") = std::nullopt);
  const auto stall = [](StallCause cause) {
    return [cause](const MemoryCounts& counts) { return counts.stalls[static_cast<std::size_t>(cause)]; };
  };
  py::class_<MemoryCounts>(m, "MemoryCounts")
      .def_readonly("compute_cycles", &MemoryCounts::compute_cycles)
      .def_property_readonly("stall_weight_cycles", stall(StallCause::weight))
      .def_property_readonly("stall_input_cycles", stall(StallCause::input))
      .def_property_readonly("stall_output_cycles", stall(StallCause::output))
      .def_readonly("input_bytes", &MemoryCounts::input_bytes)
      .def_readonly("weight_bytes", &MemoryCounts::weight_bytes)
      .def_readonly("index_bytes", &MemoryCounts::index_bytes)
      .def_readonly("output_bytes", &MemoryCounts::output_bytes)
      .def_readonly("spill_bytes", &MemoryCounts::spill_bytes)
      .def_readonly("reload_bytes", &MemoryCounts::reload_bytes)
      .def_readonly("dram_bursts", &MemoryCounts::dram_bursts)
      .def_readonly("row_misses", &MemoryCounts::row_misses)
      .def_readonly("row_conflicts", &MemoryCounts::row_conflicts)
      .def_readonly("input_reads", &MemoryCounts::input_reads)
      .def_readonly("input_writes", &MemoryCounts::input_writes)
      .def_readonly("weight_reads", &MemoryCounts::weight_reads)
      .def_readonly("weight_writes", &MemoryCounts::weight_writes)
      .def_readonly("output_reads", &MemoryCounts::output_reads)
      .def_readonly("output_writes", &MemoryCounts::output_writes);
}

/// A column that owns what it moves in; no copy.
Array<std::int64_t> column_of(std::vector<std::int64_t>&& values) {
  auto* const kept = new std::vector<std::int64_t>(std::move(values));
  const py::capsule owner(kept, [](void* at) { delete static_cast<std::vector<std::int64_t>*>(at); });
  return Array<std::int64_t>(static_cast<py::ssize_t>(kept->size()), kept->data(), owner);
}

void bind_timeline(py::module_& m) {
  m.def(
      "list_timeline",
      [](const ArrayConfig& array, const GridTuple& grid, const Array<bool>& mask, std::int64_t n,
         const MemoryConfig* memory, const std::optional<ConvTuple>& conv, std::int64_t max_rows) {
        const Layer layer = layer_of(grid_of(grid), mask, n, conv);
        require(max_rows >= 1, "timeline max_rows", "at least 1", std::to_string(max_rows));
        Timeline found;
        {
          const Interruptible watched(raise_interrupt);
          const py::gil_scoped_release nogil;
          found = list_timeline(array, layer, memory, max_rows);
        }
        py::dict columns;
        const auto add = [&](const char* name, std::vector<std::int64_t>& values) {
          columns[name] = column_of(std::move(values));
        };
        add("piece_core", found.piece_core);
        add("piece_preload", found.piece_preload);
        add("piece_start", found.piece_start);
        add("piece_end", found.piece_end);
        add("transfer_core", found.transfer_core);
        add("transfer_kind", found.transfer_kind);
        add("transfer_start", found.transfer_start);
        add("transfer_end", found.transfer_end);
        add("transfer_bytes", found.transfer_bytes);
        add("stall_core", found.stall_core);
        add("stall_cause", found.stall_cause);
        add("stall_start", found.stall_start);
        add("stall_cycles", found.stall_cycles);
        add("request_transfer", found.request_transfer);
        add("request_address", found.request_address);
        add("request_bytes", found.request_bytes);
        return std::tuple(columns, found.cycles, found.cut);
      },
      py::arg("array"), py::arg("grid"), py::arg("mask").noconvert(), py::arg("n"), py::arg("memory"),
      py::arg("conv"), py::arg("max_rows"),
      "Columns, cycles, whether rows were cut. See pysim.sim.timeline.");
}

template <class Operand, class Sum>
void bind_simulate_cycle_from(py::module_& m) {
  m.def(
      "simulate_cycle_from",
      [](const ArrayConfig& array, const GridTuple& grid, const Array<bool>& mask, const Array<Operand>& w,
         const Array<Operand>& x, const std::optional<Starts>& starts, const std::string& isa,
         const MemoryConfig* memory, const std::optional<ConvTuple>& conv) {
        return run_cycle<Operand, Sum>(array, grid, mask, w, x, memory, conv, starts, isa);
      },
      py::arg("array"), py::arg("grid"), py::arg("mask").noconvert(), py::arg("w").noconvert(),
      py::arg("x").noconvert(), py::arg("starts") = std::nullopt, py::arg("isa") = "",
      py::arg("memory") = nullptr, py::arg("conv") = std::nullopt,
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
      "distinct_pixels",
      [](const ConvTuple& conv, std::int64_t begin, std::int64_t end) {
        const ConvShape shape = conv_of(conv);
        shape.check(shape.kernel_height * shape.kernel_width, shape.out_height * shape.out_width);
        require(begin >= 0 && begin < end, "positions", "0 <= begin < end", std::to_string(begin));
        return shape.distinct_pixels(begin, end);
      },
      py::arg("conv"), py::arg("begin"), py::arg("end"), "Input pixels that a range of outputs reads.");
  m.def(
      "channel_use",
      [](const MemoryConfig& memory, const std::vector<std::array<std::int64_t, 3>>& requests) {
        require(memory.dram.present(), "memory", "dram", "none");
        TransferPlan plan;
        for (const auto& [transfer, address, bytes] : requests) {
          const auto last = static_cast<std::int64_t>(plan.transfers.size()) - 1;
          require(transfer == last || transfer == last + 1, "requests", "transfers in order",
                  std::to_string(transfer));
          require(address >= 0 && bytes >= 1, "requests", "an address and bytes", std::to_string(address));
          if (transfer > last) plan.transfers.emplace_back();
          plan.requests.push_back({static_cast<std::int32_t>(transfer), address, bytes});
        }
        const ChannelUse use = list_channel_use(plan, memory);
        return std::tuple(use.cycles, use.bursts, use.row_misses, use.row_conflicts);
      },
      py::arg("memory"), py::arg("requests"),
      "Cycles of the channel for each transfer of requests (transfer, address, bytes); bursts, misses, "
      "conflicts.");
  m.def(
      "end_of_work",
      [](const MemoryConfig& memory, std::int64_t start, std::int64_t busy) {
        require(start >= 0 && busy >= 0, "work", "at least 0", std::to_string(std::min(start, busy)));
        return end_of_work(memory.dram, start, busy);
      },
      py::arg("memory"), py::arg("start"), py::arg("busy"), "When work on the channel ends, with refreshes.");
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
  const auto stall_of = [](StallCause cause) {
    return [cause](const CoreCycles& core) { return core.stalls[static_cast<std::size_t>(cause)]; };
  };
  py::class_<ArrayConfig>(m, "ArrayConfig")
      .def(py::init([](std::int64_t rows, std::int64_t cols, std::string_view dataflow, std::string_view skip,
                       std::string_view pipelining, std::int64_t mux, std::int64_t group_cols,
                       std::int64_t cores, bool swapped, std::int64_t piece) {
             const ArrayConfig array{rows,
                                     cols,
                                     parse_dataflow(dataflow),
                                     parse_skip(skip),
                                     parse_pipelining(pipelining),
                                     mux,
                                     group_cols,
                                     cores,
                                     swapped,
                                     piece};
             array.check();
             return array;
           }),
           py::kw_only(), py::arg("rows"), py::arg("cols"), py::arg("dataflow"), py::arg("skip"),
           py::arg("pipelining"), py::arg("mux"), py::arg("group_cols"), py::arg("cores") = 1,
           py::arg("swapped") = false, py::arg("piece") = 256);
  bind_memory(m);
  bind_timeline(m);
  py::class_<CoreCycles>(m, "CoreCycles")
      .def_readonly("compute_cycles", &CoreCycles::compute_cycles)
      .def_property_readonly("stall_weight_cycles", stall_of(StallCause::weight))
      .def_property_readonly("stall_input_cycles", stall_of(StallCause::input))
      .def_property_readonly("stall_output_cycles", stall_of(StallCause::output));
  py::class_<Counts>(m, "Counts")
      .def_readonly("cycles", &Counts::cycles)
      .def_readonly("folds", &Counts::folds)
      .def_readonly("macs", &Counts::macs)
      .def_readonly("skipped_macs", &Counts::skipped_macs)
      .def_readonly("kept_macs", &Counts::kept_macs)
      .def_readonly("padded_macs", &Counts::padded_macs)
      .def_readonly("memory", &Counts::memory)
      .def_readonly("cores", &Counts::cores);
  m.def(
      "simulate_event",
      [](const ArrayConfig& array, const GridTuple& grid, const Array<bool>& mask, std::int64_t n,
         const MemoryConfig* memory, const std::optional<ConvTuple>& conv) {
        const Layer layer = layer_of(grid_of(grid), mask, n, conv);
        const Interruptible watched(raise_interrupt);
        const py::gil_scoped_release nogil;
        return simulate_event(array, layer, memory);
      },
      py::arg("array"), py::arg("grid"), py::arg("mask").noconvert(), py::arg("n"),
      py::arg("memory") = nullptr, py::arg("conv") = std::nullopt,
      "Counts, fold by fold. See pysim.sim.simulate_layer.");
  bind_simulate_cycle<float, float>(m);
  bind_simulate_cycle<std::int8_t, std::int32_t>(m);
  py::module_ testing =
      m.def_submodule("_testing", "Hooks for the tests; not part of the package's interface.");
  bind_testing(testing);
}

}  // namespace pysim
