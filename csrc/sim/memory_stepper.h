// The channel and the buffers, cycle by cycle, beside the stepped array. Reads the transfer plan, but finds
// every time from its own registers: bytes left, arrivals, fill levels.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include "sim/counts.h"
#include "sim/memory_config.h"
#include "sim/transfer_plan.h"

namespace pysim {

class MemoryStepper {
 public:
  MemoryStepper(const TransferPlan& plan, const MemoryConfig& memory, MemoryCounts& counts)
      : plan_(plan), memory_(memory), counts_(counts), arrival_(plan.transfers.size(), not_yet) {}

  /// Whether the last byte has gone over the channel.
  bool done() const { return next_ == plan_.transfers.size(); }

  /// First half of cycle `now`, `stepped` array cycles being done: transfers that may start do. Returns
  /// whether the array may step in this cycle; if not, the cause is counted.
  bool begin(std::int64_t now, std::int64_t stepped) {
    release(plan_.input_releases, stepped, input_next_, input_level_);
    release(plan_.weight_releases, stepped, weight_next_, weight_level_);
    while (!done() && left_ == 0 && plan_.transfers[next_].after <= stepped) {
      start();
      if (left_ > 0) break;
      finish(now);
    }
    for (; gate_ < plan_.gates.size() && plan_.gates[gate_].cycle <= stepped; ++gate_) {
      const Gate& gate = plan_.gates[gate_];
      if (gate.cycle < stepped) throw std::logic_error("cycle engine: the array stepped through a gate");
      if (gate.transfer >= 0 && arrival_[static_cast<std::size_t>(gate.transfer)] > now) {
        waiting_for_ = gate.cause;
        return false;
      }
      raise(output_level_, gate.room, memory_.output_capacity, "output");
    }
    waiting_for_ = StallCause::output;  // Of what is left to write once the array is done.
    return true;
  }

  /// Counts cycle `now` as one in which the array does not step.
  void stall() { ++counts_.stalls[static_cast<std::size_t>(waiting_for_)]; }

  /// Second half of cycle `now`: the channel moves its bytes.
  void end(std::int64_t now) {
    if (left_ == 0) return;
    left_ -= std::min(left_, memory_.bandwidth);
    if (left_ == 0) finish(now + 1);
  }

 private:
  static constexpr std::int64_t not_yet = std::numeric_limits<std::int64_t>::max();

  void start() {
    const Transfer& transfer = plan_.transfers[next_];
    switch (transfer.kind) {
      case TransferKind::weights:
        raise(weight_level_, transfer.bytes, memory_.weight_capacity, "weight");
        break;
      case TransferKind::inputs:
        raise(input_level_, transfer.bytes, memory_.input_capacity, "input");
        break;
      case TransferKind::reload:
        raise(output_level_, plan_.output_room[next_], memory_.output_capacity, "output");
        break;
      case TransferKind::row_pointers:
      case TransferKind::outputs:
      case TransferKind::spill:
        break;
    }
    left_ = memory_.bandwidth == 0 ? 0 : transfer.bytes << MemoryConfig::fraction_bits;
  }

  /// The transfer's last byte has gone by the beginning of cycle `now`.
  void finish(std::int64_t now) {
    const Transfer& transfer = plan_.transfers[next_];
    const bool written = transfer.kind == TransferKind::outputs || transfer.kind == TransferKind::spill;
    if (written) output_level_ -= plan_.output_room[next_];
    arrival_[next_] = written ? now : now + memory_.latency;
    counts_.add(transfer);
    ++next_;
  }

  void raise(std::int64_t& level, std::int64_t bytes, std::int64_t capacity, const char* name) {
    level += bytes;
    if (level > capacity) {
      throw std::logic_error(std::string("cycle engine: ") + name + " buffer overflows: " +
                             std::to_string(level) + " of " + std::to_string(capacity) + " bytes");
    }
  }

  static void release(const std::vector<Release>& releases, std::int64_t stepped, std::size_t& next,
                      std::int64_t& level) {
    for (; next < releases.size() && releases[next].cycle <= stepped; ++next) level -= releases[next].bytes;
  }

  const TransferPlan& plan_;
  const MemoryConfig& memory_;
  MemoryCounts& counts_;
  std::size_t next_ = 0;               ///< Transfer that is on the channel, or goes next.
  std::int64_t left_ = 0;              ///< Of it, in 2^-20 bytes; 0 if none is on the channel.
  std::vector<std::int64_t> arrival_;  ///< (transfers): cycle from which its gate is open.
  std::size_t gate_ = 0;
  std::size_t input_next_ = 0, weight_next_ = 0;                        ///< Releases to come.
  std::int64_t input_level_ = 0, weight_level_ = 0, output_level_ = 0;  ///< Bytes taken.
  StallCause waiting_for_ = StallCause::output;
};

}  // namespace pysim
