// A layer's traffic as a fixed program: which transfers go over the channel in which order, what each waits
// for, and at which array cycles the array waits for them. Independent of bandwidth and latency, so a faster
// channel runs the same program; the engines differ only in how they find out when everything happens.
#pragma once

#include <compare>
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
  std::int32_t core;         ///< Whose buffer it fills or empties.
  std::int64_t bytes;        ///< Index bytes included.
  std::int64_t index_bytes;  ///< Of those, indices.
  std::int64_t words;        ///< Buffer words it writes (reads: spill, outputs).
  std::int64_t room;         ///< Bytes of the output buffer that it takes up (reload) or gives back.
  std::int64_t after;        ///< Array cycles of its core that must have been done before it may start.
  std::int64_t turn;         ///< Array cycle at which it is laid out: the order of the channel.
};

/// Bytes off chip that a transfer reads or writes, at consecutive addresses.
struct Request {
  std::int32_t transfer;
  std::int64_t address;
  std::int64_t bytes;
};

/// A core may not do array cycle `cycle` before transfer `transfer` has arrived (a read) or left (a write).
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

/// What one core waits for.
struct CorePlan {
  std::vector<Gate> gates;  ///< By cycle; at one cycle in the order in which they are tried.
  std::vector<Release> input_releases, weight_releases;  ///< By cycle.
  std::int64_t compute_cycles = 0;
};

struct TransferPlan {
  std::vector<Transfer> transfers;  ///< Of all cores, in channel order.
  std::vector<CorePlan> cores;
  std::vector<Request> requests;  ///< In channel order, if asked for.
};

/// What is kept on chip between two uses of a unit, and how eagerly results are written. See docs/machine.md.
struct KeepRule {
  std::int64_t within;    ///< A unit stays if it is used again at most this many pieces later,
  std::int32_t quarters;  ///< or if it is in the first `quarters` quarters of its kind.

  bool operator==(const KeepRule&) const = default;
};
struct PlanRules {
  KeepRule inputs;
  KeepRule weights;
  std::int32_t output_quarters;  ///< Quarters of the outputs whose partial sums stay between folds.
  std::int64_t write_lag;        ///< Array cycles for which reads may overtake a finished output.
};

/// A set of rules by number, the same for all cores; a core without as many takes its last.
struct RuleNumbers {
  std::int32_t inputs, weights, sums, lag;

  auto operator<=>(const RuleNumbers&) const = default;
};

/// The buffer that was too small, and for what.
struct Shortage {
  Buffer buffer;
  std::int64_t needed;
};

/// One core's transfers and gates; gates number its transfers from 0.
struct CoreTraffic {
  std::vector<Transfer> transfers;
  std::vector<Request> requests;
  CorePlan plan;
};

/// Lays out one core's traffic under one set of rules after the other.
class TransferPlanner {
 public:
  /// Keeps a reference to `demand`. Throws std::invalid_argument if `memory` is out of range or a transfer
  /// is too large.
  ///
  /// pointers: row pointers that go over the channel first.
  TransferPlanner(const Demand& demand, const MemoryConfig& memory, std::int64_t pointers, std::int32_t core);

  /// From now on lay_out also lists requests, at addresses from `begin` on, as docs/machine.md says; returns
  /// the first address for another core.
  std::int64_t list_requests(std::int64_t begin);

  bool all_inputs_fit() const { return all_inputs_fit_; }
  bool all_weights_fit() const { return all_weights_fit_; }

  /// From now on there are all rules for operands that do not fit, and keeping everything is one rule more,
  /// if everything of all cores fits: with rows it is not surely the best, because a row that one transfer
  /// has opened serves the next.
  void compare_rows(bool inputs_fit, bool weights_fit);

  /// How many rules there are of each kind. More capacity has the same ones, or one that is surely as good;
  /// with rows the same ones and perhaps one more.
  RuleNumbers rule_counts() const;

  /// The rules of these numbers.
  PlanRules rules(const RuleNumbers& numbers) const;

  /// Rules that need the least room.
  PlanRules frugal_rules() const;

  /// Whether the input buffer has room for what `rules` keep in it.
  bool inputs_have_room(const PlanRules& rules) { return input_moves(rules.inputs).fits; }

  /// Bytes that go over the channel under `rules`, without partial sums and weights fetched again; no more
  /// than lay_out's. Where inputs_have_room alone.
  std::int64_t least_bytes(const PlanRules& rules) { return input_moves(rules.inputs).bytes + other_bytes_; }

  /// The traffic under `rules`; none if a buffer is too small for them, with `shortage` set.
  std::optional<CoreTraffic> lay_out(const PlanRules& rules, Shortage& shortage);

 private:
  /// What the input buffer does for each piece under one rule: the same whatever the other rules are.
  struct MovedUnits {
    std::int32_t missing, dropped;  ///< Fetched before a piece, given up after it.
  };
  struct InputMoves {
    KeepRule rule{-1, -1};
    std::vector<MovedUnits> units;    ///< (pieces).
    std::vector<std::int64_t> after;  ///< (pieces): array cycles before the fetch may start.
    std::int64_t bytes = 0;           ///< Of all fetches.
    bool fits = true;                 ///< Else the last piece that is listed has no room.
    std::int64_t taken = 0;           ///< Bytes in use when that happened.
  };

  void find_next_uses();
  const InputMoves& input_moves(const KeepRule& rule);
  MovedUnits move_units(std::size_t j, const KeepRule& rule);
  void clear_input_units();
  std::vector<KeepRule> keep_rules(bool all_fit, bool used_once) const;
  std::vector<KeepRule> input_rules() const { return keep_rules(all_inputs_fit_, false); }
  std::vector<KeepRule> weight_rules() const {
    return keep_rules(all_weights_fit_, demand_.weights_used_once);
  }
  std::vector<std::int64_t> lags() const;

  const Demand& demand_;
  MemoryConfig memory_;
  std::int32_t core_;
  std::int64_t pointer_bytes_;
  std::int64_t other_bytes_ = 0;            ///< Row pointers, every weight and every output once.
  std::vector<std::int64_t> input_bytes_;   ///< (places): bytes of one input unit.
  std::vector<std::int64_t> weight_bytes_;  ///< (weight units): without indices.
  std::vector<std::int64_t> index_bytes_;   ///< (weight units).
  std::vector<std::int32_t> next_weights_;  ///< (pieces): next piece with the same weights, or none.
  std::vector<std::int32_t> next_output_;   ///< (pieces): next piece with the same outputs, or none.
  std::vector<std::int64_t> use_begin_;     ///< (pieces + 1): into `next_input_`.
  std::vector<std::int32_t> next_input_;    ///< Of every input unit of every piece; filled when first needed.
  std::vector<std::uint8_t> input_on_chip_;  ///< (places, input units).
  bool requests_ = false;
  std::vector<std::int64_t> weight_address_, input_address_, output_address_, sum_address_, zero_address_;
  std::int64_t pointer_address_ = 0;
  std::vector<std::int32_t> missing_units_;
  std::vector<std::int8_t> quarter_;  ///< (input units).
  InputMoves moves_;                  ///< Of the rule that was asked for last.
  bool sums_return_ = false;          ///< Whether outputs are added to again after other outputs.
  bool all_inputs_fit_ = false;
  bool all_weights_fit_ = false;
  bool rows_ = false;  ///< Whether rows are followed.
};

/// All cores' traffic on one channel, by turn, ties by lower core.
TransferPlan share_channel(std::vector<CoreTraffic>&& cores);

}  // namespace pysim
