#include "sim/schedule.h"

#include <algorithm>

#include "base/checked_math.h"

namespace pysim {

FoldClock::FoldClock(const ArrayConfig& array) : array_(array) {}

FoldStart FoldClock::add(std::int64_t depth, std::int64_t count) {
  const char* const where = "array cycles";
  const bool stationary = array_.dataflow != Dataflow::os;
  const std::int64_t preload = stationary ? array_.rows : 0;
  if (array_.pipelining == Pipelining::serial) {
    const FoldStart start{end_, checked_add(end_, preload, where)};
    const std::int64_t fold = checked_add(depth, 2 * array_.rows + array_.cols - 2, where);
    end_ = checked_add(end_, checked_mul(fold, count, where), where);
    return start;
  }
  std::int64_t stream = preload;
  if (depth_ > 0) {
    // Stationary: a shadow register is free once its PE has taken it over, R cycles after the fold before
    // began. Output stationary: the hold register of row 0 is free once its column drains, and the chain
    // is free R cycles after that.
    const std::int64_t gap =
        stationary ? std::max(depth_, array_.rows) : depth_ + std::max<std::int64_t>(0, array_.rows - depth);
    stream = checked_add(stream_, gap, where);
  }
  const std::int64_t between = std::max(depth, array_.rows);
  stream_ = checked_add(stream, checked_mul(between, count - 1, where), where);
  depth_ = depth;
  return {stream - preload, stream};
}

std::int64_t FoldClock::total_cycles() const {
  if (array_.pipelining == Pipelining::serial) return end_;
  if (depth_ == 0) return 0;
  const std::int64_t drain = array_.dataflow == Dataflow::os ? array_.rows : 0;
  return checked_add(checked_add(stream_, depth_, "array cycles"), drain + array_.rows + array_.cols - 2,
                     "array cycles");
}

}  // namespace pysim
