// What both engines report about one layer.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

namespace pysim {

struct Transfer;

/// Why the array waits.
enum class StallCause : std::uint8_t { weight, input, output };

/// Words that the array takes from the buffers and puts there; the same from both engines.
struct ArrayAccesses {
  std::int64_t input_reads = 0;
  std::int64_t weight_reads = 0;   ///< Weights of kept blocks; those of pruned blocks are in no buffer.
  std::int64_t output_reads = 0;   ///< Partial sums read to be added to.
  std::int64_t output_writes = 0;  ///< Results and sums written.
};

/// Stalls and traffic of one layer. Every field is the same from both engines.
struct MemoryCounts {
  std::int64_t compute_cycles = 0;     ///< Cycles in which the array steps.
  std::int64_t stalls[3] = {0, 0, 0};  ///< By StallCause: cycles in which it does not.

  std::int64_t input_bytes = 0;   ///< Read from off chip.
  std::int64_t weight_bytes = 0;  ///< Read: kept weights.
  std::int64_t index_bytes = 0;   ///< Read: block indices and row pointers.
  std::int64_t output_bytes = 0;  ///< Written: finished outputs.
  std::int64_t spill_bytes = 0;   ///< Written: partial sums.
  std::int64_t reload_bytes = 0;  ///< Read: partial sums.

  // Where DRAM rows are followed:
  std::int64_t dram_bursts = 0;
  std::int64_t row_misses = 0;     ///< Rows opened in a bank that had none open.
  std::int64_t row_conflicts = 0;  ///< Rows opened in a bank that had another one open.

  // Words into and out of the buffers: by the array and by the channel.
  std::int64_t input_reads = 0, input_writes = 0;
  std::int64_t weight_reads = 0, weight_writes = 0;
  std::int64_t output_reads = 0, output_writes = 0;

  void add(const ArrayAccesses& accesses);
  /// Adds the bytes of a transfer and the buffer words that it moves.
  void add(const Transfer& transfer);
};

/// What one core's cycles are, until its last result has left.
struct CoreCycles {
  std::int64_t compute_cycles = 0;
  std::int64_t stalls[3] = {0, 0, 0};  ///< By StallCause.
};

/// Counts of one layer on one array. Every field is the same from both engines.
struct Counts {
  std::int64_t cycles = 0;  ///< Clock edges until the last result has left; with memory, has been written.
  std::int64_t folds = 0;   ///< Loads of the array.
  std::int64_t macs = 0;    ///< MACs on a real weight and a real input; zeros inside a fold included.
  std::int64_t skipped_macs = 0;  ///< m * k * n - macs.
  std::int64_t kept_macs = 0;     ///< MACs that the kept weights need: kept weights * n, at most macs.
  std::int64_t padded_macs = 0;   ///< MAC slots of folds without a real operand pair: rows * cols * T - macs.
  std::optional<MemoryCounts> memory{};  ///< With memory alone.
  std::vector<CoreCycles> cores{};       ///< Those in use.
};

}  // namespace pysim
