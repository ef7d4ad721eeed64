#include "ptx/memory.h"

#include <utility>

namespace ptx {

Global::Global(std::vector<Region> regions) : regions_(std::move(regions)) {
  for (const Region& region : regions_)
    writers_.emplace_back(region.writable ? static_cast<std::size_t>(region.bytes) : 0);
}

namespace {

void require_aligned(std::uint64_t address, std::int64_t bytes, const char* what) {
  if (address % static_cast<std::uint64_t>(bytes) != 0)
    throw Fault(std::string(what) + " of " + std::to_string(bytes) +
                " bytes: expected an aligned address, got another");
}

}  // namespace

std::size_t Global::region_of(std::uint64_t address, std::int64_t bytes, const char* what) const {
  for (std::size_t r = 0; r < regions_.size(); ++r) {
    const Region& region = regions_[r];
    if (address >= region.address && address + static_cast<std::uint64_t>(bytes) <=
                                         region.address + static_cast<std::uint64_t>(region.bytes))
      return r;
  }
  std::string text = std::string(what) + " of " + std::to_string(bytes) +
                     " bytes: expected an address in the kernel's memory, got one ";
  const Region* nearest = nullptr;
  std::int64_t distance = 0;
  for (const Region& region : regions_) {
    const auto from_end = static_cast<std::int64_t>(address - region.address) - region.bytes;
    if (nearest == nullptr || std::abs(from_end) < std::abs(distance)) nearest = &region, distance = from_end;
  }
  if (nearest != nullptr) text += std::to_string(distance) + " bytes from the end of " + nearest->name;
  throw Fault(text);
}

std::uint8_t* Global::read(std::uint64_t address, std::int64_t bytes, bool read_only,
                           std::size_t thread) const {
  require_aligned(address, bytes, "a load");
  const std::size_t r = region_of(address, bytes, "a load");
  if (read_only && regions_[r].writable)
    throw Fault("a load through the read-only path: expected memory that nobody writes, got " +
                regions_[r].name);
  const std::size_t begin = address - regions_[r].address;
  if (regions_[r].writable) {
    for (std::size_t b = begin; b < begin + static_cast<std::size_t>(bytes); ++b) {
      if (writers_[r][b] != 0 && writers_[r][b] != thread + 1)
        throw Fault("a race: a thread reads what another one of the same grid wrote, in " + regions_[r].name);
    }
  }
  return reinterpret_cast<std::uint8_t*>(address);
}

std::uint8_t* Global::copy_from(std::uint64_t address, std::int64_t bytes) const {
  const std::size_t r = region_of(address, bytes, "a copy");
  if (regions_[r].writable)
    throw Fault("a copy: expected memory that nobody writes, got " + regions_[r].name);
  return reinterpret_cast<std::uint8_t*>(address);
}

std::uint8_t* Global::write(std::uint64_t address, std::int64_t bytes, std::size_t thread) {
  require_aligned(address, bytes, "a store");
  const std::size_t r = region_of(address, bytes, "a store");
  if (!regions_[r].writable) throw Fault("a store: expected memory for results, got " + regions_[r].name);
  const std::size_t begin = address - regions_[r].address;
  for (std::size_t b = begin; b < begin + static_cast<std::size_t>(bytes); ++b) {
    if (writers_[r][b] != 0 && writers_[r][b] != thread + 1)
      throw Fault("a race: two threads write the same byte of " + regions_[r].name);
    writers_[r][b] = thread + 1;
  }
  return reinterpret_cast<std::uint8_t*>(address);
}

bool SectorCache::use(std::uint64_t sector) {
  const auto found = place_.find(sector);
  if (found != place_.end()) {
    newest_first_.splice(newest_first_.begin(), newest_first_, found->second);
    return true;
  }
  if (capacity_ == 0) return false;
  if (place_.size() == capacity_) {
    place_.erase(newest_first_.back());
    newest_first_.pop_back();
  }
  newest_first_.push_front(sector);
  place_[sector] = newest_first_.begin();
  return false;
}

Shared::Shared(std::int64_t bytes, std::size_t warps, std::size_t first_entity)
    : bytes_(static_cast<std::size_t>(bytes), 0xff),  // A NaN in every type: it shows if it matters.
      granules_(static_cast<std::size_t>(bytes + 1) / 2),
      warps_(warps),
      first_entity_(first_entity),
      reads_(granules_.size() * warps) {}

std::size_t Shared::place(std::uint64_t address, std::int64_t bytes, std::int64_t alignment) const {
  if (address % static_cast<std::uint64_t>(alignment) != 0)
    throw Fault("shared memory: expected an address aligned to " + std::to_string(alignment) +
                " bytes, got another");
  if (address < kShared || address - kShared + static_cast<std::uint64_t>(bytes) > bytes_.size())
    throw Fault("shared memory: expected an access within " + std::to_string(bytes_.size()) + " bytes, got " +
                std::to_string(bytes) + " from " +
                std::to_string(static_cast<std::int64_t>(address) - kShared) + " on");
  return address - kShared;
}

void Shared::race(std::size_t granule, const char* what, const Actor& actor, std::uint32_t other) const {
  throw Fault("a race in shared memory, byte " + std::to_string(2 * granule) + ": warp " +
              std::to_string(actor.warp) + " lane " + std::to_string(actor.lane) + " " + what +
              ", and nothing orders the two (the other: entity " + std::to_string(other) +
              " where warps of this CTA begin at " + std::to_string(first_entity_) + ")");
}

const std::uint8_t* Shared::read(std::size_t place, std::int64_t bytes, const Actor& actor) {
  for (std::size_t g = place / 2; g <= (place + static_cast<std::size_t>(bytes) - 1) / 2; ++g) {
    Granule& granule = granules_[g];
    if (granule.barrier) race(g, "reads where a barrier stands", actor, kNobody);
    if (granule.copies > 0) race(g, "reads what a copy on its way is writing", actor, granule.writer);
    const std::uint32_t now = (*actor.clock)[actor.entity];
    if (granule.writer == actor.entity) {
      if (granule.write_lane != actor.lane && granule.write_clock == now)
        race(g, "reads what another lane of its warp wrote", actor, granule.writer);
    } else if (granule.writer != kNobody && granule.write_clock > (*actor.clock)[granule.writer]) {
      race(g, "reads what another one wrote", actor, granule.writer);
    }
    reads_[g * warps_ + actor.warp] = now + 1;
    const bool again =
        granule.reader == actor.entity && granule.read_clock == now && granule.read_lane != actor.lane;
    granule.read_lane = static_cast<std::int16_t>(again ? -1 : actor.lane);
    granule.reader = static_cast<std::uint32_t>(actor.entity);
    granule.read_clock = now;
  }
  return bytes_.data() + place;
}

void Shared::check_write(std::size_t g, const Actor& actor) const {
  const Granule& granule = granules_[g];
  const std::uint32_t now = (*actor.clock)[actor.entity];
  if (granule.barrier) race(g, "writes where a barrier stands", actor, kNobody);
  if (granule.copies > 0) race(g, "writes what a copy on its way is writing", actor, granule.writer);
  if (granule.writer == actor.entity) {
    if (granule.write_lane != actor.lane && granule.write_clock == now)
      race(g, "writes what another lane of its warp wrote", actor, granule.writer);
  } else if (granule.writer != kNobody && granule.write_clock > (*actor.clock)[granule.writer]) {
    race(g, "writes what another one wrote", actor, granule.writer);
  }
  for (std::size_t w = 0; w < warps_; ++w) {
    const std::size_t entity = first_entity_ + w;
    if (entity != actor.entity && reads_[g * warps_ + w] > (*actor.clock)[entity] + 1)
      race(g, "writes what another warp reads", actor, static_cast<std::uint32_t>(entity));
  }
  if (granule.reader == actor.entity && granule.read_clock == now && granule.read_lane != actor.lane)
    race(g, "writes what another lane of its warp reads", actor, granule.reader);
}

std::uint8_t* Shared::write(std::size_t place, std::int64_t bytes, const Actor& actor) {
  for (std::size_t g = place / 2; g <= (place + static_cast<std::size_t>(bytes) - 1) / 2; ++g) {
    check_write(g, actor);
    granules_[g].writer = static_cast<std::uint32_t>(actor.entity);
    granules_[g].write_lane = static_cast<std::int16_t>(actor.lane);
    granules_[g].write_clock = (*actor.clock)[actor.entity];
  }
  return bytes_.data() + place;
}

void Shared::begin_copy(std::size_t place, std::int64_t bytes, const Actor& actor) {
  for (std::size_t g = place / 2; g <= (place + static_cast<std::size_t>(bytes) - 1) / 2; ++g) {
    check_write(g, actor);
    ++granules_[g].copies;
  }
}

std::uint8_t* Shared::end_copy(std::size_t place, std::int64_t bytes, std::size_t entity, int lane,
                               std::uint32_t clock) {
  for (std::size_t g = place / 2; g <= (place + static_cast<std::size_t>(bytes) - 1) / 2; ++g) {
    --granules_[g].copies;
    granules_[g].writer = static_cast<std::uint32_t>(entity);
    granules_[g].write_lane = static_cast<std::int16_t>(lane);
    granules_[g].write_clock = clock;
  }
  return bytes_.data() + place;
}

void Shared::reserve(std::size_t place, std::int64_t bytes, const Actor& actor) {
  for (std::size_t g = place / 2; g <= (place + static_cast<std::size_t>(bytes) - 1) / 2; ++g) {
    check_write(g, actor);
    granules_[g].barrier = true;
  }
}

}  // namespace ptx
