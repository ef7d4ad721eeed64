// Writes a plan out, transfer by transfer, with the addresses of what each one moves.
#pragma once

#include <cstdint>
#include <vector>

#include "sim/plan_walk.h"
#include "sim/transfer_plan.h"
#include "sim/transfer_programs.h"

namespace pysim {

/// The plan that these programs are. requests: whether to list what each transfer reads or writes, at the
/// addresses of docs/machine.md; inputs must then be in full.
TransferPlan write_plan(const std::vector<TransferPlanner>& planners,
                        const std::vector<CorePrograms>& programs, bool requests);

}  // namespace pysim
