// The channel and the buffers, cycle by cycle, beside the stepped arrays. Reads the transfer plan, but finds
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

/// The buffers of one core, and the gates in front of its array.
class CoreStepper {
 public:
  CoreStepper(const CorePlan& plan, const MemoryConfig& memory) : plan_(plan), memory_(memory) {}

  /// Array cycles done so far.
  std::int64_t stepped() const { return stepped_; }
  void count_step() { ++stepped_; }
  void count_stall() { ++stalls_[static_cast<std::size_t>(waiting_for_)]; }
  std::int64_t stalls(StallCause cause) const { return stalls_[static_cast<std::size_t>(cause)]; }

  /// Gives back the room of operands that have been used.
  void release() {
    lower(plan_.input_releases, input_next_, input_level_);
    lower(plan_.weight_releases, weight_next_, weight_level_);
  }

  /// Whether the array may step in cycle `now`; arrival: cycle from which each transfer's gate is open.
  bool open(std::int64_t now, const std::vector<std::int64_t>& arrival) {
    for (; gate_ < plan_.gates.size() && plan_.gates[gate_].cycle <= stepped_; ++gate_) {
      const Gate& gate = plan_.gates[gate_];
      if (gate.cycle < stepped_) throw std::logic_error("cycle engine: the array stepped through a gate");
      if (gate.transfer >= 0 && arrival[static_cast<std::size_t>(gate.transfer)] > now) {
        waiting_for_ = gate.cause;
        return false;
      }
      raise(output_level_, gate.room, memory_.output_capacity, "output");
    }
    return true;
  }

  /// A transfer takes the room that it will fill.
  void start(const Transfer& transfer) {
    if (transfer.kind == TransferKind::weights) {
      raise(weight_level_, transfer.bytes, memory_.weight_capacity, "weight");
    } else if (transfer.kind == TransferKind::inputs) {
      raise(input_level_, transfer.bytes, memory_.input_capacity, "input");
    } else if (transfer.kind == TransferKind::reload) {
      raise(output_level_, transfer.room, memory_.output_capacity, "output");
    }
  }

  /// A write gives back the room that it emptied.
  void finish_write(const Transfer& transfer) { output_level_ -= transfer.room; }

 private:
  void raise(std::int64_t& level, std::int64_t bytes, std::int64_t capacity, const char* name) {
    level += bytes;
    if (level > capacity) {
      throw std::logic_error(std::string("cycle engine: ") + name + " buffer overflows: " +
                             std::to_string(level) + " of " + std::to_string(capacity) + " bytes");
    }
  }

  void lower(const std::vector<Release>& releases, std::size_t& next, std::int64_t& level) const {
    for (; next < releases.size() && releases[next].cycle <= stepped_; ++next) level -= releases[next].bytes;
  }

  const CorePlan& plan_;
  const MemoryConfig& memory_;
  std::int64_t stepped_ = 0;
  std::int64_t stalls_[3] = {0, 0, 0};
  std::size_t gate_ = 0;
  std::size_t input_next_ = 0, weight_next_ = 0;                        ///< Releases to come.
  std::int64_t input_level_ = 0, weight_level_ = 0, output_level_ = 0;  ///< Bytes taken.
  StallCause waiting_for_ = StallCause::output;
};

/// The rows of the off-chip memory, burst by burst.
class RowStepper {
 public:
  RowStepper(const TransferPlan& plan, const DramConfig& dram, MemoryCounts& counts)
      : plan_(plan), dram_(dram), counts_(counts), open_(static_cast<std::size_t>(dram.banks), -1) {}

  /// Goes to the next row that transfer `number` needs; false if it needs no more. opening: cycles until that
  /// row is open; bytes: of the transfer's bursts in it until it goes to another.
  bool next_row(std::size_t number, std::int64_t& opening, std::int64_t& bytes) {
    if (!has_burst(number)) return false;
    const std::int64_t row = row_of_burst();
    std::int64_t& open = open_[static_cast<std::size_t>(row % dram_.banks)];
    opening = open == row ? 0 : open < 0 ? dram_.t_rcd : dram_.t_rp + dram_.t_rcd;
    counts_.row_misses += open < 0;
    counts_.row_conflicts += open >= 0 && open != row;
    open = row;
    for (bytes = 0; has_burst(number) && row_of_burst() == row; ++burst_) {
      bytes += dram_.burst_bytes;
      ++counts_.dram_bursts;
    }
    return true;
  }

  /// Whether cycle `now` belongs to a refresh.
  bool refreshing(std::int64_t now) const {
    return now >= dram_.t_refi && now % dram_.t_refi < dram_.refresh_cycles();
  }

 private:
  /// Goes on to the next request where the last one has no burst left.
  bool has_burst(std::size_t number) {
    while (request_ < plan_.requests.size() &&
           plan_.requests[request_].transfer == static_cast<std::int32_t>(number)) {
      const Request& request = plan_.requests[request_];
      burst_ = std::max(burst_, request.address / dram_.burst_bytes);
      if (burst_ * dram_.burst_bytes < request.address + request.bytes) return true;
      ++request_;
      burst_ = 0;
    }
    return false;
  }

  std::int64_t row_of_burst() const { return burst_ * dram_.burst_bytes / dram_.row_bytes; }

  const TransferPlan& plan_;
  const DramConfig& dram_;
  MemoryCounts& counts_;
  std::vector<std::int64_t> open_;  ///< (banks): the row that is open, or -1.
  std::size_t request_ = 0;         ///< The next burst is of this request,
  std::int64_t burst_ = 0;          ///< or of a later one; at least this number.
};

/// The channel that all cores share.
class ChannelStepper {
 public:
  ChannelStepper(const TransferPlan& plan, const MemoryConfig& memory, MemoryCounts& counts)
      : plan_(plan),
        memory_(memory),
        counts_(counts),
        rows_(plan, memory.dram, counts),
        arrival_(plan.transfers.size(), not_yet) {}

  /// Whether the last byte has gone over the channel.
  bool done() const { return next_ == plan_.transfers.size(); }
  const std::vector<std::int64_t>& arrival() const { return arrival_; }

  /// First half of cycle `now`: the transfer whose turn it is starts if it may. On an unlimited channel it is
  /// over at once, and the next one's turn comes.
  void begin(std::int64_t now, std::vector<CoreStepper>& cores) {
    while (!done() && !started_) {
      const Transfer& transfer = plan_.transfers[next_];
      CoreStepper& core = cores[static_cast<std::size_t>(transfer.core)];
      if (transfer.after > core.stepped()) return;
      core.start(transfer);
      started_ = true;
      if (!memory_.dram.present()) move(transfer.bytes);
      go_on(now, cores);
    }
  }

  /// Second half of cycle `now`: a row opens, or bytes move.
  void end(std::int64_t now, std::vector<CoreStepper>& cores) {
    if (!started_ || (memory_.dram.present() && rows_.refreshing(now))) return;
    if (opening_ > 0) {
      --opening_;
    } else {
      left_ -= std::min(left_, memory_.bandwidth);
    }
    go_on(now + 1, cores);
  }

 private:
  static constexpr std::int64_t not_yet = std::numeric_limits<std::int64_t>::max();

  void move(std::int64_t bytes) { left_ = memory_.bandwidth == 0 ? 0 : bytes << MemoryConfig::fraction_bits; }

  /// At the beginning of cycle `now`: on to the transfer's next row once there is nothing left to do in one.
  void go_on(std::int64_t now, std::vector<CoreStepper>& cores) {
    while (started_ && opening_ == 0 && left_ == 0) {
      std::int64_t bytes = 0;
      if (memory_.dram.present() && rows_.next_row(next_, opening_, bytes)) {
        move(bytes);
      } else {
        finish(now, cores);
      }
    }
  }

  /// The transfer's last byte has gone by the beginning of cycle `now`.
  void finish(std::int64_t now, std::vector<CoreStepper>& cores) {
    const Transfer& transfer = plan_.transfers[next_];
    const bool written = transfer.kind == TransferKind::outputs || transfer.kind == TransferKind::spill;
    if (written) cores[static_cast<std::size_t>(transfer.core)].finish_write(transfer);
    arrival_[next_] = written ? now : now + memory_.read_latency();
    counts_.add(transfer);
    ++next_;
    started_ = false;
  }

  const TransferPlan& plan_;
  const MemoryConfig& memory_;
  MemoryCounts& counts_;
  RowStepper rows_;
  std::size_t next_ = 0;               ///< Transfer that is on the channel, or goes next.
  bool started_ = false;               ///< Whether it is on the channel.
  std::int64_t opening_ = 0;           ///< Cycles until its row is open.
  std::int64_t left_ = 0;              ///< Then to move, in 2^-20 bytes.
  std::vector<std::int64_t> arrival_;  ///< (transfers): cycle from which its gate is open.
};

}  // namespace pysim
