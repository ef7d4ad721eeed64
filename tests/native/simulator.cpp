// Both engines on random layers, with and without memory: equal cycles, and values that are exact.
#include <stdexcept>

#include "checks.h"
#include "sim/array_kernels.h"
#include "sim/cycle_engine.h"
#include "sim/event_engine.h"

namespace pysim_checks {

using namespace pysim;

void check_simulator(int rounds) {
  Rng rng(2);
  for (int round = 0; round < rounds; ++round) {
    const BlockGrid grid{draw(rng, 1, 20), draw(rng, 1, 30), 1, draw(rng, 1, 5), draw(rng, 1, 5)};
    const std::int64_t n = draw(rng, 1, 12);
    std::vector<std::uint8_t> mask(static_cast<std::size_t>(grid.block_rows() * grid.block_cols()));
    for (std::uint8_t& keep : mask) keep = draw(rng, 0, 1) != 0;
    const Layer layer{grid, mask.data(), n};
    const std::vector<float> w = small_integers<float>(rng, grid.m * grid.k);
    const std::vector<float> x = small_integers<float>(rng, grid.k * n);
    std::vector<float> expected(static_cast<std::size_t>(grid.m * n));
    for (std::int64_t i = 0; i < grid.m; ++i) {
      for (std::int64_t e = 0; e < grid.k; ++e) {
        const std::int64_t block = i / grid.bh * grid.block_cols() + e / grid.bw;
        if (mask[static_cast<std::size_t>(block)] == 0) continue;
        for (std::int64_t j = 0; j < n; ++j) {
          expected[static_cast<std::size_t>(i * n + j)] +=
              w[static_cast<std::size_t>(i * grid.k + e)] * x[static_cast<std::size_t>(e * n + j)];
        }
      }
    }
    const ArrayKernels* const kernels = round % 2 == 0 ? &kScalarArray : &array_kernels(resolve_isa(""));
    for (const Dataflow dataflow : {Dataflow::ws, Dataflow::os, Dataflow::is}) {
      for (const Skip skip : {Skip::none, Skip::tile, Skip::gather}) {
        ArrayConfig array;
        array.rows = draw(rng, 1, 9);
        array.cols = draw(rng, 1, 9);
        array.dataflow = dataflow;
        array.skip = skip;
        std::vector<float> y(expected.size());
        const Counts counts =
            simulate_cycle(array, layer, w.data(), x.data(), y.data(), {.kernels = *kernels});
        expect(counts.cycles == simulate_event(array, layer).cycles, "cycles of the engines");
        expect(y == expected, "values of the cycle engine");
        array.cores = draw(rng, 1, 3);
        array.swapped = draw(rng, 0, 1) != 0;
        array.piece = draw(rng, 1, 8);
        MemoryConfig memory;
        memory.input_capacity = draw(rng, 1, 200);
        memory.weight_capacity = draw(rng, 1, 400);
        memory.output_capacity = draw(rng, 1, 400);
        memory.bandwidth = draw(rng, 0, 4) << MemoryConfig::fraction_bits;
        memory.latency = draw(rng, 0, 9);
        if (draw(rng, 0, 3) == 0) {
          memory.dram = {draw(rng, 1, 4), 64, 16, draw(rng, 0, 3), draw(rng, 0, 5), draw(rng, 0, 4), 3, 40};
        }
        Counts planned;
        try {
          planned = simulate_event(array, layer, &memory);
        } catch (const std::invalid_argument&) {
          continue;  // A buffer is too small.
        }
        if (planned.cycles > 20'000) continue;
        const Counts stepped = simulate_cycle(array, layer, w.data(), x.data(), y.data(),
                                              {.kernels = *kernels, .memory = &memory});
        expect(y == expected, "values of the cycle engine with memory");
        expect(stepped.cycles == planned.cycles, "cycles of the engines with memory");
        expect(stepped.memory->input_bytes == planned.memory->input_bytes, "bytes of the engines");
      }
    }
  }
}

}  // namespace pysim_checks
