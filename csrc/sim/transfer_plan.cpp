#include "sim/transfer_plan.h"

#include <algorithm>
#include <deque>
#include <limits>
#include <string>

#include "base/check.h"
#include "base/checked_math.h"
#include "base/interrupt.h"

namespace pysim {
namespace {

constexpr std::int32_t no_piece = std::numeric_limits<std::int32_t>::max();
constexpr std::int64_t never = std::numeric_limits<std::int64_t>::max();
constexpr std::int64_t max_input_states = std::int64_t{1} << 28;
constexpr std::int64_t region_alignment = 4096;
constexpr KeepRule keep_all{never, 4};

/// One step further back through the pieces: who uses `unit` next after `piece`.
std::int32_t take_next(std::vector<std::int32_t>& next_of_unit, std::int64_t unit, std::size_t piece) {
  std::int32_t& slot = next_of_unit[static_cast<std::size_t>(unit)];
  const std::int32_t next = slot;
  slot = static_cast<std::int32_t>(piece);
  return next;
}

std::int64_t bytes_of(std::int64_t elements, std::int64_t bits) {
  checked_mul(elements, bits, "memory traffic");
  const std::int64_t bytes = packed_bytes(elements, bits);
  require(bytes <= MemoryConfig::max_bytes, "memory", "operands of at most 2^42 bytes",
          std::to_string(bytes));
  return bytes;
}

/// Whether a unit used by piece `piece` and next by `next` stays on chip in between.
bool stays(const KeepRule& rule, std::size_t piece, std::int32_t next, std::int32_t quarter) {
  if (next == no_piece) return false;
  return next - static_cast<std::int64_t>(piece) <= rule.within || quarter < rule.quarters;
}

/// One buffer's room: what is taken, and the releases to come in their order.
class Room {
 public:
  explicit Room(std::int64_t capacity) : capacity_(capacity) {}

  /// Takes `bytes` at array cycle `now`; false if they can never fit. `last` is then the order mark of the
  /// last release that it needs, or as it was.
  bool take(std::int64_t bytes, std::int64_t now, std::int64_t& last) {
    taken_ += bytes;
    while (taken_ > capacity_) {
      if (releases_.empty() || releases_.front().cycle > now) return false;
      taken_ -= releases_.front().bytes;
      last = releases_.front().mark;
      releases_.pop_front();
    }
    return true;
  }

  /// `bytes` come back once `cycle` array cycles are done (0: at the latest when they are asked for).
  void give_back(std::int64_t bytes, std::int64_t cycle, std::int64_t mark) {
    if (bytes > 0) releases_.push_back({bytes, cycle, mark});
  }

  std::int64_t taken() const { return taken_; }

 private:
  struct Entry {
    std::int64_t bytes;
    std::int64_t cycle;
    std::int64_t mark;
  };
  std::int64_t capacity_;
  std::int64_t taken_ = 0;
  std::deque<Entry> releases_;
};

/// Outputs that have left the array, or will: to be written out.
struct Pending {
  TransferKind kind;
  std::int32_t unit;  ///< -1: zeros that are in no buffer.
  std::int64_t elements;
  std::int64_t after;     ///< Array cycles before it may start.
  std::int64_t ready;     ///< Array cycle from which its lag counts.
  std::size_t zeros = 0;  ///< Which zeros, without a unit.
};

}  // namespace

TransferPlanner::TransferPlanner(const Demand& demand, const MemoryConfig& memory, std::int64_t pointers,
                                 std::int32_t core)
    : demand_(demand), memory_(memory), core_(core), pointer_bytes_(bytes_of(pointers, memory.index_bits)) {
  memory.check();
  std::int64_t inputs = 0;
  for (const std::int64_t elements : demand.place_elements) {
    input_bytes_.push_back(bytes_of(elements, memory.input_bits));
    inputs = checked_add(inputs, checked_mul(input_bytes_.back(), demand.used_input_units, "memory traffic"),
                         "memory traffic");
  }
  all_inputs_fit_ = inputs <= memory.input_capacity;
  std::int64_t weights = 0;
  for (const WeightUnit& unit : demand.weights) {
    weight_bytes_.push_back(bytes_of(unit.elements, memory.weight_bits));
    index_bytes_.push_back(bytes_of(unit.blocks, memory.index_bits));
    weights += weight_bytes_.back() + index_bytes_.back();
  }
  all_weights_fit_ = weights <= memory.weight_capacity;
  other_bytes_ = checked_add(pointer_bytes_, weights, "memory traffic");
  for (const OutputUnit& unit : demand.outputs) {
    other_bytes_ = checked_add(other_bytes_, bytes_of(unit.elements, memory.output_bits), "memory traffic");
  }
  for (std::int64_t unit = 0; unit < demand.input_units; ++unit) {
    quarter_.push_back(static_cast<std::int8_t>(unit * 4 / demand.input_units));
  }

  const std::size_t pieces = demand.pieces.size();
  std::vector<std::int32_t> weight_next(demand.weights.size(), no_piece);
  std::vector<std::int32_t> output_next(demand.outputs.size(), no_piece);
  next_weights_.assign(pieces, no_piece);
  next_output_.assign(pieces, no_piece);
  for (std::size_t j = pieces; j-- > 0;) {
    const Piece& piece = demand.pieces[j];
    if (piece.weights >= 0) next_weights_[j] = take_next(weight_next, piece.weights, j);
    if (piece.output < 0) continue;
    next_output_[j] = take_next(output_next, piece.output, j);
    if (next_output_[j] != no_piece && next_output_[j] != static_cast<std::int32_t>(j) + 1)
      sums_return_ = true;
  }
  const auto places = static_cast<std::int64_t>(input_bytes_.size());
  const std::int64_t states = checked_mul(demand.input_units, places, "memory input units");
  require(states <= max_input_states, "memory", "a layer whose inputs are at most 2^28 tiles",
          std::to_string(states));
  if (!all_inputs_fit_) find_next_uses();
}

std::int64_t TransferPlanner::list_requests(std::int64_t begin) {
  requests_ = true;
  pointer_address_ = begin;
  std::int64_t next = begin;
  const auto next_region = [&] { next = ceil_div(next, region_alignment) * region_alignment; };
  const auto place = [&](std::vector<std::int64_t>& addresses, std::int64_t bytes) {
    addresses.push_back(next);
    next = checked_add(next, bytes, "memory addresses");
  };
  next = checked_add(begin, pointer_bytes_, "memory addresses");
  next_region();
  for (std::size_t unit = 0; unit < weight_bytes_.size(); ++unit) {
    place(weight_address_, weight_bytes_[unit] + index_bytes_[unit]);
  }
  next_region();
  for (const std::int64_t bytes : input_bytes_) {
    place(input_address_, checked_mul(bytes, demand_.input_units, "memory addresses"));
  }
  next_region();
  for (const OutputUnit& unit : demand_.outputs) {
    place(output_address_, bytes_of(unit.elements, memory_.output_bits));
  }
  for (const ZeroOutputs& zeros : demand_.zeros) {
    place(zero_address_, bytes_of(zeros.elements, memory_.output_bits));
  }
  next_region();
  for (const OutputUnit& unit : demand_.outputs) {
    place(sum_address_, bytes_of(unit.elements, memory_.accumulator_bits));
  }
  next_region();
  return next;
}

void TransferPlanner::compare_rows(bool inputs_fit, bool weights_fit) {
  rows_ = true;
  all_inputs_fit_ = inputs_fit;
  all_weights_fit_ = weights_fit;
  if (use_begin_.empty()) find_next_uses();
}

void TransferPlanner::find_next_uses() {
  const std::size_t pieces = demand_.pieces.size();
  use_begin_.assign(pieces + 1, 0);
  for (std::size_t j = 0; j < pieces; ++j) {
    const std::int32_t list = demand_.pieces[j].inputs;
    const auto at = static_cast<std::size_t>(list < 0 ? 0 : list);
    use_begin_[j + 1] = use_begin_[j] + (list < 0 ? 0 : demand_.list_begin[at + 1] - demand_.list_begin[at]);
  }
  constexpr std::int64_t most = std::int64_t{1} << 28;
  require(use_begin_.back() <= most, "memory", "at most 2^28 uses of input rows by the pieces of a layer",
          std::to_string(use_begin_.back()));
  next_input_.assign(static_cast<std::size_t>(use_begin_.back()), no_piece);
  std::vector<std::int32_t> next_of_unit(static_cast<std::size_t>(demand_.input_units) * input_bytes_.size(),
                                         no_piece);
  for (std::size_t j = pieces; j-- > 0;) {
    poll_interrupt();
    const Piece& piece = demand_.pieces[j];
    if (piece.inputs < 0) continue;
    const std::int64_t begin = demand_.list_begin[static_cast<std::size_t>(piece.inputs)];
    for (std::int64_t use = use_begin_[j]; use < use_begin_[j + 1]; ++use) {
      const std::int64_t unit = demand_.list_units[static_cast<std::size_t>(begin + use - use_begin_[j])];
      next_input_[static_cast<std::size_t>(use)] =
          take_next(next_of_unit, piece.place * demand_.input_units + unit, j);
    }
  }
}

std::vector<KeepRule> TransferPlanner::keep_rules(bool all_fit, bool used_once) const {
  if (all_fit && !rows_) return {keep_all};
  std::vector<KeepRule> rules{{1, 0}};
  if (used_once) return rules;
  for (std::int32_t quarters = demand_.inner_pieces > 1 ? 0 : 1; quarters < 4; ++quarters) {
    rules.push_back({demand_.inner_pieces, quarters});
  }
  if (all_fit) rules.push_back(keep_all);
  return rules;
}

std::vector<std::int64_t> TransferPlanner::lags() const {
  std::vector<std::int64_t> lags{demand_.longest_fold, demand_.longest_piece, 0};
  lags.erase(std::unique(lags.begin(), lags.end()), lags.end());
  return lags;
}

RuleNumbers TransferPlanner::rule_counts() const {
  return {static_cast<std::int32_t>(input_rules().size()), static_cast<std::int32_t>(weight_rules().size()),
          sums_return_ ? 3 : 1, static_cast<std::int32_t>(lags().size())};
}

PlanRules TransferPlanner::rules(const RuleNumbers& numbers) const {
  const auto pick = [](const auto& all, std::int32_t number) {
    return all[std::min(all.size() - 1, static_cast<std::size_t>(number))];
  };
  return {pick(input_rules(), numbers.inputs), pick(weight_rules(), numbers.weights),
          sums_return_ ? 4 - 2 * numbers.sums : 4, pick(lags(), numbers.lag)};
}

PlanRules TransferPlanner::frugal_rules() const {
  return {all_inputs_fit_ ? keep_all : KeepRule{1, 0}, all_weights_fit_ ? keep_all : KeepRule{1, 0}, 0, 0};
}

TransferPlanner::MovedUnits TransferPlanner::move_units(std::size_t j, const KeepRule& rule) {
  const Piece& piece = demand_.pieces[j];
  const auto list = static_cast<std::size_t>(piece.inputs);
  std::uint8_t* const on_chip = input_on_chip_.data() + piece.place * demand_.input_units;
  const std::int32_t* const units = demand_.list_units.data() + demand_.list_begin[list];
  const auto count = static_cast<std::int32_t>(demand_.list_begin[list + 1] - demand_.list_begin[list]);
  const std::int32_t* const next =
      rule.quarters == 4 ? nullptr
                         : next_input_.data() + use_begin_[j];  // All stay: who is next is not asked.
  MovedUnits moved{0, 0};
  missing_units_.clear();
  for (std::int32_t i = 0; i < count; ++i) {
    std::uint8_t& state = on_chip[units[i]];
    if (state == 0) {
      ++moved.missing;
      if (requests_) missing_units_.push_back(units[i]);
    }
    state = next == nullptr || stays(rule, j, next[i], quarter_[static_cast<std::size_t>(units[i])]);
    moved.dropped += state == 0;
  }
  return moved;
}

const TransferPlanner::InputMoves& TransferPlanner::input_moves(const KeepRule& rule) {
  if (moves_.rule == rule) return moves_;
  moves_ = {};
  moves_.rule = rule;
  moves_.units.reserve(demand_.pieces.size());
  moves_.after.reserve(demand_.pieces.size());
  Room room(memory_.input_capacity);
  clear_input_units();
  for (std::size_t j = 0; j < demand_.pieces.size(); ++j) {
    poll_interrupt();
    const Piece& piece = demand_.pieces[j];
    moves_.units.push_back({0, 0});
    moves_.after.push_back(0);
    if (piece.inputs < 0 || input_bytes_[static_cast<std::size_t>(piece.place)] == 0) continue;
    const std::int64_t unit_bytes = input_bytes_[static_cast<std::size_t>(piece.place)];
    const std::int64_t now = demand_.inputs_preloaded ? piece.preload : piece.stream;
    const std::int64_t end = demand_.inputs_preloaded ? piece.stream : piece.stream_end;
    const MovedUnits moved = moves_.units.back() = move_units(j, rule);
    if (moved.missing > 0) {
      const std::int64_t bytes = checked_mul(moved.missing, unit_bytes, "memory traffic");
      require(bytes <= MemoryConfig::max_bytes, "memory", "inputs of a piece of at most 2^42 bytes",
              std::to_string(bytes));
      moves_.bytes = checked_add(moves_.bytes, bytes, "memory traffic");
      if (!room.take(bytes, now, moves_.after.back())) {
        moves_.fits = false;
        moves_.taken = room.taken();
        return moves_;
      }
    }
    room.give_back(moved.dropped * unit_bytes, end, end);
  }
  return moves_;
}

void TransferPlanner::clear_input_units() {
  input_on_chip_.assign(static_cast<std::size_t>(demand_.input_units) * input_bytes_.size(), 0);
}

std::optional<CoreTraffic> TransferPlanner::lay_out(const PlanRules& rules, Shortage& shortage) {
  CoreTraffic traffic;
  CorePlan& plan = traffic.plan;
  plan.compute_cycles = demand_.compute_cycles;
  Room weight_room(memory_.weight_capacity);
  Room output_room(memory_.output_capacity);
  const InputMoves& moves = input_moves(rules.inputs);
  if (requests_) clear_input_units();
  std::vector<std::uint8_t> weights_on_chip(demand_.weights.size(), 0);
  std::vector<std::uint8_t> output_on_chip(demand_.outputs.size(), 0);
  std::deque<Pending> pending;
  std::size_t zeros = 0;

  const auto address_of = [&](const std::vector<std::int64_t>& addresses, std::size_t unit) {
    return requests_ ? addresses[unit] : -1;
  };
  // address: where all its bytes are off chip, or -1.
  const auto add_transfer = [&](const Transfer& transfer, std::int64_t address) {
    traffic.transfers.push_back(transfer);
    if (requests_ && address >= 0)
      traffic.requests.push_back(
          {static_cast<std::int32_t>(traffic.transfers.size() - 1), address, transfer.bytes});
    return static_cast<std::int32_t>(traffic.transfers.size() - 1);
  };
  const auto add_input_request = [&](std::int32_t transfer, std::int64_t address, std::int64_t bytes) {
    if (!traffic.requests.empty()) {
      Request& last = traffic.requests.back();
      if (last.transfer == transfer && last.address + last.bytes == address) {
        last.bytes += bytes;
        return;
      }
    }
    traffic.requests.push_back({transfer, address, bytes});
  };
  const auto emit_first_pending = [&](std::int64_t turn) {
    const Pending out = pending.front();
    pending.pop_front();
    const std::int64_t sums = out.unit < 0 ? 0 : bytes_of(out.elements, memory_.accumulator_bits);
    const std::int64_t bytes =
        out.kind == TransferKind::spill ? sums : bytes_of(out.elements, memory_.output_bits);
    const std::int64_t address =
        out.unit < 0 ? address_of(zero_address_, out.zeros)
                     : address_of(out.kind == TransferKind::spill ? sum_address_ : output_address_,
                                  static_cast<std::size_t>(out.unit));
    const std::int32_t number = add_transfer(
        {out.kind, core_, bytes, 0, out.unit < 0 ? 0 : out.elements, sums, out.after, turn}, address);
    output_room.give_back(sums, 0, number);
  };
  const auto emit_due = [&](std::int64_t now) {
    while (!pending.empty() && pending.front().ready <= now - rules.write_lag) emit_first_pending(now);
  };
  const auto add_zeros_before = [&](std::int64_t piece, std::int64_t ready) {
    for (; zeros < demand_.zeros.size() && demand_.zeros[zeros].before <= piece; ++zeros) {
      pending.push_back({TransferKind::outputs, -1, demand_.zeros[zeros].elements, 0, ready, zeros});
    }
  };

  const auto need_weights = [&](std::size_t j, std::int64_t now, std::int64_t end) {
    const Piece& piece = demand_.pieces[j];
    if (piece.weights < 0) return true;
    const auto unit = static_cast<std::size_t>(piece.weights);
    const std::int64_t bytes = weight_bytes_[unit] + index_bytes_[unit];
    if (weights_on_chip[unit] == 0 && bytes > 0) {
      std::int64_t after = 0;
      if (!weight_room.take(bytes, now, after)) {
        shortage = {Buffer::weight, weight_room.taken()};
        return false;
      }
      const std::int32_t number = add_transfer({TransferKind::weights, core_, bytes, index_bytes_[unit],
                                                demand_.weights[unit].elements, 0, after, now},
                                               address_of(weight_address_, unit));
      plan.gates.push_back({now, number, StallCause::weight, 0});
    }
    const bool keep = rules.weights.quarters == 4 ||
                      stays(rules.weights, j, next_weights_[j], demand_.weights[unit].quarter);
    weights_on_chip[unit] = keep;
    if (!keep && bytes > 0) {
      weight_room.give_back(bytes, end, end);
      plan.weight_releases.push_back({end, bytes});
    }
    return true;
  };

  const auto need_inputs = [&](std::size_t j, std::int64_t now, std::int64_t end) {
    const Piece& piece = demand_.pieces[j];
    if (piece.inputs < 0) return true;
    const auto place = static_cast<std::size_t>(piece.place);
    const std::int64_t unit_bytes = input_bytes_[place];
    if (unit_bytes == 0) return true;
    if (!moves.fits && j + 1 == moves.units.size()) {
      shortage = {Buffer::input, moves.taken};
      return false;
    }
    if (requests_) move_units(j, rules.inputs);  // For which they are; how many is known.
    const std::int64_t missing = moves.units[j].missing;
    if (missing > 0) {
      const std::int32_t number =
          add_transfer({TransferKind::inputs, core_, missing * unit_bytes, 0,
                        missing * demand_.place_elements[place], 0, moves.after[j], now},
                       -1);
      plan.gates.push_back({now, number, StallCause::input, 0});
      for (const std::int32_t unit : missing_units_) {
        add_input_request(number, input_address_[place] + unit * unit_bytes, unit_bytes);
      }
    }
    const std::int64_t dropped = moves.units[j].dropped;
    if (dropped > 0) plan.input_releases.push_back({end, dropped * unit_bytes});
    return true;
  };

  const auto need_output = [&](std::size_t j) {
    const Piece& piece = demand_.pieces[j];
    const auto at = static_cast<std::size_t>(piece.output);
    const OutputUnit& unit = demand_.outputs[at];
    const std::int64_t now = piece.result;
    if (output_on_chip[at] == 0) {
      const bool returns = unit.first != static_cast<std::int32_t>(j);
      const auto is_own_spill = [&](const Pending& out) { return out.unit == piece.output; };
      while (returns && std::any_of(pending.begin(), pending.end(), is_own_spill)) emit_first_pending(now);
      const std::int64_t sums = bytes_of(unit.elements, memory_.accumulator_bits);
      std::int64_t last = -1;
      if (!output_room.take(sums, now, last)) {
        shortage = {Buffer::output, output_room.taken()};
        return false;
      }
      if (returns) {
        last = add_transfer({TransferKind::reload, core_, sums, 0, unit.elements, sums, 0, now},
                            address_of(sum_address_, at));
        plan.gates.push_back({now, static_cast<std::int32_t>(last), StallCause::output, 0});
      } else {
        plan.gates.push_back({now, static_cast<std::int32_t>(last), StallCause::output, sums});
      }
    }
    output_on_chip[at] = 1;
    if (unit.last == static_cast<std::int32_t>(j)) {
      pending.push_back(
          {TransferKind::outputs, piece.output, unit.elements, piece.result_end, piece.result_end});
    } else if (!stays({1, rules.output_quarters}, j, next_output_[j], unit.quarter)) {
      output_on_chip[at] = 0;
      pending.push_back(
          {TransferKind::spill, piece.output, unit.elements, piece.result_end, piece.result_end});
    }
    return true;
  };

  if (pointer_bytes_ > 0)
    add_transfer({TransferKind::row_pointers, core_, pointer_bytes_, pointer_bytes_, 0, 0, 0, 0},
                 pointer_address_);

  // Preloads, streams and results of all pieces in the order of their array cycles. What is laid out at one
  // of them waits only for array cycles before it: the program cannot lock up.
  const std::size_t pieces = demand_.pieces.size();
  std::int64_t last_turn = 0;
  std::size_t preload = 0;
  std::size_t stream = 0;
  std::size_t result = 0;
  const auto skip_to_next = [&] {
    while (preload < pieces && demand_.pieces[preload].preload < 0) ++preload;
    while (result < pieces && demand_.pieces[result].output < 0) ++result;
  };
  for (skip_to_next(); preload < pieces || stream < pieces || result < pieces; skip_to_next()) {
    const std::int64_t at_preload = preload < pieces ? demand_.pieces[preload].preload : never;
    const std::int64_t at_stream = stream < pieces ? demand_.pieces[stream].stream : never;
    const std::int64_t at_result = result < pieces ? demand_.pieces[result].result : never;
    const std::int64_t now = std::min({at_preload, at_stream, at_result});
    poll_interrupt();
    last_turn = now;
    emit_due(now);
    if (now == at_preload) {
      const std::int64_t end = demand_.pieces[preload].stream;
      if (demand_.weights_preloaded && !need_weights(preload, now, end)) return std::nullopt;
      if (demand_.inputs_preloaded && !need_inputs(preload, now, end)) return std::nullopt;
      ++preload;
    } else if (now == at_stream) {
      add_zeros_before(static_cast<std::int64_t>(stream), now);
      const std::int64_t end = demand_.pieces[stream].stream_end;
      if (!demand_.weights_preloaded && !need_weights(stream, now, end)) return std::nullopt;
      if (!demand_.inputs_preloaded && !need_inputs(stream, now, end)) return std::nullopt;
      ++stream;
    } else {
      if (!need_output(result)) return std::nullopt;
      ++result;
    }
  }
  add_zeros_before(static_cast<std::int64_t>(pieces), demand_.compute_cycles);
  while (!pending.empty()) {
    last_turn = std::max(last_turn, pending.front().ready + rules.write_lag);
    emit_first_pending(last_turn);
  }
  return traffic;
}

TransferPlan share_channel(std::vector<CoreTraffic>&& cores) {
  TransferPlan plan;
  if (cores.size() == 1) {
    plan.transfers = std::move(cores[0].transfers);
    plan.requests = std::move(cores[0].requests);
    plan.cores.push_back(std::move(cores[0].plan));
    return plan;
  }
  for (const CoreTraffic& core : cores) {
    plan.transfers.insert(plan.transfers.end(), core.transfers.begin(), core.transfers.end());
  }
  std::stable_sort(plan.transfers.begin(), plan.transfers.end(),
                   [](const Transfer& a, const Transfer& b) { return a.turn < b.turn; });
  std::vector<std::vector<std::int32_t>> number_of(cores.size());
  for (std::size_t number = 0; number < plan.transfers.size(); ++number) {
    number_of[static_cast<std::size_t>(plan.transfers[number].core)].push_back(
        static_cast<std::int32_t>(number));
  }
  for (std::size_t core = 0; core < cores.size(); ++core) {
    for (Request request : cores[core].requests) {
      request.transfer = number_of[core][static_cast<std::size_t>(request.transfer)];
      plan.requests.push_back(request);
    }
  }
  std::stable_sort(plan.requests.begin(), plan.requests.end(),
                   [](const Request& a, const Request& b) { return a.transfer < b.transfer; });
  for (std::size_t core = 0; core < cores.size(); ++core) {
    plan.cores.push_back(std::move(cores[core].plan));
    for (Gate& gate : plan.cores.back().gates) {
      if (gate.transfer >= 0) gate.transfer = number_of[core][static_cast<std::size_t>(gate.transfer)];
    }
  }
  return plan;
}

}  // namespace pysim
