// Bindings of csrc/kernels: checks arrays with the GIL, multiplies without it, copies nothing silently.
#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/check.h"
#include "base/isa.h"
#include "bindings/bindings.h"
#include "kernels/bsr.h"
#include "kernels/conv.h"
#include "kernels/conv_gradient.h"
#include "kernels/network.h"
#include "kernels/spmm.h"
#include "kernels/thread_pool.h"

namespace py = pybind11;

namespace pysim {
namespace {

using F32 = py::array_t<float>;
using I32 = py::array_t<std::int32_t>;
using I64 = py::array_t<std::int64_t>;
using GridTuple = std::tuple<std::int64_t, std::int64_t, std::int64_t, std::int64_t, std::int64_t>;

constexpr const char* kEmulated16 = "emulated16";

const KernelTable& table_of(const std::string& isa) {
#if defined(__x86_64__)
  if (isa == kEmulated16) {
    resolve_isa("avx2");
    return kEmulated16Kernels;
  }
#endif
  return kernel_table(resolve_isa(isa));
}

std::string resolved_name(const std::string& isa) {
  return isa == kEmulated16 ? isa : std::string(isa_name(resolve_isa(isa)));
}

// These run before every product: text is made only when there is something to say.
void require_aligned(const F32& array, const char* where) {
  if (reinterpret_cast<std::uintptr_t>(array.data()) % alignof(float) != 0)
    require(false, where, "aligned memory", "an address that is not a multiple of 4");
}

template <class Array>
void require_contiguous(const Array& array, int ndim, const char* where) {
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

void require_shape(const F32& array, const std::array<std::int64_t, 4>& shape, const char* where) {
  if (!std::equal(shape.begin(), shape.end(), array.shape())) {
    const std::array<std::int64_t, 4> got{array.shape(0), array.shape(1), array.shape(2), array.shape(3)};
    require(false, where, shape_text(shape.data(), 4), shape_text(got.data(), 4));
  }
}

/// The view lives as long as the arrays do. Shapes are checked here, indices by the plan.
BsrView view_bsr(const GridTuple& grid, const I64& row_ptr, const I32& col_idx, const F32& values) {
  const auto [m, k, positions, bh, bw] = grid;
  const BsrView view{
      {m, k, positions, bh, bw}, row_ptr.data(), col_idx.data(), values.data(), col_idx.size()};
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

/// Elements from one row to the next of a matrix whose rows are contiguous and do not overlap.
std::int64_t row_pitch(const F32& a, std::int64_t rows, const char* where) {
  if (a.ndim() != 2 || a.shape(0) != rows) {
    require(false, where, "shape (" + std::to_string(rows) + ", n)",
            a.ndim() == 2 ? std::to_string(a.shape(0)) + " rows" : std::to_string(a.ndim()) + " dimensions");
  }
  require_aligned(a, where);
  const std::int64_t n = a.shape(1);
  constexpr auto bytes = static_cast<py::ssize_t>(sizeof(float));
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

bool overlap(const F32& a, const F32& b) {
  const auto range = [](const F32& x) {
    const char* const begin = reinterpret_cast<const char*>(x.data());
    py::ssize_t last = 0;
    for (py::ssize_t i = 0; i < x.ndim(); ++i) last += (x.shape(i) - 1) * x.strides(i);
    return std::pair(begin, begin + last + static_cast<py::ssize_t>(sizeof(float)));
  };
  if (a.size() == 0 || b.size() == 0) return false;
  const auto [a_begin, a_end] = range(a);
  const auto [b_begin, b_end] = range(b);
  return a_begin < b_end && b_begin < a_end;
}

void require_apart(const F32& a, const F32& b, const char* where, const char* expected) {
  if (overlap(a, b)) require(false, where, expected, "an overlap");
}

using ValuesShape = std::array<py::ssize_t, 3>;  // nnz_blocks, bh, bw

void require_values(const F32& values, const ValuesShape& shape, const char* where) {
  require_contiguous(values, 3, where);
  require_aligned(values, where);
  if (!std::equal(shape.begin(), shape.end(), values.shape()))
    require(false, where, "one value for each stored weight", "another shape");
}

struct BoundSpmm {
  SpmmPlan plan;
  ValuesShape values_shape;
  std::string isa;

  void run(const F32& x, F32& y, const std::optional<F32>& residual) const {
    const std::int64_t x_pitch = row_pitch(x, plan.k(), "spmm input");
    const std::int64_t n = x.shape(1);
    const std::int64_t y_pitch = row_pitch(y, plan.m(), "spmm output");
    if (y.shape(1) != n) {
      require(false, "spmm output", std::to_string(n) + " columns", std::to_string(y.shape(1)));
    }
    require_apart(x, y, "spmm output", "memory apart from the input");
    std::int64_t residual_pitch = 0;
    if (residual) {
      residual_pitch = row_pitch(*residual, plan.m(), "spmm residual");
      if (residual->shape(1) != n)
        require(false, "spmm residual", std::to_string(n) + " columns", std::to_string(residual->shape(1)));
      require_apart(*residual, y, "spmm output", "memory apart from the residual");
    }
    const float* const added = residual ? residual->data() : nullptr;
    const float* const from = x.data();
    float* const to = y.mutable_data();
    const py::gil_scoped_release nogil;
    plan.run(from, x_pitch, n, added, residual_pitch, to, y_pitch);
  }

  void weight_gradient(const F32& dy, const F32& x, F32& values) const {
    const std::int64_t x_pitch = row_pitch(x, plan.k(), "spmm input");
    const std::int64_t dy_pitch = row_pitch(dy, plan.m(), "spmm output gradient");
    const std::int64_t n = x.shape(1);
    if (dy.shape(1) != n)
      require(false, "spmm output gradient", std::to_string(n) + " columns", std::to_string(dy.shape(1)));
    require_values(values, values_shape, "spmm weight gradient");
    float* const to = values.mutable_data();
    const std::int64_t count = values.size();
    const float* const from_dy = dy.data();
    const float* const from_x = x.data();
    const py::gil_scoped_release nogil;
    plan.weight_gradient(from_dy, dy_pitch, from_x, x_pitch, n, to, count);
  }
};

struct BoundConv {
  ConvPlan plan;
  std::vector<ValuesShape> values_shapes;

  void run(const F32& x, F32& y, const std::optional<F32>& residual) const {
    require_contiguous(x, 4, "convolution input");
    require_contiguous(y, 4, "convolution output");
    require_aligned(x, "convolution input");
    require_aligned(y, "convolution output");
    const py::ssize_t batch = x.shape(0);
    require_shape(x, plan.in_shape(batch), "convolution input");
    require_shape(y, plan.out_shape(batch), "convolution output");
    require_apart(x, y, "convolution output", "memory apart from the input");
    if (residual) {
      require_contiguous(*residual, 4, "convolution residual");
      require_aligned(*residual, "convolution residual");
      require_shape(*residual, plan.out_shape(batch), "convolution residual");
      require_apart(*residual, y, "convolution output", "memory apart from the residual");
    }
    const float* const added = residual ? residual->data() : nullptr;
    const float* const from = x.data();
    float* const to = y.mutable_data();
    const py::gil_scoped_release nogil;
    plan.run(from, batch, added, to);
  }

  void weight_gradient(const F32& dy, const F32& x, std::vector<F32> values) const {
    require_contiguous(x, 4, "convolution input");
    require_contiguous(dy, 4, "convolution output gradient");
    require_aligned(x, "convolution input");
    require_aligned(dy, "convolution output gradient");
    const py::ssize_t batch = x.shape(0);
    require_shape(x, plan.in_shape(batch), "convolution input");
    require_shape(dy, plan.out_shape(batch), "convolution output gradient");
    if (values.size() != values_shapes.size())
      require(false, "convolution weight gradient", "one array for each group",
              std::to_string(values.size()));
    std::vector<float*> to;
    std::vector<std::int64_t> counts;
    for (std::size_t g = 0; g < values.size(); ++g) {
      require_values(values[g], values_shapes[g], "convolution weight gradient");
      to.push_back(values[g].mutable_data());
      counts.push_back(values[g].size());
    }
    const float* const from_dy = dy.data();
    const float* const from_x = x.data();
    const py::gil_scoped_release nogil;
    plan.weight_gradient(from_x, batch, from_dy, to, counts);
  }
};

struct BoundConvInputGradient {
  ConvInputGradient plan;
  ConvPlan forward;

  void run(const F32& dy, F32& dx) const {
    require_contiguous(dy, 4, "convolution output gradient");
    require_contiguous(dx, 4, "convolution input gradient");
    require_aligned(dy, "convolution output gradient");
    require_aligned(dx, "convolution input gradient");
    const py::ssize_t batch = dy.shape(0);
    require_shape(dy, forward.out_shape(batch), "convolution output gradient");
    require_shape(dx, forward.in_shape(batch), "convolution input gradient");
    require_apart(dy, dx, "convolution input gradient", "memory apart from the output gradient");
    const float* const from = dy.data();
    float* const to = dx.mutable_data();
    const py::gil_scoped_release nogil;
    plan.run(from, batch, to);
  }
};

/// Weights with what runs them: checked and packed once for all image sizes.
struct BoundConvWeights {
  std::shared_ptr<const ConvWeights> weights;
  const KernelTable& kernels;
  std::vector<ValuesShape> values_shapes;
  std::string isa;
  int threads;

  BoundConv plan(std::int64_t height, std::int64_t width) const {
    return {ConvPlan(weights, height, width, kernels, threads), values_shapes};
  }
  BoundConvInputGradient input_gradient(std::int64_t height, std::int64_t width) const {
    return {ConvInputGradient(weights, height, width, kernels, threads),
            ConvPlan(weights, height, width, kernels, threads)};
  }
};

BoundConvWeights make_conv_weights(const std::vector<std::tuple<GridTuple, I64, I32, F32>>& groups,
                                   const Pair& kernel, const Pair& stride, const Pair& padding,
                                   const Pair& dilation, const std::optional<std::vector<float>>& bias,
                                   bool relu, bool trainable, const std::string& isa, int threads) {
  std::vector<BsrView> views;
  std::vector<ValuesShape> shapes;
  for (const auto& [grid, row_ptr, col_idx, values] : groups) {
    views.push_back(view_bsr(grid, row_ptr, col_idx, values));
    shapes.push_back({values.shape(0), values.shape(1), values.shape(2)});
  }
  check_threads(threads, "convolution");
  return {std::make_shared<const ConvWeights>(views, ConvWindow{kernel, stride, padding, dilation},
                                              bias.value_or(std::vector<float>{}), relu, trainable),
          table_of(isa), std::move(shapes), resolved_name(isa), threads};
}

using PoolTriples = std::vector<std::array<std::int64_t, 3>>;  // Begin, end, count.

std::vector<PoolRange> pool_ranges(const PoolTriples& triples) {
  std::vector<PoolRange> ranges;
  for (const auto& [begin, end, count] : triples) ranges.push_back({begin, end, count});
  return ranges;
}

struct BoundNetwork {
  std::unique_ptr<const Network> network;

  BoundNetwork(const NetworkGraph& graph, int output, std::int64_t batch, const std::string& isa, int threads)
      : network(std::make_unique<const Network>(graph, output, batch, table_of(isa), threads)) {}

  std::array<std::int64_t, 4> shape(const ImageShape& image) const {
    return {network->batch(), image.channels, image.height, image.width};
  }

  void run(const F32& x, F32& y) const {
    require_contiguous(x, 4, "network input");
    require_contiguous(y, 4, "network output");
    require_aligned(x, "network input");
    require_aligned(y, "network output");
    require_shape(x, shape(network->in_shape()), "network input");
    require_shape(y, shape(network->out_shape()), "network output");
    require_apart(x, y, "network output", "memory apart from the input");
    const float* const from = x.data();
    float* const to = y.mutable_data();
    const py::gil_scoped_release nogil;
    network->run(from, to);
  }
};

void bind_network(py::module_& m) {
  py::class_<NetworkGraph>(m, "NetworkGraph", "See pysim.sparse.compile.")
      .def(py::init<>())
      .def(
          "input",
          [](NetworkGraph& graph, std::int64_t channels, std::int64_t height, std::int64_t width) {
            return graph.input({channels, height, width});
          },
          py::arg("channels"), py::arg("height"), py::arg("width"))
      .def(
          "conv",
          [](NetworkGraph& graph, int x, const BoundConvWeights& weights, int residual) {
            return graph.conv(x, weights.weights, residual);
          },
          py::arg("x"), py::arg("weights"), py::arg("residual") = -1)
      .def(
          "pool",
          [](NetworkGraph& graph, int x, bool average, const PoolTriples& rows, const PoolTriples& cols) {
            return graph.pool(x, average, pool_ranges(rows), pool_ranges(cols));
          },
          py::arg("x"), py::kw_only(), py::arg("average"), py::arg("rows"), py::arg("cols"))
      .def("add", &NetworkGraph::add, py::arg("a"), py::arg("b"), py::kw_only(), py::arg("relu"))
      .def("clamp", &NetworkGraph::clamp, py::arg("x"), py::kw_only(), py::arg("low"), py::arg("high"))
      .def("flatten", &NetworkGraph::flatten, py::arg("x"));

  py::class_<BoundNetwork>(m, "Network", "See pysim.sparse.CompiledNetwork.")
      .def(py::init<const NetworkGraph&, int, std::int64_t, const std::string&, int>(), py::arg("graph"),
           py::kw_only(), py::arg("output"), py::arg("batch"), py::arg("isa"), py::arg("threads"))
      .def("run", &BoundNetwork::run, py::arg("x").noconvert(), py::arg("y").noconvert())
      .def_property_readonly("chunk_images",
                             [](const BoundNetwork& bound) { return bound.network->chunk_images(); })
      .def_property_readonly("workspace_bytes",
                             [](const BoundNetwork& bound) { return bound.network->workspace_bytes(); });
}

}  // namespace

void bind_kernels(py::module_& m) {
  py::class_<BoundSpmm>(m, "SpmmPlan", "See pysim.sparse.SpmmPlan.")
      .def(py::init([](const GridTuple& grid, const I64& row_ptr, const I32& col_idx, const F32& values,
                       const std::optional<std::vector<float>>& bias, bool relu, bool trainable,
                       bool transposed, const std::string& isa, int threads) {
             const SpmmPlan::Form form = transposed  ? SpmmPlan::Form::transposed
                                         : trainable ? SpmmPlan::Form::trainable
                                                     : SpmmPlan::Form::plain;
             const BsrView view = view_bsr(grid, row_ptr, col_idx, values);
             return BoundSpmm{
                 SpmmPlan(view, form, bias.value_or(std::vector<float>{}), relu, table_of(isa), threads),
                 {values.shape(0), values.shape(1), values.shape(2)},
                 resolved_name(isa)};
           }),
           py::arg("grid"), py::arg("row_ptr").noconvert(), py::arg("col_idx").noconvert(),
           py::arg("values").noconvert(), py::kw_only(), py::arg("bias") = py::none(),
           py::arg("relu") = false, py::arg("trainable") = false, py::arg("transposed") = false,
           py::arg("isa"), py::arg("threads"))
      .def("weight_gradient", &BoundSpmm::weight_gradient, py::arg("dy").noconvert(),
           py::arg("x").noconvert(), py::arg("values").noconvert())
      .def("run", &BoundSpmm::run, py::arg("x").noconvert(), py::arg("y").noconvert(),
           py::arg("residual").noconvert() = py::none())
      .def_readonly("isa", &BoundSpmm::isa);

  py::class_<BoundConv>(m, "ConvPlan", "A convolution for one image size.")
      .def("run", &BoundConv::run, py::arg("x").noconvert(), py::arg("y").noconvert(),
           py::arg("residual").noconvert() = py::none())
      .def("weight_gradient", &BoundConv::weight_gradient, py::arg("dy").noconvert(),
           py::arg("x").noconvert(), py::arg("values").noconvert())
      .def("out_shape", [](const BoundConv& conv, std::int64_t batch) { return conv.plan.out_shape(batch); });

  py::class_<BoundConvInputGradient>(m, "ConvInputGradient", "Its input's gradient, for one image size.")
      .def("run", &BoundConvInputGradient::run, py::arg("dy").noconvert(), py::arg("dx").noconvert());

  py::class_<BoundConvWeights>(m, "ConvWeights", "See pysim.sparse.ConvPlan.")
      .def(py::init(&make_conv_weights), py::arg("groups"), py::kw_only(), py::arg("kernel"),
           py::arg("stride"), py::arg("padding"), py::arg("dilation"), py::arg("bias"),
           py::arg("relu") = false, py::arg("trainable") = false, py::arg("isa"), py::arg("threads"))
      .def("plan", &BoundConvWeights::plan, py::arg("height"), py::arg("width"))
      .def("input_gradient", &BoundConvWeights::input_gradient, py::arg("height"), py::arg("width"))
      .def_readonly("isa", &BoundConvWeights::isa);

  bind_network(m);

  m.def(
      "check_bsr",
      [](const GridTuple& grid, const I64& row_ptr, const I32& col_idx, const F32& values) {
        view_bsr(grid, row_ptr, col_idx, values).check();
      },
      py::arg("grid"), py::arg("row_ptr").noconvert(), py::arg("col_idx").noconvert(),
      py::arg("values").noconvert());
  m.def("isa_report", [] {
    std::vector<std::tuple<std::string, bool, std::string>> rows;
    for (const IsaStatus& status : isa_report())
      rows.emplace_back(status.name, status.available, status.reason);
    return rows;
  });
  m.def(
      "resolve_isa",
      [](const std::string& requested) { return std::string(isa_name(resolve_isa(requested))); },
      py::arg("requested"));
}

}  // namespace pysim
