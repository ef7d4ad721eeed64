// Bindings of what training needs beside products.
#include <pybind11/numpy.h>

#include <cmath>
#include <optional>
#include <string>
#include <vector>

#include "base/check.h"
#include "bindings/arrays.h"
#include "bindings/bindings.h"
#include "kernels/batch_norm.h"
#include "kernels/thread_pool.h"

namespace py = pybind11;

namespace pysim {
namespace {

constexpr const char* kShape = "(N, channels, H, W)";

/// The rest of `array` is as images: contiguous, and of their shape.
FloatArray read_images_like(const py::handle& array, const FloatArray& images, const char* where) {
  FloatArray found = read_array(array, 4, where, kShape);
  if (found.shape != images.shape) require(false, where, images.shape_text(), found.shape_text());
  if (!found.is_contiguous()) require(false, where, "a C-contiguous array", "another layout");
  return found;
}

FloatArray read_channels(const py::handle& array, std::int64_t channels, const char* where) {
  FloatArray found = read_array(array, 1, where, "(channels)");
  if (found.shape[0] != channels || !found.is_contiguous()) {
    require(false, where, std::to_string(channels) + " numbers beside each other", found.shape_text());
  }
  return found;
}

FloatArray read_images(const py::handle& array) {
  FloatArray found = read_array(array, 4, "batch norm input", kShape);
  if (!found.is_contiguous()) require(false, "batch norm input", "a C-contiguous array", "another layout");
  return found;
}

NormShape norm_shape(const FloatArray& x) {
  const NormShape shape{x.shape[0], x.shape[1], x.shape[2] * x.shape[3]};
  if (shape.count() < 1)
    require(false, "batch norm input", "at least one value to a channel", x.shape_text());
  return shape;
}

/// Scale and shift of each channel; without weight and bias those are the inverse deviation and 0.
std::vector<NormChannel> norm_channels(const FloatArray& means, const FloatArray& inverse_deviations,
                                       const py::handle& weight, const py::handle& bias) {
  const std::int64_t channels = means.shape[0];
  const float* const scales =
      weight.is_none() ? nullptr : read_channels(weight, channels, "batch norm weight").data;
  const float* const shifts =
      bias.is_none() ? nullptr : read_channels(bias, channels, "batch norm bias").data;
  std::vector<NormChannel> found;
  for (std::int64_t c = 0; c < channels; ++c) {
    const float scale = scales == nullptr ? 1.0F : scales[c];
    found.push_back(
        {means.data[c], scale * inverse_deviations.data[c], shifts == nullptr ? 0.0F : shifts[c]});
  }
  return found;
}

NormRun norm_run(const std::string& isa, int threads) {
  check_threads(threads, "batch norm");
  return {kernels_of(isa), threads};
}

/// (y, mean, inverse deviation, unbiased variance) of each channel.
py::tuple batch_norm(const py::handle& x, const py::handle& weight, const py::handle& bias,
                     const py::handle& residual, bool relu, double epsilon, const std::string& isa,
                     int threads) {
  const NormRun run = norm_run(isa, threads);
  const FloatArray source = read_images(x);
  const NormShape shape = norm_shape(source);
  const FloatArray added =
      residual.is_none() ? FloatArray{} : read_images_like(residual, source, "batch norm residual");
  const FloatArray y = new_array(x, 4, source.shape);
  const FloatArray means = new_array(x, 1, {shape.channels});
  const FloatArray inverses = new_array(x, 1, {shape.channels});
  const FloatArray variances = new_array(x, 1, {shape.channels});
  NormStatistics found;
  {
    const py::gil_scoped_release nogil;
    found = norm_statistics(source.data, shape, run);
  }
  const auto count = static_cast<double>(shape.count());
  for (std::size_t c = 0; c < found.means.size(); ++c) {
    means.data[c] = static_cast<float>(found.means[c]);
    inverses.data[c] = static_cast<float>(1.0 / std::sqrt(found.squares[c] / count + epsilon));
    variances.data[c] = static_cast<float>(found.squares[c] / (count - 1.0));
  }
  const std::vector<NormChannel> channels = norm_channels(means, inverses, weight, bias);
  {
    const py::gil_scoped_release nogil;
    normalize(source.data, shape, channels, added.data, relu, y.data, run);
  }
  return py::make_tuple(y.owner, means.owner, inverses.owner, variances.owner);
}

/// (dx, weight's gradient, bias's gradient, residual's gradient or None).
py::tuple batch_norm_gradient(const py::handle& dy, const py::handle& x, const py::handle& y,
                              const py::handle& weight, const py::handle& bias, const py::handle& mean,
                              const py::handle& inverse_deviation, bool relu, const std::string& isa,
                              int threads) {
  const NormRun run = norm_run(isa, threads);
  const FloatArray source = read_images(x);
  const NormShape shape = norm_shape(source);
  const FloatArray gradient = read_images_like(dy, source, "batch norm output gradient");
  const FloatArray means = read_channels(mean, shape.channels, "batch norm mean");
  const FloatArray inverses = read_channels(inverse_deviation, shape.channels, "batch norm deviation");
  const std::vector<NormChannel> channels = norm_channels(means, inverses, weight, bias);
  // With a residual behind it, the sign of the result is not that of the normalised input.
  const bool of_result = relu && !y.is_none();
  const ReluGradient mask = of_result ? ReluGradient::of_result
                            : relu    ? ReluGradient::recomputed
                                      : ReluGradient::none;
  const FloatArray result = of_result ? read_images_like(y, source, "batch norm output") : FloatArray{};
  const FloatArray masked = of_result ? new_array(x, 4, source.shape) : FloatArray{};
  const FloatArray dx = new_array(x, 4, source.shape);
  const FloatArray scale_gradient = new_array(x, 1, {shape.channels});
  const FloatArray shift_gradient = new_array(x, 1, {shape.channels});
  {
    const py::gil_scoped_release nogil;
    const NormGradientSums sums =
        norm_gradient_sums(gradient.data, source.data, result.data, shape, channels, mask, masked.data, run);
    for (std::size_t c = 0; c < channels.size(); ++c) {
      scale_gradient.data[c] = static_cast<float>(sums.with_x[c] * static_cast<double>(inverses.data[c]));
      shift_gradient.data[c] = static_cast<float>(sums.sums[c]);
    }
    norm_gradient(of_result ? masked.data : gradient.data, source.data, shape, channels, inverses.data, mask,
                  sums, dx.data, run);
  }
  const py::object of_residual = of_result ? masked.owner : py::none();
  return py::make_tuple(dx.owner, scale_gradient.owner, shift_gradient.owner, of_residual);
}

}  // namespace

void bind_training(py::module_& m) {
  m.def("batch_norm", &batch_norm, py::arg("x"), py::arg("weight"), py::arg("bias"), py::arg("residual"),
        py::kw_only(), py::arg("relu"), py::arg("epsilon"), py::arg("isa"), py::arg("threads"),
        "On the statistics of x: (y, mean, inverse deviation, unbiased variance).");
  m.def("batch_norm_gradient", &batch_norm_gradient, py::arg("dy"), py::arg("x"), py::arg("y"),
        py::arg("weight"), py::arg("bias"), py::arg("mean"), py::arg("inverse_deviation"), py::kw_only(),
        py::arg("relu"), py::arg("isa"), py::arg("threads"),
        "(dx, dweight, dbias, dresidual); y, which only ReLU behind a residual needs, or None.");
}

}  // namespace pysim
