// Puts the programs of every core's buffers together: all transfers in the order of the channel, and between
// them the array cycles that wait for them. The only place that knows this order.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <queue>
#include <utility>
#include <vector>

#include "sim/transfer_programs.h"

namespace pysim {

/// When a write may go.
struct WriteTurn {
  std::int64_t cycle;  ///< The array cycle before whose transfers it goes.
  bool after_stream;   ///< After what is streamed in it.
};

/// One core's plan.
struct CorePrograms {
  const FetchProgram* weights;
  const FetchProgram* inputs;
  const OutputProgram* outputs;
  std::int64_t lag;
  bool inputs_first;                    ///< Of weights and inputs for one array cycle.
  const std::vector<WriteTurn>* turns;  ///< (writes), lag included; null: they follow from the lag.
};

/// Goes through one core's programs. A sink takes what comes:
///   fetch(core, StallCause, const Fetch&)   a transfer, and array cycle `now` waits for it
///   write(core, number, const Write&)       a transfer
///   take(core, const Take&)                 a transfer if it is a reload; array cycle `now` waits for it, or
///   for
///                                           an earlier write
///   stop()                                  whether the rest need not come
template <class Sink>
class CoreWalk {
 public:
  CoreWalk(const CorePrograms& programs, std::size_t core, Sink& sink)
      : programs_(programs),
        core_(core),
        sink_(sink),
        weights_(programs.weights->fetches),
        inputs_(programs.inputs->fetches),
        takes_(programs.outputs->takes),
        writes_(programs.outputs->writes) {
    find_next();
  }

  bool done() const { return next_ == Next::nothing; }

  /// Array cycle at which what comes next is laid out.
  std::int64_t turn() const { return turn_; }

  /// One transfer or wait, and those that it needs done before it.
  void step() {
    switch (next_) {
      case Next::weights:
        sink_.fetch(core_, StallCause::weight, weights_[weight_++]);
        break;
      case Next::inputs:
        sink_.fetch(core_, StallCause::input, inputs_[input_++]);
        break;
      case Next::take: {
        const Take& take = takes_[take_++];
        while (write_ < static_cast<std::size_t>(take.push_until)) push();
        sink_.take(core_, take);
        break;
      }
      case Next::write:
        push();
        break;
      case Next::nothing:
        return;
    }
    find_next();
  }

 private:
  enum class Next : std::uint8_t { weights, inputs, take, write, nothing };
  static constexpr std::int64_t never = std::numeric_limits<std::int64_t>::max();

  void push() {
    sink_.write(core_, write_, writes_[write_]);
    ++write_;
  }

  WriteTurn write_turn() const {
    if (programs_.turns != nullptr) return (*programs_.turns)[write_];
    const Write& write = writes_[write_];
    return {write.ready + programs_.lag, write.after_stream && programs_.lag == 0};
  }

  /// At one array cycle: writes, preloads, streams, zeros that precede the next piece, results; among
  /// preloads and among streams weights before inputs.
  void find_next() {
    const std::int64_t weights = weight_ < weights_.size() ? weights_[weight_].now : never;
    const std::int64_t inputs = input_ < inputs_.size() ? inputs_[input_].now : never;
    const std::int64_t takes = take_ < takes_.size() ? takes_[take_].now : never;
    if (weights < inputs || (weights == inputs && !programs_.inputs_first)) {
      next_ = Next::weights;
      turn_ = weights;
    } else {
      next_ = Next::inputs;
      turn_ = inputs;
    }
    bool operands = true;
    if (takes < turn_) {
      next_ = Next::take;
      turn_ = takes;
      operands = false;
    }
    if (write_ < writes_.size()) {
      const WriteTurn write = write_turn();
      if (write.cycle < turn_ || (write.cycle == turn_ && !(write.after_stream && operands))) {
        next_ = Next::write;
        turn_ = write.cycle;
      }
    } else if (turn_ == never) {
      next_ = Next::nothing;
    }
  }

  const CorePrograms& programs_;
  std::size_t core_;
  Sink& sink_;
  const std::vector<Fetch>& weights_;
  const std::vector<Fetch>& inputs_;
  const std::vector<Take>& takes_;
  const std::vector<Write>& writes_;
  std::size_t weight_ = 0, input_ = 0, take_ = 0, write_ = 0;
  Next next_ = Next::nothing;
  std::int64_t turn_ = 0;
};

/// All cores' programs on one channel: by array cycle, ties by lower core.
template <class Sink>
void walk_plan(const std::vector<CorePrograms>& cores, Sink& sink) {
  if (cores.size() == 1) {
    for (CoreWalk<Sink> walk(cores[0], 0, sink); !walk.done() && !sink.stop();) walk.step();
    return;
  }
  std::vector<CoreWalk<Sink>> walks;
  walks.reserve(cores.size());
  using Turn = std::pair<std::int64_t, std::size_t>;
  std::priority_queue<Turn, std::vector<Turn>, std::greater<Turn>> turns;
  for (std::size_t core = 0; core < cores.size(); ++core) {
    walks.emplace_back(cores[core], core, sink);
    if (!walks[core].done()) turns.push({walks[core].turn(), core});
  }
  while (!turns.empty() && !sink.stop()) {
    const std::size_t core = turns.top().second;
    turns.pop();
    walks[core].step();
    if (!walks[core].done()) turns.push({walks[core].turn(), core});
  }
}

}  // namespace pysim
