// Picks the cheapest plan of a layer: tries the programs that its buffers may run, those that keep most
// first, and leaves out what surely takes longer than the best so far.
#include <algorithm>
#include <array>
#include <limits>
#include <optional>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>

#include "base/check.h"
#include "base/checked_math.h"
#include "base/interrupt.h"
#include "sim/dram.h"
#include "sim/memory.h"
#include "sim/plan_timer.h"
#include "sim/plan_writer.h"
#include "sim/transfer_programs.h"

namespace pysim {
namespace {

constexpr std::int64_t never = std::numeric_limits<std::int64_t>::max();

/// Snaps the writes of one core to the array cycles at which it lays anything out: where cores share a
/// channel, their order follows from these.
std::vector<WriteTurn> turns_of(const Demand& demand, const OutputProgram& outputs, std::int64_t lag) {
  const std::vector<Piece>& pieces = demand.pieces;
  std::size_t preload = 0, stream = 0, result = 0;
  // Go to the first preload, stream and result that is not before a cycle, and not at it if `beyond`.
  const auto skip = [&](std::size_t& at, std::int64_t Piece::* member, std::int64_t cycle, bool beyond) {
    while (at < pieces.size() && (pieces[at].*member < 0 || pieces[at].*member < cycle + beyond)) ++at;
    return at < pieces.size() ? pieces[at].*member : never;
  };
  std::int64_t last = 0;
  for (const Piece& piece : pieces) {
    last = std::max({last, piece.stream, piece.preload, piece.result});
  }
  std::vector<WriteTurn> turns;
  turns.reserve(outputs.writes.size());
  for (const Write& write : outputs.writes) {
    const std::int64_t due = write.ready + lag;
    const bool after_stream = write.after_stream && lag == 0;
    const std::int64_t operands = std::min(skip(preload, &Piece::preload, due, after_stream),
                                           skip(stream, &Piece::stream, due, after_stream));
    const std::int64_t results = skip(result, &Piece::result, due, false);
    const std::int64_t turn = std::min(operands, results);
    if (turn == never) {
      turns.push_back({std::max(last, due), false});
    } else {
      turns.push_back({turn, after_stream && turn == due});
    }
  }
  return turns;
}

/// The folds of all cores in one order.
struct Order {
  bool ranges_apart;
  std::vector<Demand> demands;
};

class PlanSearch {
 public:
  PlanSearch(const ArrayConfig& array, const Layer& layer, const CoreMap& cores, const MemoryConfig& memory)
      : array_(array),
        layer_(layer),
        cores_(cores),
        memory_(memory),
        rows_(memory.dram.present()),
        timer_(memory.latency) {
    for (std::int64_t core = 0; core < cores.cores(); ++core) {
      operands_.push_back(list_operands(array, layer, cores, core));
    }
    bool inputs_fit = true;
    bool weights_fit = true;
    for (std::size_t core = 0; core < operands_.size(); ++core) {
      planners_.emplace_back(operands_[core], memory, core == 0 ? layer.grid.block_rows() + 1 : 0);
      inputs_fit = inputs_fit && planners_[core].all_inputs_fit();
      weights_fit = weights_fit && planners_[core].all_weights_fit();
    }
    if (rows_) {
      for (TransferPlanner& planner : planners_) planner.compare_rows(inputs_fit, weights_fit);
    }
    pointer_busy_ = memory.channel_cycles(planners_[0].pointer_bytes());
    const bool has_ranges = array.dataflow == Dataflow::ws && operands_[0].places > 1;
    search(has_ranges && array.swapped);
    if (!best_) refuse();
    if (has_ranges && !array.swapped) search(true);
  }

  const MemoryTiming& timing() const { return best_->timing; }
  const MemoryCounts& counts() const { return best_->counts; }

  std::int64_t folds() const {
    std::int64_t folds = 0;
    for (const Demand& demand : orders_[best_->order].demands) folds += demand.folds;
    return folds;
  }

  MemoryPlan write(bool requests) {
    Order& order = orders_[best_->order];
    take_order(order);
    const RuleNumbers& at = best_->numbers;
    std::vector<FetchProgram> inputs(planners_.size()), weights;
    std::vector<OutputProgram> outputs;
    for (std::size_t core = 0; core < planners_.size(); ++core) {
      planners_[core].fetch_inputs(at.inputs, true, inputs[core]);
      weights.push_back(planners_[core].fetch_weights(at.weights));
      outputs.push_back(planners_[core].write_outputs(at.sums));
    }
    TransferPlan plan = write_plan(planners_, combine(inputs, weights, outputs, at.lag), requests || rows_);
    return {order.ranges_apart, std::move(order.demands), std::move(plan)};
  }

 private:
  struct Best {
    std::size_t order;
    RuleNumbers numbers;
    std::int64_t bytes;
    MemoryTiming timing;
    MemoryCounts counts;
  };

  void take_order(const Order& order) {
    for (std::size_t core = 0; core < planners_.size(); ++core)
      planners_[core].take_order(order.demands[core]);
  }

  template <class Program>
  static bool any_short(const std::vector<Program>& programs) {
    return std::any_of(programs.begin(), programs.end(),
                       [](const Program& program) { return program.shortage.has_value(); });
  }

  template <class Program>
  static void add_traffic(const std::vector<Program>& programs, std::int64_t& bytes, std::int64_t& busy) {
    for (const Program& program : programs) {
      bytes = checked_add(bytes, program.bytes(), "memory traffic");
      busy = checked_add(busy, program.busy, "memory cycles");
    }
  }

  /// Most cycles that a plan of the current order may take to be better than the best; negative if its bytes
  /// and rules make it worse at any number of cycles that it can take.
  std::int64_t limit(std::int64_t bytes, const RuleNumbers& numbers) const {
    if (!best_) return never;
    const bool wins_ties = std::tuple(bytes, orders_.size() - 1, numbers) <
                           std::tuple(best_->bytes, best_->order, best_->numbers);
    return wins_ties ? best_->timing.cycles : best_->timing.cycles - 1;
  }

  /// Whether a plan may still be the best that moves at least `bytes` in at least `busy` cycles.
  bool may_win(std::int64_t bytes, std::int64_t busy, const RuleNumbers& numbers) const {
    return std::max(least_cycles_, busy) <= limit(bytes, numbers);
  }

  void search(bool ranges_apart) {
    Order order{ranges_apart, {}};
    for (std::size_t core = 0; core < operands_.size(); ++core) {
      order.demands.push_back(list_demand(array_, layer_, cores_, static_cast<std::int64_t>(core),
                                          operands_[core], ranges_apart));
    }
    orders_.push_back(std::move(order));
    take_order(orders_.back());
    RuleNumbers counts{1, 1, 1, 1};
    compute_cycles_ = 0;
    for (std::size_t core = 0; core < planners_.size(); ++core) {
      const RuleNumbers own = planners_[core].rule_counts();
      counts = {std::max(counts.inputs, own.inputs), std::max(counts.weights, own.weights),
                std::max(counts.sums, own.sums), std::max(counts.lag, own.lag)};
      compute_cycles_ = std::max(compute_cycles_, orders_.back().demands[core].compute_cycles);
    }
    least_cycles_ = compute_cycles_;
    bounded_ = false;
    weights_.assign(static_cast<std::size_t>(counts.weights), std::nullopt);
    outputs_.assign(static_cast<std::size_t>(counts.sums), std::nullopt);
    // What later rules of inputs need at least is what they needed before them: those keep most.
    std::int64_t least_bytes = 0;
    std::int64_t least_busy = pointer_busy_;
    inputs_.resize(planners_.size());
    for (std::int32_t number = counts.inputs - 1; number >= 0; --number) {
      if (!may_win(least_bytes, least_busy, {number, 0, 0, 0})) continue;
      for (std::size_t core = 0; core < planners_.size(); ++core) {
        planners_[core].fetch_inputs(number, rows_, inputs_[core]);
      }
      if (!any_short(inputs_)) try_weights(number, counts);
      least_bytes = planners_[0].pointer_bytes();
      least_busy = pointer_busy_;
      add_traffic(inputs_, least_bytes, least_busy);
      if (weights_.back()) add_traffic(*weights_.back(), least_bytes, least_busy);
      if (outputs_.front()) add_traffic(*outputs_.front(), least_bytes, least_busy);
    }
  }

  /// No plan of the current order takes fewer cycles: its first operands must come and its last outputs go,
  /// and these are the same whatever is kept in between.
  void bound_cycles(const std::vector<FetchProgram>& weights, const std::vector<OutputProgram>& outputs) {
    bounded_ = true;
    for (std::size_t core = 0; core < planners_.size(); ++core) {
      const std::int64_t array = orders_.back().demands[core].compute_cycles;
      std::int64_t start = 0;
      const std::vector<Fetch>& first = weights[core].fetches;
      const std::vector<Fetch>& second = inputs_[core].fetches;
      if (!first.empty() && !second.empty()) {
        start = first[0].busy + second[0].busy - std::max(first[0].now, second[0].now);
      }
      const std::vector<Write>& writes = outputs[core].writes;
      const std::int64_t end = !writes.empty() && writes.back().after == array ? writes.back().busy : 0;
      least_cycles_ = std::max(least_cycles_, array + std::max<std::int64_t>(0, start) + end);
    }
  }

  void try_weights(std::int32_t inputs_number, const RuleNumbers& counts) {
    for (std::int32_t number = counts.weights - 1; number >= 0; --number) {
      auto& weights = weights_[static_cast<std::size_t>(number)];
      if (!weights) {
        weights.emplace();
        for (TransferPlanner& planner : planners_) weights->push_back(planner.fetch_weights(number));
      }
      if (any_short(*weights)) continue;
      for (std::int32_t sums = 0; sums < counts.sums; ++sums) {
        auto& outputs = outputs_[static_cast<std::size_t>(sums)];
        if (!outputs) {
          outputs.emplace();
          for (TransferPlanner& planner : planners_) outputs->push_back(planner.write_outputs(sums));
        }
        if (any_short(*outputs)) continue;
        for (std::int32_t lag = 0; lag < counts.lag; ++lag) {
          try_plan(*weights, *outputs, {inputs_number, number, sums, lag});
        }
      }
    }
  }

  void try_plan(const std::vector<FetchProgram>& weights, const std::vector<OutputProgram>& outputs,
                const RuleNumbers& numbers) {
    for (std::size_t core = 0; core < planners_.size(); ++core) {
      if (planners_[core].lag(numbers.lag) > outputs[core].max_lag) return;
    }
    std::int64_t bytes = planners_[0].pointer_bytes();
    std::int64_t busy = pointer_busy_;
    add_traffic(inputs_, bytes, busy);
    add_traffic(weights, bytes, busy);
    add_traffic(outputs, bytes, busy);
    if (!bounded_) bound_cycles(weights, outputs);
    if (!may_win(bytes, busy, numbers)) return;
    poll_interrupt_now();
    const std::vector<CorePrograms> programs = combine(inputs_, weights, outputs, numbers.lag);
    MemoryTiming timing;
    if (!rows_ && is_small(weights, outputs, busy)) {
      const std::vector<Demand>& demands = orders_.back().demands;
      if (!timer_.run(programs, demands, pointer_busy_, busy, limit(bytes, numbers), timing)) return;
    } else {
      timing = time_plan(write_plan(planners_, programs, rows_), memory_);
      if (timing.cycles > limit(bytes, numbers)) return;
    }
    best_ = {orders_.size() - 1, numbers, bytes, std::move(timing), {}};
    count(weights, outputs, best_->counts);
  }

  /// Whether no time of these programs can exceed 64 bits.
  bool is_small(const std::vector<FetchProgram>& weights, const std::vector<OutputProgram>& outputs,
                std::int64_t busy) const {
    std::int64_t reads = 0;
    for (const FetchProgram& program : inputs_) reads += static_cast<std::int64_t>(program.fetches.size());
    for (const FetchProgram& program : weights) reads += static_cast<std::int64_t>(program.fetches.size());
    for (const OutputProgram& program : outputs) reads += static_cast<std::int64_t>(program.takes.size());
    constexpr std::int64_t large = std::int64_t{1} << 61;
    return busy < large && compute_cycles_ < large && reads + 1 < large / (memory_.latency + 1);
  }

  std::vector<CorePrograms> combine(const std::vector<FetchProgram>& inputs,
                                    const std::vector<FetchProgram>& weights,
                                    const std::vector<OutputProgram>& outputs, std::int32_t lag_number) {
    std::vector<CorePrograms> programs;
    turns_.resize(planners_.size());
    for (std::size_t core = 0; core < planners_.size(); ++core) {
      const TransferPlanner& planner = planners_[core];
      const std::int64_t lag = planner.lag(lag_number);
      const bool shared = planners_.size() > 1;
      if (shared) turns_[core] = turns_of(planner.demand(), outputs[core], lag);
      programs.push_back({&weights[core], &inputs[core], &outputs[core], lag,
                          planner.demand().inputs_preloaded, shared ? &turns_[core] : nullptr});
    }
    return programs;
  }

  void count(const std::vector<FetchProgram>& weights, const std::vector<OutputProgram>& outputs,
             MemoryCounts& counts) const {
    counts.compute_cycles = best_->timing.compute_cycles;
    std::copy(best_->timing.stalls, best_->timing.stalls + 3, counts.stalls);
    for (std::size_t core = 0; core < planners_.size(); ++core) {
      counts.add(orders_.back().demands[core].accesses);
      counts.index_bytes += planners_[core].pointer_bytes() + weights[core].index_bytes;
      counts.weight_bytes += weights[core].fetched_bytes - weights[core].index_bytes;
      counts.weight_writes += weights[core].words;
      counts.input_bytes += inputs_[core].fetched_bytes;
      counts.input_writes += inputs_[core].words;
      counts.output_bytes += outputs[core].output_bytes;
      counts.spill_bytes += outputs[core].spill_bytes;
      counts.reload_bytes += outputs[core].reload_bytes;
      counts.output_reads += outputs[core].written_words;
      counts.output_writes += outputs[core].reloaded_words;
    }
  }

  /// No plan fits: names the buffer that is too small for the most frugal one, and what that needs.
  [[noreturn]] void refuse() {
    for (TransferPlanner& planner : planners_) {
      const FetchProgram weights = planner.fetch_weights_frugally();
      const FetchProgram inputs = planner.fetch_inputs_frugally();
      const OutputProgram outputs = planner.write_outputs_frugally();
      // In the order in which one array cycle asks for them.
      struct Asked {
        const std::optional<Shortage>& shortage;
        const char* name;
        std::int64_t capacity;
      };
      Asked asked[] = {{weights.shortage, "memory weight_bytes", memory_.weight_capacity},
                       {inputs.shortage, "memory input_bytes", memory_.input_capacity},
                       {outputs.shortage, "memory output_bytes", memory_.output_capacity}};
      const Asked* first = nullptr;
      const bool inputs_first = planner.demand().inputs_preloaded;
      for (const std::size_t i : inputs_first ? std::array{1, 0, 2} : std::array{0, 1, 2}) {
        if (asked[i].shortage && (first == nullptr || asked[i].shortage->cycle < first->shortage->cycle)) {
          first = &asked[i];
        }
      }
      if (first == nullptr) continue;
      require(false, first->name, "at least " + std::to_string(first->shortage->needed) + " for this layer",
              std::to_string(first->capacity));
    }
    throw std::logic_error("memory: the frugal rules are not among those tried");
  }

  const ArrayConfig& array_;
  const Layer& layer_;
  const CoreMap& cores_;
  const MemoryConfig& memory_;
  bool rows_;  ///< Whether DRAM rows are followed.
  PlanTimer timer_;
  std::int64_t pointer_busy_ = 0;
  std::vector<CoreOperands> operands_;     ///< (cores).
  std::vector<TransferPlanner> planners_;  ///< (cores).
  std::vector<Order> orders_;              ///< The last one is searched.
  std::int64_t compute_cycles_ = 0;        ///< Of its longest core.
  std::int64_t least_cycles_ = 0;          ///< Of any plan of it.
  bool bounded_ = false;                   ///< Whether its first operands and last outputs are in that.
  std::vector<FetchProgram> inputs_;       ///< (cores): of the rule at hand.
  std::vector<std::optional<std::vector<FetchProgram>>> weights_;  ///< Its programs so far: (rules, cores).
  std::vector<std::optional<std::vector<OutputProgram>>> outputs_;
  std::vector<std::vector<WriteTurn>> turns_;  ///< (cores) of the plan at hand.
  std::optional<Best> best_;
};

}  // namespace

MemoryPlan plan_memory(const ArrayConfig& array, const Layer& layer, const CoreMap& cores,
                       const MemoryConfig& memory, bool requests) {
  return PlanSearch(array, layer, cores, memory).write(requests);
}

MemoryRun run_memory(const ArrayConfig& array, const Layer& layer, const CoreMap& cores,
                     const MemoryConfig& memory) {
  PlanSearch search(array, layer, cores, memory);
  MemoryRun run{search.timing(), search.counts(), search.folds()};
  if (memory.dram.present()) {
    const ChannelUse use = list_channel_use(search.write(true).transfers, memory);
    run.counts.dram_bursts = use.bursts;
    run.counts.row_misses = use.row_misses;
    run.counts.row_conflicts = use.row_conflicts;
  }
  return run;
}

}  // namespace pysim
