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
#include "bindings/arrays.h"
#include "bindings/bindings.h"
#include "kernels/bsr.h"
#include "kernels/conv.h"
#include "kernels/conv_gradient.h"
#include "kernels/network.h"
#include "kernels/spmm.h"
#include "kernels/thread_pool.h"

namespace py = pybind11;

namespace pysim {

constexpr const char* kEmulated16 = "emulated16";

const KernelTable& kernels_of(const std::string& isa) {
#if defined(__x86_64__)
  if (isa == kEmulated16) {
    resolve_isa("avx2");
    return kEmulated16Kernels;
  }
#endif
  return kernel_table(resolve_isa(isa));
}

namespace {

using F32 = py::array_t<float>;
using I32 = py::array_t<std::int32_t>;
using I64 = py::array_t<std::int64_t>;
using GridTuple = std::tuple<std::int64_t, std::int64_t, std::int64_t, std::int64_t, std::int64_t>;

std::string resolved_name(const std::string& isa) {
  return isa == kEmulated16 ? isa : std::string(isa_name(resolve_isa(isa)));
}

// These run before every product: text is made only when there is something to say.
template <class Array>
void require_contiguous(const Array& array, int ndim, const char* where) {
  if (array.ndim() != ndim) {
    require(false, where, std::to_string(ndim) + " dimensions", std::to_string(array.ndim()));
  }
  if ((array.flags() & py::array::c_style) == 0)
    require(false, where, "a C-contiguous array", "another layout");
}

void require_aligned(const F32& array, const char* where) {
  if (reinterpret_cast<std::uintptr_t>(array.data()) % alignof(float) != 0)
    require(false, where, "aligned memory", "an address that is not a multiple of 4");
}

using Shape4 = std::array<std::int64_t, 4>;

constexpr std::array<int, 4> kChannelsFirst{0, 1, 2, 3};
constexpr std::array<int, 4> kChannelsLast{0, 2, 3, 1};

std::string shape_text(const Shape4& sizes, int ndim = 4) {
  std::string text = "(";
  for (std::size_t i = 0; i < static_cast<std::size_t>(ndim); ++i)
    text.append(i == 0 ? "" : ", ").append(std::to_string(sizes[i]));
  return text.append(")");
}

void require_shape(const FloatArray& array, const Shape4& shape, const char* where) {
  if (array.shape != shape)
    require(false, where, shape_text(shape, array.ndim), shape_text(array.shape, array.ndim));
}

/// Runs `work`, without the GIL if it is long. Giving up the GIL costs as much as a short one may take.
template <class Work>
void run_unlocked(bool is_long, const Work& work) {
  if (!is_long) return work();
  const py::gil_scoped_release nogil;
  work();
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
std::int64_t row_pitch(const FloatArray& a, std::int64_t rows, const char* where) {
  if (a.shape[0] != rows) {
    require(false, where, "shape (" + std::to_string(rows) + ", n)", std::to_string(a.shape[0]) + " rows");
  }
  const std::int64_t n = a.shape[1];
  constexpr auto bytes = static_cast<std::int64_t>(sizeof(float));
  if (n > 1 && a.strides[1] != bytes) {
    require(false, where, "contiguous rows", "a stride of " + std::to_string(a.strides[1]) + " bytes");
  }
  if (rows <= 1) return n;
  const std::int64_t stride = a.strides[0];
  if (stride % bytes != 0 || stride < n * bytes) {
    require(false, where, "rows that do not overlap", "a stride of " + std::to_string(stride) + " bytes");
  }
  return stride / bytes;
}

void require_columns(const FloatArray& a, std::int64_t n, const char* where) {
  if (a.shape[1] != n) require(false, where, std::to_string(n) + " columns", std::to_string(a.shape[1]));
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

  py::object run(const py::handle& x, const py::handle& out, const py::handle& residual) const {
    const FloatArray source = read_array(x, 2, "spmm input", "(k, n)");
    const std::int64_t x_pitch = row_pitch(source, plan.k(), "spmm input");
    const std::int64_t n = source.shape[1];
    const FloatArray target =
        out.is_none() ? new_array(x, 2, {plan.m(), n}) : read_array(out, 2, "spmm output", "(m, n)");
    std::int64_t y_pitch = n;
    if (!out.is_none()) {
      y_pitch = row_pitch(target, plan.m(), "spmm output");
      require_writeable(target, "spmm output");
      require_columns(target, n, "spmm output");
      require_apart(source, target, "spmm output", "memory apart from the input");
    }
    FloatArray added;
    std::int64_t added_pitch = 0;
    if (!residual.is_none()) {
      added = read_array(residual, 2, "spmm residual", "(m, n)");
      added_pitch = row_pitch(added, plan.m(), "spmm residual");
      require_columns(added, n, "spmm residual");
      if (!out.is_none()) require_apart(added, target, "spmm output", "memory apart from the residual");
    }
    run_unlocked(plan.is_long(n),
                 [&] { plan.run(source.data, x_pitch, n, added.data, added_pitch, target.data, y_pitch); });
    return out.is_none() ? target.owner : py::reinterpret_borrow<py::object>(out);
  }

  void weight_gradient(const py::handle& dy, const py::handle& x, F32& values) const {
    const FloatArray source = read_array(x, 2, "spmm input", "(k, n)");
    const FloatArray gradient = read_array(dy, 2, "spmm output gradient", "(m, n)");
    const std::int64_t x_pitch = row_pitch(source, plan.k(), "spmm input");
    const std::int64_t dy_pitch = row_pitch(gradient, plan.m(), "spmm output gradient");
    const std::int64_t n = source.shape[1];
    require_columns(gradient, n, "spmm output gradient");
    require_values(values, values_shape, "spmm weight gradient");
    float* const to = values.mutable_data();
    const std::int64_t count = values.size();
    const py::gil_scoped_release nogil;
    plan.weight_gradient(gradient.data, dy_pitch, source.data, x_pitch, n, to, count);
  }
};

/// The order of the axes of images in memory. Throws std::invalid_argument if it is neither.
ImageOrder image_order(const FloatArray& images, const char* where) {
  if (images.is_contiguous()) return ImageOrder::channels_first;
  if (!images.follows(kChannelsLast))
    require(false, where, "a C-contiguous array, or a channels-last one", "another layout");
  return ImageOrder::channels_last;
}

constexpr const char* kImageShape = "(N, channels, H, W)";

/// The gradient of a convolution's output or input, which has to be NCHW.
FloatArray read_gradient(const py::handle& array, const char* where) {
  FloatArray found = read_array(array, 4, where, kImageShape);
  if (!found.is_contiguous()) require(false, where, "a C-contiguous array", "another layout");
  return found;
}

/// Weights with what runs them: checked and packed once for all image sizes. The plans of the latest sizes
/// are kept; only who holds the GIL touches them.
class BoundConvWeights {
 public:
  BoundConvWeights(std::shared_ptr<const ConvWeights> packed, const KernelTable& kernels,
                   std::vector<ValuesShape> values_shapes, std::string isa, int threads)
      : weights(std::move(packed)),
        isa(std::move(isa)),
        kernels_(kernels),
        values_shapes_(std::move(values_shapes)),
        threads_(threads),
        in_shape_("(N, " + std::to_string(weights->channels) + ", H, W)") {}

  /// The same kept blocks of other values: the parts of one array, group by group. Plans come along.
  BoundConvWeights with_values(const py::handle& values) const {
    const FloatArray source = read_array(values, 3, "convolution values", "(nnz_blocks, bh, bw)");
    std::int64_t blocks = 0;
    std::vector<const float*> parts;
    for (const ValuesShape& shape : values_shapes_) {
      parts.push_back(source.data + blocks * shape[1] * shape[2]);
      blocks += shape[0];
    }
    const ValuesShape& first = values_shapes_.front();
    const std::array<std::int64_t, 3> expected{blocks, first[1], first[2]};
    if (!std::equal(expected.begin(), expected.end(), source.shape.begin()) || !source.is_contiguous())
      require(false, "convolution values", "one value for each stored weight, contiguous", "another array");
    BoundConvWeights other = *this;
    other.weights = std::make_shared<const ConvWeights>(*weights, parts);
    for (SizedPlan& plan : other.plans_) {
      plan.forward = std::make_shared<const ConvPlan>(*plan.forward, other.weights);
      plan.gradient = std::make_shared<const ConvGradient>(*plan.gradient, plan.forward);
    }
    return other;
  }

  /// Makes the plan for a size, which run() and gradients() need.
  void prepare(std::int64_t height, std::int64_t width) {
    SizedPlan plan{std::make_shared<const ConvPlan>(weights, height, width, kernels_, threads_), nullptr};
    if (!weights->transposed.empty()) plan.gradient = std::make_shared<const ConvGradient>(plan.forward);
    if (plans_.size() >= kMostSizes) plans_.erase(plans_.begin());
    plans_.push_back(std::move(plan));
  }

  /// None if the plan for this size is yet to be made.
  py::object run(const py::handle& x, const py::handle& out, const py::handle& residual) const {
    const FloatArray source = read_images(x);
    const ImageOrder order = image_order(source, "convolution input");
    const std::shared_ptr<const ConvPlan> plan = find(source.shape[2], source.shape[3]).forward;
    if (plan == nullptr) return py::none();
    const std::int64_t batch = source.shape[0];
    const Shape4 shape = plan->out_shape(batch);
    const bool given = !out.is_none();
    const bool last = order == ImageOrder::channels_last;
    const FloatArray target = given ? read_array(out, 4, "convolution output", kImageShape)
                                    : new_array(x, 4, shape, last ? kChannelsLast : kChannelsFirst);
    ImageOrder target_order = order;
    if (given) {
      target_order = image_order(target, "convolution output");
      require_writeable(target, "convolution output");
      require_shape(target, shape, "convolution output");
      require_apart(source, target, "convolution output", "memory apart from the input");
    }
    FloatArray added;
    Images added_images;
    if (!residual.is_none()) {
      added = read_array(residual, 4, "convolution residual", kImageShape);
      added_images = {added.data, image_order(added, "convolution residual")};
      require_shape(added, shape, "convolution residual");
      if (given) require_apart(added, target, "convolution output", "memory apart from the residual");
    }
    run_unlocked(plan->is_long(batch),
                 [&] { plan->run({source.data, order}, batch, added_images, target.data, target_order); });
    return given ? py::reinterpret_borrow<py::object>(out) : target.owner;
  }

  /// The gradient of the input, unless dx is None, and of the weights, unless x is None and values are empty.
  /// False if the plan for this size of the input is yet to be made.
  bool gradients(const py::handle& dy, const py::handle& x, std::int64_t height, std::int64_t width,
                 const py::handle& dx, std::vector<F32> values) const {
    const SizedPlan plan = find(height, width);
    if (plan.forward == nullptr) return false;
    if (plan.gradient == nullptr) throw std::logic_error("convolution: the plan was not made for gradients");
    const FloatArray from = read_gradient(dy, "convolution output gradient");
    const std::int64_t batch = from.shape[0];
    require_shape(from, plan.forward->out_shape(batch), "convolution output gradient");
    FloatArray to;
    if (!dx.is_none()) {
      to = read_gradient(dx, "convolution input gradient");
      require_shape(to, plan.forward->in_shape(batch), "convolution input gradient");
      require_apart(from, to, "convolution input gradient", "memory apart from the output gradient");
    }
    FloatArray source;
    Images images;
    std::vector<float*> targets;
    std::vector<std::int64_t> counts;
    if (!x.is_none()) {
      source = read_images(x);
      images = {source.data, image_order(source, "convolution input")};
      require_shape(source, plan.forward->in_shape(batch), "convolution input");
      if (values.size() != values_shapes_.size())
        require(false, "convolution weight gradient", "one array for each group",
                std::to_string(values.size()));
      for (std::size_t g = 0; g < values.size(); ++g) {
        require_values(values[g], values_shapes_[g], "convolution weight gradient");
        targets.push_back(values[g].mutable_data());
        counts.push_back(values[g].size());
      }
    }
    const py::gil_scoped_release nogil;
    plan.gradient->run(from.data, images, batch, to.data, targets, counts);
    return true;
  }

  std::shared_ptr<const ConvWeights> weights;
  std::string isa;

 private:
  static constexpr std::size_t kMostSizes = 16;

  FloatArray read_images(const py::handle& x) const {
    FloatArray found = read_array(x, 4, "convolution input", in_shape_.c_str());
    if (found.shape[1] != weights->channels) {
      require(false, "convolution input", "shape " + in_shape_, shape_text(found.shape));
    }
    return found;
  }

  struct SizedPlan {
    std::shared_ptr<const ConvPlan> forward;
    std::shared_ptr<const ConvGradient> gradient;  ///< If the weights are trainable.
  };

  SizedPlan find(std::int64_t height, std::int64_t width) const {
    for (const SizedPlan& plan : plans_) {
      const Shape4 shape = plan.forward->in_shape(1);
      if (shape[2] == height && shape[3] == width) return plan;
    }
    return {};
  }

  const KernelTable& kernels_;
  std::vector<ValuesShape> values_shapes_;
  int threads_;
  std::string in_shape_;          ///< For messages.
  std::vector<SizedPlan> plans_;  ///< The latest last.
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
          kernels_of(isa), std::move(shapes), resolved_name(isa), threads};
}

using PoolTriples = std::vector<std::array<std::int64_t, 3>>;  // Begin, end, count.

std::vector<PoolRange> pool_ranges(const PoolTriples& triples) {
  std::vector<PoolRange> ranges;
  for (const auto& [begin, end, count] : triples) ranges.push_back({begin, end, count});
  return ranges;
}

struct BoundNetwork {
  std::unique_ptr<const Network> network;
  int in_dims;
  int out_dims;

  BoundNetwork(const NetworkGraph& graph, int output, std::int64_t batch, int in_dims, int out_dims,
               const std::string& isa, int threads)
      : network(std::make_unique<const Network>(graph, output, batch, kernels_of(isa), threads)),
        in_dims(in_dims),
        out_dims(out_dims) {
    require((in_dims == 2 || in_dims == 4) && (out_dims == 2 || out_dims == 4), "network",
            "inputs and outputs of 2 or 4 dimensions",
            std::to_string(in_dims) + " and " + std::to_string(out_dims));
  }

  Shape4 shape(const ImageShape& image) const {
    return {network->batch(), image.channels, image.height, image.width};
  }

  /// An array of features counts as images of one pixel.
  static FloatArray as_images(FloatArray array, const Shape4& shape, const char* where) {
    if (array.ndim == 2) array.shape[2] = array.shape[3] = 1;
    require_shape(array, shape, where);
    return array;
  }

  py::object run(const py::handle& x, const py::handle& out) const {
    const char* const dims = "of as many dimensions as the network's";
    const FloatArray source =
        as_images(read_array(x, in_dims, "network input", dims), shape(network->in_shape()), "network input");
    const ImageOrder order = image_order(source, "network input");
    const Shape4 out_shape = shape(network->out_shape());
    const bool given = !out.is_none();
    const bool last = order == ImageOrder::channels_last && out_dims == 4;
    const FloatArray target =
        given ? as_images(read_array(out, out_dims, "network output", dims), out_shape, "network output")
              : new_array(x, out_dims, out_shape, last ? kChannelsLast : kChannelsFirst);
    ImageOrder target_order = last ? ImageOrder::channels_last : ImageOrder::channels_first;
    if (given) {
      target_order = image_order(target, "network output");
      require_writeable(target, "network output");
      require_apart(source, target, "network output", "memory apart from the input");
    }
    {
      const py::gil_scoped_release nogil;
      network->run({source.data, order}, target.data, target_order);
    }
    return given ? py::reinterpret_borrow<py::object>(out) : target.owner;
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
      .def(py::init<const NetworkGraph&, int, std::int64_t, int, int, const std::string&, int>(),
           py::arg("graph"), py::kw_only(), py::arg("output"), py::arg("batch"), py::arg("in_dims"),
           py::arg("out_dims"), py::arg("isa"), py::arg("threads"))
      .def("run", &BoundNetwork::run, py::arg("x"), py::arg("out") = py::none())
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
                       bool transposed, bool bfloat16, const std::string& isa, int threads) {
             const SpmmPlan::Form form = transposed  ? SpmmPlan::Form::transposed
                                         : trainable ? SpmmPlan::Form::trainable
                                                     : SpmmPlan::Form::plain;
             const BsrView view = view_bsr(grid, row_ptr, col_idx, values);
             return BoundSpmm{
                 SpmmPlan(view, form, bias.value_or(std::vector<float>{}), relu, kernels_of(isa), threads,
                          bfloat16 ? SpmmPlan::Weights::bfloat16 : SpmmPlan::Weights::float32),
                 {values.shape(0), values.shape(1), values.shape(2)},
                 resolved_name(isa)};
           }),
           py::arg("grid"), py::arg("row_ptr").noconvert(), py::arg("col_idx").noconvert(),
           py::arg("values").noconvert(), py::kw_only(), py::arg("bias") = py::none(),
           py::arg("relu") = false, py::arg("trainable") = false, py::arg("transposed") = false,
           py::arg("bfloat16") = false, py::arg("isa"), py::arg("threads"))
      .def("weight_gradient", &BoundSpmm::weight_gradient, py::arg("dy"), py::arg("x"),
           py::arg("values").noconvert())
      .def("run", &BoundSpmm::run, py::arg("x"), py::arg("out") = py::none(),
           py::arg("residual") = py::none())
      .def_readonly("isa", &BoundSpmm::isa);

  py::class_<BoundConvWeights>(m, "ConvWeights", "See pysim.sparse.ConvPlan.")
      .def(py::init(&make_conv_weights), py::arg("groups"), py::kw_only(), py::arg("kernel"),
           py::arg("stride"), py::arg("padding"), py::arg("dilation"), py::arg("bias"),
           py::arg("relu") = false, py::arg("trainable") = false, py::arg("isa"), py::arg("threads"))
      .def("prepare", &BoundConvWeights::prepare, py::arg("height"), py::arg("width"))
      .def("run", &BoundConvWeights::run, py::arg("x"), py::arg("out") = py::none(),
           py::arg("residual") = py::none())
      .def("with_values", &BoundConvWeights::with_values, py::arg("values"))
      .def("gradients", &BoundConvWeights::gradients, py::arg("dy"), py::arg("x"), py::arg("height"),
           py::arg("width"), py::arg("dx"), py::arg("values").noconvert())
      .def_readonly("isa", &BoundConvWeights::isa);

  bind_network(m);

  m.def(
      "check_bsr",
      [](const GridTuple& grid, const I64& row_ptr, const I32& col_idx, const F32& values) {
        view_bsr(grid, row_ptr, col_idx, values).check();
      },
      py::arg("grid"), py::arg("row_ptr").noconvert(), py::arg("col_idx").noconvert(),
      py::arg("values").noconvert());
  m.def(
      "run_fma",
      [](const std::string& isa, std::int64_t rounds) {
        require(rounds >= 0 && rounds <= 1 << 30, "run_fma", "0 to 2^30 rounds", std::to_string(rounds));
        const KernelTable& kernels = kernels_of(isa);
        const py::gil_scoped_release nogil;
        volatile const float factor = 0.5F;
        volatile float sum = kernels.fma_loop(rounds, factor, factor);
        static_cast<void>(sum);
        return static_cast<double>(rounds) * static_cast<double>(kernels.fma_flops);
      },
      py::arg("isa"), py::arg("rounds"),
      "Multiply-adds in registers; returns their floating-point operations.");
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
