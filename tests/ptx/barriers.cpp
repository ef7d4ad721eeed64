// Copies that go on while threads do other things, and the barriers that say when they have ended.
#include <algorithm>
#include <cstring>
#include <string>

#include "ptx/arithmetic.h"
#include "ptx/cluster.h"

namespace ptx {

namespace {

constexpr std::int64_t kMostPendingBytes = (1 << 20) - 1;

}  // namespace

void Cluster::copy(Warp& warp, const Instruction& i, std::uint32_t lanes) {
  Shared& shared = ctas_[warp.cta].shared;
  each(lanes, [&](std::size_t lane) {
    const std::uint64_t bytes = cut_to(value(i.of[2], warp, lane), 32);
    const std::uint64_t readable = cut_to(value(i.of[3], warp, lane), 32);
    if (bytes != 16 || readable > 16) throw Fault("cp.async.cg: expected 16 bytes, got others");
    const std::size_t place = shared.place(address(warp, i.of[0], 0, lane, false), 16, 16);
    const std::uint64_t from = address(warp, i.of[1], i.offset, lane, true);
    PendingCopy pending{place, {}, warp.threads[lane].batches};
    if (readable > 0) {
      if (from % 16 != 0) throw Fault("cp.async: expected a source aligned to 16 bytes, got another");
      std::memcpy(pending.data.data(), global_.copy_from(from, static_cast<std::int64_t>(readable)),
                  readable);
    }
    shared.begin_copy(place, 16, actor(warp, lane));
    warp.threads[lane].copies.push_back(pending);
    counts_.copied_bytes += 16;
    counts_.fetched_bytes += static_cast<std::int64_t>(readable);
  });
}

void Cluster::wait_for_copies(Warp& warp, const Instruction& i, std::uint32_t lanes) {
  Shared& shared = ctas_[warp.cta].shared;
  each(lanes, [&](std::size_t lane) {
    Thread& thread = warp.threads[lane];
    const std::int64_t pending = static_cast<std::int64_t>(cut_to(value(i.of[0], warp, lane), 32));
    while (!thread.copies.empty() && thread.copies.front().batch < thread.batches - pending) {
      const PendingCopy& done = thread.copies.front();
      std::memcpy(
          shared.end_copy(done.place, 16, warp.entity, static_cast<int>(lane), warp.clock[warp.entity]),
          done.data.data(), 16);
      thread.copies.pop_front();
    }
  });
}

Cluster::Found Cluster::barrier_at(Warp& warp, std::uint64_t at) {
  const std::uint64_t rank = at >> kRankShift;
  const std::size_t cta = rank == 0 ? warp.cta : static_cast<std::size_t>(rank - 1);
  if (cta >= ctas_.size()) throw Fault("expected a barrier in a CTA of the cluster, got another address");
  const std::size_t place = ctas_[cta].shared.place(at & ((1U << kRankShift) - 1), 8, 8);
  const auto found = ctas_[cta].barriers.find(place);
  if (found == ctas_[cta].barriers.end()) throw Fault("expected a barrier that was made, got none there");
  Barrier& barrier = found->second;
  if (barrier.made_by != warp.entity && warp.clock[barrier.made_by] == 0)
    throw Fault("a race: nothing orders the making of a barrier and its use");
  return {cta, place, &barrier};
}

void Cluster::make_barrier(Warp& warp, const Instruction& i, std::uint32_t lanes) {
  Cta& cta = ctas_[warp.cta];
  each(lanes, [&](std::size_t lane) {
    const std::size_t place = cta.shared.place(address(warp, i.of[0], i.offset, lane, false), 8, 8);
    const auto arrivals = static_cast<std::int64_t>(cut_to(value(i.of[1], warp, lane), 32));
    if (arrivals < 1 || arrivals >= (1 << 20))
      throw Fault("mbarrier.init: expected 1 to 2^20 - 1 arrivals, got others");
    if (cta.barriers.size() == kBarriers || cta.barriers.contains(place))
      throw Fault("expected another place for each of at most 8 barriers");
    cta.shared.reserve(place, 8, actor(warp, lane));
    const std::size_t entity = warps_.size() + warp.cta * kBarriers + cta.barriers.size();
    cta.barriers.emplace(place, Barrier(entities_, arrivals, warp.entity, entity));
    warp.fenced = false;
  });
}

void Cluster::arrive_at_barrier(Warp& warp, const Instruction& i, std::uint32_t lanes) {
  each(lanes, [&](std::size_t lane) {
    const Found found = barrier_at(warp, address(warp, i.of[0], i.offset, lane, false));
    Barrier& barrier = *found.barrier;
    const bool elsewhere = found.cta != warp.cta;
    if (elsewhere && !i.cluster_scope)
      throw Fault("an arrival at another CTA's barrier: expected release.cluster, got release.cta");
    if (elsewhere) require_alive(found.cta);
    if (i.op == Op::barrier_expect) {
      barrier.bytes += static_cast<std::int64_t>(cut_to(value(i.of[1], warp, lane), 32));
      require_range(barrier);
    }
    // What other lanes did since the warp last synchronised is not in it.
    Clock published = warp.clock;
    --published[warp.entity];
    barrier.coming.join(published);
    barrier.from_elsewhere = barrier.from_elsewhere || elsewhere;
    if (barrier.missing == 0) throw Fault("an arrival more than the barrier expects");
    --barrier.missing;
    advance(barrier);
  });
}

void Cluster::wait_at_barrier(Warp& warp, std::size_t g, const Instruction& i, std::uint32_t lanes) {
  whole_group(warp, g, lanes);
  const auto first = static_cast<std::size_t>(std::countr_zero(lanes));
  const Found found = barrier_at(warp, address(warp, i.of[0], i.offset, first, false));
  const auto parity = static_cast<std::uint32_t>(value(i.of[1], warp, first)) & 1;
  each(lanes, [&](std::size_t lane) {
    if (address(warp, i.of[0], i.offset, lane, false) != address(warp, i.of[0], i.offset, first, false) ||
        (value(i.of[1], warp, lane) & 1) != parity || found.cta != warp.cta)
      throw Fault("expected lanes that wait for one phase of a barrier of their CTA");
  });
  const bool over = static_cast<std::uint32_t>(found.barrier->phase & 1) != parity;
  if (!over && random_() % 2 == 0) {  // It may give up, and the program asks again,
    each(lanes, [&](std::size_t lane) { set(i.to[0], warp, lane, 0); });
  } else if (!over) {  // or sleep until it is over.
    Group& group = warp.groups[g];
    --group.pc;
    group.state = State::at_barrier;
    group.barrier = found.place;
    group.parity = parity;
  } else {
    if (found.barrier->was_from_elsewhere && !i.cluster_scope)
      throw Fault("a wait for other CTAs: expected acquire.cluster, got acquire.cta");
    warp.clock.join(found.barrier->over);
    each(lanes, [&](std::size_t lane) { set(i.to[0], warp, lane, 1); });
  }
}

void Cluster::require_range(const Barrier& barrier) {
  if (std::abs(barrier.bytes) > kMostPendingBytes)
    throw Fault("expected fewer than 2^20 bytes on their way to a barrier, got more");
}

void Cluster::advance(Barrier& barrier) {
  if (barrier.missing > 0 || barrier.bytes != 0) return;
  ++barrier.phase;
  barrier.missing = barrier.expected;
  barrier.over.join(barrier.coming);
  barrier.was_from_elsewhere = barrier.from_elsewhere;
  barrier.from_elsewhere = false;
}

void Cluster::require_alive(std::size_t cta) const {
  for (std::size_t w = ctas_[cta].first_warp; w < ctas_[cta].first_warp + warps_per_cta_; ++w) {
    if (!warps_[w].groups.empty()) return;
  }
  throw Fault("expected a CTA that still runs, got one that has ended");
}

void Cluster::bulk_copy(Warp& warp, const Instruction& i, std::uint32_t lanes) {
  each(lanes, [&](std::size_t lane) {
    const std::uint64_t to = address(warp, i.of[0], 0, lane, false);
    const std::uint64_t from = address(warp, i.of[1], 0, lane, true);
    const std::uint64_t at = address(warp, i.of[2], 0, lane, false);
    const auto bytes = static_cast<std::int64_t>(cut_to(value(i.of[3], warp, lane), 32));
    const std::uint64_t ctas = cut_to(value(i.of[4], warp, lane), 16);
    if (bytes == 0 || bytes % 16 != 0 || from % 16 != 0)
      throw Fault("cp.async.bulk: expected whole 16 bytes from a multiple of 16, got others");
    if (ctas == 0 || ctas >> ctas_.size() != 0)
      throw Fault("cp.async.bulk: expected CTAs of the cluster, got others");
    const std::uint8_t* const source = global_.copy_from(from, bytes);
    const std::vector<std::uint8_t> data(source, source + bytes);
    counts_.fetched_bytes += bytes;
    for (std::size_t c = 0; c < ctas_.size(); ++c) {
      if (((ctas >> c) & 1) == 0) continue;
      require_alive(c);
      const std::size_t place = ctas_[c].shared.place(to, bytes, 16);
      // The same offset in every CTA.
      const Found found = barrier_at(warp, ((c + 1) << kRankShift) | at);
      if (!warps_[found.barrier->made_by].fenced)
        throw Fault(
            "expected a fence between the making of a barrier and its use by the copy engine, got none");
      ctas_[c].shared.begin_copy(place, bytes, actor(warp, lane));
      counts_.copied_bytes += bytes;
      bulk_.push_back({c, place, found.place, data, ++found.barrier->engine_clock});
    }
  });
}

void Cluster::land(std::size_t which) {
  const BulkCopy done = bulk_[which];
  bulk_.erase(bulk_.begin() + static_cast<std::ptrdiff_t>(which));
  require_alive(done.cta);
  Barrier& barrier = ctas_[done.cta].barriers.at(done.barrier);
  std::uint8_t* const to = ctas_[done.cta].shared.end_copy(
      done.place, static_cast<std::int64_t>(done.data.size()), barrier.entity, -1, done.clock);
  std::memcpy(to, done.data.data(), done.data.size());
  barrier.coming[barrier.entity] = std::max(barrier.coming[barrier.entity], done.clock);
  barrier.bytes -= static_cast<std::int64_t>(done.data.size());
  require_range(barrier);
  advance(barrier);
}

}  // namespace ptx
