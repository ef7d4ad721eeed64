// Products of 8-bit and of bfloat16 weights on every instruction set, with arrays that end where their memory
// ends.
#include <algorithm>
#include <string>

#include "base/isa.h"
#include "checks.h"
#include "kernels/int8_conv.h"
#include "kernels/spmm.h"

namespace pysim_checks {
namespace {

using namespace pysim;

std::size_t index(std::int64_t i) { return static_cast<std::size_t>(i); }

/// A random block-sparse matrix of 8-bit weights, extremes among them, and the same dense.
struct Matrix {
  BlockGrid grid;
  std::vector<std::int64_t> row_ptr{0};
  std::vector<std::int32_t> col_idx;
  std::vector<std::int8_t> values;
  std::vector<std::int8_t> dense;

  Matrix(Rng& rng, std::int64_t m, std::int64_t channels, std::int64_t positions)
      : grid{m, channels * positions, positions, draw(rng, 1, 17), draw(rng, 1, 9)},
        dense(index(m * grid.k)) {
    const std::int64_t keep = draw(rng, 0, 4);
    for (std::int64_t i = 0; i < grid.block_rows(); ++i) {
      for (std::int64_t j = 0; j < grid.block_cols(); ++j) {
        if (draw(rng, 0, 4) > keep) continue;
        col_idx.push_back(static_cast<std::int32_t>(j));
        for (std::int64_t v = 0; v < grid.bh * grid.bw; ++v) {
          const std::int64_t weight =
              draw(rng, 0, 3) == 0 ? draw(rng, 0, 1) * 255 - 128 : draw(rng, -128, 127);
          values.push_back(static_cast<std::int8_t>(weight));
          const std::int64_t row = grid.row_begin(i) + v / grid.bw, col = grid.col_begin(j) + v % grid.bw;
          if (row < grid.row_end(i) && col < grid.col_end(j))
            dense[index(row * grid.k + col)] = values.back();
        }
      }
      row_ptr.push_back(static_cast<std::int64_t>(col_idx.size()));
    }
  }
  BsrView blocks() const {
    return {grid, row_ptr.data(), col_idx.data(), nullptr, static_cast<std::int64_t>(col_idx.size())};
  }
};

std::vector<const Int8Kernels*> tables() {
  std::vector<const Int8Kernels*> found;
  for (const Int8IsaStatus& status : int8_isa_report()) {
    if (status.available) found.push_back(&int8_kernels(status.isa));
#if defined(__x86_64__)
    if (status.isa == Int8Isa::avx2 && status.available) found.push_back(&kEmulated16Int8);
#endif
  }
  return found;
}

void check_int8_spmm(Rng& rng, const Int8Kernels& kernels) {
  const Matrix w(rng, draw(rng, 1, 60), draw(rng, 1, 60), draw(rng, 1, 3));
  const std::int64_t m = w.grid.m, k = w.grid.k;
  const std::int64_t n = draw(rng, 0, 2) == 0 ? draw(rng, 1, 9) : draw(rng, 1, 210);
  const std::int64_t x_pitch = n + draw(rng, 0, 5), y_pitch = n + draw(rng, 0, 5);
  Int8Options options;
  options.signed_input = draw(rng, 0, 1) != 0;
  const std::int64_t low = options.signed_input ? -128 : 0;
  const std::int64_t zero = draw(rng, low, low + 255);
  options.input_zero_point = static_cast<std::int32_t>(zero);
  std::vector<std::uint8_t> x(index((k - 1) * x_pitch + n));
  for (std::uint8_t& value : x) value = static_cast<std::uint8_t>(draw(rng, 0, 255));
  for (std::int64_t r = 0; r < m; ++r)
    options.sum_bias.push_back(static_cast<std::int32_t>(draw(rng, -1000, 1000)));
  std::vector<std::int32_t> expected(index(m * n));
  for (std::int64_t r = 0; r < m; ++r) {
    for (std::int64_t j = 0; j < n; ++j) {
      std::int64_t sum = options.sum_bias[index(r)];
      for (std::int64_t e = 0; e < k; ++e) {
        const std::uint8_t byte = x[index(e * x_pitch + j)];
        const std::int64_t value = options.signed_input ? std::int64_t{static_cast<std::int8_t>(byte)} : byte;
        sum += w.dense[index(r * k + e)] * (value - zero);
      }
      expected[index(r * n + j)] = static_cast<std::int32_t>(sum);
    }
  }
  const Int8View view{w.blocks(), w.values.data()};
  const int threads = static_cast<int>(draw(rng, 1, 3));
  std::vector<std::int32_t> y(index((m - 1) * y_pitch + n));
  Int8SpmmPlan(view, options, kernels, threads).run(x.data(), x_pitch, n, y.data(), y_pitch);
  for (std::int64_t r = 0; r < m; ++r) {
    for (std::int64_t j = 0; j < n; ++j)
      expect(y[index(r * y_pitch + j)] == expected[index(r * n + j)], "8-bit sums");
  }
  // To 8 bits: a scale of a power of two, so that only the last rounding rounds.
  options.output = Int8Output::int8;
  options.output_zero_point = static_cast<std::int32_t>(draw(rng, -128, 127));
  options.scale.assign(index(m), 0.25F);
  std::vector<std::int8_t> small(index((m - 1) * y_pitch + n));
  Int8SpmmPlan(view, options, kernels, threads).run(x.data(), x_pitch, n, small.data(), y_pitch);
  for (std::int64_t r = 0; r < m; ++r) {
    for (std::int64_t j = 0; j < n; ++j) {
      const std::int64_t sum = expected[index(r * n + j)];
      const std::int64_t down = sum >> 2, rest = sum & 3;
      const std::int64_t rounded = down + (rest > 2 || (rest == 2 && (down & 1) != 0) ? 1 : 0);
      const std::int64_t kept = std::clamp<std::int64_t>(rounded + options.output_zero_point, -128, 127);
      expect(small[index(r * y_pitch + j)] == kept, "8-bit results");
    }
  }
}

void check_int8_conv(Rng& rng, const Int8Kernels& kernels) {
  const ConvWindow window{{draw(rng, 1, 3), draw(rng, 1, 3)},
                          {draw(rng, 1, 3), draw(rng, 1, 3)},
                          {draw(rng, 0, 3), draw(rng, 0, 3)},
                          {draw(rng, 1, 2), draw(rng, 1, 2)}};
  const std::int64_t channels = draw(rng, 1, 6), m = draw(rng, 1, 9), batch = draw(rng, 1, 3);
  const Pair size{draw(rng, 5, 12), draw(rng, 5, 30)};
  const Matrix w(rng, m, channels, window.kernel[0] * window.kernel[1]);
  Int8Options options;
  options.input_zero_point = static_cast<std::int32_t>(draw(rng, 0, 255));
  std::vector<std::uint8_t> x(index(batch * channels * size[0] * size[1]));
  for (std::uint8_t& value : x) value = static_cast<std::uint8_t>(draw(rng, 0, 255));
  const int threads = static_cast<int>(draw(rng, 1, 3));
  const Int8ConvPlan plan({{w.blocks(), w.values.data()}}, window, options, size[0], size[1], kernels,
                          threads);
  const std::array<std::int64_t, 4> out = plan.out_shape(batch);
  std::vector<std::int32_t> y(index(batch * m * out[2] * out[3]));
  plan.run(x.data(), batch, y.data());
  for (std::int64_t i = 0; i < batch * m * out[2] * out[3]; ++i) {
    const std::int64_t col = i % out[3], row = i / out[3] % out[2], o = i / (out[2] * out[3]) % m;
    const std::int64_t image = i / (m * out[2] * out[3]);
    std::int64_t sum = 0;
    for (std::int64_t k = 0; k < w.grid.k; ++k) {
      const std::int64_t tap = k / channels, c = k % channels;
      const std::int64_t r =
          row * window.stride[0] + tap / window.kernel[1] * window.dilation[0] - window.padding[0];
      const std::int64_t q =
          col * window.stride[1] + tap % window.kernel[1] * window.dilation[1] - window.padding[1];
      if (r < 0 || r >= size[0] || q < 0 || q >= size[1]) continue;
      const std::int64_t value = x[index(((image * channels + c) * size[0] + r) * size[1] + q)];
      sum += w.dense[index(o * w.grid.k + k)] * (value - options.input_zero_point);
    }
    expect(y[index(i)] == sum, "8-bit convolution");
  }
}

void check_bfloat16_spmm(Rng& rng, const KernelTable& kernels) {
  const Matrix w(rng, draw(rng, 1, 40), draw(rng, 1, 60), 1);
  const std::int64_t m = w.grid.m, k = w.grid.k, n = draw(rng, 1, 40);
  std::vector<float> values;
  for (const std::int8_t value : w.values) values.push_back(value);
  BsrView view = w.blocks();
  view.values = values.data();
  const std::vector<float> x = small_integers<float>(rng, k * n), bias = small_integers<float>(rng, m);
  std::vector<float> y(index(m * n));
  SpmmPlan(view, SpmmPlan::Form::plain, bias, true, kernels, 2, SpmmPlan::Weights::bfloat16)
      .run(x.data(), n, n, nullptr, 0, y.data(), n);
  for (std::int64_t r = 0; r < m; ++r) {
    for (std::int64_t j = 0; j < n; ++j) {
      float sum = bias[index(r)];
      for (std::int64_t e = 0; e < k; ++e) sum += w.dense[index(r * k + e)] * x[index(e * n + j)];
      expect(y[index(r * n + j)] == std::max(sum, 0.0F), "bfloat16 product");
    }
  }
}

}  // namespace

void check_small_weights(int rounds) {
  Rng rng(3);
  for (int round = 0; round < rounds; ++round) {
    for (const Int8Kernels* table : tables()) {
      check_int8_spmm(rng, *table);
      check_int8_conv(rng, *table);
    }
    for (const IsaStatus& status : isa_report()) {
      if (status.available) check_bfloat16_spmm(rng, kernel_table(status.isa));
    }
  }
}

}  // namespace pysim_checks
