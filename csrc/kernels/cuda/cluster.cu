// The kernel for clusters: barriers in shared memory that count bytes, and copies that the copy engine writes
// into every CTA of a cluster. Compiled for sm_90a, where NVIDIA says that such copies are fast.
// Source: PTX ISA, mbarrier, cp.async.bulk, barrier.cluster, mapa.
#include "kernels/cuda/device.h"
#include "kernels/cuda/kernels.h"
#include "kernels/gpu/cluster.h"
#include "kernels/gpu/kernels.h"

namespace pysim::gpu {

namespace {

struct DeviceClusterCta : DeviceCta {
  unsigned barriers;  ///< Address in shared memory.

  __device__ __forceinline__ explicit DeviceClusterCta(const char* first_barrier)
      : barriers(shared_address(first_barrier)) {}

  template <class T>
  struct PerWarp {
    T of;
    __device__ __forceinline__ explicit PerWarp(const DeviceClusterCta&) {}
    __device__ __forceinline__ T& operator[](int) { return of; }
  };

  __device__ __forceinline__ int rank() const {
    unsigned rank;
    asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    return static_cast<int>(rank);
  }
  __device__ __forceinline__ unsigned address(int which) const {
    return barriers + 8 * static_cast<unsigned>(which);
  }

  /// Barriers that were made are seen by the other CTAs and by the copy engine behind it.
  __device__ __forceinline__ void cluster_barrier() {
    __syncwarp();
    asm volatile(
        "fence.mbarrier_init.release.cluster;\n\t"
        "barrier.cluster.arrive.release.aligned;\n\t"
        "barrier.cluster.wait.acquire.aligned;" ::
            : "memory");
  }
  __device__ __forceinline__ void make_barrier(int which, int arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(address(which)), "r"(arrivals) : "memory");
  }
  __device__ __forceinline__ void wait(int which, int parity) {
    while (!is_over<false>(which, parity)) {
    }
    __syncwarp();  // What follows takes the warp's lanes together.
  }
  /// For arrivals of other CTAs.
  __device__ __forceinline__ void wait_for_cluster(int which, int parity) {
    while (!is_over<true>(which, parity)) {
    }
    __syncwarp();
  }
  __device__ __forceinline__ void expect(int which, int bytes) {
    asm volatile("mbarrier.arrive.expect_tx.release.cta.shared::cta.b64 _, [%0], %1;" ::"r"(address(which)),
                 "r"(bytes)
                 : "memory");
  }
  /// One arrival of this warp at the barrier of each CTA, after all its lanes have read.
  __device__ __forceinline__ void release(int which, int ctas) {
    __syncwarp();
    const int lane = static_cast<int>(threadIdx.x % kLanes);
    if (lane < ctas) {
      asm volatile(
          "{\n\t.reg .b32 there;\n\t"
          "mapa.shared::cluster.u32 there, %0, %1;\n\t"
          "mbarrier.arrive.release.cluster.shared::cluster.b64 _, [there];\n\t}" ::"r"(address(which)),
          "r"(lane)
          : "memory");
    }
    __syncwarp();
  }
  template <class F>
  __device__ __forceinline__ void first_warp(F f) {
    if (threadIdx.x < kLanes) {
      f([](auto each) { DeviceMachine::lanes(each); });
      __syncwarp();
    }
  }
  /// To the same place in every CTA, and counted by the same barrier of each.
  __device__ __forceinline__ void multicast(char* to, const char* from, int bytes, int which, int ctas) {
    asm volatile(
        "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster "
        "[%0], [%1], %2, [%3], %4;" ::"r"(shared_address(to)),
        "l"(__cvta_generic_to_global(from)), "r"(bytes), "r"(address(which)),
        "h"(static_cast<unsigned short>((1U << ctas) - 1U))
        : "memory");
  }

 private:
  template <bool kInCluster>
  __device__ __forceinline__ bool is_over(int which, int parity) const {
    unsigned over = 0;
    if constexpr (kInCluster) {
      asm volatile(
          "{\n\t.reg .pred p;\n\t"
          "mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 p, [%1], %2;\n\t"
          "selp.u32 %0, 1, 0, p;\n\t}"
          : "=r"(over)
          : "r"(address(which)), "r"(parity)
          : "memory");
    } else {
      asm volatile(
          "{\n\t.reg .pred p;\n\t"
          "mbarrier.try_wait.parity.acquire.cta.shared::cta.b64 p, [%1], %2;\n\t"
          "selp.u32 %0, 1, 0, p;\n\t}"
          : "=r"(over)
          : "r"(address(which)), "r"(parity)
          : "memory");
    }
    return over != 0;
  }
};

template <Math kMath, int kHeight>
__global__ void __launch_bounds__(cluster_warps(kHeight) * kLanes, 1)
    cluster_kernel_of(const __grid_constant__ Arguments a) {
  extern __shared__ __align__(128) char shared[];
  DeviceClusterCta cta(shared + a.stages * a.stage_bytes);
  cluster_body<kMath, kHeight>(cta, a, static_cast<std::int64_t>(blockIdx.x) / a.cluster, shared);
}

}  // namespace

const void* cluster_kernel(Math math, int height) {
  const void* found = nullptr;
  (void)with_cluster_kind(math, height, [&](auto kind) {
    using Of = decltype(kind);
    found = reinterpret_cast<const void*>(&cluster_kernel_of<Of::math, Of::height>);
  });
  return found;
}

}  // namespace pysim::gpu
