// The three kernels, for any Machine: a panel of X in shared memory with slabs walking over it; W streamed
// once for few columns; and the second pass that adds divided sums. Errors are impossible here: launch.cpp
// has checked.
#pragma once

#include <cstdint>

#include "kernels/gpu/panel.h"
#include "kernels/gpu/warp.h"

namespace pysim::gpu {

/// Integer bias and zero point, scale, bias, rounding and ReLU, then Y.
PYSIM_DEVICE void finish(const Arguments& a, std::int64_t row, std::int64_t column, std::int32_t sum) {
  store_int8(a.int8, row, added(sum, a.start[row]), a.y.data, row * a.y.m_stride + column * a.y.n_stride);
}

/// Bias and ReLU, then Y.
PYSIM_DEVICE void finish(const Arguments& a, std::int64_t row, std::int64_t column, float sum) {
  float value = sum;
  if (a.bias != nullptr) value += a.bias[row];
  if (a.relu && value < 0) value = 0;  // A NaN stays.
  store_element(a.y.data, row * a.y.m_stride + column * a.y.n_stride, value, a.math);
}

/// A row of Y from some column on, for finished sums; what all its columns share is found once.
template <Math kMath>
class RowOfY {
 public:
  PYSIM_DEVICE RowOfY(const Arguments& a, const SlotEntry& entry, int row, std::int64_t column)
      : row_(entry.first_row + row), columns_(row < entry.rows ? columns_from(a.x, column) : 0) {
    origin_ = row_ * a.y.m_stride + column * a.y.n_stride;
    if (columns_ <= 0) return;
    if constexpr (kMath == Math::i8) {
      start_ = a.start[row_];
    } else {
      start_ = a.bias == nullptr ? -0.0F : a.bias[row_];  // Adding -0 changes nothing.
    }
  }
  /// The sum `behind` columns further on, if there are so many.
  PYSIM_DEVICE void put(const Arguments& a, int behind, typename SumOf<kMath>::type sum) const {
    if (behind >= columns_) return;
    const std::int64_t at = origin_ + behind * a.y.n_stride;
    if constexpr (kMath == Math::i8) {
      store_int8(a.int8, row_, added(sum, start_), a.y.data, at);
    } else {
      float value = sum + start_;
      if (a.relu && value < 0) value = 0;  // A NaN stays.
      store_element(a.y.data, at, value, kMath);
    }
  }

 private:
  std::int64_t row_;
  std::int64_t origin_;
  int columns_;
  typename SumOf<kMath>::type start_{};
};

/// The same among the partial sums of a divided slab.
template <Math kMath>
class RowOfPartials {
 public:
  using Sum = typename SumOf<kMath>::type;
  PYSIM_DEVICE RowOfPartials(const Arguments& a, const SlotEntry& entry, int row, std::int64_t column)
      : sums_(static_cast<Sum*>(a.partials) +
              (static_cast<std::int64_t>(entry.partial) * a.height + row) * a.x.n + column),
        columns_(row < entry.rows ? columns_from(a.x, column) : 0) {}
  PYSIM_DEVICE void put(const Arguments&, int behind, Sum sum) const {
    if (behind < columns_) sums_[behind] = sum;
  }

 private:
  Sum* sums_;
  int columns_;
};

/// To Y if the sums are whole, else to the workspace.
template <Math kMath, class Warp>
PYSIM_DEVICE void write_slab(typename Warp::Panel& sums, const Arguments& a, const SlotEntry& entry,
                             std::int64_t first_column) {
  if (entry.partial < 0) {
    Warp::visit_panel(
        sums, a, [&](int row, int column) { return RowOfY<kMath>(a, entry, row, first_column + column); });
  } else {
    Warp::visit_panel(sums, a, [&](int row, int column) {
      return RowOfPartials<kMath>(a, entry, row, first_column + column);
    });
  }
}

template <Math kMath, class Cta>
PYSIM_DEVICE void load_chunk(Cta& cta, const Arguments& a, std::int32_t chunk, std::int64_t first_column,
                             char* stage) {
  const ChunkEntry entry = a.chunks[chunk];
  const std::int32_t* const octets = a.octets + entry.octet_begin;
  if constexpr (kMath != Math::i8) {  // whose X has quads
    if (a.loading == Loading::along_columns) {
      cta.threads([&](int thread) {
        copy_along_columns<kMath>(cta, a.x, octets, entry.octets, first_column, thread, stage);
      });
      return;
    }
  }
  const std::uint32_t items = panel_items(kMath, a.loading, entry.octets);
  cta.threads([&](int thread) {
    // In most ways of loading a thread stays in its column.
    ColumnPlace place{};
    std::int64_t column = -1;
    for (auto i = static_cast<std::uint32_t>(thread); i < items;
         i += static_cast<std::uint32_t>(cta.size())) {
      const PanelItem item = panel_item(kMath, a.loading, octets, first_column, i);
      if (item.column != column) {
        column = item.column;
        place = column_place(a.x, column);
      }
      copy_item<kMath>(cta, a.x, a.loading, item, place, stage);
    }
  });
}

/// CTA `index` of the panel kernel: one group of slabs x one panel of columns. Groups come heaviest first.
///
/// While a chunk is multiplied the next one is on its way. A panel of a single chunk stays for all passes
/// over the group's slabs.
template <Math kMath, int kHeight, class Cta>
PYSIM_DEVICE void panel_body(Cta& cta, const Arguments& a, std::int64_t index, char* shared) {
  using Warp = typename WarpOf<kMath, kHeight, typename Cta::Machine>::type;
  constexpr int kSlots = slots_per_warp(kMath, kHeight);
  struct Held {
    typename Warp::Panel slot[kSlots];
  };
  const GroupEntry group = a.groups[index / a.panels];
  const std::int64_t first_column = index % a.panels * panel_columns(kMath);
  const SlotEntry* const slots = a.slots + group.slot_begin;
  const int warps = cta.size() / kLanes;

  cta.threads([&](int thread) {  // the row of zeros of each stage
    for (int byte = 4 * thread; byte < panel_pitch(kMath); byte += 4 * cta.size()) {
      for (int stage = 0; stage < a.stages; ++stage) cta.clear4(shared + stage * a.stage_bytes + byte);
    }
  });
  typename Cta::template PerWarp<Held> held(cta);
  for (std::int32_t first_slot = 0; first_slot < group.slots; first_slot += warps * kSlots) {
    cta.warps([&](int warp) {
      PYSIM_UNROLL
      for (int s = 0; s < kSlots; ++s) Warp::clear_panel(held[warp].slot[s]);
    });
    if (group.chunks > 1 || (group.chunks == 1 && first_slot == 0))
      load_chunk<kMath>(cta, a, group.chunk_begin, first_column, shared);
    cta.commit();
    for (std::int32_t c = 0; c < group.chunks; ++c) {
      if (c + 1 < group.chunks)
        load_chunk<kMath>(cta, a, group.chunk_begin + c + 1, first_column,
                          shared + (c + 1) % 2 * a.stage_bytes);
      cta.commit();
      cta.wait_for_all_but_newest();
      cta.barrier();
      const char* const stage = shared + c % 2 * a.stage_bytes;
      cta.warps([&](int warp) {
        PYSIM_UNROLL
        for (int s = 0; s < kSlots; ++s) {
          const std::int32_t slot = first_slot + s * warps + warp;
          if (slot < group.slots) {
            const std::int32_t* const edge = a.edges + slots[slot].edge_begin + c;
            add_steps<Warp>(held[warp].slot[s], a, stage, edge[0], edge[1]);
          }
        }
      });
      cta.barrier();
    }
    cta.warps([&](int warp) {
      PYSIM_UNROLL
      for (int s = 0; s < kSlots; ++s) {
        const std::int32_t slot = first_slot + s * warps + warp;
        if (slot < group.slots) {
          write_slab<kMath, Warp>(held[warp].slot[s], a, slots[slot], first_column);
        }
      }
    });
  }
}

/// CTA `index` of the kernel for at most kDecodeColumns columns: warps share a slab's steps, and the first of
/// them adds up what the others have left in shared memory, in rising order.
template <Math kMath, int kHeight, class Cta>
PYSIM_DEVICE void decode_body(Cta& cta, const Arguments& a, std::int64_t index, char* shared) {
  using Warp = typename WarpOf<kMath, kHeight, typename Cta::Machine>::type;
  using Sum = typename SumOf<kMath>::type;
  const DecodeEntry entry = a.decode[index];
  const auto slab_of = [&](int warp) { return entry.slab_begin + warp / entry.share; };
  // A lane finds the sums of the other warps where it would have put its own.
  const auto place = [&](int warp, int lane, int at) {
    return shared + ((warp * decode_sums(kMath, kHeight) + at) * kLanes + lane) * 4;
  };
  typename Cta::template PerWarp<typename Warp::Decode> held(cta);
  cta.warps([&](int warp) {
    if (slab_of(warp) >= a.slab_count) return;
    const SlabEntry slab = a.slabs[slab_of(warp)];
    const int part = warp % entry.share;
    const std::int64_t steps = slab.step_end - slab.step_begin;
    const auto edge = [&](int of) {
      return slab.step_begin + static_cast<std::int32_t>(steps * of / entry.share);
    };
    Warp::decode(held[warp], a, edge(part), edge(part + 1));
    if (part == 0) return;
    Warp::visit_decode(held[warp], a, [&](int lane, int at, int, std::int64_t, Sum sum) {
      cta.put(place(warp, lane, at), sum);
    });
  });
  if (entry.share > 1) cta.barrier();
  cta.warps([&](int warp) {
    if (slab_of(warp) >= a.slab_count || warp % entry.share != 0) return;
    const SlabEntry slab = a.slabs[slab_of(warp)];
    Warp::visit_decode(held[warp], a, [&](int lane, int at, int row, std::int64_t column, Sum sum) {
      if (row >= slab.rows || column >= a.x.n) return;
      for (int part = 1; part < entry.share; ++part)
        sum = added(sum, cta.template get<Sum>(place(warp + part, lane, at)));
      finish(a, slab.first_row + row, column, sum);
    });
  });
}

/// Element `element` of the second pass: one row and column of one divided slab.
template <class Sum>
PYSIM_DEVICE void add_partials_of(const Arguments& a, std::int64_t element) {
  const std::int64_t column = element % a.x.n;
  const std::int64_t line = element / a.x.n;
  const std::int64_t row = line % a.height;
  const SplitEntry split = a.splits[line / a.height];
  if (row >= split.rows) return;
  const Sum* const partials = static_cast<const Sum*>(a.partials);
  Sum sum = 0;
  for (std::int64_t p = split.partial_begin; p < split.partial_end; ++p)
    sum = added(sum, partials[(p * a.height + row) * a.x.n + column]);
  finish(a, split.first_row + row, column, sum);
}
PYSIM_DEVICE void add_partials(const Arguments& a, std::int64_t element) {
  if (a.math == Math::i8) {
    add_partials_of<std::int32_t>(a, element);
  } else {
    add_partials_of<float>(a, element);
  }
}

}  // namespace pysim::gpu
