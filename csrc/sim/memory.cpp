#include "sim/memory.h"

#include <algorithm>
#include <array>
#include <functional>
#include <limits>
#include <queue>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>

#include "base/check.h"
#include "base/checked_math.h"
#include "base/interrupt.h"
#include "sim/dram.h"

namespace pysim {
namespace {

bool is_read(TransferKind kind) { return kind != TransferKind::outputs && kind != TransferKind::spill; }

std::int64_t total_bytes(const TransferPlan& plan) {
  std::int64_t bytes = 0;
  for (const Transfer& transfer : plan.transfers)
    bytes = checked_add(bytes, transfer.bytes, "memory traffic");
  return bytes;
}

const char* name_of(Buffer buffer) {
  switch (buffer) {
    case Buffer::input:
      return "memory input_bytes";
    case Buffer::weight:
      return "memory weight_bytes";
    case Buffer::output:
      return "memory output_bytes";
  }
  return "";
}

std::int64_t capacity_of(const MemoryConfig& memory, Buffer buffer) {
  return buffer == Buffer::input    ? memory.input_capacity
         : buffer == Buffer::weight ? memory.weight_capacity
                                    : memory.output_capacity;
}

}  // namespace

MemoryTiming time_plan(const TransferPlan& plan, const MemoryConfig& memory, TimingLog* log) {
  const std::size_t cores = plan.cores.size();
  std::vector<StallSum> stalls(cores);
  std::vector<std::array<std::int64_t, 3>> by_cause(cores, {0, 0, 0});
  std::vector<std::int64_t> done(plan.transfers.size());
  ChannelUse use;
  if (memory.dram.present()) use = list_channel_use(plan, memory);
  std::int64_t channel = 0;
  std::size_t next = 0;
  const auto run_through = [&](std::size_t end) {
    for (; next < end; ++next) {
      const Transfer& transfer = plan.transfers[next];
      const StallSum& own = stalls[static_cast<std::size_t>(transfer.core)];
      const std::int64_t start = std::max(channel, own.time_of(transfer.after));
      const std::int64_t busy =
          memory.dram.present() ? use.cycles[next] : memory.channel_cycles(transfer.bytes);
      channel = end_of_work(memory.dram, start, busy);
      done[next] = checked_add(channel, is_read(transfer.kind) ? memory.read_latency() : 0, "memory cycles");
      if (log != nullptr) log->transfers.push_back({start, channel});
    }
  };
  const auto pass = [&](std::size_t core, const Gate& gate) {
    poll_interrupt();
    if (gate.transfer < 0) return;
    const auto needed = static_cast<std::size_t>(gate.transfer);
    run_through(needed + 1);
    const std::int64_t stall = done[needed] - gate.cycle - stalls[core].total();
    if (stall <= 0) return;
    if (log != nullptr) {
      log->stalls.push_back(
          {static_cast<std::int32_t>(core), gate.cause, gate.cycle + stalls[core].total(), stall});
    }
    stalls[core].add(gate.cycle, stall);
    by_cause[core][static_cast<std::size_t>(gate.cause)] += stall;
  };
  if (cores == 1) {
    for (const Gate& gate : plan.cores[0].gates) pass(0, gate);
  } else {
    using Turn = std::pair<std::int64_t, std::size_t>;  // Array cycle of a core's next gate, and the core.
    std::priority_queue<Turn, std::vector<Turn>, std::greater<Turn>> turns;
    std::vector<std::size_t> next_gate(cores, 0);
    const auto queue = [&](std::size_t core) {
      const std::vector<Gate>& gates = plan.cores[core].gates;
      if (next_gate[core] < gates.size()) turns.push({gates[next_gate[core]].cycle, core});
    };
    for (std::size_t core = 0; core < cores; ++core) queue(core);
    while (!turns.empty()) {
      const std::size_t core = turns.top().second;
      turns.pop();
      pass(core, plan.cores[core].gates[next_gate[core]++]);
      queue(core);
    }
  }
  run_through(plan.transfers.size());

  MemoryTiming timing;
  std::int64_t array = -1;
  std::int32_t last = 0;
  for (std::size_t core = 0; core < cores; ++core) {
    const std::int64_t end =
        checked_add(plan.cores[core].compute_cycles, stalls[core].total(), "memory cycles");
    if (end <= array) continue;
    array = end;
    last = static_cast<std::int32_t>(core);
    timing.compute_cycles = plan.cores[core].compute_cycles;
    std::copy(by_cause[core].begin(), by_cause[core].end(), timing.stalls);
  }
  timing.cycles = std::max(array, channel);
  timing.stalls[static_cast<std::size_t>(StallCause::output)] += timing.cycles - array;
  for (std::size_t core = 0; core < cores; ++core) {
    const std::array<std::int64_t, 3>& own = by_cause[core];
    timing.cores.push_back({plan.cores[core].compute_cycles, {own[0], own[1], own[2]}});
  }
  std::copy(timing.stalls, timing.stalls + 3, timing.cores[static_cast<std::size_t>(last)].stalls);
  if (log != nullptr) {
    if (timing.cycles > array) {
      log->stalls.push_back({last, StallCause::output, array, timing.cycles - array});
    }
    log->sums = std::move(stalls);
  }
  return timing;
}

TransferPlan cheapest_plan(const std::vector<Demand>& demands, const MemoryConfig& memory,
                           std::int64_t block_rows, bool requests) {
  std::vector<TransferPlanner> planners;
  RuleNumbers counts{1, 1, 1, 1};
  std::int64_t address = 0;
  bool inputs_fit = true;
  bool weights_fit = true;
  for (std::size_t core = 0; core < demands.size(); ++core) {
    planners.emplace_back(demands[core], memory, core == 0 ? block_rows + 1 : 0,
                          static_cast<std::int32_t>(core));
    if (requests || memory.dram.present()) address = planners.back().list_requests(address);
    inputs_fit = inputs_fit && planners.back().all_inputs_fit();
    weights_fit = weights_fit && planners.back().all_weights_fit();
  }
  for (TransferPlanner& planner : planners) {
    if (memory.dram.present()) planner.compare_rows(inputs_fit, weights_fit);
    const RuleNumbers own = planner.rule_counts();
    counts = {std::max(counts.inputs, own.inputs), std::max(counts.weights, own.weights),
              std::max(counts.sums, own.sums), std::max(counts.lag, own.lag)};
  }
  Shortage shortage{};
  TransferPlan best;
  std::int64_t cycles = std::numeric_limits<std::int64_t>::max();
  std::int64_t bytes = cycles;
  RuleNumbers best_at{};
  // Whether a plan of these rules would surely be passed over: it takes as many cycles as its bytes and the
  // array need. Rows of a DRAM have costs of their own.
  const auto is_beaten = [&](const RuleNumbers& numbers) {
    if (memory.dram.present()) return false;
    std::int64_t least_bytes = 0;
    std::int64_t least_cycles = 0;
    for (std::size_t core = 0; core < planners.size(); ++core) {
      const PlanRules rules = planners[core].rules(numbers);
      if (!planners[core].inputs_have_room(rules)) return true;
      least_bytes = checked_add(least_bytes, planners[core].least_bytes(rules), "memory traffic");
      least_cycles = std::max(least_cycles, demands[core].compute_cycles);
    }
    if (least_bytes <= MemoryConfig::max_bytes) {
      least_cycles = std::max(least_cycles, memory.channel_cycles(least_bytes));
    }
    return std::tie(least_cycles, least_bytes, numbers) > std::tie(cycles, bytes, best_at);
  };
  const auto consider = [&](const RuleNumbers& numbers) {
    if (is_beaten(numbers)) return;
    std::vector<CoreTraffic> cores;
    for (TransferPlanner& planner : planners) {
      std::optional<CoreTraffic> traffic = planner.lay_out(planner.rules(numbers), shortage);
      if (!traffic) return;
      cores.push_back(std::move(*traffic));
    }
    TransferPlan plan = share_channel(std::move(cores));
    const std::int64_t plan_cycles = time_plan(plan, memory).cycles;
    const std::int64_t plan_bytes = total_bytes(plan);
    if (std::tie(plan_cycles, plan_bytes, numbers) > std::tie(cycles, bytes, best_at)) return;
    best = std::move(plan);
    best_at = numbers;
    cycles = plan_cycles;
    bytes = plan_bytes;
  };
  // Those that keep most come first: they need the fewest bytes, and others are then beaten.
  RuleNumbers at{};
  for (at.inputs = counts.inputs - 1; at.inputs >= 0; --at.inputs) {
    for (at.weights = counts.weights - 1; at.weights >= 0; --at.weights) {
      for (at.sums = 0; at.sums < counts.sums; ++at.sums) {
        for (at.lag = 0; at.lag < counts.lag; ++at.lag) consider(at);
      }
    }
  }
  if (cycles != std::numeric_limits<std::int64_t>::max()) return best;
  for (TransferPlanner& planner : planners) {
    if (planner.lay_out(planner.frugal_rules(), shortage)) continue;
    require(false, name_of(shortage.buffer),
            "at least " + std::to_string(shortage.needed) + " for this layer",
            std::to_string(capacity_of(memory, shortage.buffer)));
  }
  throw std::logic_error("memory: the frugal rules are not among those tried");
}

MemoryPlan plan_memory(const ArrayConfig& array, const Layer& layer, const CoreMap& cores,
                       const MemoryConfig& memory, bool requests) {
  const auto plan_with = [&](bool ranges_apart) {
    MemoryPlan plan{ranges_apart, list_demands(array, layer, cores, ranges_apart), {}};
    plan.transfers = cheapest_plan(plan.demands, memory, layer.grid.block_rows(), requests);
    return plan;
  };
  const bool has_ranges = array.dataflow == Dataflow::ws && layer.n > array.piece;
  MemoryPlan plan = plan_with(has_ranges && array.swapped);
  if (!has_ranges || array.swapped) return plan;
  MemoryPlan apart = plan_with(true);
  const std::int64_t cycles = time_plan(plan.transfers, memory).cycles;
  const std::int64_t cycles_apart = time_plan(apart.transfers, memory).cycles;
  const bool fewer_bytes = total_bytes(apart.transfers) < total_bytes(plan.transfers);
  return cycles_apart < cycles || (cycles_apart == cycles && fewer_bytes) ? apart : plan;
}

void count_traffic(const MemoryPlan& plan, MemoryCounts& counts) {
  for (const Demand& demand : plan.demands) counts.add(demand.accesses);
  for (const Transfer& transfer : plan.transfers.transfers) counts.add(transfer);
}

void MemoryCounts::add(const ArrayAccesses& accesses) {
  input_reads += accesses.input_reads;
  weight_reads += accesses.weight_reads;
  output_reads += accesses.output_reads;
  output_writes += accesses.output_writes;
}

void MemoryCounts::add(const Transfer& transfer) {
  index_bytes += transfer.index_bytes;
  switch (transfer.kind) {
    case TransferKind::row_pointers:
      break;
    case TransferKind::weights:
      weight_bytes += transfer.bytes - transfer.index_bytes;
      weight_writes += transfer.words;
      break;
    case TransferKind::inputs:
      input_bytes += transfer.bytes;
      input_writes += transfer.words;
      break;
    case TransferKind::outputs:
      output_bytes += transfer.bytes;
      output_reads += transfer.words;
      break;
    case TransferKind::spill:
      spill_bytes += transfer.bytes;
      output_reads += transfer.words;
      break;
    case TransferKind::reload:
      reload_bytes += transfer.bytes;
      output_writes += transfer.words;
      break;
  }
}

}  // namespace pysim
