#include "kernels/gpu/plan.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <string>

#include "base/check.h"

namespace pysim::gpu {

namespace {

/// A slab with more elements than this many times the mean is divided.
constexpr std::int64_t kLongSlab = 2;
/// ... and has at least this many steps: shorter ones are not worth a second pass.
constexpr std::int64_t kLeastStepsToSplit = 8;
/// Warps of the kernel for few columns that each multiprocessor should get.
constexpr std::int64_t kDecodeWarpsPerProcessor = 16;

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

std::int32_t narrow(std::int64_t value, const char* what) {
  constexpr std::int64_t most = std::numeric_limits<std::int32_t>::max();
  require(value <= most, "GPU plan", std::string(what) + " below 2^31", std::to_string(value));
  return static_cast<std::int32_t>(value);
}

/// Steps below which a warp of the kernel for few columns shares with no other. On CUDA cores its lanes work
/// on up to 32 steps at a time.
std::int64_t least_decode_steps(Math math) { return on_tensor_cores(math) ? 4 : 32; }

std::int64_t round_up(std::int64_t value, std::int64_t to) { return ceil_div(value, to) * to; }

}  // namespace

int slab_height(Math math, std::int64_t bh) {
  if (on_tensor_cores(math)) return bh >= 32 && element_bytes(math) == 2 ? 32 : bh >= 16 ? 16 : 8;
  return bh >= 8 ? 8 : bh >= 4 ? 4 : bh >= 2 ? 2 : 1;
}

/// Rows that are computed together, and which reduction elements some of them keep.
struct Plan::Slab {
  std::int64_t first_row;
  std::int64_t rows;
  std::int64_t element_begin;
  std::int64_t element_end;
  std::int64_t step_begin = -1;
  std::int64_t step_end = -1;
};

/// A slab, or part of one whose sum is divided.
struct Plan::Part {
  std::int64_t slab;
  std::int64_t element_begin;
  std::int64_t element_end;
  std::int64_t partial;
  std::int64_t longest;  ///< Elements of the slab's longest part.
};

/// For each element of each slab its reduction index and the runs of weights that belong to it: one for each
/// of the slab's block rows that keep it.
struct Plan::Elements {
  struct Run {
    std::int64_t place;  ///< Of the first row's weight among the values; the next row's is bw further on.
    std::int32_t row;    ///< In the slab.
    std::int32_t rows;
  };
  struct Found {
    std::int32_t k;
    Run run;
  };
  std::vector<std::int32_t> k;
  std::vector<std::int64_t> run_begin;  ///< One more than elements.
  std::vector<Run> runs;
  std::int64_t bw = 1;
  std::vector<Found> found;  ///< Of the slab in the making.

  void add(const BsrView& matrix, std::int64_t group, std::int64_t groups, std::int64_t values_before,
           std::int64_t block_row, std::int64_t first, std::int64_t rows, std::int64_t row_in_slab) {
    const BlockGrid& grid = matrix.grid;
    const std::int64_t channels = grid.channels();
    for (std::int64_t b = matrix.row_ptr[block_row]; b < matrix.row_ptr[block_row + 1]; ++b) {
      const std::int64_t begin = grid.col_begin(matrix.col_idx[b]);
      const std::int64_t end = grid.col_end(matrix.col_idx[b]);
      const std::int64_t tap = begin / channels;
      // Channels of all groups lie side by side under each tap.
      const std::int64_t k = (tap * groups + group) * channels + begin % channels;
      const std::int64_t place = values_before + (b * grid.bh + first - grid.row_begin(block_row)) * grid.bw;
      for (std::int64_t c = 0; c < end - begin; ++c)
        found.push_back(
            {static_cast<std::int32_t>(k + c),
             {place + c, static_cast<std::int32_t>(row_in_slab), static_cast<std::int32_t>(rows)}});
    }
  }

  void finish_slab() {
    std::stable_sort(found.begin(), found.end(), [](const Found& a, const Found& b) { return a.k < b.k; });
    for (std::size_t i = 0; i < found.size(); ++i) {
      if (i == 0 || found[i].k != found[i - 1].k) {
        k.push_back(found[i].k);
        run_begin.push_back(static_cast<std::int64_t>(runs.size()));
      }
      runs.push_back(found[i].run);
    }
    found.clear();
  }

  /// Elements begin to end in the order of steps: of `apart` that follow each other no two agree modulo
  /// `apart`, as long as there are such. Whole blocks of that width stay as they are.
  std::vector<std::int64_t> in_steps(std::int64_t begin, std::int64_t end, int apart) const {
    std::vector<std::vector<std::int64_t>> alike(at(apart));
    for (std::int64_t e = begin; e < end; ++e) alike[at(k[at(e)] % apart)].push_back(e);
    std::vector<std::int64_t> order;
    for (std::size_t rank = 0; order.size() < at(end - begin); ++rank) {
      for (const std::vector<std::int64_t>& of : alike) {
        if (rank < of.size()) order.push_back(of[rank]);
      }
    }
    return order;
  }
};

Plan::Plan(const std::vector<BsrView>& groups, Math math, const DeviceLimits& limits, const Wish& wish)
    : math_(math), height_(0), cluster_(wish.cluster) {
  require(!groups.empty(), "GPU plan", "at least one group", "none");
  require(limits.processors >= 1, "GPU plan", "at least one multiprocessor",
          std::to_string(limits.processors));
  const bool clustered = cluster_ != 1;
  require(!clustered ||
              ((cluster_ == 2 || cluster_ == 4 || cluster_ == kMostCluster) && element_bytes(math) == 2),
          "GPU plan", "a cluster of 1, or of 2, 4 or 8 in f16 or bf16", std::to_string(cluster_));
  const BlockGrid& grid = groups[0].grid;
  const auto group_count = static_cast<std::int64_t>(groups.size());
  std::int64_t blocks = 0;
  for (const BsrView& view : groups) {
    view.check();
    const BlockGrid& other = view.grid;
    require(other.m == grid.m && other.k == grid.k && other.positions == grid.positions &&
                other.bh == grid.bh && other.bw == grid.bw,
            "GPU plan", "groups of one grid", "others");
    blocks += view.nnz_blocks;
  }
  height_ = slab_height(math, grid.bh);
  constexpr std::int64_t most = std::numeric_limits<std::int32_t>::max();
  const std::string sizes =
      std::to_string(group_count) + " groups of " + std::to_string(grid.m) + " x " + std::to_string(grid.k);
  require(grid.m <= most / group_count && grid.k <= most / group_count - kOctet, "GPU plan",
          "rows and columns of all groups below 2^31", sizes);
  require(blocks <= most / grid.bh / grid.bw - 1, "GPU plan", "fewer than 2^31 stored weights",
          std::to_string(blocks) + " blocks");
  m_ = group_count * grid.m;
  k_ = group_count * grid.k;

  // Slabs: parts of one block row; where blocks are lower than a slab on tensor cores, several whole ones.
  std::vector<Slab> slabs;
  Elements elements;
  elements.bw = grid.bw;
  const std::int64_t block_rows_together = std::max<std::int64_t>(1, height_ / grid.bh);
  std::int64_t values_before = 0;
  for (std::int64_t g = 0; g < group_count; ++g) {
    const BsrView& view = groups[at(g)];
    for (std::int64_t i = 0; i < grid.block_rows(); i += block_rows_together) {
      const std::int64_t last = std::min(grid.block_rows(), i + block_rows_together) - 1;
      const std::int64_t end = grid.row_end(last);
      for (std::int64_t first = grid.row_begin(i); first < end; first += height_) {
        const auto begin = static_cast<std::int64_t>(elements.k.size());
        for (std::int64_t j = i; j <= last; ++j) {
          const std::int64_t top = std::max(first, grid.row_begin(j));
          const std::int64_t bottom = std::min(first + height_, grid.row_end(j));
          elements.add(view, g, group_count, values_before, j, top, bottom - top, top - first);
        }
        elements.finish_slab();
        slabs.push_back({g * grid.m + first, std::min<std::int64_t>(height_, end - first), begin,
                         static_cast<std::int64_t>(elements.k.size())});
      }
    }
    values_before += view.nnz_blocks * grid.bh * grid.bw;
  }
  elements.run_begin.push_back(static_cast<std::int64_t>(elements.runs.size()));
  kept_elements_ = static_cast<std::int64_t>(elements.k.size());

  // Long slabs are divided, so that no CTA waits for one warp.
  const int depth = step_depth(math);
  const std::int64_t mean = ceil_div(kept_elements_, static_cast<std::int64_t>(slabs.size()));
  const std::int64_t longest = round_up(std::max(kLongSlab * mean, kLeastStepsToSplit * depth), depth);
  std::vector<Part> parts;
  for (std::size_t s = 0; s < slabs.size(); ++s) {
    const Slab& slab = slabs[s];
    const std::int64_t count = slab.element_end - slab.element_begin;
    const std::int64_t pieces = std::max<std::int64_t>(1, ceil_div(count, longest));
    const std::int64_t piece = round_up(std::max<std::int64_t>(1, ceil_div(count, pieces)), depth);
    const std::int64_t first_partial = partials_;
    for (std::int64_t begin = 0; begin == 0 || begin < count; begin += piece) {
      const bool divided = count > piece;
      parts.push_back({static_cast<std::int64_t>(s), slab.element_begin + begin,
                       slab.element_begin + std::min(count, begin + piece), divided ? partials_ : -1,
                       std::min(count, piece)});
      partials_ += divided ? 1 : 0;
    }
    if (partials_ > first_partial) {
      splits_.push_back({narrow(slab.first_row, "rows"), static_cast<std::int32_t>(slab.rows),
                         narrow(first_partial, "partial sums"), narrow(partials_, "partial sums")});
    }
  }

  // The queue: longest first, so that a group's warps have equal work and the last CTAs are short. Parts of a
  // slab stay together, so that its steps follow each other.
  std::stable_sort(parts.begin(), parts.end(),
                   [](const Part& a, const Part& b) { return a.longest > b.longest; });

  // The panel: in one piece if all octets in use fit, then it stays for several passes; else in two stages.
  const std::int64_t pitch = clustered ? row_pitch(math, kClusterColumns) : panel_pitch(math);
  const std::int64_t room = limits.shared_bytes - (clustered ? kClusterBarriers * 8 : 0);
  const auto octets_in = [&](std::int64_t bytes) { return (bytes / pitch - 1) / kOctet; };
  require(room / 2 >= pitch * (1 + kOctet), "GPU plan",
          "at least " + std::to_string(limits.shared_bytes - room + 2 * pitch * (1 + kOctet)) +
              " bytes of shared memory",
          std::to_string(limits.shared_bytes));
  std::vector<bool> used(at(k_ / kOctet + 1));
  for (const std::int32_t k : elements.k) used[at(k / kOctet)] = true;
  const std::int64_t distinct = std::count(used.begin(), used.end(), true);
  const bool resident = distinct <= octets_in(room);
  stages_ = resident ? 1 : 2;
  const std::int64_t octets_per_chunk = octets_in(room / stages_);

  const int slots = clustered ? cluster_slots_per_warp(height_) : slots_per_warp(math, height_);
  const auto part_count = static_cast<std::int64_t>(parts.size());
  warps_ = clustered ? cluster_warps(height_) : kMaxWarps;
  while (warps_ > 4 && warps_ / 2 * slots >= part_count) warps_ /= 2;
  std::int64_t group_slots = warps_ * slots;
  if (resident && !clustered) {
    const std::int64_t panels = std::max<std::int64_t>(1, ceil_div(wish.columns, panel_columns(math)));
    const std::int64_t wanted = ceil_div(limits.processors, panels);
    group_slots *= std::max<std::int64_t>(1, part_count / (group_slots * wanted));
  }
  for (std::int64_t begin = 0; begin < part_count; begin += group_slots * cluster_) {
    add_cluster(elements, slabs, parts, at(begin), at(std::min(part_count, begin + group_slots * cluster_)),
                octets_per_chunk, at(group_slots));
  }
  std::int64_t most_octets = 0;
  for (const ChunkEntry& chunk : chunks_) most_octets = std::max<std::int64_t>(most_octets, chunk.octets);
  stage_rows_ = 1 + most_octets * kOctet;
  add_decode(slabs, limits.processors);
  make_image();
}

/// The steps of parts `begin` to `end`, and groups of `group_slots` of them over the same chunks, as many as
/// a cluster has CTAs; the last ones may be empty.
void Plan::add_cluster(const Elements& elements, std::vector<Slab>& slabs, const std::vector<Part>& parts,
                       std::size_t begin, std::size_t end, std::int64_t octets_per_chunk,
                       std::size_t group_slots) {
  std::vector<std::int32_t> used;
  for (std::size_t p = begin; p < end; ++p) {
    for (std::int64_t e = parts[p].element_begin; e < parts[p].element_end; ++e) {
      const std::int32_t octet = elements.k[at(e)] / kOctet;
      if (used.empty() || used.back() != octet) used.push_back(octet);
    }
  }
  std::sort(used.begin(), used.end());
  used.erase(std::unique(used.begin(), used.end()), used.end());
  const auto octets = static_cast<std::int64_t>(used.size());
  // One octet less than there is room for, so that each end may move by one.
  const std::int64_t chunks = octets <= octets_per_chunk
                                  ? ceil_div(octets, octets_per_chunk)
                                  : ceil_div(octets, std::max<std::int64_t>(1, octets_per_chunk - 1));
  for (int rank = 0; rank < cluster_; ++rank) {
    const std::size_t before = std::min(end - begin, static_cast<std::size_t>(rank) * group_slots);
    groups_.push_back(
        {narrow(static_cast<std::int64_t>(slots_.size() + before), "slabs"),
         narrow(static_cast<std::int64_t>(std::min(end - begin - before, group_slots)), "slabs"),
         narrow(static_cast<std::int64_t>(chunks_.size()), "chunks"), narrow(chunks, "chunks")});
  }
  // Chunks of nearly equal size: a short last one would hide no latency.
  std::vector<std::int64_t> chunk_begin;
  for (std::int64_t c = 0; c <= chunks; ++c) {
    std::int64_t begin = chunks == 0 ? 0 : octets * c / chunks;
    // Not through 16 elements that blocks of such widths keep together: their step would become two.
    const bool through = octets_per_chunk > 1 && c > 0 && begin < octets && used[at(begin)] % 2 == 1 &&
                         used[at(begin - 1)] == used[at(begin)] - 1 && begin - 1 > chunk_begin.back();
    chunk_begin.push_back(begin - (through ? 1 : 0));
  }
  for (std::int64_t c = 0; c < chunks; ++c) {
    chunks_.push_back({narrow(static_cast<std::int64_t>(octets_.size()) + chunk_begin[at(c)], "octets"),
                       narrow(chunk_begin[at(c + 1)] - chunk_begin[at(c)], "octets")});
  }
  octets_.insert(octets_.end(), used.begin(), used.end());

  const int depth = step_depth(math_);
  const std::int64_t step_weights = std::int64_t{depth} * height_;
  for (std::size_t p = begin; p < end; ++p) {
    const Part& part = parts[p];
    Slab& slab = slabs[at(part.slab)];
    slots_.push_back({narrow(slab.first_row, "rows"), static_cast<std::int32_t>(slab.rows),
                      narrow(part.partial, "partial sums"),
                      narrow(static_cast<std::int64_t>(edges_.size()), "chunk edges")});
    if (slab.step_begin < 0) slab.step_begin = steps_;
    std::int64_t e = part.element_begin;
    edges_.push_back(narrow(steps_, "steps"));
    for (std::int64_t c = 0; c < chunks; ++c) {
      const std::int32_t last_octet = used[at(chunk_begin[at(c + 1)] - 1)];
      std::int64_t end = e;
      while (end < part.element_end && elements.k[at(end)] / kOctet <= last_octet) ++end;
      const std::vector<std::int64_t> order = elements.in_steps(e, end, rows_at_once(math_));
      e = end;
      for (std::size_t o = 0; o < order.size(); ++steps_) {
        const auto first = static_cast<std::int64_t>(places_.size());
        require(first <= std::numeric_limits<std::int32_t>::max() - step_weights, "GPU plan",
                "fewer than 2^31 packed weights", std::to_string(first));
        places_.resize(at(first + step_weights), -1);
        for (int slot = 0; slot < depth; ++slot) {
          if (o == order.size()) {
            panel_rows_.push_back(0);
            reduction_.push_back(-1);
            continue;
          }
          const std::int64_t element = order[o++];
          const std::int32_t k = elements.k[at(element)];
          const auto found = std::lower_bound(used.begin(), used.end(), k / kOctet) - used.begin();
          const std::int64_t row = (found - chunk_begin[at(c)]) * kOctet + k % kOctet;
          panel_rows_.push_back(static_cast<std::uint16_t>(1 + row));
          reduction_.push_back(k);
          for (std::int64_t r = elements.run_begin[at(element)]; r < elements.run_begin[at(element + 1)];
               ++r) {
            const Elements::Run& run = elements.runs[at(r)];
            for (std::int32_t i = 0; i < run.rows; ++i) {
              places_[at(first + weight_position(math_, height_, run.row + i, slot))] =
                  static_cast<std::int32_t>(run.place + i * elements.bw);
            }
          }
        }
      }
      edges_.push_back(narrow(steps_, "steps"));
    }
    slab.step_end = steps_;
  }
}

/// CTAs for few columns: warps share a slab until the GPU is full, or until they have too few steps each.
void Plan::add_decode(const std::vector<Slab>& slabs, std::int64_t processors) {
  for (const Slab& slab : slabs) {
    slabs_.push_back({narrow(slab.first_row, "rows"), static_cast<std::int32_t>(slab.rows),
                      narrow(slab.step_begin, "steps"), narrow(slab.step_end, "steps")});
  }
  const auto steps = [](const SlabEntry& slab) { return slab.step_end - slab.step_begin; };
  std::stable_sort(slabs_.begin(), slabs_.end(),
                   [&](const SlabEntry& a, const SlabEntry& b) { return steps(a) > steps(b); });
  const std::int64_t most =
      std::max(least_decode_steps(math_), ceil_div(steps_, processors * kDecodeWarpsPerProcessor));
  for (std::size_t first = 0; first < slabs_.size();) {
    std::int32_t share = 1;
    while (share < kDecodeWarps && ceil_div(steps(slabs_[first]), share) > most) share *= 2;
    decode_.push_back({narrow(static_cast<std::int64_t>(first), "slabs"), share});
    first += static_cast<std::size_t>(kDecodeWarps / share);
  }
}

void Plan::make_image() {
  const auto add = [&](const auto& table) {
    const std::size_t begin = at(round_up(static_cast<std::int64_t>(image_.size()), kImageAlignment));
    const std::size_t bytes = table.size() * sizeof(table[0]);
    image_.resize(begin + bytes);
    if (bytes > 0) std::memcpy(image_.data() + begin, table.data(), bytes);
    sections_.push_back(begin);
  };
  add(groups_);
  add(chunks_);
  add(octets_);
  add(slots_);
  add(edges_);
  add(panel_rows_);
  add(reduction_);
  add(slabs_);
  add(decode_);
  add(splits_);
  panel_rows_ = {};
  reduction_ = {};
  octets_ = {};
  edges_ = {};
}

void Plan::point(Arguments& arguments, const std::byte* image) const {
  std::size_t section = 0;
  const auto take = [&](auto& pointer) {
    pointer = reinterpret_cast<std::remove_reference_t<decltype(pointer)>>(image + sections_[section++]);
  };
  take(arguments.groups);
  take(arguments.chunks);
  take(arguments.octets);
  take(arguments.slots);
  take(arguments.edges);
  take(arguments.panel_rows);
  take(arguments.reduction);
  take(arguments.slabs);
  take(arguments.decode);
  take(arguments.splits);
  arguments.slab_count = static_cast<std::int32_t>(slabs_.size());
  arguments.stages = stages_;
  arguments.height = height_;
  arguments.math = math_;
}

}  // namespace pysim::gpu
