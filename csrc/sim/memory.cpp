#include "sim/memory.h"

#include <algorithm>
#include <array>
#include <functional>
#include <queue>
#include <utility>

#include "base/checked_math.h"
#include "base/interrupt.h"
#include "sim/dram.h"

namespace pysim {
namespace {

bool is_read(TransferKind kind) { return kind != TransferKind::outputs && kind != TransferKind::spill; }

}  // namespace

void MemoryTiming::end(std::int64_t array, std::int64_t channel, std::size_t last) {
  cycles = std::max(array, channel);
  CoreCycles& core = cores[last];
  core.stalls[static_cast<std::size_t>(StallCause::output)] += cycles - array;
  compute_cycles = core.compute_cycles;
  std::copy(core.stalls, core.stalls + 3, stalls);
}

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
  std::size_t last = 0;
  for (std::size_t core = 0; core < cores; ++core) {
    const std::array<std::int64_t, 3>& own = by_cause[core];
    timing.cores.push_back({plan.cores[core].compute_cycles, {own[0], own[1], own[2]}});
    const std::int64_t end =
        checked_add(plan.cores[core].compute_cycles, stalls[core].total(), "memory cycles");
    if (end <= array) continue;
    array = end;
    last = core;
  }
  timing.end(array, channel, last);
  if (log != nullptr) {
    if (timing.cycles > array) {
      log->stalls.push_back(
          {static_cast<std::int32_t>(last), StallCause::output, array, timing.cycles - array});
    }
    log->sums = std::move(stalls);
  }
  return timing;
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
