#include "sim/timeline.h"

#include <algorithm>

#include "sim/cores.h"
#include "sim/demand.h"

namespace pysim {
namespace {

/// Whether another row still fits; notes the cut if not.
bool has_room(const std::vector<std::int64_t>& column, std::int64_t max_rows, Timeline& timeline) {
  if (static_cast<std::int64_t>(column.size()) < max_rows) return true;
  timeline.cut = true;
  return false;
}

void list_pieces(const std::vector<Demand>& demands, const std::vector<StallSum>& stalls,
                 std::int64_t max_rows, Timeline& timeline) {
  for (std::size_t core = 0; core < demands.size(); ++core) {
    // An array cycle begins after the stalls at its own gates, so it ends one cycle later.
    const auto begin_of = [&](std::int64_t cycle) { return stalls[core].time_of(cycle + 1) - 1; };
    for (const Piece& piece : demands[core].pieces) {
      if (!has_room(timeline.piece_core, max_rows, timeline)) return;
      timeline.piece_core.push_back(static_cast<std::int64_t>(core));
      timeline.piece_preload.push_back(piece.preload < 0 ? -1 : begin_of(piece.preload));
      timeline.piece_start.push_back(begin_of(piece.stream));
      timeline.piece_end.push_back(stalls[core].time_of(piece.stream_end));
    }
  }
}

}  // namespace

Timeline list_timeline(const ArrayConfig& array, const Layer& layer, const MemoryConfig* memory,
                       std::int64_t max_rows) {
  Timeline timeline;
  const CoreMap cores(array, layer);
  std::vector<Demand> demands;
  for (std::int64_t core = 0; memory == nullptr && core < cores.cores(); ++core) {
    demands.push_back(
        list_demand(array, layer, cores, core, list_operands(array, layer, cores, core), false));
  }
  for (const Demand& demand : demands) timeline.cycles = std::max(timeline.cycles, demand.compute_cycles);
  std::vector<StallSum> stalls(demands.size());
  if (memory != nullptr) {
    TimingLog log;
    MemoryPlan chosen = plan_memory(array, layer, cores, *memory, true);
    demands = std::move(chosen.demands);
    const TransferPlan& plan = chosen.transfers;
    timeline.cycles = time_plan(plan, *memory, &log).cycles;
    for (std::size_t i = 0; i < plan.transfers.size(); ++i) {
      if (!has_room(timeline.transfer_core, max_rows, timeline)) break;
      timeline.transfer_core.push_back(plan.transfers[i].core);
      timeline.transfer_kind.push_back(static_cast<std::int64_t>(plan.transfers[i].kind));
      timeline.transfer_start.push_back(log.transfers[i].start);
      timeline.transfer_end.push_back(log.transfers[i].end);
      timeline.transfer_bytes.push_back(plan.transfers[i].bytes);
    }
    for (const Request& request : plan.requests) {
      if (!has_room(timeline.request_transfer, max_rows, timeline)) break;
      timeline.request_transfer.push_back(request.transfer);
      timeline.request_address.push_back(request.address);
      timeline.request_bytes.push_back(request.bytes);
    }
    for (const StallEvent& stall : log.stalls) {
      if (!has_room(timeline.stall_core, max_rows, timeline)) break;
      timeline.stall_core.push_back(stall.core);
      timeline.stall_cause.push_back(static_cast<std::int64_t>(stall.cause));
      timeline.stall_start.push_back(stall.start);
      timeline.stall_cycles.push_back(stall.cycles);
    }
    stalls = std::move(log.sums);
  }
  list_pieces(demands, stalls, max_rows, timeline);
  return timeline;
}

}  // namespace pysim
