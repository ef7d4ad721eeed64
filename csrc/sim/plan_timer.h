// When the channel and the arrays are done with the programs of a plan, from wait to wait, without writing
// the plan out; gives up as soon as it is later than asked for.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "sim/counts.h"
#include "sim/memory.h"
#include "sim/plan_walk.h"

namespace pysim {

/// A sink of walk_plan for a channel whose transfers each take a time of their own (no DRAM rows). All times
/// must be known to fit in 64 bits.
class PlanTimer {
 public:
  /// latency: from the end of a read on the channel to its data on chip.
  explicit PlanTimer(std::int64_t latency) : latency_(latency) {}

  /// False if the programs take more than `limit` cycles; `timing` is then of no use.
  ///
  /// pointer_busy: cycles of the channel for the row pointers; busy: for everything, these included.
  bool run(const std::vector<CorePrograms>& programs, const std::vector<Demand>& demands,
           std::int64_t pointer_busy, std::int64_t busy, std::int64_t limit, MemoryTiming& timing) {
    busy_ = busy;
    channel_ = pointer_busy;
    idle_ = 0;
    limit_ = limit;
    late_ = false;
    cores_.resize(programs.size());
    for (std::size_t core = 0; core < programs.size(); ++core) {
      cores_[core].start(demands[core].compute_cycles, programs[core].outputs->writes.size());
    }
    walk_plan(programs, *this);
    if (late_) return false;
    timing = finish();
    return timing.cycles <= limit;
  }

  bool stop() const { return late_; }

  void fetch(std::size_t core, StallCause cause, const Fetch& fetch) {
    Core& own = cores_[core];
    use_channel(own.time_of(fetch.after, cause), fetch.busy);
    wait(own, fetch.now, channel_ + latency_, cause);
  }

  void write(std::size_t core, std::size_t number, const Write& write) {
    Core& own = cores_[core];
    use_channel(own.time_of(write.after, StallCause::output), write.busy);
    own.left[number] = channel_;
  }

  void take(std::size_t core, const Take& take) {
    Core& own = cores_[core];
    if (take.reload) {
      use_channel(0, take.busy);
      wait(own, take.now, channel_ + latency_, StallCause::output);
    } else if (take.write >= 0) {
      wait(own, take.now, own.left[static_cast<std::size_t>(take.write)], StallCause::output);
    }
  }

 private:
  struct Stall {
    std::int64_t cycle;
    std::int64_t sum;  ///< This one included.
  };

  struct Core {
    std::int64_t compute_cycles = 0;
    std::int64_t total = 0;
    std::int64_t by_cause[3] = {0, 0, 0};
    std::vector<Stall> stalls;
    std::size_t behind[3] = {0, 0, 0};  ///< Of each kind of transfer: stalls before the last one's `after`.
    std::vector<std::int64_t> left;     ///< (writes): when each had left.

    void start(std::int64_t cycles, std::size_t writes) {
      compute_cycles = cycles;
      total = 0;
      std::fill(by_cause, by_cause + 3, 0);
      stalls.clear();
      std::fill(behind, behind + 3, std::size_t{0});
      if (left.size() < writes) left.resize(writes);
    }

    /// Machine cycle by which `done` array cycles are done; for each kind of transfer never less than before.
    std::int64_t time_of(std::int64_t done, StallCause kind) {
      if (done == 0) return 0;
      std::size_t& at = behind[static_cast<std::size_t>(kind)];
      while (at < stalls.size() && stalls[at].cycle < done) ++at;
      return at == 0 ? done : done + stalls[at - 1].sum;
    }
  };

  void use_channel(std::int64_t from, std::int64_t busy) {
    if (from > channel_) {
      idle_ += from - channel_;
      channel_ = from;
      late_ = late_ || idle_ + busy_ > limit_;
    }
    channel_ += busy;
  }

  void wait(Core& own, std::int64_t cycle, std::int64_t until, StallCause cause) {
    const std::int64_t stall = until - cycle - own.total;
    if (stall <= 0) return;
    own.total += stall;
    own.stalls.push_back({cycle, own.total});
    own.by_cause[static_cast<std::size_t>(cause)] += stall;
    late_ = late_ || own.compute_cycles + own.total > limit_;
  }

  MemoryTiming finish() const {
    MemoryTiming timing;
    std::int64_t array = -1;
    std::size_t last = 0;
    for (std::size_t core = 0; core < cores_.size(); ++core) {
      const Core& own = cores_[core];
      timing.cores.push_back({own.compute_cycles, {own.by_cause[0], own.by_cause[1], own.by_cause[2]}});
      if (own.compute_cycles + own.total <= array) continue;
      array = own.compute_cycles + own.total;
      last = core;
    }
    timing.end(array, channel_, last);
    return timing;
  }

  std::int64_t latency_;
  std::int64_t busy_ = 0;     ///< Cycles of the channel for all transfers.
  std::int64_t channel_ = 0;  ///< When it is done with those so far.
  std::int64_t idle_ = 0;     ///< Cycles in which the channel waited for room or results.
  std::int64_t limit_ = 0;
  bool late_ = false;
  std::vector<Core> cores_;
};

}  // namespace pysim
