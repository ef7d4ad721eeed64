// GPU products in the emulation: every read and write of packing, panels and partial sums under the
// sanitizers.
#include <algorithm>
#include <cstddef>
#include <new>
#include <vector>

#include "checks.h"
#include "kernels/gpu/launch.h"
#include "kernels/gpu/numbers.h"
#include "kernels/int8_spmm.h"

namespace pysim_checks {
namespace {

using namespace pysim;

/// A vector's memory from its first element that lies at a multiple of 256 bytes; not a byte more.
struct Aligned {
  explicit Aligned(std::int64_t size)
      : bytes(size),
        memory(static_cast<char*>(::operator new(static_cast<std::size_t>(size), std::align_val_t{256}))) {}
  ~Aligned() { ::operator delete(memory, std::align_val_t{256}); }
  Aligned(const Aligned&) = delete;
  Aligned& operator=(const Aligned&) = delete;
  gpu::Memory view() const { return {reinterpret_cast<std::uintptr_t>(memory), bytes}; }

  std::int64_t bytes;
  char* memory;
};

std::int64_t size_of(std::size_t count, int bytes) { return static_cast<std::int64_t>(count) * bytes; }

void put(gpu::Math math, char* to, std::int64_t index, float value) {
  gpu::store_element(to, index, value, math);
}

float get(gpu::Math math, const char* from, std::int64_t index) {
  if (gpu::element_bytes(math) == 4) return reinterpret_cast<const float*>(from)[index];
  const std::uint16_t half = reinterpret_cast<const std::uint16_t*>(from)[index];
  return math == gpu::Math::f16 ? gpu::f16_value(half) : gpu::bf16_value(half);
}

void check_product(Rng& rng) {
  const auto math = static_cast<gpu::Math>(draw(rng, 0, 3));
  const int bytes = gpu::element_bytes(math);
  const std::int64_t heights[] = {1, 2, 3, 4, 8, 16, 24, 32, 40};
  const BlockGrid grid{draw(rng, 1, 150), draw(rng, 1, 120), 1, heights[draw(rng, 0, 8)], draw(rng, 1, 9)};
  std::vector<std::int64_t> row_ptr{0};
  std::vector<std::int32_t> col_idx;
  const std::int64_t rare = draw(rng, 0, 4);
  for (std::int64_t i = 0; i < grid.block_rows(); ++i) {
    for (std::int64_t j = 0; j < grid.block_cols(); ++j) {
      if (i == 0 || draw(rng, 0, rare) == 0) col_idx.push_back(static_cast<std::int32_t>(j));
    }
    row_ptr.push_back(static_cast<std::int64_t>(col_idx.size()));
  }
  const auto blocks = static_cast<std::int64_t>(col_idx.size());
  const std::vector<float> values = small_integers<float>(rng, blocks * grid.bh * grid.bw);
  const BsrView view{grid, row_ptr.data(), col_idx.data(), nullptr, blocks};
  const bool clustered = bytes == 2 && draw(rng, 0, 2) == 0;
  const int cluster = clustered ? 2 << draw(rng, 0, 2) : 1;
  const std::int64_t n = draw(rng, 0, clustered ? 290 : 90);
  const gpu::Plan plan({view}, math, {draw(rng, 10, 100) * 1024, draw(rng, 1, 8)}, {n, cluster});

  const Aligned image(static_cast<std::int64_t>(plan.image().size()));
  std::copy(plan.image().begin(), plan.image().end(), reinterpret_cast<std::byte*>(image.memory));
  const Aligned weights(size_of(plan.places().size(), bytes));
  for (std::size_t i = 0; i < plan.places().size(); ++i) {
    const std::int32_t place = plan.places()[i];
    put(math, weights.memory, static_cast<std::int64_t>(i),
        place < 0 ? 0.0F : values[static_cast<std::size_t>(place)]);
  }
  const bool tokens = !clustered && draw(rng, 0, 1) == 0;
  const std::int64_t pitch = clustered ? (n + 7) / 8 * 8 : n;  // of rows of X; the rest is never written
  const Aligned x(grid.k * pitch * bytes);
  const Aligned y(grid.m * n * bytes);
  const std::vector<float> numbers = small_integers<float>(rng, grid.k * n);
  for (std::int64_t i = 0; i < grid.k * n; ++i) {
    const std::int64_t place = tokens ? i : i / n * pitch + i % n;
    put(math, x.memory, place, numbers[static_cast<std::size_t>(i)]);
  }
  const Aligned work(gpu::workspace_bytes(plan, n));

  gpu::Operands operands;
  operands.image = image.view();
  operands.weights = weights.view();
  operands.x = x.view();
  operands.y = y.view();
  operands.workspace = work.view();
  operands.source.k = grid.k;
  operands.source.n = n;
  operands.source.k_stride = tokens ? 1 : pitch;
  operands.source.n_stride = tokens ? grid.k : 1;
  operands.y_m_stride = 1;
  operands.y_n_stride = grid.m;
  const gpu::Launches launches = gpu::plan_launches(plan, operands);
  expect(n == 0 || (launches.launch[0].kernel == gpu::Launch::Kernel::cluster) ==
                       (clustered && !gpu::takes_decode(n)),
         "GPU product: the kernel that the plan is for");
  gpu::emulate(launches);

  std::vector<float> dense(static_cast<std::size_t>(grid.m * grid.k));
  for (std::int64_t i = 0; i < grid.block_rows(); ++i) {
    for (std::int64_t b = row_ptr[static_cast<std::size_t>(i)]; b < row_ptr[static_cast<std::size_t>(i) + 1];
         ++b) {
      const std::int64_t begin = grid.col_begin(col_idx[static_cast<std::size_t>(b)]);
      const std::int64_t end = grid.col_end(col_idx[static_cast<std::size_t>(b)]);
      for (std::int64_t r = grid.row_begin(i); r < grid.row_end(i); ++r) {
        for (std::int64_t c = begin; c < end; ++c) {
          dense[static_cast<std::size_t>(r * grid.k + c)] =
              values[static_cast<std::size_t>((b * grid.bh + r - grid.row_begin(i)) * grid.bw + c - begin)];
        }
      }
    }
  }
  for (std::int64_t column = 0; column < n; ++column) {
    for (std::int64_t row = 0; row < grid.m; ++row) {
      float sum = 0;
      for (std::int64_t k = 0; k < grid.k; ++k) {
        sum += dense[static_cast<std::size_t>(row * grid.k + k)] *
               numbers[static_cast<std::size_t>(tokens ? column * grid.k + k : k * n + column)];
      }
      alignas(4) char rounded[4];
      put(math, rounded, 0, sum);
      expect(get(math, y.memory, column * grid.m + row) == get(math, rounded, 0), "GPU product");
    }
  }
}

/// Bytes to int32 sums, and to bytes. The matrix is in quads: elements of four bytes.
void check_int8_product(Rng& rng) {
  const std::int64_t heights[] = {1, 4, 8, 16, 40};
  const BlockGrid quads{draw(rng, 1, 60), draw(rng, 1, 40), 1, heights[draw(rng, 0, 4)], draw(rng, 1, 5)};
  BlockGrid grid = quads;
  grid.k *= 4;
  grid.bw *= 4;
  std::vector<std::int64_t> row_ptr{0};
  std::vector<std::int32_t> col_idx;
  const std::int64_t rare = draw(rng, 0, 4);
  for (std::int64_t i = 0; i < grid.block_rows(); ++i) {
    for (std::int64_t j = 0; j < grid.block_cols(); ++j) {
      if (i == 0 || draw(rng, 0, rare) == 0) col_idx.push_back(static_cast<std::int32_t>(j));
    }
    row_ptr.push_back(static_cast<std::int64_t>(col_idx.size()));
  }
  const auto blocks = static_cast<std::int64_t>(col_idx.size());
  std::vector<std::int8_t> values(static_cast<std::size_t>(blocks * grid.bh * grid.bw));
  for (std::int8_t& value : values) value = static_cast<std::int8_t>(draw(rng, -128, 127));
  Int8Options options;
  options.signed_input = draw(rng, 0, 1) != 0;
  options.input_zero_point = static_cast<std::int32_t>(draw(rng, 0, 127));
  if (draw(rng, 0, 1) != 0) {
    options.output = Int8Output::int8;
    options.scale.assign(static_cast<std::size_t>(grid.m), 0.001F);
  }
  const BsrView blocks_of_bytes{grid, row_ptr.data(), col_idx.data(), nullptr, blocks};
  const Int8View view{blocks_of_bytes, values.data()};
  const Int8Epilogue epilogue({view}, options);
  const std::int64_t n = draw(rng, 0, 90);
  const gpu::Plan plan({{quads, row_ptr.data(), col_idx.data(), nullptr, blocks}}, gpu::Math::i8,
                       {draw(rng, 10, 100) * 1024, draw(rng, 1, 8)}, {n});

  const Aligned image(static_cast<std::int64_t>(plan.image().size()));
  std::copy(plan.image().begin(), plan.image().end(), reinterpret_cast<std::byte*>(image.memory));
  const Aligned weights(size_of(plan.places().size(), 4));
  for (std::size_t i = 0; i < plan.places().size(); ++i) {
    for (std::size_t b = 0; b < 4; ++b) {
      const std::int32_t place = plan.places()[i];
      weights.memory[4 * i + b] =
          static_cast<char>(place < 0 ? 0 : values[4 * static_cast<std::size_t>(place) + b]);
    }
  }
  const std::vector<std::int32_t> table = gpu::epilogue_table(epilogue);
  const Aligned rows(size_of(table.size(), 4));
  std::copy(table.begin(), table.end(), reinterpret_cast<std::int32_t*>(rows.memory));
  const std::int64_t result_bytes = element_bytes(options.output);
  const Aligned x(grid.k * n);
  const Aligned y(grid.m * n * result_bytes);
  for (std::int64_t i = 0; i < grid.k * n; ++i) x.memory[i] = static_cast<char>(draw(rng, -128, 127));
  const Aligned work(gpu::workspace_bytes(plan, n));
  gpu::Operands operands;
  operands.image = image.view();
  operands.weights = weights.view();
  operands.x = x.view();
  operands.y = y.view();
  operands.bias = rows.view();
  operands.workspace = work.view();
  operands.epilogue = &epilogue;
  operands.source.k = quads.k;
  operands.source.n = n;
  operands.source.k_stride = 1;
  operands.source.n_stride = quads.k;
  operands.y_m_stride = 1;
  operands.y_n_stride = grid.m;
  gpu::emulate(gpu::plan_launches(plan, operands));

  // The CPU's plan takes X (k, n).
  std::vector<std::uint8_t> columns(static_cast<std::size_t>(grid.k * n));
  for (std::int64_t i = 0; i < grid.k * n; ++i)
    columns[static_cast<std::size_t>(i % grid.k * n + i / grid.k)] = static_cast<std::uint8_t>(x.memory[i]);
  std::vector<char> expected(static_cast<std::size_t>(grid.m * n * result_bytes));
  Int8SpmmPlan(view, options, int8_kernels(Int8Isa::scalar), 1).run(columns.data(), n, n, expected.data(), n);
  for (std::int64_t i = 0; i < grid.m * n; ++i) {
    const char* const want = expected.data() + i * result_bytes;
    expect(std::equal(want, want + result_bytes, y.memory + (i % n * grid.m + i / n) * result_bytes),
           "8-bit GPU product");
  }
}

}  // namespace

void check_gpu(int rounds) {
  Rng rng(20);
  for (int round = 0; round < rounds; ++round) {
    check_product(rng);
    check_int8_product(rng);
  }
}

}  // namespace pysim_checks
