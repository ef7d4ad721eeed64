#include "sim/memory.h"

#include <algorithm>
#include <limits>
#include <string>

#include "base/check.h"
#include "base/checked_math.h"

namespace pysim {
namespace {

bool is_read(TransferKind kind) { return kind != TransferKind::outputs && kind != TransferKind::spill; }

/// Stalls so far, as a function of array cycles.
class StallSum {
 public:
  /// Machine cycle by which `done` array cycles are done: stalls at their gates are behind them.
  std::int64_t time_of(std::int64_t done) const {
    const auto after = std::lower_bound(cycles_.begin(), cycles_.end(), done);
    return done +
           (after == cycles_.begin() ? 0 : sums_[static_cast<std::size_t>(after - cycles_.begin()) - 1]);
  }
  void add(std::int64_t cycle, std::int64_t stall) {
    sums_.push_back(checked_add(total(), stall, "memory stalls"));
    cycles_.push_back(cycle);
  }
  std::int64_t total() const { return sums_.empty() ? 0 : sums_.back(); }

 private:
  std::vector<std::int64_t> cycles_, sums_;
};

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

MemoryTiming time_plan(const TransferPlan& plan, const MemoryConfig& memory,
                       std::vector<TransferTime>* times) {
  MemoryTiming timing;
  StallSum stalls;
  std::vector<std::int64_t> done(plan.transfers.size());
  std::int64_t channel = 0;
  std::size_t next = 0;
  const auto run_through = [&](std::size_t end) {
    for (; next < end; ++next) {
      const Transfer& transfer = plan.transfers[next];
      const std::int64_t start = std::max(channel, stalls.time_of(transfer.after));
      channel = checked_add(start, memory.channel_cycles(transfer.bytes), "memory cycles");
      done[next] = checked_add(channel, is_read(transfer.kind) ? memory.latency : 0, "memory cycles");
      if (times != nullptr) times->push_back({start, channel});
    }
  };
  for (const Gate& gate : plan.gates) {
    if (gate.transfer < 0) continue;
    const auto needed = static_cast<std::size_t>(gate.transfer);
    run_through(needed + 1);
    const std::int64_t stall = done[needed] - gate.cycle - stalls.total();
    if (stall <= 0) continue;
    stalls.add(gate.cycle, stall);
    timing.stalls[static_cast<std::size_t>(gate.cause)] += stall;
  }
  run_through(plan.transfers.size());
  const std::int64_t array = checked_add(plan.compute_cycles, stalls.total(), "memory cycles");
  timing.cycles = std::max(array, channel);
  timing.stalls[static_cast<std::size_t>(StallCause::output)] += timing.cycles - array;
  return timing;
}

TransferPlan cheapest_plan(const Demand& demand, const MemoryConfig& memory, std::int64_t block_rows) {
  TransferPlanner planner(demand, memory, block_rows);
  Shortage shortage{};
  TransferPlan best;
  std::int64_t cycles = std::numeric_limits<std::int64_t>::max();
  std::int64_t bytes = cycles;
  for (const PlanRules& rules : planner.candidates()) {
    std::optional<TransferPlan> plan = planner.lay_out(rules, shortage);
    if (!plan) continue;
    const std::int64_t plan_cycles = time_plan(*plan, memory).cycles;
    const std::int64_t plan_bytes = total_bytes(*plan);
    if (plan_cycles > cycles || (plan_cycles == cycles && plan_bytes >= bytes)) continue;
    best = std::move(*plan);
    cycles = plan_cycles;
    bytes = plan_bytes;
  }
  if (cycles == std::numeric_limits<std::int64_t>::max()) {
    planner.lay_out(planner.frugal_rules(), shortage);
    require(false, name_of(shortage.buffer),
            "at least " + std::to_string(shortage.needed) + " for this layer",
            std::to_string(capacity_of(memory, shortage.buffer)));
  }
  return best;
}

void count_traffic(const TransferPlan& plan, const ArrayAccesses& accesses, MemoryCounts& counts) {
  counts.input_reads = accesses.input_reads;
  counts.weight_reads = accesses.weight_reads;
  counts.output_reads = accesses.output_reads;
  counts.output_writes = accesses.output_writes;
  for (const Transfer& transfer : plan.transfers) counts.add(transfer);
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
