// The CTAs of one cluster while they run: whose turn it is, and who waits for whom.
#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <deque>
#include <map>
#include <random>
#include <set>
#include <vector>

#include "ptx/machine.h"
#include "ptx/memory.h"

namespace ptx {

constexpr std::size_t kLanes = 32;
constexpr std::uint32_t kAll = ~0U;
/// Shared memory and L1 cache of a multiprocessor together, of compute capability 9.0.
constexpr std::int64_t kOnChip = 256 * 1024;
/// Barriers in shared memory that a CTA may have.
constexpr std::size_t kBarriers = 8;
/// An address of shared memory in a cluster: which CTA, plus 1, above the address within it.
constexpr int kRankShift = 24;

/// Lanes of a warp that are at the same instruction, together.
struct Group {
  enum class State { running, at_warp_sync, at_shuffle, at_cta_sync, at_cluster_wait, at_barrier };
  std::uint32_t lanes;
  std::int32_t pc;
  State state = State::running;
  std::uint32_t awaited = 0;  ///< Lanes that a warp-wide synchronisation names.
  std::size_t barrier = 0;    ///< Place of the barrier waited for, and of which phase.
  std::uint32_t parity = 0;
};

struct PendingCopy {
  std::size_t place;
  std::array<std::uint8_t, 16> data;
  std::int64_t batch;
};

struct Thread {
  std::vector<std::uint64_t> registers;
  std::deque<PendingCopy> copies;
  std::int64_t batches = 0;
};

struct Warp {
  Warp(std::size_t entities, std::size_t which, std::size_t of_cta, std::size_t in_cta)
      : clock(entities), entity(which), cta(of_cta), index(in_cta), threads(kLanes) {
    clock[entity] = 1;
  }
  Clock clock;
  std::size_t entity;
  std::size_t cta;
  std::size_t index;  ///< In its CTA.
  std::vector<Thread> threads;
  std::vector<Group> groups{{kAll, 0}};
  std::int64_t cluster_phase = -1;  ///< Of the cluster's barrier, at which it has arrived.
  bool fenced = true;  ///< Barriers that it made are visible to the copy engine and to other CTAs.

  std::uint32_t alive() const {
    std::uint32_t lanes = 0;
    for (const Group& group : groups) lanes |= group.lanes;
    return lanes;
  }
};

/// A barrier in shared memory (mbarrier).
struct Barrier {
  Barrier(std::size_t entities, std::int64_t arrivals, std::size_t maker, std::size_t which)
      : expected(arrivals),
        missing(arrivals),
        coming(entities),
        over(entities),
        made_by(maker),
        entity(which) {}
  std::int64_t expected;
  std::int64_t missing;
  std::int64_t bytes = 0;  ///< Announced and not yet come; copies may come first.
  std::int64_t phase = 0;
  Clock coming;                                             ///< Of those who arrived in this phase,
  Clock over;                                               ///< and in the ones before.
  bool from_elsewhere = false, was_from_elsewhere = false;  ///< Whether another CTA arrived.
  std::size_t made_by;
  std::size_t entity;  ///< On whose behalf the copy engine writes.
  std::uint32_t engine_clock = 0;
};

struct Cta {
  Cta(std::int64_t bytes, std::size_t warps, std::size_t first_warp_, std::size_t entities)
      : shared(bytes, warps, first_warp_), cache(kOnChip - bytes), first_warp(first_warp_), sync(entities) {}
  Shared shared;
  SectorCache cache;
  std::size_t first_warp;
  std::map<std::size_t, Barrier> barriers;
  Clock sync;
};

struct BulkCopy {
  std::size_t cta;
  std::size_t place;
  std::size_t barrier;
  std::vector<std::uint8_t> data;
  std::uint32_t clock;
};

class Cluster {
 public:
  Cluster(const Grid& grid, std::int64_t first_cta, Global& global, std::mt19937_64& random, Counts& counts);
  /// Until all threads have ended.
  void run();

 private:
  using State = Group::State;

  // turns.cpp
  bool ready(const Warp& warp, const Group& group) const;
  /// Some instructions of one group of the warp's lanes.
  void turn(Warp& warp);
  [[noreturn]] void deadlock() const;
  std::uint64_t value(const Operand& operand, const Warp& warp, std::size_t lane) const;
  static void set(const Operand& operand, Warp& warp, std::size_t lane, std::uint64_t to);
  template <class F>
  static void each(std::uint32_t lanes, F f) {
    for (; lanes != 0; lanes &= lanes - 1) f(static_cast<std::size_t>(std::countr_zero(lanes)));
  }
  Actor actor(const Warp& warp, std::size_t lane) const;
  void step(Warp& warp, std::size_t g);
  /// Lanes that jump or end leave the group.
  void part(Warp& warp, std::size_t g, const Instruction& i, std::uint32_t leaving);
  /// Who waited for lanes that have ended waits no longer.
  void after_end(Warp& warp);
  void perform(Warp& warp, std::size_t g, const Instruction& i, std::uint32_t lanes);
  void move_parts(Warp& warp, const Instruction& i, std::uint32_t lanes);
  std::uint64_t address(const Warp& warp, const Operand& base, std::int64_t offset, std::size_t lane,
                        bool wide) const;

  // accesses.cpp: loads, stores, matrices
  void load(Warp& warp, const Instruction& i, std::uint32_t lanes);
  void store(Warp& warp, const Instruction& i, std::uint32_t lanes);
  static std::set<std::uint64_t> sectors(const std::array<std::uint64_t, kLanes>& addresses,
                                         std::uint32_t lanes, std::int64_t bytes);
  /// 32 banks of 4 bytes; wide accesses come in parts of 128 bytes.
  void count_banks(const std::array<std::uint64_t, kLanes>& addresses, std::uint32_t lanes,
                   std::int64_t bytes);
  std::uint32_t together(const Warp& warp, std::uint32_t lanes) const;
  void product(Warp& warp, const Instruction& i, std::uint32_t lanes);
  /// Matrix m's rows stand where lanes 8 m to 8 m + 7 say; lane l gets elements 2 (l % 4) and the next of row
  /// l / 4, or, transposed, of column l / 4.
  void load_matrix(Warp& warp, const Instruction& i, std::uint32_t lanes);

  // turns.cpp: lanes, warps and CTAs that wait for each other
  static void whole_group(const Warp& warp, std::size_t g, std::uint32_t lanes);
  /// Lanes at the same place go on together.
  static void merge(Warp& warp);
  void arrive_at_warp_sync(Warp& warp, std::size_t g, const Instruction& i, std::uint32_t lanes);
  void release_warp(Warp& warp);
  /// Butterfly: each lane gets the value of the lane whose number differs in the given bits.
  void shuffle(Warp& warp, const Instruction& i, std::uint32_t lanes);
  void release_cta(Cta& cta);
  void arrive_at_cluster(Warp& warp, std::uint32_t lanes);
  void release_cluster();
  void wait_for_cluster(Warp& warp, std::size_t g, std::uint32_t lanes);

  // barriers.cpp: asynchronous copies, and barriers in shared memory
  void copy(Warp& warp, const Instruction& i, std::uint32_t lanes);
  void wait_for_copies(Warp& warp, const Instruction& i, std::uint32_t lanes);
  struct Found {
    std::size_t cta;
    std::size_t place;
    Barrier* barrier;
  };
  /// The barrier at an address, of this CTA or in the cluster.
  Found barrier_at(Warp& warp, std::uint64_t at);
  void make_barrier(Warp& warp, const Instruction& i, std::uint32_t lanes);
  void arrive_at_barrier(Warp& warp, const Instruction& i, std::uint32_t lanes);
  void wait_at_barrier(Warp& warp, std::size_t g, const Instruction& i, std::uint32_t lanes);
  static void require_range(const Barrier& barrier);
  static void advance(Barrier& barrier);
  void require_alive(std::size_t cta) const;
  void bulk_copy(Warp& warp, const Instruction& i, std::uint32_t lanes);
  void land(std::size_t which);

  const Grid& grid_;
  const std::vector<Instruction>& code_;
  std::int64_t first_cta_;
  Global& global_;
  std::mt19937_64& random_;
  Counts& counts_;
  std::size_t warps_per_cta_;
  std::size_t entities_;
  std::vector<Cta> ctas_;
  std::vector<Warp> warps_;
  std::vector<BulkCopy> bulk_;
  int landing_ = 0;         ///< Chance in a thousand that a copy lands before the next turn.
  std::int64_t phase_ = 0;  ///< Of the cluster's barrier.
  Clock arrived_;
  Clock released_;
};

}  // namespace ptx
