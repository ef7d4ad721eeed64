// When everything of one layer happens, by the event engine: pieces, transfers, stalls and the channel's
// requests, as columns of bounded length.
#pragma once

#include <cstdint>
#include <vector>

#include "sim/folding.h"
#include "sim/memory.h"

namespace pysim {

/// Columns; machine cycles, ends one past the last. Rows beyond the limit are left out and `cut` is set.
struct Timeline {
  // Pieces of folds, core by core in the order in which they run.
  std::vector<std::int64_t> piece_core, piece_start, piece_end;
  std::vector<std::int64_t> piece_preload;  ///< Start of the fold's preload; -1 where the piece has none.
  // Transfers in channel order.
  std::vector<std::int64_t> transfer_core, transfer_kind, transfer_start, transfer_end, transfer_bytes;
  // Stalls, by the array cycle at which they are.
  std::vector<std::int64_t> stall_core, stall_cause, stall_start, stall_cycles;
  // What the transfers read and write off chip, in channel order.
  std::vector<std::int64_t> request_transfer, request_address, request_bytes;
  std::int64_t cycles = 0;
  bool cut = false;
};

/// Simulates `layer` and writes down at most `max_rows` rows of each table. memory: null for the array alone.
/// Throws std::invalid_argument as simulate_event does.
Timeline list_timeline(const ArrayConfig& array, const Layer& layer, const MemoryConfig* memory,
                       std::int64_t max_rows);

}  // namespace pysim
