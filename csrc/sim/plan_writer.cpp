#include "sim/plan_writer.h"

#include "base/checked_math.h"

namespace pysim {
namespace {

constexpr std::int64_t region_alignment = 4096;

/// Where everything of one core is off chip.
struct Addresses {
  std::int64_t pointers = 0;
  std::vector<std::int64_t> weights, inputs, outputs, zeros, sums;
};

/// The addresses from `next` on; `next` is then the first one for another core.
Addresses place_core(const TransferPlanner& planner, std::int64_t& next) {
  const Demand& demand = planner.demand();
  Addresses found;
  const auto place = [&](std::vector<std::int64_t>& addresses, std::int64_t bytes) {
    addresses.push_back(next);
    next = checked_add(next, bytes, "memory addresses");
  };
  const auto end_region = [&] { next = ceil_div(next, region_alignment) * region_alignment; };
  found.pointers = next;
  next = checked_add(next, planner.pointer_bytes(), "memory addresses");
  end_region();
  for (std::size_t unit = 0; unit < planner.operands().weights.size(); ++unit) {
    place(found.weights, planner.weight_unit_bytes(unit) + planner.index_unit_bytes(unit));
  }
  end_region();
  for (std::size_t at = 0; at < planner.operands().place_elements.size(); ++at) {
    place(found.inputs,
          checked_mul(planner.input_unit_bytes(at), planner.operands().input_units, "memory addresses"));
  }
  end_region();
  for (std::size_t unit = 0; unit < demand.outputs.size(); ++unit) {
    place(found.outputs, planner.output_bytes(demand.outputs[unit].elements));
  }
  for (const ZeroOutputs& zeros : demand.zeros) place(found.zeros, planner.output_bytes(zeros.elements));
  end_region();
  for (std::size_t unit = 0; unit < demand.outputs.size(); ++unit) {
    place(found.sums, planner.sum_bytes(unit));
  }
  end_region();
  return found;
}

class PlanWriter {
 public:
  PlanWriter(const std::vector<TransferPlanner>& planners, const std::vector<CorePrograms>& programs,
             bool requests)
      : planners_(planners), programs_(programs), requests_(requests) {
    std::int64_t address = 0;
    for (std::size_t core = 0; core < planners.size(); ++core) {
      addresses_.push_back(requests ? place_core(planners[core], address) : Addresses{});
      CorePlan plan;
      plan.compute_cycles = planners[core].demand().compute_cycles;
      plan.input_releases = programs[core].inputs->releases;
      plan.weight_releases = programs[core].weights->releases;
      plan_.cores.push_back(std::move(plan));
    }
    next_missing_.resize(planners.size());
    number_of_write_.resize(planners.size());
    for (std::size_t core = 0; core < planners.size(); ++core) {
      const std::int64_t bytes = planners[core].pointer_bytes();
      if (bytes == 0) continue;
      add({TransferKind::row_pointers, static_cast<std::int32_t>(core), bytes, bytes, 0, 0, 0},
          addresses_[core].pointers);
    }
  }

  TransferPlan take_plan() { return std::move(plan_); }

  static bool stop() { return false; }

  void fetch(std::size_t core, StallCause cause, const Fetch& fetch) {
    const TransferPlanner& planner = planners_[core];
    const auto at = static_cast<std::size_t>(fetch.number);
    std::int32_t number = 0;
    if (cause == StallCause::weight) {
      const std::int64_t index_bytes = planner.index_unit_bytes(at);
      number = add({TransferKind::weights, static_cast<std::int32_t>(core),
                    planner.weight_unit_bytes(at) + index_bytes, index_bytes,
                    planner.operands().weights[at].elements, 0, fetch.after},
                   requests_ ? addresses_[core].weights[at] : 0);
    } else {
      const auto place = static_cast<std::size_t>(planner.demand().pieces[at].place);
      number = add_transfer({TransferKind::inputs, static_cast<std::int32_t>(core),
                             fetch.units * planner.input_unit_bytes(place), 0,
                             fetch.units * planner.operands().place_elements[place], 0, fetch.after});
      if (requests_) request_inputs(core, number, place, fetch.units);
    }
    plan_.cores[core].gates.push_back({fetch.now, number, cause, 0});
  }

  void write(std::size_t core, std::size_t /*number*/, const Write& write) {
    const auto unit = static_cast<std::size_t>(write.unit);
    const bool zeros = write.unit < 0;
    const TransferPlanner& planner = planners_[core];
    std::int64_t address = 0;
    if (requests_) {
      const Addresses& addresses = addresses_[core];
      address = zeros                               ? addresses.zeros[static_cast<std::size_t>(write.zeros)]
                : write.kind == TransferKind::spill ? addresses.sums[unit]
                                                    : addresses.outputs[unit];
    }
    number_of_write_[core].push_back(add({write.kind, static_cast<std::int32_t>(core), write.bytes, 0,
                                          zeros ? 0 : planner.demand().outputs[unit].elements,
                                          zeros ? 0 : planner.sum_bytes(unit), write.after},
                                         address));
  }

  void take(std::size_t core, const Take& take) {
    std::vector<Gate>& gates = plan_.cores[core].gates;
    if (!take.reload) {
      const std::int32_t number =
          take.write < 0 ? -1 : number_of_write_[core][static_cast<std::size_t>(take.write)];
      gates.push_back({take.now, number, StallCause::output, take.bytes});
      return;
    }
    const auto unit = static_cast<std::size_t>(take.unit);
    const std::int32_t number = add({TransferKind::reload, static_cast<std::int32_t>(core), take.bytes, 0,
                                     planners_[core].demand().outputs[unit].elements, take.bytes, 0},
                                    requests_ ? addresses_[core].sums[unit] : 0);
    gates.push_back({take.now, number, StallCause::output, 0});
  }

 private:
  std::int32_t add_transfer(const Transfer& transfer) {
    plan_.transfers.push_back(transfer);
    return static_cast<std::int32_t>(plan_.transfers.size() - 1);
  }

  /// address: where all its bytes are off chip.
  std::int32_t add(const Transfer& transfer, std::int64_t address) {
    const std::int32_t number = add_transfer(transfer);
    if (requests_) plan_.requests.push_back({number, address, transfer.bytes});
    return number;
  }

  void request_inputs(std::size_t core, std::int32_t transfer, std::size_t place, std::int32_t units) {
    const TransferPlanner& planner = planners_[core];
    const std::int64_t bytes = planner.input_unit_bytes(place) * planner.operands().group;
    for (std::int64_t left = units / planner.operands().group; left > 0; --left) {
      const std::int32_t group = programs_[core].inputs->missing_groups[next_missing_[core]++];
      const std::int64_t address = addresses_[core].inputs[place] + group * bytes;
      if (!plan_.requests.empty()) {
        Request& last = plan_.requests.back();
        if (last.transfer == transfer && last.address + last.bytes == address) {
          last.bytes += bytes;
          continue;
        }
      }
      plan_.requests.push_back({transfer, address, bytes});
    }
  }

  const std::vector<TransferPlanner>& planners_;
  const std::vector<CorePrograms>& programs_;
  bool requests_;
  TransferPlan plan_;
  std::vector<Addresses> addresses_;                        ///< (cores).
  std::vector<std::size_t> next_missing_;                   ///< (cores).
  std::vector<std::vector<std::int32_t>> number_of_write_;  ///< (cores, writes).
};

}  // namespace

TransferPlan write_plan(const std::vector<TransferPlanner>& planners,
                        const std::vector<CorePrograms>& programs, bool requests) {
  PlanWriter writer(planners, programs, requests);
  walk_plan(programs, writer);
  return writer.take_plan();
}

}  // namespace pysim
