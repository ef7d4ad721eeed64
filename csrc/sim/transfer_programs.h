// One core's traffic, buffer by buffer: what each buffer fetches or gives up under one rule is a program of
// its own, and a plan is one program for each buffer and a lag for the writes. plan_walk.h puts them
// together.
#pragma once

#include <compare>
#include <cstdint>
#include <optional>
#include <vector>

#include "sim/demand.h"
#include "sim/memory_config.h"
#include "sim/transfer_plan.h"

namespace pysim {

/// What is kept on chip between two uses of a unit. See docs/machine.md.
struct KeepRule {
  std::int64_t within;    ///< A unit stays if it is used again at most this many pieces later,
  std::int32_t quarters;  ///< or if it is in the first `quarters` quarters of its kind.

  bool operator==(const KeepRule&) const = default;
};

/// A set of rules by number, the same for all cores; a core without as many takes its last.
struct RuleNumbers {
  std::int32_t inputs, weights, sums, lag;

  auto operator<=>(const RuleNumbers&) const = default;
};

/// Where a program finds a buffer too small.
struct Shortage {
  std::int64_t cycle;   ///< Array cycle at which there is no room.
  std::int64_t needed;  ///< Bytes that would be in use.
};

/// Operands that go over the channel for one array cycle.
struct Fetch {
  std::int64_t now;     ///< The array cycle that needs them.
  std::int64_t after;   ///< Array cycles that must have been done before their room is free.
  std::int64_t busy;    ///< Cycles of the channel.
  std::int32_t number;  ///< Weight unit; piece that needs inputs.
  std::int32_t units;   ///< Input units.
};

/// All fetches of weights, or of inputs.
struct FetchProgram {
  std::vector<Fetch> fetches;      ///< By `now`.
  std::int64_t fetched_bytes = 0;  ///< Index bytes included.
  std::int64_t index_bytes = 0;
  std::int64_t words = 0;  ///< Put into the buffer.
  std::int64_t busy = 0;   ///< Cycles of the channel.
  std::optional<Shortage> shortage;
  std::vector<Release> releases;             ///< Room given back, by cycle.
  std::vector<std::int32_t> missing_groups;  ///< If asked for: groups of input units that the fetches bring.

  std::int64_t bytes() const { return fetched_bytes; }
  void clear();
};

/// Outputs or sums on their way out.
struct Write {
  TransferKind kind;
  bool after_stream;   ///< Without lag it goes only after what is streamed at array cycle `ready`.
  std::int32_t unit;   ///< Output unit, or -1: zeros that are in no buffer.
  std::int32_t zeros;  ///< Which zeros, without a unit.
  std::int64_t ready;  ///< Array cycle from which its lag counts; not before that of the write before.
  std::int64_t after;  ///< Array cycles before it may start.
  std::int64_t bytes;
  std::int64_t busy;
};

/// Results that need room in the output buffer.
struct Take {
  std::int64_t now;         ///< Array cycle of the first of them.
  std::int64_t bytes;       ///< Of their sums.
  std::int64_t busy;        ///< Cycles of the channel to read the sums back; 0 where `reload` is false.
  std::int32_t unit;        ///< Output unit.
  std::int32_t write;       ///< The last write that must have left before, or -1.
  std::int32_t push_until;  ///< Writes before this number go first, whatever their lag.
  bool reload;
};

/// All that the output buffer takes in and gives up.
struct OutputProgram {
  std::vector<Write> writes;  ///< In their order.
  std::vector<Take> takes;    ///< By `now`.
  std::int64_t output_bytes = 0, spill_bytes = 0, reload_bytes = 0;
  std::int64_t written_words = 0, reloaded_words = 0;
  std::int64_t busy = 0;             ///< Cycles of the channel.
  std::int64_t max_lag = 0;          ///< With a longer lag the buffer is too small.
  std::optional<Shortage> shortage;  ///< Without any lag.

  std::int64_t bytes() const { return output_bytes + spill_bytes + reload_bytes; }
};

/// Writes one core's programs, one rule after the other.
class TransferPlanner {
 public:
  /// Keeps a reference to `operands`. Throws std::invalid_argument if `memory` is out of range or a transfer
  /// is too large.
  ///
  /// pointers: row pointers that go over the channel first.
  TransferPlanner(const CoreOperands& operands, const MemoryConfig& memory, std::int64_t pointers);

  bool all_inputs_fit() const { return all_inputs_fit_; }
  bool all_weights_fit() const { return all_weights_fit_; }

  /// From now on there are all rules for operands that do not fit, and keeping everything is one rule more,
  /// if everything of all cores fits: with rows it is not surely the best, because a row that one transfer
  /// has opened serves the next.
  void compare_rows(bool inputs_fit, bool weights_fit);

  /// From now on programs are those of `demand`, to which it keeps a reference.
  void take_order(const Demand& demand);

  /// How many rules there are of each kind. More capacity has the same ones, or one that is surely as good;
  /// with rows the same ones and perhaps one more.
  RuleNumbers rule_counts() const;

  // Programs by the number of their rule. A later rule of operands keeps all that an earlier one keeps.
  /// Fills a caller's program so that its memory is used again. in_full: with `missing_groups`.
  void fetch_inputs(std::int32_t number, bool in_full, FetchProgram& program);
  FetchProgram fetch_weights(std::int32_t number);
  OutputProgram write_outputs(std::int32_t number);
  std::int64_t lag(std::int32_t number) const;

  // Programs that need the least room.
  FetchProgram fetch_inputs_frugally();
  FetchProgram fetch_weights_frugally();
  OutputProgram write_outputs_frugally();

  const CoreOperands& operands() const { return operands_; }
  const Demand& demand() const { return *demand_; }
  const MemoryConfig& memory() const { return memory_; }
  std::int64_t pointer_bytes() const { return pointer_bytes_; }
  std::int64_t input_unit_bytes(std::size_t place) const { return input_bytes_[place]; }
  std::int64_t weight_unit_bytes(std::size_t unit) const { return weight_bytes_[unit]; }
  std::int64_t index_unit_bytes(std::size_t unit) const { return index_bytes_[unit]; }
  std::int64_t sum_bytes(std::size_t unit) const;
  std::int64_t output_bytes(std::int64_t elements) const;

 private:
  /// A preload or stream with weights.
  struct WeightUse {
    std::int64_t now;
    std::int64_t end;
    std::int32_t unit;
    std::int32_t distance;  ///< Pieces until the next use, or never.
  };

  void fetch_inputs(const KeepRule& rule, bool in_full, FetchProgram& program);
  FetchProgram fetch_weights(const KeepRule& rule);
  OutputProgram write_outputs_of(std::int32_t quarters);
  void find_next_lists();
  std::vector<KeepRule> keep_rules(bool all_fit, bool used_once) const;
  std::vector<KeepRule> input_rules() const { return keep_rules(all_inputs_fit_, false); }
  std::vector<KeepRule> weight_rules() const {
    return keep_rules(all_weights_fit_, demand_->weights_used_once);
  }
  std::vector<std::int64_t> lags() const;

  const CoreOperands& operands_;
  const Demand* demand_ = nullptr;
  MemoryConfig memory_;
  std::int64_t pointer_bytes_;
  std::vector<std::int64_t> input_bytes_;    ///< (places): bytes of one input unit.
  std::vector<std::int64_t> weight_bytes_;   ///< (weight units): without indices.
  std::vector<std::int64_t> index_bytes_;    ///< (weight units).
  std::vector<std::int32_t> next_list_;      ///< Of every group of every list: the next list with it, or -1.
  std::vector<std::uint8_t> group_on_chip_;  ///< (places, groups).
  std::vector<std::int8_t> quarter_;         ///< (groups).
  std::vector<WeightUse> weight_uses_;       ///< Of the order that was taken last.
  bool sums_return_ = false;                 ///< Whether outputs are added to again after other outputs.
  bool all_inputs_fit_ = false;
  bool all_weights_fit_ = false;
  bool rows_ = false;  ///< Whether rows are followed.
};

}  // namespace pysim
