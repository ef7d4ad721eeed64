// Runs cases on Verilated benches: one process, any number of cases, each loaded over the bench's write bus.
//
// Standard input and output carry little-endian int32. A request is
//   model, serial, eager, folds, most cycles, settle cycles, number of writes, {memory, address, lane, data}
//   each;
// a reply is
//   finished, first faulty cycle or -1, number of preload starts, stream starts and results, then the cycles
//   of both kinds of starts, then {cycle, column, value} of each result that left.
// Cycles count from the one in which `start` is set. models.h is written by the build.
#include <verilated.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <vector>

#if VM_TRACE
#include <verilated_vcd_c.h>
#endif

namespace {

using Words = std::vector<std::int32_t>;

void read_words(Words& words, std::size_t count) {
  words.resize(count);
  if (std::fread(words.data(), sizeof(std::int32_t), count, stdin) == count) return;
  std::exit(std::feof(stdin) != 0 ? 0 : 1);
}

void write_words(const Words& words) {
  std::fwrite(words.data(), sizeof(std::int32_t), words.size(), stdout);
}

struct Request {
  bool serial;
  bool eager;
  std::int32_t folds;
  std::int32_t most_cycles;
  std::int32_t settle_cycles;
  Words writes;
};

struct Bench {
  virtual ~Bench() = default;
  virtual void run(const Request& request) = 0;
};

template <class Top>
class VerilatedBench final : public Bench {
 public:
  explicit VerilatedBench(const char* trace_path) {
    context_.randReset(2);  // Registers start with noise: nothing may depend on what they held.
    context_.randSeed(1);
    context_.traceEverOn(trace_path != nullptr);
    top_ = std::make_unique<Top>(&context_, "bench");
#if VM_TRACE
    if (trace_path != nullptr) {
      top_->trace(&trace_, 99);
      trace_.open(trace_path);
    }
#endif
  }

  void run(const Request& request) override {
    top_->write = 0;
    top_->start = 0;
    top_->serial = request.serial;
    top_->eager = request.eager;
    top_->folds = static_cast<IData>(request.folds);
    top_->rst = 1;
    for (int i = 0; i < 2; ++i) edge();
    top_->rst = 0;
    top_->write = 1;
    for (std::size_t i = 0; i < request.writes.size(); i += 4) {
      top_->write_memory = static_cast<IData>(request.writes[i]);
      top_->write_address = static_cast<IData>(request.writes[i + 1]);
      top_->write_lane = static_cast<IData>(request.writes[i + 2]);
      top_->write_data = static_cast<IData>(request.writes[i + 3]);
      edge();
    }
    top_->write = 0;
    step_all(request);
#if VM_TRACE
    if (trace_.isOpen()) trace_.flush();  // The program ends where it waits for the next case.
#endif
  }

 private:
  /// The clock falls and what is combinational settles; the caller may look at it, then the clock rises.
  void settle() {
    top_->clk = 0;
    top_->eval();
    dump();
  }
  void rise() {
    top_->clk = 1;
    top_->eval();
    dump();
  }
  void edge() {
    settle();
    rise();
  }
  void dump() {
#if VM_TRACE
    if (trace_.isOpen()) trace_.dump(time_++);
#endif
  }

  void step_all(const Request& request) {
    Words preloads, streams, results;
    std::int32_t faulty = -1;
    std::int32_t folds_left = 0;
    std::int32_t settled = 0;
    std::int32_t cycle = 0;
    for (; cycle < request.most_cycles && settled < request.settle_cycles; ++cycle) {
      top_->start = cycle == 0;
      settle();
      if (top_->preload_starts) preloads.push_back(cycle);
      if (top_->stream_starts) streams.push_back(cycle);
      if (top_->fault && faulty < 0) faulty = cycle;
      rise();
      for (std::int32_t c = 0; c < 8; ++c) {
        if ((top_->out_valid >> c & 1) == 0) continue;
        results.insert(results.end(), {cycle, c, static_cast<std::int32_t>(top_->out[c])});
      }
      folds_left += top_->fold_left;
      if (folds_left >= request.folds) ++settled;  // Anything that leaves after the last fold is a fault.
    }
    const auto size = [](const Words& words) { return static_cast<std::int32_t>(words.size()); };
    write_words({static_cast<std::int32_t>(folds_left == request.folds), faulty, size(preloads),
                 size(streams), size(results) / 3});
    write_words(preloads);
    write_words(streams);
    write_words(results);
    std::fflush(stdout);
  }

  VerilatedContext context_;
  std::unique_ptr<Top> top_;
#if VM_TRACE
  VerilatedVcdC trace_;
  std::uint64_t time_ = 0;
#endif
};

}  // namespace

#include "models.h"

int main(int argc, char** argv) {
  const char* const trace_path = argc > 1 ? argv[1] : nullptr;
  std::vector<std::unique_ptr<Bench>> benches(model_count);
  Words header;
  Request request;
  for (;;) {
    read_words(header, 7);
    const auto model = static_cast<std::size_t>(header[0]);
    if (model >= model_count || header[6] < 0) return 1;
    request = {header[1] != 0, header[2] != 0, header[3], header[4], header[5], {}};
    read_words(request.writes, static_cast<std::size_t>(header[6]) * 4);
    if (!benches[model]) benches[model] = make_bench(model, trace_path);
    benches[model]->run(request);
  }
}
