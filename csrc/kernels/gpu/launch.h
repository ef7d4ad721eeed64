// From a plan and operands in somebody's memory to the kernels' launches: checks and configuration. Host
// code.
#pragma once

#include <cstdint>
#include <type_traits>
#include <vector>

#include "kernels/gpu/plan.h"
#include "kernels/int8_epilogue.h"

namespace pysim::gpu {

/// Memory of the caller: an address and how many bytes from there on belong to it.
struct Memory {
  std::uintptr_t address = 0;
  std::int64_t bytes = 0;
};

/// The operands of one product. Nothing is owned.
struct Operands {
  Memory image;    ///< The plan's tables.
  Memory weights;  ///< The values in the order of the plan's places.
  Memory x;
  Memory y;
  Memory bias;       ///< Float32, address 0 for none; in i8 the epilogue's table.
  Memory workspace;  ///< workspace_bytes, or address 0 if that is 0.
  XSource source{};  ///< Without its address; in i8 k, channels and strides count quads.
  std::int64_t y_m_stride = 0;
  std::int64_t y_n_stride = 0;
  bool relu = false;                       ///< In i8 the epilogue says it.
  const Int8Epilogue* epilogue = nullptr;  ///< Of i8, and there only.
};

/// The epilogue's vectors as one image for the device: start, then scale and bias if there are any.
std::vector<std::int32_t> epilogue_table(const Int8Epilogue& epilogue);

/// One kernel: its grid and shared memory. `threads` of a CTA are whole warps.
struct Launch {
  enum class Kernel { panel, cluster, decode, add_partials };
  Kernel kernel;
  std::int64_t ctas;
  int threads;
  std::int64_t shared_bytes;
  int cluster = 1;  ///< CTAs of a cluster; neighbours share one.
};

/// A product as one or two launches, in this order, with the same arguments.
struct Launches {
  Arguments arguments;
  Launch launch[2];
  int count;
};
static_assert(std::is_trivially_copyable_v<Launches>);

/// Whether n columns take the kernel that streams W once.
bool takes_decode(std::int64_t n);

/// Bytes of workspace that a product of n columns needs: partial sums of divided slabs, none for few columns.
std::int64_t workspace_bytes(const Plan& plan, std::int64_t n);

/// Checks the operands and makes the launches. No launches if n is 0.
///
/// Throws std::invalid_argument if a size, a stride, an alignment or the length of some memory is wrong, if Y
/// overlaps what is read, or if the grid is larger than a GPU takes.
Launches plan_launches(const Plan& plan, const Operands& operands);

/// Runs them on the CPU, thread by thread, through the kernels' own source. Slow; for tests.
///
/// Throws std::logic_error if a kernel does what a GPU would not allow.
void emulate(const Launches& launches);

}  // namespace pysim::gpu
