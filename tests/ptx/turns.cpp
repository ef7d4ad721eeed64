// Turns of warps and of lanes that went apart, and what they wait for; the grid.
#include <algorithm>
#include <numeric>
#include <string>
#include <utility>

#include "ptx/arithmetic.h"
#include "ptx/cluster.h"

namespace ptx {

namespace {

/// Instructions after which a grid that goes on is taken for one that never ends.
constexpr std::int64_t kMostInstructions = 200'000'000;

}  // namespace

Cluster::Cluster(const Grid& grid, std::int64_t first_cta, Global& global, std::mt19937_64& random,
                 Counts& counts)
    : grid_(grid),
      code_(grid.entry->code),
      first_cta_(first_cta),
      global_(global),
      random_(random),
      counts_(counts),
      warps_per_cta_(static_cast<std::size_t>(grid.threads) / kLanes),
      entities_(static_cast<std::size_t>(grid.cluster) * (warps_per_cta_ + kBarriers)),
      arrived_(entities_),
      released_(entities_) {
  for (std::size_t c = 0; c < static_cast<std::size_t>(grid.cluster); ++c) {
    ctas_.emplace_back(grid.shared_bytes, warps_per_cta_, c * warps_per_cta_, entities_);
    for (std::size_t w = 0; w < warps_per_cta_; ++w) {
      warps_.emplace_back(entities_, warps_.size(), c, w);
      for (Thread& thread : warps_.back().threads) {
        thread.registers.resize(static_cast<std::size_t>(grid.entry->registers));
        for (std::uint64_t& value : thread.registers) value = random_();  // Nobody may rely on what is there.
      }
    }
  }
  // Copies land at once, when everybody waits, or between.
  constexpr std::array<int, 4> kLanding{0, 2, 100, 1000};
  landing_ = kLanding[random_() % kLanding.size()];
}

void Cluster::run() {
  std::vector<std::size_t> runnable;
  while (true) {
    runnable.clear();
    bool alive = false;
    for (std::size_t w = 0; w < warps_.size(); ++w) {
      alive = alive || !warps_[w].groups.empty();
      for (const Group& group : warps_[w].groups) {
        if (ready(warps_[w], group)) {
          runnable.push_back(w);
          break;
        }
      }
    }
    if (!alive) break;
    if (!bulk_.empty() && (runnable.empty() || static_cast<int>(random_() % 1000) < landing_)) {
      land(random_() % bulk_.size());
      continue;
    }
    if (runnable.empty()) deadlock();
    const std::size_t chosen = runnable[random_() % runnable.size()];
    turn(warps_[chosen]);
  }
  if (!bulk_.empty()) throw Fault("a copy lands in a CTA that has ended");
}

bool Cluster::ready(const Warp& warp, const Group& group) const {
  if (group.state == State::running) return true;
  if (group.state == State::at_barrier) {
    const Barrier& barrier = ctas_[warp.cta].barriers.at(group.barrier);
    return static_cast<std::uint32_t>(barrier.phase & 1) != group.parity;
  }
  return group.state == State::at_cluster_wait && phase_ > warp.cluster_phase;
}

void Cluster::turn(Warp& warp) {
  std::vector<std::size_t> choices;
  for (std::size_t g = 0; g < warp.groups.size(); ++g) {
    if (ready(warp, warp.groups[g])) choices.push_back(g);
  }
  const std::size_t chosen = choices[random_() % choices.size()];
  warp.groups[chosen].state = State::running;
  auto budget = static_cast<int>(1 + random_() % 64);
  // A group keeps its place among the warp's groups until it waits or lanes leave it.
  while (budget-- > 0 && chosen < warp.groups.size() && warp.groups[chosen].state == State::running) {
    const std::size_t before = warp.groups.size();
    step(warp, chosen);
    if (warp.groups.size() != before) break;
  }
}

void Cluster::deadlock() const {
  std::string text = "nobody can go on:";
  for (const Warp& warp : warps_) {
    for (const Group& group : warp.groups) {
      text += " CTA " + std::to_string(warp.cta) + " warp " + std::to_string(warp.index) + " waits at line " +
              std::to_string(code_[static_cast<std::size_t>(group.pc)].line) + ";";
      if (text.size() > 400) throw Fault(text + " ...");
    }
  }
  throw Fault(text);
}

std::uint64_t Cluster::value(const Operand& operand, const Warp& warp, std::size_t lane) const {
  using Is = Operand::Is;
  switch (operand.is) {
    case Is::reg:
      return warp.threads[lane].registers[static_cast<std::size_t>(operand.reg)];
    case Is::number:
      return operand.number;
    case Is::tid:
      return warp.index * kLanes + lane;
    case Is::ntid:
      return static_cast<std::uint64_t>(grid_.threads);
    case Is::ctaid:
      return static_cast<std::uint64_t>(first_cta_) + warp.cta;
    case Is::nctaid:
      return static_cast<std::uint64_t>(grid_.ctas);
    case Is::lane:
      return lane;
    case Is::rank:
      return warp.cta;
    case Is::nothing:
      break;
  }
  throw Fault("expected an operand, got none");
}

void Cluster::set(const Operand& operand, Warp& warp, std::size_t lane, std::uint64_t to) {
  if (operand.is == Operand::Is::nothing) return;
  if (operand.is != Operand::Is::reg) throw Fault("expected a register for a result, got another operand");
  warp.threads[lane].registers[static_cast<std::size_t>(operand.reg)] = to;
}

Actor Cluster::actor(const Warp& warp, std::size_t lane) const {
  const std::size_t thread =
      ((static_cast<std::size_t>(first_cta_) + warp.cta) * warps_per_cta_ + warp.index) * kLanes + lane;
  return {&warp.clock, warp.entity, warp.index, static_cast<int>(lane), thread};
}

void Cluster::step(Warp& warp, std::size_t g) {
  const std::int32_t pc = warp.groups[g].pc;
  const Instruction& i = code_.at(static_cast<std::size_t>(pc));
  if (++counts_.instructions > kMostInstructions) throw Fault("a kernel that does not end");
  std::uint32_t lanes = warp.groups[g].lanes;
  if (i.guard >= 0) {
    std::uint32_t holds = 0;
    each(lanes, [&](std::size_t lane) {
      const bool set_ = (warp.threads[lane].registers[static_cast<std::size_t>(i.guard)] & 1) != 0;
      if (set_ != i.guard_not) holds |= 1U << lane;
    });
    if (i.op == Op::bra || i.op == Op::ret) return part(warp, g, i, holds);
    lanes = holds;
  } else if (i.op == Op::bra || i.op == Op::ret) {
    return part(warp, g, i, lanes);
  }
  warp.groups[g].pc = pc + 1;
  if (lanes == 0) return;
  try {
    perform(warp, g, i, lanes);
  } catch (const Fault& fault) {
    throw Fault("PTX line " + std::to_string(i.line) + ": " + fault.what());
  }
}

void Cluster::part(Warp& warp, std::size_t g, const Instruction& i, std::uint32_t leaving) {
  Group& group = warp.groups[g];
  const std::uint32_t staying = group.lanes & ~leaving;
  if (i.op == Op::ret) {
    if (staying == 0) {
      warp.groups.erase(warp.groups.begin() + static_cast<std::ptrdiff_t>(g));
    } else {
      group.lanes = staying;
      ++group.pc;
    }
    if (leaving != 0) after_end(warp);
  } else if (staying == 0) {
    group.pc = i.target;
  } else {
    ++group.pc;
    if (leaving != 0) {
      group.lanes = staying;
      warp.groups.push_back({leaving, i.target});
    }
  }
}

void Cluster::after_end(Warp& warp) {
  release_warp(warp);
  release_cta(ctas_[warp.cta]);
  release_cluster();
}

void Cluster::perform(Warp& warp, std::size_t g, const Instruction& i, std::uint32_t lanes) {
  switch (i.op) {
    case Op::mov:
      if (i.to.size() != 1 || i.of.size() != 1) return move_parts(warp, i, lanes);
      break;
    case Op::ld:
      return load(warp, i, lanes);
    case Op::st:
      return store(warp, i, lanes);
    case Op::mapa:
      return each(lanes, [&](std::size_t lane) {
        const std::uint64_t rank = cut_to(value(i.of[1], warp, lane), 32);
        if (rank >= ctas_.size()) throw Fault("mapa: expected a CTA of the cluster, got another");
        set(i.to[0], warp, lane, ((rank + 1) << kRankShift) | cut_to(value(i.of[0], warp, lane), kRankShift));
      });
    case Op::mma:
      return product(warp, i, together(warp, lanes));
    case Op::ldmatrix:
      return load_matrix(warp, i, together(warp, lanes));
    case Op::shfl:
    case Op::warp_sync:
      return arrive_at_warp_sync(warp, g, i, lanes);
    case Op::cta_sync:
      whole_group(warp, g, lanes);
      warp.groups[g].state = State::at_cta_sync;
      return release_cta(ctas_[warp.cta]);
    case Op::cluster_arrive:
      return arrive_at_cluster(warp, lanes);
    case Op::cluster_wait:
      return wait_for_cluster(warp, g, lanes);
    case Op::fence_init:
      warp.fenced = true;
      return;
    case Op::copy:
      return copy(warp, i, lanes);
    case Op::copy_commit:
      return each(lanes, [&](std::size_t lane) { ++warp.threads[lane].batches; });
    case Op::copy_wait:
      return wait_for_copies(warp, i, lanes);
    case Op::bulk_copy:
      return bulk_copy(warp, i, lanes);
    case Op::barrier_init:
      return make_barrier(warp, i, lanes);
    case Op::barrier_arrive:
    case Op::barrier_expect:
      return arrive_at_barrier(warp, i, lanes);
    case Op::barrier_wait:
      return wait_at_barrier(warp, g, i, lanes);
    default:
      break;
  }
  each(lanes, [&](std::size_t lane) {
    std::array<std::uint64_t, 4> source{};
    for (std::size_t s = 0; s < i.of.size(); ++s) source[s] = value(i.of[s], warp, lane);
    set(i.to[0], warp, lane, compute(i, source));
  });
}

void Cluster::move_parts(Warp& warp, const Instruction& i, std::uint32_t lanes) {
  const int bits = i.type.bits / static_cast<int>(std::max(i.to.size(), i.of.size()));
  each(lanes, [&](std::size_t lane) {
    std::uint64_t whole = 0;
    for (std::size_t s = 0; s < i.of.size(); ++s)
      whole |= cut_to(value(i.of[s], warp, lane), i.of.size() == 1 ? i.type.bits : bits)
               << (static_cast<int>(s) * bits);
    for (std::size_t t = 0; t < i.to.size(); ++t)
      set(i.to[t], warp, lane,
          i.to.size() == 1 ? whole : cut_to(whole >> (static_cast<int>(t) * bits), bits));
  });
}

std::uint64_t Cluster::address(const Warp& warp, const Operand& base, std::int64_t offset, std::size_t lane,
                               bool wide) const {
  const std::uint64_t sum = value(base, warp, lane) + static_cast<std::uint64_t>(offset);
  return wide ? sum : cut_to(sum, 32);
}

void Cluster::whole_group(const Warp& warp, std::size_t g, std::uint32_t lanes) {
  if (lanes != warp.groups[g].lanes)
    throw Fault("expected a barrier for all lanes that come here, got one under a predicate that differs");
}

void Cluster::merge(Warp& warp) {
  std::vector<Group> merged;
  for (const Group& group : warp.groups) {
    const auto same = std::find_if(merged.begin(), merged.end(), [&](const Group& other) {
      return other.pc == group.pc && other.state == State::running && group.state == State::running;
    });
    if (same == merged.end()) {
      merged.push_back(group);
    } else {
      same->lanes |= group.lanes;
    }
  }
  warp.groups = std::move(merged);
}

void Cluster::arrive_at_warp_sync(Warp& warp, std::size_t g, const Instruction& i, std::uint32_t lanes) {
  whole_group(warp, g, lanes);
  const Operand& mask = i.of.back();
  std::uint32_t awaited = 0;
  each(lanes, [&](std::size_t lane) {
    const auto named = static_cast<std::uint32_t>(value(mask, warp, lane));
    if ((named >> lane & 1) == 0 || (awaited != 0 && awaited != named))
      throw Fault("expected one mask of lanes that names the lane itself, got another");
    awaited = named;
  });
  warp.groups[g].awaited = awaited;
  warp.groups[g].state = i.op == Op::shfl ? State::at_shuffle : State::at_warp_sync;
  release_warp(warp);
}

void Cluster::release_warp(Warp& warp) {
  for (std::size_t g = 0; g < warp.groups.size(); ++g) {
    const Group first = warp.groups[g];
    if (first.state != State::at_warp_sync && first.state != State::at_shuffle) continue;
    std::uint32_t there = 0;
    for (const Group& group : warp.groups) {
      if (group.state == first.state && group.awaited == first.awaited &&
          (first.state == State::at_warp_sync || group.pc == first.pc))
        there |= group.lanes;
    }
    if ((first.awaited & warp.alive() & ~there) != 0) continue;
    for (Group& group : warp.groups) {
      if ((group.lanes & there) != 0) group.state = State::running;
    }
    merge(warp);
    if (first.state == State::at_shuffle) shuffle(warp, code_[static_cast<std::size_t>(first.pc - 1)], there);
    ++warp.clock[warp.entity];
    return release_warp(warp);
  }
}

void Cluster::shuffle(Warp& warp, const Instruction& i, std::uint32_t lanes) {
  std::array<std::uint64_t, kLanes> values{};
  each(lanes, [&](std::size_t lane) { values[lane] = value(i.of[0], warp, lane); });
  each(lanes, [&](std::size_t lane) {
    if (cut_to(value(i.of[2], warp, lane), 32) != 31)
      throw Fault("shfl: expected one segment of 32 lanes, got others");
    const std::size_t from = lane ^ (value(i.of[1], warp, lane) & 31);
    if (((lanes >> from) & 1) == 0)
      throw Fault("shfl: expected a value of a lane that takes part, got another");
    set(i.to[0], warp, lane, values[from]);
    if (i.to.size() > 1) set(i.to[1], warp, lane, 1);
  });
}

void Cluster::release_cta(Cta& cta) {
  std::int32_t pc = -1;
  bool any = false;
  for (std::size_t w = cta.first_warp; w < cta.first_warp + warps_per_cta_; ++w) {
    for (const Group& group : warps_[w].groups) {
      if (group.state != State::at_cta_sync) return;
      any = true;
    }
  }
  if (!any) return;
  for (std::size_t w = cta.first_warp; w < cta.first_warp + warps_per_cta_; ++w) {
    pc = -1;
    for (Group& group : warps_[w].groups) {
      if (pc >= 0 && group.pc != pc) throw Fault("expected the lanes of a warp at one barrier, got several");
      pc = group.pc;
      group.state = State::running;
    }
    merge(warps_[w]);
    cta.sync.join(warps_[w].clock);
  }
  for (std::size_t w = cta.first_warp; w < cta.first_warp + warps_per_cta_; ++w) {
    warps_[w].clock.join(cta.sync);
    ++warps_[w].clock[warps_[w].entity];
  }
}

void Cluster::arrive_at_cluster(Warp& warp, std::uint32_t lanes) {
  if (lanes != warp.alive())
    throw Fault("expected all lanes of the warp together at the cluster's barrier, got some");
  if (warp.cluster_phase >= phase_)
    throw Fault("expected a wait between two arrivals at the cluster's barrier, got none");
  warp.cluster_phase = phase_;
  arrived_.join(warp.clock);
  ++warp.clock[warp.entity];
  release_cluster();
}

void Cluster::release_cluster() {
  for (const Warp& warp : warps_) {
    if (!warp.groups.empty() && warp.cluster_phase < phase_) return;
  }
  released_ = arrived_;
  ++phase_;
}

void Cluster::wait_for_cluster(Warp& warp, std::size_t g, std::uint32_t lanes) {
  if (lanes != warp.alive() || warp.cluster_phase < 0)
    throw Fault("expected all lanes of the warp, arrived before, at the cluster's barrier");
  if (phase_ <= warp.cluster_phase) {
    --warp.groups[g].pc;  // again, once it is over
    warp.groups[g].state = State::at_cluster_wait;
    return;
  }
  warp.clock.join(released_);
  ++warp.clock[warp.entity];
}

void run(const Grid& grid, const std::vector<Region>& regions, std::uint64_t seed, Counts& counts) {
  if (grid.threads < 1 || grid.threads > grid.entry->most_threads ||
      grid.threads % static_cast<int>(kLanes) != 0)
    throw Fault("expected whole warps, at most " + std::to_string(grid.entry->most_threads) +
                " threads, got " + std::to_string(grid.threads));
  if (grid.cluster < 1 || grid.cluster > 8 || grid.ctas % grid.cluster != 0)
    throw Fault("expected clusters of 1 to 8 CTAs that divide the grid, got " + std::to_string(grid.cluster));
  std::mt19937_64 random(seed);
  Global global(regions);
  std::vector<std::int64_t> order(static_cast<std::size_t>(grid.ctas / grid.cluster));
  std::iota(order.begin(), order.end(), 0);
  std::shuffle(order.begin(), order.end(), random);
  for (const std::int64_t cluster : order)
    Cluster(grid, cluster * grid.cluster, global, random, counts).run();
}

}  // namespace ptx
