// A layer's traffic as a fixed program: which transfers go over the channel in which order, what each waits
// for, and at which array cycles the array waits for them. Independent of bandwidth and latency, so a faster
// channel runs the same program; the engines differ only in how they find out when everything happens.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "sim/counts.h"
#include "sim/demand.h"
#include "sim/memory_config.h"

namespace pysim {

/// What a transfer carries. Indices travel with weights; the row pointers go first, alone.
enum class TransferKind : std::uint8_t { row_pointers, weights, inputs, outputs, spill, reload };

enum class Buffer : std::uint8_t { input, weight, output };

/// One use of the channel.
struct Transfer {
  TransferKind kind;
  std::int64_t bytes;        ///< Index bytes included.
  std::int64_t index_bytes;  ///< Of those, indices.
  std::int64_t words;        ///< Buffer words it writes (reads: spill, outputs).
  std::int64_t after;        ///< Array cycles that must have been done before it may start.
};

/// The array may not do array cycle `cycle` before transfer `transfer` has arrived (a read) or left (a
/// write).
struct Gate {
  std::int64_t cycle;
  std::int32_t transfer;  ///< -1: nothing to wait for; the gate only takes room.
  StallCause cause;
  std::int64_t room;  ///< Bytes of the output buffer that are taken up in this cycle.
};

/// Room given back in a buffer once `cycle` array cycles have been done.
struct Release {
  std::int64_t cycle;
  std::int64_t bytes;
};

struct TransferPlan {
  std::vector<Transfer> transfers;  ///< In channel order.
  std::vector<Gate> gates;          ///< By cycle; at one cycle in the order in which they are tried.
  std::vector<Release> input_releases, weight_releases;  ///< By cycle.
  std::vector<std::int64_t> output_room;  ///< (transfers): output room that its end gives back, or takes.
  std::int64_t compute_cycles = 0;
};

/// What is kept on chip between two uses of a unit, and how eagerly results are written. See docs/machine.md.
struct KeepRule {
  std::int64_t within;    ///< A unit stays if it is used again at most this many pieces later,
  std::int32_t quarters;  ///< or if it is in the first `quarters` quarters of its kind.
};
struct PlanRules {
  KeepRule inputs;
  KeepRule weights;
  std::int32_t output_quarters;  ///< Quarters of the outputs whose partial sums stay between folds.
  std::int64_t write_lag;        ///< Array cycles for which reads may overtake a finished output.
};

/// The buffer that was too small, and for what.
struct Shortage {
  Buffer buffer;
  std::int64_t needed;
};

/// Lays out a layer's traffic under one set of rules after the other.
class TransferPlanner {
 public:
  /// Keeps a reference to `demand`. Throws std::invalid_argument if `memory` is out of range or a transfer
  /// is too large.
  TransferPlanner(const Demand& demand, const MemoryConfig& memory, std::int64_t block_rows);

  /// Every set of rules worth trying. More capacity tries the same ones, or one that is surely as good.
  std::vector<PlanRules> candidates() const;

  /// Rules that need the least room.
  PlanRules frugal_rules() const;

  /// The traffic under `rules`; none if a buffer is too small for them, with `shortage` set.
  std::optional<TransferPlan> lay_out(const PlanRules& rules, Shortage& shortage);

 private:
  void find_next_uses();

  const Demand& demand_;
  MemoryConfig memory_;
  std::int64_t pointer_bytes_;
  std::vector<std::int64_t> input_bytes_;   ///< (places): bytes of one input unit.
  std::vector<std::int64_t> weight_bytes_;  ///< (weight units): without indices.
  std::vector<std::int64_t> index_bytes_;   ///< (weight units).
  std::vector<std::int32_t> next_weights_;  ///< (pieces): next piece with the same weights, or none.
  std::vector<std::int32_t> next_output_;   ///< (pieces): next piece with the same outputs, or none.
  std::vector<std::int64_t> use_begin_;     ///< (pieces + 1): into `next_input_`.
  std::vector<std::int32_t> next_input_;    ///< Of every input unit of every piece; filled when first needed.
  std::vector<std::uint8_t> input_on_chip_;  ///< (places, input units).
  bool sums_return_ = false;                 ///< Whether outputs are added to again after other outputs.
  bool all_inputs_fit_ = false;
  bool all_weights_fit_ = false;
};

}  // namespace pysim
