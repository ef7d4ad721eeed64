// Products, convolutions, gradients and networks on every instruction set, several threads, several callers.
#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <thread>

#include "base/isa.h"
#include "checks.h"
#include "kernels/conv_gradient.h"
#include "kernels/network.h"
#include "kernels/spmm.h"

namespace pysim_checks {
namespace {

using namespace pysim;

/// A random block-sparse matrix and the same dense.
struct Matrix {
  BlockGrid grid;
  std::vector<std::int64_t> row_ptr{0};
  std::vector<std::int32_t> col_idx;
  std::vector<float> values;
  std::vector<float> dense;

  Matrix(Rng& rng, std::int64_t m, std::int64_t channels, std::int64_t positions)
      : grid{m, channels * positions, positions, draw(rng, 1, 9), draw(rng, 1, 9)},
        dense(static_cast<std::size_t>(m * grid.k)) {
    for (std::int64_t i = 0; i < grid.block_rows(); ++i) {
      for (std::int64_t j = 0; j < grid.block_cols(); ++j) {
        if (draw(rng, 0, 2) != 0) continue;
        col_idx.push_back(static_cast<std::int32_t>(j));
        const std::vector<float> block = small_integers<float>(rng, grid.bh * grid.bw);
        values.insert(values.end(), block.begin(), block.end());
        for (std::int64_t r = grid.row_begin(i); r < grid.row_end(i); ++r) {
          for (std::int64_t c = grid.col_begin(j); c < grid.col_end(j); ++c) {
            dense[static_cast<std::size_t>(r * grid.k + c)] =
                block[static_cast<std::size_t>((r - grid.row_begin(i)) * grid.bw + c - grid.col_begin(j))];
          }
        }
      }
      row_ptr.push_back(static_cast<std::int64_t>(col_idx.size()));
    }
  }
  BsrView view() const {
    return {grid, row_ptr.data(), col_idx.data(), values.data(), static_cast<std::int64_t>(col_idx.size())};
  }
};

std::vector<const KernelTable*> tables() {
  std::vector<const KernelTable*> found;
  for (const IsaStatus& status : isa_report()) {
    if (status.available) found.push_back(&kernel_table(status.isa));
#if defined(__x86_64__)
    if (status.isa == Isa::avx2 && status.available) found.push_back(&kEmulated16Kernels);
#endif
  }
  return found;
}

void check_spmm(Rng& rng, const KernelTable& kernels) {
  const Matrix w(rng, draw(rng, 1, 40), draw(rng, 1, 60), 1);
  // One column has a kernel of its own.
  const std::int64_t m = w.grid.m, k = w.grid.k, n = draw(rng, 0, 2) == 0 ? 1 : draw(rng, 1, 150);
  const std::vector<float> x = small_integers<float>(rng, k * n),
                           residual = small_integers<float>(rng, m * n);
  const std::vector<float> bias = small_integers<float>(rng, m);
  std::vector<float> y(static_cast<std::size_t>(m * n));
  const SpmmPlan plan(w.view(), SpmmPlan::Form::trainable, bias, true, kernels, 2);
  plan.run(x.data(), n, n, residual.data(), n, y.data(), n);
  for (std::int64_t i = 0; i < m; ++i) {
    for (std::int64_t j = 0; j < n; ++j) {
      float sum = 0.0F;
      for (std::int64_t e = 0; e < k; ++e)
        sum += w.dense[static_cast<std::size_t>(i * k + e)] * x[static_cast<std::size_t>(e * n + j)];
      sum += bias[static_cast<std::size_t>(i)] + residual[static_cast<std::size_t>(i * n + j)];
      expect(y[static_cast<std::size_t>(i * n + j)] == std::fmax(sum, 0.0F), "spmm");
    }
  }
  const SpmmPlan plain(w.view(), SpmmPlan::Form::plain, {}, false, kernels, 1);
  std::vector<float> product(y.size());
  plain.run(x.data(), n, n, nullptr, 0, product.data(), n);
  for (std::int64_t i = 0; i < m * n; ++i) {
    const auto at = static_cast<std::size_t>(i);
    const float sum = product[at] + (bias[static_cast<std::size_t>(i / n)] + residual[at]);
    expect(y[at] == std::fmax(sum, 0.0F), "spmm without an epilogue");
  }
  std::vector<float> gradient(w.values.size());
  plan.weight_gradient(y.data(), n, x.data(), n, n, gradient.data(),
                       static_cast<std::int64_t>(gradient.size()));
}

/// (batch, channels, pixels) with the channels side by side.
std::vector<float> channels_last(const std::vector<float>& x, std::int64_t batch, std::int64_t channels) {
  std::vector<float> out(x.size());
  const std::int64_t pixels = static_cast<std::int64_t>(x.size()) / batch / channels;
  for (std::int64_t b = 0; b < batch; ++b) {
    for (std::int64_t c = 0; c < channels; ++c) {
      for (std::int64_t p = 0; p < pixels; ++p)
        out[static_cast<std::size_t>((b * pixels + p) * channels + c)] =
            x[static_cast<std::size_t>((b * channels + c) * pixels + p)];
    }
  }
  return out;
}

/// Two convolutions with a stride, a residual, a pooling and a linear layer, against the scalar table.
void check_network(Rng& rng, const KernelTable& kernels) {
  const std::int64_t channels = draw(rng, 1, 6), side = draw(rng, 5, 20), width = draw(rng, 1, 9);
  const std::int64_t stride = draw(rng, 1, 3), batch = draw(rng, 1, 7);
  const auto conv = [&](std::int64_t in, std::int64_t out, Pair kernel, Pair strides, Pair padding) {
    const Matrix w(rng, out, in, kernel[0] * kernel[1]);
    return std::make_shared<const ConvWeights>(std::vector<BsrView>{w.view()},
                                               ConvWindow{kernel, strides, padding, {1, 1}},
                                               small_integers<float>(rng, out), true, true);
  };
  const auto first = conv(channels, width, {3, 3}, {stride, stride}, {1, 1});
  const auto second = conv(width, width, {3, 3}, {1, 1}, {1, 1});
  const auto last = conv(width, 4, {1, 1}, {1, 1}, {0, 0});
  NetworkGraph graph;
  const int input = graph.input({channels, side, side});
  const int a = graph.conv(input, first, -1);
  const int b = graph.conv(a, second, a);
  const Pair size = first->window.out_size({side, side});
  const int pooled = graph.pool(b, false, {{0, size[0], size[0]}}, {{0, size[1], size[1]}});
  const int output = graph.conv(graph.flatten(pooled), last, -1);

  constexpr ImageOrder first_order = ImageOrder::channels_first;
  const std::vector<float> x = small_integers<float>(rng, batch * channels * side * side);
  std::vector<float> expected(static_cast<std::size_t>(4 * batch));
  Network(graph, output, batch, kernel_table(Isa::scalar), 1).run({x.data()}, expected.data(), first_order);
  const Network network(graph, output, batch, kernels, 3);
  std::vector<std::thread> callers;
  std::vector<std::vector<float>> results(3, std::vector<float>(expected.size()));
  for (std::vector<float>& result : results)
    callers.emplace_back(
        [&network, &x, &result] { network.run({x.data()}, result.data(), ImageOrder::channels_first); });
  for (std::thread& caller : callers) caller.join();
  for (const std::vector<float>& result : results) expect(result == expected, "network");

  // The same first layer by itself, and its gradients.
  const auto shared = std::make_shared<const ConvPlan>(first, side, side, kernels, 2);
  const auto shared_reference =
      std::make_shared<const ConvPlan>(first, side, side, kernel_table(Isa::scalar), 1);
  const ConvPlan& plan = *shared;
  const ConvPlan& reference = *shared_reference;
  std::vector<float> y(static_cast<std::size_t>(batch * width * size[0] * size[1])), y_scalar(y.size());
  plan.run({x.data()}, batch, {}, y.data(), first_order);
  reference.run({x.data()}, batch, {}, y_scalar.data(), first_order);
  expect(y == y_scalar, "convolution");
  const std::vector<float> x_last = channels_last(x, batch, channels);
  std::vector<float> y_last(y.size());
  plan.run({x_last.data(), ImageOrder::channels_last}, batch, {}, y_last.data(), ImageOrder::channels_last);
  expect(y_last == channels_last(y, batch, width), "channels-last convolution");
  std::vector<float> dx(x.size()), dx_scalar(x.size());
  const std::vector<float> dy = small_integers<float>(rng, static_cast<std::int64_t>(y.size()));
  std::int64_t stored = 0;
  for (const std::int64_t place : first->groups[0].places()) stored = std::max(stored, place + 1);
  std::vector<float> dw(static_cast<std::size_t>(stored)), dw_scalar(dw.size());
  const std::vector<std::int64_t> counts{static_cast<std::int64_t>(dw.size())};
  ConvGradient(shared).run(dy.data(), {x.data()}, batch, dx.data(), {dw.data()}, counts);
  ConvGradient(shared_reference)
      .run(dy.data(), {x.data()}, batch, dx_scalar.data(), {dw_scalar.data()}, counts);
  expect(dx == dx_scalar, "convolution's input gradient");
  expect(dw == dw_scalar, "convolution's weight gradient");
}

}  // namespace

void check_kernels(int rounds) {
  Rng rng(1);
  for (int round = 0; round < rounds; ++round) {
    for (const KernelTable* table : tables()) {
      check_spmm(rng, *table);
      check_network(rng, *table);
    }
  }
}

}  // namespace pysim_checks
