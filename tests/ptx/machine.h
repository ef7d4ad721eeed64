// A GPU in software: runs PTX instruction by instruction, and faults where a GPU would have been free to do
// anything: races, lanes that are not together, addresses that are not the kernel's, barriers without an end.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "ptx/program.h"

namespace ptx {

/// Global memory that a kernel may touch.
struct Region {
  std::uint64_t address;
  std::int64_t bytes;
  bool writable;
  std::string name;
};

struct Grid {
  const Entry* entry;
  const std::uint8_t* parameters;  ///< entry->parameter_bytes of them.
  std::int64_t ctas;
  int threads;
  std::int64_t shared_bytes;
  int cluster;  ///< CTAs; 1 without clusters.
};

/// What was done, by whole warps unless said otherwise.
struct Counts {
  std::int64_t instructions = 0;
  std::int64_t products = 0;           ///< mma
  std::int64_t shared_wavefronts = 0;  ///< Cycles in which banks of shared memory answer ld, st and ldmatrix.
  std::int64_t shared_ideal = 0;       ///< The same if no two rows met in a bank.
  std::int64_t copied_bytes = 0;   ///< By cp.async and by the copy engine, in each CTA that receives them.
  std::int64_t fetched_bytes = 0;  ///< The same where each fetch counts once, however many receive it.
  std::int64_t global_read_sectors = 0;  ///< 32 bytes each, of loads into registers: asked for,
  std::int64_t missed_sectors = 0;       ///< and not found in an L1 cache of what shared memory leaves over.
  std::int64_t global_written_sectors = 0;
};

/// Runs the whole grid, one cluster after another in a drawn order; within a cluster warps and lanes that
/// went apart take turns, and copies land, as `seed` draws. Lanes that a branch sent apart stay apart until
/// they wait for each other.
///
/// Throws Fault if the kernel does what a GPU would not allow or does not define.
void run(const Grid& grid, const std::vector<Region>& regions, std::uint64_t seed, Counts& counts);

}  // namespace ptx
