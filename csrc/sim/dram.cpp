#include "sim/dram.h"

#include <algorithm>
#include <string>

#include "base/check.h"
#include "base/checked_math.h"

namespace pysim {
namespace {

/// The rows that are open, and what it costs to go through addresses in the order of the channel.
class Rows {
 public:
  Rows(const MemoryConfig& memory, ChannelUse& use)
      : memory_(memory), dram_(memory.dram), use_(use), open_(static_cast<std::size_t>(dram_.banks), -1) {}

  /// Goes on to another transfer; returns the cycles of the last one.
  std::int64_t finish() {
    end_visit();
    current_ = -1;
    const std::int64_t cycles = cycles_;
    cycles_ = 0;
    return cycles;
  }

  void access(const Request& request) {
    std::int64_t burst = request.address / dram_.burst_bytes;
    const std::int64_t end = (request.address + request.bytes - 1) / dram_.burst_bytes + 1;
    const std::int64_t row_bursts = dram_.row_bytes / dram_.burst_bytes;
    while (burst < end) {
      const std::int64_t row = burst / row_bursts;
      const std::int64_t bursts = std::min(end, (row + 1) * row_bursts) - burst;
      if (row != current_) {
        end_visit();
        open(row);
      }
      visit_bytes_ += bursts * dram_.burst_bytes;
      use_.bursts += bursts;
      burst += bursts;
    }
  }

 private:
  void open(std::int64_t row) {
    current_ = row;
    std::int64_t& open = open_[static_cast<std::size_t>(row % dram_.banks)];
    if (open == row) return;
    ++(open < 0 ? use_.row_misses : use_.row_conflicts);
    add(open < 0 ? dram_.t_rcd : dram_.t_rp + dram_.t_rcd);
    open = row;
  }

  void end_visit() {
    require(visit_bytes_ <= MemoryConfig::max_bytes, "memory", "bursts of a transfer of at most 2^42 bytes",
            std::to_string(visit_bytes_));
    add(memory_.channel_cycles(visit_bytes_));
    visit_bytes_ = 0;
  }

  void add(std::int64_t cycles) { cycles_ = checked_add(cycles_, cycles, "memory cycles"); }

  const MemoryConfig& memory_;
  const DramConfig& dram_;
  ChannelUse& use_;
  std::vector<std::int64_t> open_;  ///< (banks): the row that is open, or -1.
  std::int64_t current_ = -1;       ///< The row that the transfer is in, or -1.
  std::int64_t visit_bytes_ = 0;    ///< Moved in it so far.
  std::int64_t cycles_ = 0;         ///< Of the transfer so far.
};

}  // namespace

ChannelUse list_channel_use(const TransferPlan& plan, const MemoryConfig& memory) {
  ChannelUse use;
  use.cycles.reserve(plan.transfers.size());
  Rows rows(memory, use);
  std::size_t request = 0;
  for (std::size_t i = 0; i < plan.transfers.size(); ++i) {
    for (; request < plan.requests.size() && plan.requests[request].transfer == static_cast<std::int32_t>(i);
         ++request) {
      rows.access(plan.requests[request]);
    }
    use.cycles.push_back(rows.finish());
  }
  return use;
}

std::int64_t end_of_work(const DramConfig& dram, std::int64_t start, std::int64_t busy) {
  const std::int64_t refresh = dram.present() ? dram.refresh_cycles() : 0;
  if (refresh == 0 || busy == 0) return checked_add(start, busy, "memory cycles");
  // Refreshes take the first cycles of every interval but the one that starts at cycle 0.
  const std::int64_t interval = dram.t_refi;
  const std::int64_t whole = start / interval;
  const std::int64_t lost = whole == 0 ? 0 : (whole - 1) * refresh + std::min(start % interval, refresh);
  const std::int64_t work = checked_add(start - lost, busy, "memory cycles");  // Since cycle 0.
  if (work <= interval) return work;
  const std::int64_t each = interval - refresh;
  const std::int64_t full = (work - interval - 1) / each;  // Intervals without the first and the last.
  const std::int64_t rest = work - interval - full * each;
  return checked_add(checked_mul(full + 1, interval, "memory cycles"), refresh + rest, "memory cycles");
}

}  // namespace pysim
