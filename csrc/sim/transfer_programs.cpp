#include "sim/transfer_programs.h"

#include <algorithm>
#include <limits>
#include <stdexcept>
#include <string>

#include "base/check.h"
#include "base/checked_math.h"
#include "base/interrupt.h"

namespace pysim {
namespace {

constexpr std::int32_t no_use = std::numeric_limits<std::int32_t>::max();
constexpr std::int64_t never = std::numeric_limits<std::int64_t>::max();
constexpr std::int64_t max_input_states = std::int64_t{1} << 28;
constexpr KeepRule keep_all{never, 4};

[[noreturn]] void refuse_bytes(const char* expected, std::int64_t bytes) {
  throw std::invalid_argument(std::string("memory: expected ") + expected + ", got " + std::to_string(bytes));
}

std::int64_t bytes_of(std::int64_t elements, std::int64_t bits) {
  checked_mul(elements, bits, "memory traffic");
  const std::int64_t bytes = packed_bytes(elements, bits);
  if (bytes > MemoryConfig::max_bytes) refuse_bytes("operands of at most 2^42 bytes", bytes);
  return bytes;
}

/// Whether a unit that is used again after `distance` pieces, or never, stays on chip until then.
bool stays(const KeepRule& rule, std::int32_t distance, std::int32_t quarter) {
  return (distance <= rule.within || quarter < rule.quarters) && distance != no_use;
}

template <class T>
T pick(const std::vector<T>& all, std::int32_t number) {
  return all[std::min(all.size() - 1, static_cast<std::size_t>(number))];
}

/// A buffer for operands: what is in it, and what goes back at which array cycle.
class Room {
 public:
  Room(std::int64_t capacity, std::vector<Release>& releases) : capacity_(capacity), releases_(releases) {}

  /// Takes `bytes` at array cycle `now`; false if they can never fit. `after` is then the cycle of the last
  /// release that it needs, or as it was.
  bool take(std::int64_t bytes, std::int64_t now, std::int64_t& after) {
    taken_ += bytes;
    while (taken_ > capacity_) {
      if (next_ == releases_.size() || releases_[next_].cycle > now) return false;
      taken_ -= releases_[next_].bytes;
      after = releases_[next_++].cycle;
    }
    return true;
  }

  /// `bytes` come back once `cycle` array cycles are done.
  void give_back(std::int64_t bytes, std::int64_t cycle) { releases_.push_back({cycle, bytes}); }

  std::int64_t taken() const { return taken_; }

 private:
  std::int64_t capacity_;
  std::vector<Release>& releases_;
  std::size_t next_ = 0;
  std::int64_t taken_ = 0;
};

}  // namespace

void FetchProgram::clear() {
  fetches.clear();
  releases.clear();
  missing_groups.clear();
  fetched_bytes = index_bytes = words = busy = 0;
  shortage.reset();
}

TransferPlanner::TransferPlanner(const CoreOperands& operands, const MemoryConfig& memory,
                                 std::int64_t pointers)
    : operands_(operands), memory_(memory), pointer_bytes_(bytes_of(pointers, memory.index_bits)) {
  memory.check();
  std::int64_t inputs = 0;
  input_bytes_.reserve(operands.place_elements.size());
  for (const std::int64_t elements : operands.place_elements) {
    input_bytes_.push_back(bytes_of(elements, memory.input_bits));
    inputs =
        checked_add(inputs, checked_mul(input_bytes_.back(), operands.used_input_units, "memory traffic"),
                    "memory traffic");
  }
  all_inputs_fit_ = inputs <= memory.input_capacity;
  std::int64_t weights = 0;
  weight_bytes_.reserve(operands.weights.size());
  index_bytes_.reserve(operands.weights.size());
  for (const WeightUnit& unit : operands.weights) {
    weight_bytes_.push_back(bytes_of(unit.elements, memory.weight_bits));
    index_bytes_.push_back(bytes_of(unit.blocks, memory.index_bits));
    weights += weight_bytes_.back() + index_bytes_.back();
  }
  all_weights_fit_ = weights <= memory.weight_capacity;
  quarter_.reserve(static_cast<std::size_t>(operands.groups()));
  for (std::int64_t group = 0; group < operands.groups(); ++group) {
    quarter_.push_back(static_cast<std::int8_t>(group * operands.group * 4 / operands.input_units));
  }
  const std::int64_t states =
      checked_mul(operands.input_units, static_cast<std::int64_t>(input_bytes_.size()), "memory input units");
  require(states <= max_input_states, "memory", "a layer whose inputs are at most 2^28 tiles",
          std::to_string(states));
  if (!all_inputs_fit_) find_next_lists();
}

void TransferPlanner::compare_rows(bool inputs_fit, bool weights_fit) {
  rows_ = true;
  all_inputs_fit_ = inputs_fit;
  all_weights_fit_ = weights_fit;
  if (next_list_.empty()) find_next_lists();
}

/// At one place lists are used in ascending order, whatever the order of folds.
void TransferPlanner::find_next_lists() {
  const auto listed = static_cast<std::int64_t>(operands_.list_groups.size()) * operands_.group;
  const std::int64_t uses = checked_mul(listed, operands_.core_places, "memory input units");
  require(uses <= max_input_states, "memory", "at most 2^28 uses of input rows by the pieces of a layer",
          std::to_string(uses));
  next_list_.resize(operands_.list_groups.size());
  std::vector<std::int32_t> next(static_cast<std::size_t>(operands_.groups()), -1);
  for (std::int64_t list = operands_.lists(); list-- > 0;) {
    poll_interrupt();
    const auto at = static_cast<std::size_t>(list);
    for (auto use = static_cast<std::size_t>(operands_.list_begin[at]);
         use < static_cast<std::size_t>(operands_.list_begin[at + 1]); ++use) {
      std::int32_t& own = next[static_cast<std::size_t>(operands_.list_groups[use])];
      next_list_[use] = own;
      own = static_cast<std::int32_t>(list);
    }
  }
}

void TransferPlanner::take_order(const Demand& demand) {
  demand_ = &demand;
  weight_uses_.clear();
  weight_uses_.reserve(operands_.weights.size());
  std::vector<std::int32_t> last_use;  // (weight units): or -1.
  std::vector<std::int32_t> piece_of_use;
  if (!demand.weights_used_once) last_use.assign(operands_.weights.size(), -1);
  for (std::size_t j = 0; j < demand.pieces.size(); ++j) {
    const Piece& piece = demand.pieces[j];
    if (piece.weights < 0) continue;
    if (!demand.weights_used_once) {
      const auto number = static_cast<std::int32_t>(j);
      std::int32_t& last = last_use[static_cast<std::size_t>(piece.weights)];
      if (last >= 0) {
        const auto use = static_cast<std::size_t>(last);
        weight_uses_[use].distance = number - piece_of_use[use];
      }
      last = static_cast<std::int32_t>(weight_uses_.size());
      piece_of_use.push_back(number);
    }
    weight_uses_.push_back({demand.weights_preloaded ? piece.preload : piece.stream,
                            demand.weights_preloaded ? piece.stream : piece.stream_end, piece.weights,
                            no_use});
  }
  sums_return_ = demand.visits.size() > demand.outputs.size();
}

std::vector<KeepRule> TransferPlanner::keep_rules(bool all_fit, bool used_once) const {
  if (all_fit && !rows_) return {keep_all};
  std::vector<KeepRule> rules{{1, 0}};
  if (used_once) return rules;
  for (std::int32_t quarters = demand_->inner_pieces > 1 ? 0 : 1; quarters < 4; ++quarters) {
    rules.push_back({demand_->inner_pieces, quarters});
  }
  if (all_fit) rules.push_back(keep_all);
  return rules;
}

std::vector<std::int64_t> TransferPlanner::lags() const {
  std::vector<std::int64_t> lags{demand_->longest_fold, demand_->longest_piece, 0};
  lags.erase(std::unique(lags.begin(), lags.end()), lags.end());
  return lags;
}

RuleNumbers TransferPlanner::rule_counts() const {
  return {static_cast<std::int32_t>(input_rules().size()), static_cast<std::int32_t>(weight_rules().size()),
          sums_return_ ? 3 : 1, static_cast<std::int32_t>(lags().size())};
}

std::int64_t TransferPlanner::lag(std::int32_t number) const { return pick(lags(), number); }

void TransferPlanner::fetch_inputs(std::int32_t number, bool in_full, FetchProgram& program) {
  fetch_inputs(pick(input_rules(), number), in_full, program);
}

FetchProgram TransferPlanner::fetch_weights(std::int32_t number) {
  return fetch_weights(pick(weight_rules(), number));
}

OutputProgram TransferPlanner::write_outputs(std::int32_t number) {
  return write_outputs_of(sums_return_ ? 4 - 2 * number : 4);
}

FetchProgram TransferPlanner::fetch_inputs_frugally() {
  FetchProgram program;
  fetch_inputs(all_inputs_fit_ ? keep_all : KeepRule{1, 0}, false, program);
  return program;
}

FetchProgram TransferPlanner::fetch_weights_frugally() {
  return fetch_weights(all_weights_fit_ ? keep_all : KeepRule{1, 0});
}

OutputProgram TransferPlanner::write_outputs_frugally() { return write_outputs_of(0); }

void TransferPlanner::fetch_inputs(const KeepRule& rule, bool in_full, FetchProgram& program) {
  program.clear();
  Room room(memory_.input_capacity, program.releases);
  const std::size_t groups = static_cast<std::size_t>(operands_.groups());
  group_on_chip_.assign(groups * input_bytes_.size(), 0);
  const bool all_stay = rule.quarters == 4;  // Then it is not asked who is next.
  const auto group_units = static_cast<std::int32_t>(operands_.group);
  for (std::size_t j = 0; j < demand_->pieces.size(); ++j) {
    const Piece& piece = demand_->pieces[j];
    if (piece.inputs < 0) continue;
    poll_interrupt();
    const auto place = static_cast<std::size_t>(piece.place);
    const std::int64_t unit_bytes = input_bytes_[place];
    if (unit_bytes == 0) continue;
    std::uint8_t* const on_chip = group_on_chip_.data() + place * groups;
    const auto begin = static_cast<std::size_t>(operands_.list_begin[static_cast<std::size_t>(piece.inputs)]);
    const auto end =
        static_cast<std::size_t>(operands_.list_begin[static_cast<std::size_t>(piece.inputs) + 1]);
    const std::int32_t* const list = operands_.list_groups.data();
    std::int32_t missing = 0;
    std::int32_t dropped = 0;
    if (in_full) {
      for (std::size_t use = begin; use < end; ++use) {
        if (on_chip[list[use]] == 0) program.missing_groups.push_back(list[use]);
      }
    }
    if (all_stay) {
      for (std::size_t use = begin; use < end; ++use) {
        missing += on_chip[list[use]] == 0;
        on_chip[list[use]] = 1;
      }
    } else {
      const std::int64_t ordinal = piece.place / demand_->place_step;
      for (std::size_t use = begin; use < end; ++use) {
        std::uint8_t& state = on_chip[list[use]];
        missing += state == 0;
        const std::int32_t next = next_list_[use];
        std::int32_t distance = no_use;
        if (next >= 0) {
          const ListPieces& at = demand_->list_pieces[static_cast<std::size_t>(next)];
          distance = static_cast<std::int32_t>(at.first + ordinal * at.step - static_cast<std::int64_t>(j));
        }
        const bool kept = stays(rule, distance, quarter_[static_cast<std::size_t>(list[use])]);
        state = kept;
        dropped += !kept;
      }
    }
    const bool preloaded = demand_->inputs_preloaded;
    if (missing > 0) {
      const std::int32_t units = missing * group_units;
      const std::int64_t bytes = checked_mul(units, unit_bytes, "memory traffic");
      if (bytes > MemoryConfig::max_bytes) refuse_bytes("inputs of a piece of at most 2^42 bytes", bytes);
      program.fetched_bytes = checked_add(program.fetched_bytes, bytes, "memory traffic");
      program.words += units * operands_.place_elements[place];
      const std::int64_t now = preloaded ? piece.preload : piece.stream;
      const std::int64_t busy = memory_.channel_cycles(bytes);
      std::int64_t after = 0;
      if (!room.take(bytes, now, after)) {
        program.shortage = {now, room.taken()};
        return;
      }
      program.fetches.push_back({now, after, busy, static_cast<std::int32_t>(j), units});
      program.busy = checked_add(program.busy, busy, "memory cycles");
    }
    if (dropped > 0) {
      room.give_back(dropped * group_units * unit_bytes, preloaded ? piece.stream : piece.stream_end);
    }
  }
}

FetchProgram TransferPlanner::fetch_weights(const KeepRule& rule) {
  FetchProgram program;
  program.fetches.reserve(weight_bytes_.size());
  Room room(memory_.weight_capacity, program.releases);
  std::vector<std::uint8_t> on_chip(weight_bytes_.size(), 0);
  for (const WeightUse& use : weight_uses_) {
    const auto unit = static_cast<std::size_t>(use.unit);
    const std::int64_t bytes = weight_bytes_[unit] + index_bytes_[unit];
    if (bytes == 0) continue;
    if (on_chip[unit] == 0) {
      std::int64_t after = 0;
      if (!room.take(bytes, use.now, after)) {
        program.shortage = {use.now, room.taken()};
        return program;
      }
      const std::int64_t busy = memory_.channel_cycles(bytes);
      program.fetches.push_back({use.now, after, busy, use.unit, 0});
      program.fetched_bytes = checked_add(program.fetched_bytes, bytes, "memory traffic");
      program.index_bytes += index_bytes_[unit];
      program.words += operands_.weights[unit].elements;
      program.busy = checked_add(program.busy, busy, "memory cycles");
    }
    const bool kept = rule.quarters == 4 || stays(rule, use.distance, operands_.weights[unit].quarter);
    on_chip[unit] = kept;
    if (!kept) room.give_back(bytes, use.end);
  }
  return program;
}

std::int64_t TransferPlanner::sum_bytes(std::size_t unit) const {
  return bytes_of(demand_->outputs[unit].elements, memory_.accumulator_bits);
}

std::int64_t TransferPlanner::output_bytes(std::int64_t elements) const {
  return bytes_of(elements, memory_.output_bits);
}

OutputProgram TransferPlanner::write_outputs_of(std::int32_t quarters) {
  OutputProgram program;
  const std::vector<OutputUnit>& units = demand_->outputs;
  program.writes.reserve(units.size() + demand_->zeros.size());
  program.takes.reserve(units.size());
  program.max_lag = never;
  std::vector<std::uint8_t> on_chip(units.size(), 0);
  std::vector<std::int32_t> spill_of(units.size(), -1);  // The last write of its sums.
  std::int64_t taken = 0;
  std::size_t released = 0;  // Writes whose room has been given back.
  std::int32_t pushed = 0;   // Writes that go before takes so far, whatever their lag.
  std::size_t zeros = 0;

  const auto add_write = [&](Write write) {
    if (!program.writes.empty()) {
      const Write& before = program.writes.back();
      if (before.ready > write.ready || (before.ready == write.ready && before.after_stream)) {
        write.ready = before.ready;
        write.after_stream = before.after_stream;
      }
    }
    write.busy = memory_.channel_cycles(write.bytes);
    program.busy = checked_add(program.busy, write.busy, "memory cycles");
    std::int64_t& bytes = write.kind == TransferKind::spill ? program.spill_bytes : program.output_bytes;
    bytes = checked_add(bytes, write.bytes, "memory traffic");
    program.writes.push_back(write);
  };
  const auto add_zeros = [&](std::int64_t ready, bool after_stream) {
    const std::int64_t elements = demand_->zeros[zeros].elements;
    add_write({TransferKind::outputs, after_stream, -1, static_cast<std::int32_t>(zeros), ready, 0,
               bytes_of(elements, memory_.output_bits), 0});
    ++zeros;
  };
  // Zeros that are due before an array cycle's results.
  const auto add_zeros_until = [&](std::int64_t cycle) {
    while (zeros < demand_->zeros.size()) {
      const auto piece = static_cast<std::size_t>(demand_->zeros[zeros].before);
      if (piece >= demand_->pieces.size() || demand_->pieces[piece].stream > cycle) break;
      add_zeros(demand_->pieces[piece].stream, true);
    }
  };

  for (std::size_t v = 0; v < demand_->visits.size(); ++v) {
    poll_interrupt();
    const OutputVisit& visit = demand_->visits[v];
    const auto at = static_cast<std::size_t>(visit.unit);
    const OutputUnit& unit = units[at];
    const std::int64_t sums = bytes_of(unit.elements, memory_.accumulator_bits);
    if (on_chip[at] == 0) {
      add_zeros_until(visit.begin);
      Take take{visit.begin, sums, 0, visit.unit, -1, pushed, unit.first != static_cast<std::int32_t>(v)};
      if (take.reload) take.push_until = pushed = std::max(pushed, spill_of[at] + 1);
      taken += sums;
      while (taken > memory_.output_capacity) {
        while (released < program.writes.size() && program.writes[released].unit < 0) ++released;
        const bool exists = released < program.writes.size();
        const bool forced = exists && static_cast<std::int32_t>(released) < pushed;
        const std::int64_t lag = exists ? visit.begin - program.writes[released].ready : -1;
        if (!exists || (!forced && lag < 0)) {
          program.shortage = {visit.begin, taken};
          return program;
        }
        if (!forced) program.max_lag = std::min(program.max_lag, lag);
        taken -= bytes_of(units[static_cast<std::size_t>(program.writes[released].unit)].elements,
                          memory_.accumulator_bits);
        take.write = static_cast<std::int32_t>(released++);
      }
      if (take.reload) {
        take.busy = memory_.channel_cycles(sums);
        program.busy = checked_add(program.busy, take.busy, "memory cycles");
        program.reload_bytes = checked_add(program.reload_bytes, sums, "memory traffic");
        program.reloaded_words += unit.elements;
      }
      program.takes.push_back(take);
    }
    on_chip[at] = 1;
    const bool complete = unit.last == static_cast<std::int32_t>(v);
    if (!complete && unit.quarter < quarters) continue;
    add_zeros_until(visit.last);
    on_chip[at] = 0;
    if (!complete) spill_of[at] = static_cast<std::int32_t>(program.writes.size());
    add_write({complete ? TransferKind::outputs : TransferKind::spill, false, visit.unit, -1, visit.end,
               visit.end, complete ? bytes_of(unit.elements, memory_.output_bits) : sums, 0});
    program.written_words += unit.elements;
  }
  add_zeros_until(never - 1);
  while (zeros < demand_->zeros.size()) add_zeros(demand_->compute_cycles, false);
  return program;
}

}  // namespace pysim
