// Packs the places of a block-sparse matrix for the GPU kernels. Host code; knows no CUDA.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels/bsr.h"
#include "kernels/gpu/arguments.h"

namespace pysim::gpu {

/// What a plan has to know of the device.
struct DeviceLimits {
  std::int64_t shared_bytes;  ///< Most dynamic shared memory of a block after opting in.
  std::int64_t processors;    ///< Streaming multiprocessors.
};

/// What a plan is made for.
struct Wish {
  std::int64_t columns;  ///< For which slabs are spread over CTAs; any other number works too.
  int cluster = 1;       ///< CTAs that share what they fetch of X: 2, 4 or 8; 1 is the panel kernel.
};

/// Slabs of at most `height` rows, their steps, groups, and CTAs for few columns, as tables in one image
/// that is copied to the device as it is. Weights are not part of it: `places` says which value goes where,
/// so that new values of the same blocks need no new plan. Immutable.
class Plan {
 public:
  /// Args: one matrix per group of a convolution, all of one grid, values unused.
  ///
  /// Throws std::invalid_argument if a matrix is broken or too large for 32-bit tables, if shared memory
  /// cannot hold a panel, or if a cluster of this size or for this arithmetic has no kernel.
  Plan(const std::vector<BsrView>& groups, Math math, const DeviceLimits& limits, const Wish& wish);

  Math math() const { return math_; }
  int height() const { return height_; }
  std::int64_t m() const { return m_; }
  std::int64_t k() const { return k_; }
  int warps() const { return warps_; }
  int stages() const { return stages_; }
  int cluster() const { return cluster_; }
  /// Of a CTA of the panel kernel, or of the one for clusters.
  std::int64_t shared_bytes(bool clustered) const {
    return stages_ * stage_bytes(clustered) + (clustered ? kClusterBarriers * 8 : 0);
  }
  std::int64_t stage_bytes(bool clustered) const {
    return stage_rows_ * (clustered ? row_pitch(math_, kClusterColumns) : panel_pitch(math_));
  }
  std::int64_t group_count() const { return static_cast<std::int64_t>(groups_.size()); }
  /// CTAs of the kernel for few columns, the most warps that share a slab there, and a CTA's shared memory.
  std::int64_t decode_cta_count() const { return static_cast<std::int64_t>(decode_.size()); }
  int decode_share() const { return decode_[0].share; }
  std::int64_t decode_shared_bytes() const {
    return decode_share() == 1 ? 0 : kDecodeWarps * decode_sums(math_, height_) * kLanes * 4;
  }
  std::int64_t steps() const { return steps_; }
  /// Kept reduction elements of all slabs; the rest of steps * depth is padding.
  std::int64_t kept_elements() const { return kept_elements_; }
  /// Divided slabs and their partial sums. The kernel for few columns has none.
  std::int64_t split_count() const { return static_cast<std::int64_t>(splits_.size()); }
  std::int64_t partial_count() const { return partials_; }

  /// The tables, to be copied to memory aligned to kImageAlignment.
  const std::vector<std::byte>& image() const { return image_; }
  /// For every weight in the kernels' order its index among the groups' values, one after the other; -1 is 0.
  /// One step more than there are.
  const std::vector<std::int32_t>& places() const { return places_; }

  /// Fills in where the tables lie if the image is at `image`.
  void point(Arguments& arguments, const std::byte* image) const;

  static constexpr std::int64_t kImageAlignment = 256;

 private:
  struct Slab;
  struct Part;
  struct Elements;

  void add_cluster(const Elements& elements, std::vector<Slab>& slabs, const std::vector<Part>& parts,
                   std::size_t begin, std::size_t end, std::int64_t octets_per_chunk,
                   std::size_t group_slots);
  void add_decode(const std::vector<Slab>& slabs, std::int64_t processors);
  void make_image();

  Math math_;
  int height_;
  int warps_ = 0;
  int stages_ = 1;
  int cluster_ = 1;
  std::int64_t m_ = 0;
  std::int64_t k_ = 0;
  std::int64_t stage_rows_ = 0;
  std::int64_t steps_ = 0;
  std::int64_t kept_elements_ = 0;
  std::int64_t partials_ = 0;
  std::vector<GroupEntry> groups_;
  std::vector<ChunkEntry> chunks_;
  std::vector<std::int32_t> octets_;
  std::vector<SlotEntry> slots_;
  std::vector<std::int32_t> edges_;
  std::vector<std::uint16_t> panel_rows_;
  std::vector<std::int32_t> reduction_;
  std::vector<SlabEntry> slabs_;
  std::vector<DecodeEntry> decode_;
  std::vector<SplitEntry> splits_;
  std::vector<std::int32_t> places_;
  std::vector<std::byte> image_;
  std::vector<std::size_t> sections_;  ///< Where each table begins in the image.
};

/// Rows of a slab for blocks of height `bh`: 32, 16 or 8 on tensor cores, 32 for two-byte types only; else
/// the power of two up to 8 that fits.
int slab_height(Math math, std::int64_t bh);

}  // namespace pysim::gpu
