// The GPU as a Machine and a Cta for gpu/bodies.h: registers, shared memory, cp.async, ldmatrix and mma.sync,
// as sm_80 has them.
#pragma once

#include "kernels/gpu/bodies.h"

namespace pysim::gpu {

__device__ __forceinline__ unsigned shared_address(const void* pointer) {
  return static_cast<unsigned>(__cvta_generic_to_shared(pointer));
}

struct DeviceMachine {
  /// What each lane has of its own is simply the thread's own.
  template <class T>
  struct Each {
    T of;
    __device__ __forceinline__ T& operator[](int) { return of; }
  };

  template <class F>
  __device__ __forceinline__ static void lanes(F f) {
    f(static_cast<int>(threadIdx.x % kLanes));
  }

  template <class T>
  __device__ __forceinline__ static T load(const char* from) {
    return *reinterpret_cast<const T*>(from);
  }

  /// From global memory that no kernel writes: through the read-only path.
  template <class T>
  __device__ __forceinline__ static T fetch(const char* from) {
    T value;
    if constexpr (sizeof(T) % 16 == 0) {
      PYSIM_UNROLL
      for (int i = 0; i < static_cast<int>(sizeof(T) / 16); ++i)
        reinterpret_cast<uint4*>(&value)[i] = __ldg(reinterpret_cast<const uint4*>(from) + i);
    } else if constexpr (sizeof(T) == 8) {
      *reinterpret_cast<uint2*>(&value) = __ldg(reinterpret_cast<const uint2*>(from));
    } else {
      static_assert(sizeof(T) == 4, "one access");
      *reinterpret_cast<unsigned*>(&value) = __ldg(reinterpret_cast<const unsigned*>(from));
    }
    return value;
  }

  __device__ __forceinline__ static float fused(float a, float b, float c) { return fmaf(a, b, c); }
  __device__ __forceinline__ static void converge() { __syncwarp(); }

  __device__ __forceinline__ static void ldmatrix_trans(Each<Words<4>>& to, Each<const char*>& rows,
                                                        int offset) {
    std::uint32_t* const w = to.of.word;
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(w[0]), "=r"(w[1]), "=r"(w[2]), "=r"(w[3])
                 : "r"(shared_address(rows.of + offset))
                 : "memory");
  }

  /// In i8 X is unsigned and W signed, whichever is on the left.
  template <Math kMath, bool kXLeft, class Sums, class A, class B>
  __device__ __forceinline__ static void mma(Sums sums, A left, B right) {
    auto* const c = sums(0);
    const std::uint32_t* const a = left(0);
    const std::uint32_t* const b = right(0);
    if constexpr (kMath == Math::f16) {
      asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
          "{%0, %1, %2, %3};"
          : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
          : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
    } else if constexpr (kMath == Math::bf16) {
      asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
          "{%0, %1, %2, %3};"
          : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
          : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
    } else if constexpr (kMath == Math::i8 && kXLeft) {
      asm("mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
          "{%0, %1, %2, %3};"
          : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
          : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
    } else if constexpr (kMath == Math::i8) {
      asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.u8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
          "{%0, %1, %2, %3};"
          : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
          : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
    } else {
      asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
          "{%0, %1, %2, %3};"
          : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
          : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
    }
  }

  template <class Get>
  __device__ __forceinline__ static void add_across(Get get, int apart) {
    float& value = get(0);
    value += __shfl_xor_sync(0xffffffffU, value, apart);
  }
};

struct DeviceCta {
  using Machine = DeviceMachine;

  template <class T>
  struct PerWarp {
    T of;
    __device__ __forceinline__ explicit PerWarp(const DeviceCta&) {}
    __device__ __forceinline__ T& operator[](int) { return of; }
  };

  __device__ __forceinline__ int size() const { return static_cast<int>(blockDim.x); }
  template <class F>
  __device__ __forceinline__ void threads(F f) {
    f(static_cast<int>(threadIdx.x));
  }
  template <class F>
  __device__ __forceinline__ void warps(F f) {
    f(static_cast<int>(threadIdx.x / kLanes));
  }
  __device__ __forceinline__ void barrier() { __syncthreads(); }
  __device__ __forceinline__ void commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
  __device__ __forceinline__ void wait_for_all_but_newest() {
    asm volatile("cp.async.wait_group 1;" ::: "memory");
  }

  __device__ __forceinline__ void copy16(char* to, const char* from, int readable) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
                 :
                 : "r"(shared_address(to)), "l"(__cvta_generic_to_global(from)), "r"(readable)
                 : "memory");
  }
  template <int kBytes>
  __device__ __forceinline__ void scatter16(char* to, int pitch, const char* from, std::uint32_t flip) {
    const uint4 vector = __ldg(reinterpret_cast<const uint4*>(from));
    const unsigned words[4] = {vector.x, vector.y, vector.z, vector.w};
    PYSIM_UNROLL
    for (int j = 0; j < 16 / kBytes; ++j) {
      if constexpr (kBytes == 4) {
        *reinterpret_cast<unsigned*>(to + j * pitch) = words[j] ^ flip;
      } else {
        *reinterpret_cast<unsigned short*>(to + j * pitch) =
            static_cast<unsigned short>(words[j / 2] >> (16 * (j % 2)));
      }
    }
  }
  template <int kBytes>
  __device__ __forceinline__ void copy_element(char* to, const char* data, std::int64_t offset,
                                               std::uint32_t fill, std::uint32_t flip) {
    if constexpr (kBytes == 4) {
      *reinterpret_cast<unsigned*>(to) =
          offset < 0 ? fill : __ldg(reinterpret_cast<const unsigned*>(data) + offset) ^ flip;
    } else {
      *reinterpret_cast<unsigned short*>(to) =
          offset < 0 ? static_cast<unsigned short>(0)
                     : __ldg(reinterpret_cast<const unsigned short*>(data) + offset);
    }
  }
  __device__ __forceinline__ void clear4(char* to) { *reinterpret_cast<unsigned*>(to) = 0; }
  template <class T>
  __device__ __forceinline__ void put(char* to, T value) {
    *reinterpret_cast<T*>(to) = value;
  }
  template <class T>
  __device__ __forceinline__ T get(const char* from) {
    return *reinterpret_cast<const T*>(from);
  }
};

}  // namespace pysim::gpu
