// Memory with a memory of who touched it: every access is checked against what belongs to the kernel, and
// against accesses that nothing orders.
//
// Order is kept in vector clocks, one entry for each warp and for each barrier in shared memory, on whose
// behalf the copy engine writes. A warp's own entry counts its synchronisations; lanes of a warp are ordered
// only by these. Source: Flanagan and Freund, FastTrack, PLDI 2009.
#pragma once

#include <algorithm>
#include <cstdint>
#include <list>
#include <map>
#include <string>
#include <unordered_map>
#include <vector>

#include "ptx/machine.h"

namespace ptx {

class Clock {
 public:
  explicit Clock(std::size_t entries) : at_(entries) {}
  std::uint32_t& operator[](std::size_t i) { return at_[i]; }
  std::uint32_t operator[](std::size_t i) const { return at_[i]; }
  void join(const Clock& other) {
    for (std::size_t i = 0; i < at_.size(); ++i) at_[i] = std::max(at_[i], other.at_[i]);
  }

 private:
  std::vector<std::uint32_t> at_;
};

/// Who accesses: a lane of a warp, and what happened before.
struct Actor {
  const Clock* clock;
  std::size_t entity;  ///< Its entry in clocks.
  std::size_t warp;    ///< Within its CTA.
  int lane;
  std::size_t thread;  ///< Within the grid.
};

class Global {
 public:
  explicit Global(std::vector<Region> regions);
  /// Checks an access and gives its place. Throws Fault.
  std::uint8_t* read(std::uint64_t address, std::int64_t bytes, bool read_only, std::size_t thread) const;
  /// The same for an asynchronous copy, which reads any number of bytes.
  std::uint8_t* copy_from(std::uint64_t address, std::int64_t bytes) const;
  std::uint8_t* write(std::uint64_t address, std::int64_t bytes, std::size_t thread);

 private:
  std::size_t region_of(std::uint64_t address, std::int64_t bytes, const char* what) const;
  std::vector<Region> regions_;
  std::vector<std::vector<std::size_t>> writers_;  ///< Of each byte of writable regions; 0 is none yet.
};

/// Sectors of 32 bytes of global memory that a CTA has loaded and that are still in its L1 cache, if that
/// drops what was used longest ago. Counts only: data comes from memory.
class SectorCache {
 public:
  explicit SectorCache(std::int64_t bytes) : capacity_(static_cast<std::size_t>(bytes) / 32) {}
  /// Whether it was there; it is now.
  bool use(std::uint64_t sector);

 private:
  std::size_t capacity_;
  std::list<std::uint64_t> newest_first_;
  std::unordered_map<std::uint64_t, std::list<std::uint64_t>::iterator> place_;
};

/// Shared memory of one CTA, in granules of two bytes.
class Shared {
 public:
  Shared(std::int64_t bytes, std::size_t warps, std::size_t first_entity);

  std::int64_t size() const { return static_cast<std::int64_t>(bytes_.size()); }
  /// Checks place and alignment of an access; the place within the CTA.
  std::size_t place(std::uint64_t address, std::int64_t bytes, std::int64_t alignment) const;
  const std::uint8_t* read(std::size_t place, std::int64_t bytes, const Actor& actor);
  std::uint8_t* write(std::size_t place, std::int64_t bytes, const Actor& actor);

  /// An asynchronous copy begins: nobody may touch these bytes until it ends.
  void begin_copy(std::size_t place, std::int64_t bytes, const Actor& actor);
  /// It has ended, and is as a write of `entity` at `clock`.
  std::uint8_t* end_copy(std::size_t place, std::int64_t bytes, std::size_t entity, int lane,
                         std::uint32_t clock);
  /// A barrier stands here: no data.
  void reserve(std::size_t place, std::int64_t bytes, const Actor& actor);

 private:
  struct Granule {
    std::uint32_t writer = kNobody;
    std::uint32_t write_clock = 0;
    std::uint32_t reader = kNobody;  ///< The newest, to tell lanes of one warp apart.
    std::uint32_t read_clock = 0;
    std::int16_t write_lane = 0;
    std::int16_t read_lane = 0;  ///< -1: several.
    std::int16_t copies = 0;     ///< On their way.
    bool barrier = false;
  };
  static constexpr std::uint32_t kNobody = ~0U;

  void check_write(std::size_t granule, const Actor& actor) const;
  [[noreturn]] void race(std::size_t granule, const char* what, const Actor& actor,
                         std::uint32_t other) const;

  std::vector<std::uint8_t> bytes_;
  std::vector<Granule> granules_;
  std::size_t warps_;
  std::size_t first_entity_;
  std::vector<std::uint32_t> reads_;  ///< [granule][warp]: the warp's clock when it last read there, plus 1.
};

}  // namespace ptx
