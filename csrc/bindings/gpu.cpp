// Bindings of the GPU plans: memory crosses as address and length, checked before any kernel sees it.
#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <array>
#include <cstring>
#include <limits>
#include <optional>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "base/check.h"
#include "bindings/bindings.h"
#include "kernels/cuda_backend.h"
#include "kernels/gpu/launch.h"

namespace py = pybind11;

namespace pysim {
namespace {

using I32 = py::array_t<std::int32_t>;
using I64 = py::array_t<std::int64_t>;
using GridTuple = std::tuple<std::int64_t, std::int64_t, std::int64_t, std::int64_t, std::int64_t>;
using Address = std::pair<std::uintptr_t, std::int64_t>;  ///< And bytes from there on.
/// k, n, their strides, row and image stride; then the convolution, see XSource.
using Source = std::array<std::int64_t, 18>;

constexpr int kEmulated = -1;

gpu::Math math_of(const std::string& name) {
  if (name == "f32") return gpu::Math::f32;
  if (name == "tf32") return gpu::Math::tf32;
  if (name == "f16") return gpu::Math::f16;
  if (name == "i8") return gpu::Math::i8;
  require(name == "bf16", "GPU plan", "f32, tf32, f16, bf16 or i8", name);
  return gpu::Math::bf16;
}

void require_vector(const py::array& array, const char* where) {
  require(array.ndim() == 1 && (array.flags() & py::array::c_style) != 0, where, "a contiguous vector",
          "another array");
}

gpu::Plan make_plan(const std::vector<std::tuple<GridTuple, I64, I32>>& groups, const std::string& math,
                    std::int64_t shared_bytes, std::int64_t processors, std::int64_t columns, int cluster) {
  std::vector<BsrView> views;
  for (const auto& [grid, row_ptr, col_idx] : groups) {
    const auto [m, k, positions, bh, bw] = grid;
    views.push_back({{m, k, positions, bh, bw}, row_ptr.data(), col_idx.data(), nullptr, col_idx.size()});
    views.back().grid.check();
    require_vector(row_ptr, "BSR row_ptr");
    require_vector(col_idx, "BSR col_idx");
    require(row_ptr.size() == views.back().grid.block_rows() + 1, "BSR row_ptr",
            "length " + std::to_string(views.back().grid.block_rows() + 1), std::to_string(row_ptr.size()));
  }
  const gpu::Math of = math_of(math);
  const py::gil_scoped_release nogil;
  return gpu::Plan(views, of, {shared_bytes, processors}, {columns, cluster});
}

gpu::Memory memory(const Address& address) { return {address.first, address.second}; }

gpu::XSource source_of(const Source& source) {
  std::array<std::int32_t, 12> sizes{};
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    const std::int64_t value = source[i + 6];
    require(value >= 0 && value <= std::numeric_limits<std::int32_t>::max(), "GPU product",
            "sizes of a convolution from 0 to 2^31 - 1", std::to_string(value));
    sizes[i] = static_cast<std::int32_t>(value);
  }
  return {nullptr,  source[0], source[1], source[2], source[3], source[4], source[5],
          sizes[0], sizes[1],  sizes[2],  sizes[3],  sizes[4],  sizes[5],  sizes[6],
          sizes[7], sizes[8],  sizes[9],  sizes[10], sizes[11], 0,         0};
}

gpu::Launches launches_of(const gpu::Plan& plan, const Address& image, const Address& weights,
                          const Address& x, const Source& source, const Address& y,
                          const std::pair<std::int64_t, std::int64_t>& y_strides,
                          const std::optional<Address>& bias, const std::optional<Address>& workspace,
                          bool relu, const Int8Epilogue* epilogue) {
  gpu::Operands operands;
  operands.image = memory(image);
  operands.weights = memory(weights);
  operands.x = memory(x);
  operands.y = memory(y);
  if (bias) {
    require(bias->first != 0, "GPU product", "memory for bias", "none");
    operands.bias = memory(*bias);
  }
  if (workspace) operands.workspace = memory(*workspace);
  operands.source = source_of(source);
  operands.y_m_stride = y_strides.first;
  operands.y_n_stride = y_strides.second;
  operands.relu = relu;
  operands.epilogue = epilogue;
  return gpu::plan_launches(plan, operands);
}

/// Says which kernel it ran; none for no columns.
const char* run(const gpu::Plan& plan, int device, std::uintptr_t stream, const Address& image,
                const Address& weights, const Address& x, const Source& source, const Address& y,
                const std::pair<std::int64_t, std::int64_t>& y_strides, const std::optional<Address>& bias,
                const std::optional<Address>& workspace, bool relu, const Int8Epilogue* epilogue) {
  const gpu::Launches launches =
      launches_of(plan, image, weights, x, source, y, y_strides, bias, workspace, relu, epilogue);
  const py::gil_scoped_release nogil;
  if (device == kEmulated) {
    gpu::emulate(launches);
  } else {
    cuda_launch(launches, device, stream);
  }
  if (launches.count == 0) return "none";
  switch (launches.launch[0].kernel) {
    case gpu::Launch::Kernel::cluster:
      return "cluster";
    case gpu::Launch::Kernel::decode:
      return "few columns";
    default:
      return "panel";
  }
}

}  // namespace

void bind_gpu(py::module_& m) {
  py::class_<gpu::Plan>(m, "GpuPlan", "See pysim.sparse.gpu.")
      .def(py::init(&make_plan), py::arg("groups"), py::kw_only(), py::arg("math"), py::arg("shared_bytes"),
           py::arg("processors"), py::arg("columns"), py::arg("cluster"))
      .def("run", &run, py::kw_only(), py::arg("device"), py::arg("stream"), py::arg("image"),
           py::arg("weights"), py::arg("x"), py::arg("source"), py::arg("y"), py::arg("y_strides"),
           py::arg("bias"), py::arg("workspace"), py::arg("relu"), py::arg("epilogue") = nullptr)
      .def(
          // What run would launch, as the bytes of gpu::Launches: for tests that run it elsewhere.
          "launches",
          [](const gpu::Plan& plan, const Address& image, const Address& weights, const Address& x,
             const Source& source, const Address& y, const std::pair<std::int64_t, std::int64_t>& y_strides,
             const std::optional<Address>& bias, const std::optional<Address>& workspace, bool relu,
             const Int8Epilogue* epilogue) {
            const gpu::Launches launches =
                launches_of(plan, image, weights, x, source, y, y_strides, bias, workspace, relu, epilogue);
            static_assert(std::is_trivially_copyable_v<gpu::Launches>);
            return py::bytes(reinterpret_cast<const char*>(&launches), sizeof(launches));
          },
          py::kw_only(), py::arg("image"), py::arg("weights"), py::arg("x"), py::arg("source"), py::arg("y"),
          py::arg("y_strides"), py::arg("bias"), py::arg("workspace"), py::arg("relu"),
          py::arg("epilogue") = nullptr)
      .def("workspace_bytes",
           [](const gpu::Plan& plan, std::int64_t n) { return gpu::workspace_bytes(plan, n); })
      .def_property_readonly("image",
                             [](const gpu::Plan& plan) {
                               py::array_t<std::uint8_t> copy(static_cast<py::ssize_t>(plan.image().size()));
                               std::memcpy(copy.mutable_data(), plan.image().data(), plan.image().size());
                               return copy;
                             })
      .def_property_readonly("places",
                             [](const gpu::Plan& plan) {
                               return I32(static_cast<py::ssize_t>(plan.places().size()),
                                          plan.places().data());
                             })
      .def_property_readonly("facts", [](const gpu::Plan& plan) {
        py::dict facts;
        facts["m"] = plan.m();
        facts["k"] = plan.k();
        facts["height"] = plan.height();
        facts["depth"] = gpu::step_depth(plan.math());
        facts["warps"] = plan.warps();
        facts["stages"] = plan.stages();
        facts["cluster"] = plan.cluster();
        facts["shared_bytes"] = plan.shared_bytes(plan.cluster() != 1);
        facts["groups"] = plan.group_count();
        facts["decode_ctas"] = plan.decode_cta_count();
        facts["decode_share"] = plan.decode_share();
        facts["steps"] = plan.steps();
        facts["kept_elements"] = plan.kept_elements();
        facts["splits"] = plan.split_count();
        return facts;
      });

  m.def("cuda_status", [] {
    const CudaStatus status = cuda_status();
    std::vector<std::tuple<std::string, int, int, std::int64_t, std::int64_t>> devices;
    for (const CudaDevice& d : status.devices)
      devices.emplace_back(d.name, d.major, d.minor, d.processors, d.shared_bytes);
    return std::make_tuple(status.built, devices, status.text);
  });
}

}  // namespace pysim
