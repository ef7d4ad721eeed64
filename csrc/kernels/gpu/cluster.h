// The kernel for clusters of CTAs: all of them multiply the same columns of X by slabs of their own, each
// fetches its share of the rows, and the copy engine writes every row into all of them. Only for two-byte
// types, and X whose columns lie together.
#pragma once

#include <cstdint>

#include "kernels/gpu/bodies.h"

namespace pysim::gpu {

/// Bytes of each row of X that are fetched from column `first_column` on: whole copies of 16 bytes, which may
/// reach behind column n but not behind the row's pitch; launch.cpp has checked that it is memory of X.
PYSIM_HD int cluster_row_bytes(const XSource& x, std::int64_t first_column) {
  const std::int64_t left = (x.n - first_column + kOctet - 1) / kOctet * kOctet;
  return static_cast<int>(left < kClusterColumns ? left : kClusterColumns) * 2;
}

/// Rows of X in a chunk; its last octet may reach behind X, and no other one does.
PYSIM_HD int cluster_chunk_rows(const XSource& x, const std::int32_t* octets, int count) {
  const std::int64_t over = (static_cast<std::int64_t>(octets[count - 1]) + 1) * kOctet - x.k;
  return count * kOctet - static_cast<int>(over > 0 ? over : 0);
}

/// CTA `cta.rank()` of cluster `index`: one group of slabs x one panel of columns.
///
/// A stage is filled for the u-th time after every warp of the cluster has released it for the u-th time, and
/// read after its barrier has counted every byte, whichever CTA fetched it. One warp of each CTA fetches a
/// chunk ahead, then multiplies like the others, so that warps may be a chunk apart. Weights are loaded one
/// step ahead, also across chunks.
template <Math kMath, int kHeight, class Cta>
PYSIM_DEVICE void cluster_body(Cta& cta, const Arguments& a, std::int64_t index, char* shared) {
  using Warp = TensorWarp<kMath, kHeight, kClusterColumns, typename Cta::Machine>;
  constexpr int kSlots = cluster_slots_per_warp(kHeight);
  constexpr int pitch = row_pitch(kMath, kClusterColumns);
  struct Held {
    typename Warp::Panel slot[kSlots];
    typename Warp::Ahead next[kSlots];
    std::int32_t step[kSlots];
    std::int32_t last[kSlots];
  };
  const GroupEntry group = a.groups[index / a.panels * a.cluster + cta.rank()];
  const std::int64_t first_column = index % a.panels * kClusterColumns;
  const SlotEntry* const slots = a.slots + group.slot_begin;
  const int warps = cta.size() / kLanes;
  const auto full = [](std::int32_t chunk) { return chunk % 2; };
  const auto free = [](std::int32_t chunk) { return 2 + chunk % 2; };

  cta.threads([&](int thread) {
    for (int byte = 4 * thread; byte < pitch; byte += 4 * cta.size()) {
      for (int stage = 0; stage < a.stages; ++stage) cta.clear4(shared + stage * a.stage_bytes + byte);
    }
    if (thread == 0) {
      for (int stage = 0; stage < 2; ++stage) {
        cta.make_barrier(stage, 1);
        cta.make_barrier(2 + stage, a.cluster * warps);
      }
    }
  });
  cta.cluster_barrier();

  const auto fetch = [&](std::int32_t chunk) {
    const ChunkEntry entry = a.chunks[group.chunk_begin + chunk];
    const std::int32_t* const octets = a.octets + entry.octet_begin;
    const int rows = cluster_chunk_rows(a.x, octets, entry.octets);
    const int bytes = cluster_row_bytes(a.x, first_column);
    char* const stage = shared + chunk % 2 * a.stage_bytes;
    cta.first_warp([&](auto lanes) {
      if (chunk >= 2) cta.wait_for_cluster(free(chunk), (chunk / 2 - 1) % 2);
      lanes([&](int lane) {
        if (lane == 0) cta.expect(full(chunk), rows * bytes);
        for (int row = cta.rank() + a.cluster * lane; row < rows; row += a.cluster * kLanes) {
          const std::int64_t k = std::int64_t{octets[row / kOctet]} * kOctet + row % kOctet;
          cta.multicast(stage + (1 + row) * pitch,
                        static_cast<const char*>(a.x.data) + (k * a.x.k_stride + first_column) * 2, bytes,
                        full(chunk), a.cluster);
        }
      });
    });
  };

  typename Cta::template PerWarp<Held> held(cta);
  const auto load_next = [&](Held& of, int s) {
    if (of.step[s] >= of.last[s]) return;
    Warp::load_ahead(of.next[s], a, of.step[s]);
  };
  cta.warps([&](int warp) {
    PYSIM_UNROLL
    for (int s = 0; s < kSlots; ++s) {
      Held& mine = held[warp];
      Warp::clear_panel(mine.slot[s]);
      const std::int32_t slot = s * warps + warp;
      const bool any = slot < group.slots;
      mine.step[s] = any ? a.edges[slots[slot].edge_begin] : 0;
      mine.last[s] = any ? a.edges[slots[slot].edge_begin + group.chunks] : 0;
      load_next(mine, s);
    }
  });

  if (group.chunks > 0) fetch(0);
  for (std::int32_t c = 0; c < group.chunks; ++c) {
    if (c + 1 < group.chunks) fetch(c + 1);
    const char* const stage = shared + c % 2 * a.stage_bytes;
    cta.warps([&](int warp) {
      cta.wait(full(c), c / 2 % 2);
      PYSIM_UNROLL
      for (int s = 0; s < kSlots; ++s) {
        const std::int32_t slot = s * warps + warp;
        if (slot < group.slots) {
          Held& mine = held[warp];
          const std::int32_t end = a.edges[slots[slot].edge_begin + c + 1];
          while (mine.step[s] < end) {
            auto now = mine.next[s];
            ++mine.step[s];
            load_next(mine, s);
            Warp::multiply_step(mine.slot[s], stage, now);
          }
        }
      }
      // The last two fills are followed by none.
      if (c + 2 < group.chunks) cta.release(free(c), a.cluster);
    });
  }
  cta.warps([&](int warp) {
    PYSIM_UNROLL
    for (int s = 0; s < kSlots; ++s) {
      const std::int32_t slot = s * warps + warp;
      if (slot < group.slots) write_slab<kMath, Warp>(held[warp].slot[s], a, slots[slot], first_column);
    }
  });
  cta.cluster_barrier();  // No CTA may end while another one can still reach its shared memory.
}

}  // namespace pysim::gpu
