// Rows of the off-chip memory: what opening them and refresh add to the transfers of a plan.
#pragma once

#include <cstdint>
#include <vector>

#include "sim/memory_config.h"
#include "sim/transfer_plan.h"

namespace pysim {

/// How long the channel works for each transfer, and what the rows did. Which rows must be opened follows
/// from the order of the transfers alone, never from when they are.
struct ChannelUse {
  std::vector<std::int64_t> cycles;  ///< (transfers): openings of rows and bursts, without refresh.
  std::int64_t bursts = 0;
  std::int64_t row_misses = 0;     ///< Rows opened in a bank that had none open.
  std::int64_t row_conflicts = 0;  ///< Rows opened in a bank that had another one open.
};

/// For a plan with requests and a memory with rows. Throws std::invalid_argument if cycles do not fit in 64
/// bits.
ChannelUse list_channel_use(const TransferPlan& plan, const MemoryConfig& memory);

/// The cycle by whose beginning `busy` cycles of work that start in `start` are done, refreshes included.
std::int64_t end_of_work(const DramConfig& dram, std::int64_t start, std::int64_t busy);

}  // namespace pysim
