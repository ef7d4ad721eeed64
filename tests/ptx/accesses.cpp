// Loads, stores, fragments and their products.
#include <algorithm>
#include <cstring>
#include <set>
#include <string>

#include "ptx/arithmetic.h"
#include "ptx/cluster.h"

namespace ptx {

void Cluster::load(Warp& warp, const Instruction& i, std::uint32_t lanes) {
  const std::int64_t one = i.type.bits / 8;
  const std::int64_t bytes = one * static_cast<std::int64_t>(i.to.size());
  Shared& shared = ctas_[warp.cta].shared;
  std::array<std::uint64_t, kLanes> addresses{};
  each(lanes, [&](std::size_t lane) {
    const std::uint64_t at = addresses[lane] =
        address(warp, i.of[0], i.offset, lane, i.space != Space::shared);
    const std::uint8_t* from = nullptr;
    if (i.space == Space::param) {
      const std::uint64_t place = at - kParameters;
      if (place + static_cast<std::uint64_t>(bytes) >
              static_cast<std::uint64_t>(grid_.entry->parameter_bytes) ||
          place % static_cast<std::uint64_t>(bytes) != 0)
        throw Fault("expected an aligned place among the parameters, got another");
      from = grid_.parameters + place;
    } else if (i.space == Space::global) {
      from = global_.read(at, bytes, i.read_only, actor(warp, lane).thread);
    } else {
      from = shared.read(shared.place(at, bytes, bytes), bytes, actor(warp, lane));
    }
    for (std::size_t t = 0; t < i.to.size(); ++t) {
      std::uint64_t loaded = 0;
      std::memcpy(&loaded, from + static_cast<std::int64_t>(t) * one, static_cast<std::size_t>(one));
      if (i.type.kind == Kind::whole) loaded = static_cast<std::uint64_t>(signed_of(loaded, i.type.bits));
      set(i.to[t], warp, lane, loaded);
    }
  });
  if (i.space == Space::shared) count_banks(addresses, lanes, bytes);
  if (i.space != Space::global) return;
  for (const std::uint64_t sector : sectors(addresses, lanes, bytes)) {
    ++counts_.global_read_sectors;
    if (!ctas_[warp.cta].cache.use(sector)) ++counts_.missed_sectors;
  }
}

void Cluster::store(Warp& warp, const Instruction& i, std::uint32_t lanes) {
  const std::int64_t one = i.type.bits / 8;
  const std::size_t values = i.of.size() - 1;
  const std::int64_t bytes = one * static_cast<std::int64_t>(values);
  Shared& shared = ctas_[warp.cta].shared;
  std::array<std::uint64_t, kLanes> addresses{};
  each(lanes, [&](std::size_t lane) {
    const std::uint64_t at = addresses[lane] =
        address(warp, i.of[0], i.offset, lane, i.space != Space::shared);
    std::uint8_t* const to = i.space == Space::global
                                 ? global_.write(at, bytes, actor(warp, lane).thread)
                                 : shared.write(shared.place(at, bytes, bytes), bytes, actor(warp, lane));
    for (std::size_t v = 0; v < values; ++v) {
      const std::uint64_t stored = value(i.of[v + 1], warp, lane);
      std::memcpy(to + static_cast<std::int64_t>(v) * one, &stored, static_cast<std::size_t>(one));
    }
  });
  if (i.space == Space::shared) count_banks(addresses, lanes, bytes);
  if (i.space == Space::global)
    counts_.global_written_sectors += static_cast<std::int64_t>(sectors(addresses, lanes, bytes).size());
}

std::set<std::uint64_t> Cluster::sectors(const std::array<std::uint64_t, kLanes>& addresses,
                                         std::uint32_t lanes, std::int64_t bytes) {
  std::set<std::uint64_t> touched;
  each(lanes, [&](std::size_t lane) {
    for (std::uint64_t s = addresses[lane] / 32;
         s <= (addresses[lane] + static_cast<std::uint64_t>(bytes) - 1) / 32; ++s)
      touched.insert(s);
  });
  return touched;
}

void Cluster::count_banks(const std::array<std::uint64_t, kLanes>& addresses, std::uint32_t lanes,
                          std::int64_t bytes) {
  const std::size_t at_a_time = bytes <= 4 ? 32 : static_cast<std::size_t>(128 / bytes);
  for (std::size_t first = 0; first < kLanes; first += at_a_time) {
    std::array<std::set<std::uint64_t>, 32> words;
    bool any = false;
    for (std::size_t lane = first; lane < first + at_a_time; ++lane) {
      if (((lanes >> lane) & 1) == 0) continue;
      any = true;
      for (std::uint64_t w = addresses[lane] / 4;
           w <= (addresses[lane] + static_cast<std::uint64_t>(bytes) - 1) / 4; ++w)
        words[w % 32].insert(w);
    }
    if (!any) continue;
    std::size_t most = 0;
    for (const auto& bank : words) most = std::max(most, bank.size());
    counts_.shared_wavefronts += static_cast<std::int64_t>(most);
    counts_.shared_ideal += 1;
  }
}

std::uint32_t Cluster::together(const Warp& warp, std::uint32_t lanes) const {
  if (lanes != kAll)
    throw Fault("expected all lanes of the warp together, got " + std::to_string(std::popcount(lanes)) +
                " of them (CTA " + std::to_string(warp.cta) + ", warp " + std::to_string(warp.index) + ")");
  return lanes;
}

void Cluster::product(Warp& warp, const Instruction& i, std::uint32_t lanes) {
  Registers registers{};
  each(lanes, [&](std::size_t lane) {
    for (std::size_t s = 0; s < i.of.size(); ++s)
      registers[lane][4 + s] = static_cast<std::uint32_t>(value(i.of[s], warp, lane));
  });
  multiply(i, registers);
  each(lanes, [&](std::size_t lane) {
    for (std::size_t t = 0; t < 4; ++t) set(i.to[t], warp, lane, registers[lane][t]);
  });
  ++counts_.products;
}

void Cluster::load_matrix(Warp& warp, const Instruction& i, std::uint32_t lanes) {
  Shared& shared = ctas_[warp.cta].shared;
  std::array<std::array<std::uint16_t, 8>, 32> rows{};
  std::array<std::uint64_t, kLanes> addresses{};
  const auto matrices = static_cast<std::uint32_t>(i.to.size());
  const std::uint32_t giving = matrices == 4 ? kAll : (1U << (8 * matrices)) - 1;
  each(giving, [&](std::size_t lane) {
    const std::uint64_t at = addresses[lane] = address(warp, i.of[0], i.offset, lane, false);
    std::memcpy(rows[lane].data(), shared.read(shared.place(at, 16, 16), 16, actor(warp, lane)), 16);
  });
  count_banks(addresses, giving, 16);
  each(lanes, [&](std::size_t lane) {
    for (std::size_t m = 0; m < matrices; ++m) {
      const std::size_t across = lane / 4, along = 2 * (lane % 4);
      const std::uint32_t low = i.transposed ? rows[8 * m + along][across] : rows[8 * m + across][along];
      const std::uint32_t high =
          i.transposed ? rows[8 * m + along + 1][across] : rows[8 * m + across][along + 1];
      set(i.to[m], warp, lane, low | high << 16);
    }
  });
}

}  // namespace ptx
