// Runs a layer's transfers beside the array's cycles, from event to event, and picks the cheapest plan.
#pragma once

#include <cstdint>
#include <vector>

#include "sim/counts.h"
#include "sim/memory_config.h"
#include "sim/transfer_plan.h"

namespace pysim {

/// When the channel is taken by one transfer, in machine cycles.
struct TransferTime {
  std::int64_t start;
  std::int64_t end;  ///< One past the last; equals `start` on an unlimited channel.
};

/// Cycles of one plan on one channel.
struct MemoryTiming {
  std::int64_t cycles = 0;  ///< Until the last result and the last transfer are done.
  // Of the core that ends last, of several the first:
  std::int64_t compute_cycles = 0;
  std::int64_t stalls[3] = {0, 0, 0};  ///< By StallCause; they and the compute cycles add up to `cycles`.
};

/// Jumps from gate to gate, those of all cores by array cycle. times: if not null, filled with every
/// transfer's. Throws std::invalid_argument if cycles do not fit in 64 bits.
MemoryTiming time_plan(const TransferPlan& plan, const MemoryConfig& memory,
                       std::vector<TransferTime>* times = nullptr);

/// The plan with the fewest cycles by time_plan; among those the one with the fewest bytes, then the first.
/// Throws std::invalid_argument, naming the buffer, if one is too small even for the smallest pieces.
TransferPlan cheapest_plan(const std::vector<Demand>& demands, const MemoryConfig& memory,
                           std::int64_t block_rows);

/// Bytes and buffer words of a plan, and what the cores' arrays access. Cycles are left as they are.
void count_traffic(const TransferPlan& plan, const std::vector<Demand>& demands, MemoryCounts& counts);

}  // namespace pysim
