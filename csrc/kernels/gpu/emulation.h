// What the GPU kernels' own source runs on when it runs on the CPU: a CTA is a loop over its threads or warps
// between barriers, shared memory an array. ldmatrix and mma are written from the PTX manual's tables, apart
// from tile.h, so that a mistake in tile.h shows. What it cannot show: races within a barrier interval, and
// speed.
#pragma once

#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <vector>

#include "kernels/gpu/launch.h"
#include "kernels/gpu/numbers.h"
#include "kernels/gpu/warp.h"

namespace pysim::gpu {

struct HostMachine {
  template <class T>
  struct Each {
    std::array<T, kLanes> of;
    T& operator[](int lane) { return of[static_cast<std::size_t>(lane)]; }
  };

  template <class F>
  static void lanes(F f) {
    for (int lane = 0; lane < kLanes; ++lane) f(lane);
  }

  /// One access: on the GPU an address that is not a multiple of its size is an error, so it is one here.
  template <class T>
  static T load(const char* from) {
    if (reinterpret_cast<std::uintptr_t>(from) % alignof(T) != 0)
      throw std::logic_error("GPU emulation: expected an aligned load, got another");
    T value;
    std::memcpy(&value, from, sizeof(T));
    return value;
  }
  template <class T>
  static T fetch(const char* from) {
    return load<T>(from);
  }

  static float fused(float a, float b, float c) { return std::fma(a, b, c); }
  static void converge() {}

  /// ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16: lanes 8 i to 8 i + 7 give the rows of matrix i; lane l
  /// receives elements (2 (l % 4), l / 4) and (2 (l % 4) + 1, l / 4) of each.
  static void ldmatrix_trans(Each<Words<4>>& to, Each<const char*>& rows, int offset) {
    for (int lane = 0; lane < kLanes; ++lane) {
      for (int matrix = 0; matrix < 4; ++matrix) {
        std::uint32_t word = 0;
        for (int half = 0; half < 2; ++half) {
          const char* const row = rows[8 * matrix + 2 * (lane % 4) + half] + offset;
          if (reinterpret_cast<std::uintptr_t>(row) % 16 != 0)
            throw std::logic_error("GPU emulation: expected ldmatrix rows aligned to 16 bytes, got others");
          std::uint16_t bits = 0;
          std::memcpy(&bits, row + 2 * (lane / 4), 2);
          word |= static_cast<std::uint32_t>(bits) << (16 * half);
        }
        to[lane].word[matrix] = word;
      }
    }
  }

  template <Math kMath, bool kXLeft, class Sums, class A, class B>
  static void mma(Sums sums, A a, B b) {
    if constexpr (kMath == Math::i8) {
      mma_bytes<kXLeft>(sums, a, b);
    } else {
      mma_reals<kMath>(sums, a, b);
    }
  }

  /// mma.m16n8k32 of bytes, X unsigned and W signed; sums wrap. Byte i of a register is element i of four.
  template <bool kXLeft, class Sums, class A, class B>
  static void mma_bytes(Sums sums, A a, B b) {
    std::array<std::array<std::uint32_t, 32>, 16> left{};
    std::array<std::array<std::uint32_t, 8>, 32> right{};
    for (int lane = 0; lane < kLanes; ++lane) {
      const auto group = static_cast<std::size_t>(lane / 4);
      const auto thread = static_cast<std::size_t>(lane % 4);
      for (std::size_t i = 0; i < 16; ++i) {
        // a_i: row g if 0 <= i < 4 or 8 <= i < 12, else g + 8; column 4 t + i % 4, and 16 more if i >= 8.
        const bool upper = i < 4 || (i >= 8 && i < 12);
        left[upper ? group : group + 8][4 * thread + (i & 3) + (i < 8 ? 0 : 16)] =
            byte<kXLeft>(a(lane)[i / 4], i % 4);
      }
      for (std::size_t i = 0; i < 8; ++i) {
        // b_i: row 4 t + i % 4, and 16 more if i >= 4; column g.
        right[4 * thread + (i & 3) + (i < 4 ? 0 : 16)][group] = byte<!kXLeft>(b(lane)[i / 4], i % 4);
      }
    }
    for (int lane = 0; lane < kLanes; ++lane) {
      for (int i = 0; i < 4; ++i) {
        // c0 c1 (g, 2t ..), c2 c3 (g + 8, 2t ..).
        const auto row = static_cast<std::size_t>(lane / 4 + (i < 2 ? 0 : 8));
        const auto column = static_cast<std::size_t>(2 * (lane % 4) + (i & 1));
        auto sum = static_cast<std::uint32_t>(sums(lane)[i]);
        for (std::size_t k = 0; k < 32; ++k) sum += left[row][k] * right[k][column];
        sums(lane)[i] = static_cast<std::int32_t>(sum);
      }
    }
  }

  template <Math kMath, class Sums, class A, class B>
  static void mma_reals(Sums sums, A a, B b) {
    constexpr int depth = step_depth(kMath);
    std::array<std::array<float, depth>, 16> left{};
    std::array<std::array<float, 8>, depth> right{};
    for (int lane = 0; lane < kLanes; ++lane) {
      const auto group = static_cast<std::size_t>(lane / 4);
      const auto thread = static_cast<std::size_t>(lane % 4);
      if constexpr (kMath == Math::tf32) {
        // a0 (g, t), a1 (g + 8, t), a2 (g, t + 4), a3 (g + 8, t + 4); b0 (t, g), b1 (t + 4, g).
        left[group][thread] = tf32(a(lane)[0]);
        left[group + 8][thread] = tf32(a(lane)[1]);
        left[group][thread + 4] = tf32(a(lane)[2]);
        left[group + 8][thread + 4] = tf32(a(lane)[3]);
        right[thread][group] = tf32(b(lane)[0]);
        right[thread + 4][group] = tf32(b(lane)[1]);
      } else {
        // a0 a1 (g, 2t ..), a2 a3 (g + 8, 2t ..), a4 a5 (g, 2t + 8 ..), a6 a7 (g + 8, 2t + 8 ..);
        // b0 b1 (2t .., g), b2 b3 (2t + 8 .., g).
        for (std::size_t half = 0; half < 2; ++half) {
          left[group][2 * thread + half] = value<kMath>(a(lane)[0], half);
          left[group + 8][2 * thread + half] = value<kMath>(a(lane)[1], half);
          left[group][2 * thread + 8 + half] = value<kMath>(a(lane)[2], half);
          left[group + 8][2 * thread + 8 + half] = value<kMath>(a(lane)[3], half);
          right[2 * thread + half][group] = value<kMath>(b(lane)[0], half);
          right[2 * thread + 8 + half][group] = value<kMath>(b(lane)[1], half);
        }
      }
    }
    for (int lane = 0; lane < kLanes; ++lane) {
      for (int i = 0; i < 4; ++i) {
        // c0 c1 (g, 2t ..), c2 c3 (g + 8, 2t ..).
        const auto row = static_cast<std::size_t>(lane / 4 + (i < 2 ? 0 : 8));
        const auto column = static_cast<std::size_t>(2 * (lane % 4) + (i & 1));
        float sum = sums(lane)[i];
        for (std::size_t k = 0; k < depth; ++k) sum += left[row][k] * right[k][column];
        sums(lane)[i] = sum;
      }
    }
  }

  template <class Get>
  static void add_across(Get get, int apart) {
    std::array<float, kLanes> other{};
    for (int lane = 0; lane < kLanes; ++lane) other[static_cast<std::size_t>(lane)] = get(lane ^ apart);
    for (int lane = 0; lane < kLanes; ++lane) get(lane) += other[static_cast<std::size_t>(lane)];
  }

 private:
  /// Widened to 32 bits.
  template <bool kUnsigned>
  static std::uint32_t byte(std::uint32_t word, std::size_t which) {
    const auto bits = static_cast<std::uint8_t>(word >> (8 * which));
    return kUnsigned ? bits : static_cast<std::uint32_t>(std::int32_t{static_cast<std::int8_t>(bits)});
  }
  static float tf32(std::uint32_t bits) { return same_bits<float>(bits & 0xffffe000U); }
  template <Math kMath>
  static float value(std::uint32_t word, std::size_t half) {
    const auto bits = static_cast<std::uint16_t>(word >> (16 * half));
    return kMath == Math::f16 ? f16_value(bits) : bf16_value(bits);
  }
};

/// A CTA. Every store to shared memory is checked against its size, every copy from X against X's.
class HostCta {
 public:
  using Machine = HostMachine;

  template <class T>
  struct PerWarp {
    explicit PerWarp(const HostCta& cta) : of(static_cast<std::size_t>(cta.size() / kLanes)) {}
    T& operator[](int warp) { return of[static_cast<std::size_t>(warp)]; }
    std::vector<T> of;
  };

  HostCta(const Arguments& arguments, int threads, std::int64_t shared_bytes)
      // Poison: what is read without having been written shows as a NaN in every type.
      : threads_(threads),
        x_(static_cast<const char*>(arguments.x.data)),
        x_bytes_(arguments.x_bytes),
        shared_(static_cast<std::size_t>(shared_bytes) / 16, Line{{~0ULL, ~0ULL}}) {}

  int size() const { return threads_; }
  char* shared() { return reinterpret_cast<char*>(shared_.data()); }

  template <class F>
  void threads(F f) {
    for (int thread = 0; thread < threads_; ++thread) f(thread);
  }
  template <class F>
  void warps(F f) {
    for (int warp = 0; warp < threads_ / kLanes; ++warp) f(warp);
  }
  void barrier() {}
  void commit() { ++committed_; }
  void wait_for_all_but_newest() {
    for (const Copy& copy : pending_) {
      if (copy.batch < committed_ - 1) perform(copy);
    }
    std::erase_if(pending_, [&](const Copy& copy) { return copy.batch < committed_ - 1; });
  }

  /// Asynchronous: happens as late as cp.async may, when it is waited for.
  void copy16(char* to, const char* from, int readable) {
    check(to, 16);
    if (readable > 0 && reinterpret_cast<std::uintptr_t>(from) % 16 != 0)
      throw std::logic_error("GPU emulation: expected cp.async from 16-byte boundaries, got another");
    check_x(from, readable);
    pending_.push_back({to, from, readable, committed_});
  }
  template <int kBytes>
  void scatter16(char* to, int pitch, const char* from, std::uint32_t flip) {
    if (reinterpret_cast<std::uintptr_t>(from) % 16 != 0)
      throw std::logic_error("GPU emulation: expected an aligned vector, got another");
    check_x(from, 16);
    for (int j = 0; j < 16 / kBytes; ++j) {
      check(to + j * pitch, kBytes);
      std::memcpy(to + j * pitch, from + j * kBytes, kBytes);
      flip_bits(to + j * pitch, kBytes, flip);
    }
  }
  template <int kBytes>
  void copy_element(char* to, const char* data, std::int64_t offset, std::uint32_t fill, std::uint32_t flip) {
    check(to, kBytes);
    if (offset < 0) {
      std::memcpy(to, &fill, kBytes);
    } else {
      check_x(data + offset * kBytes, kBytes);
      std::memcpy(to, data + offset * kBytes, kBytes);
      flip_bits(to, kBytes, flip);
    }
  }
  void clear4(char* to) {
    check(to, 4);
    std::memset(to, 0, 4);
  }
  template <class T>
  void put(char* to, T value) {
    check(to, sizeof(T));
    std::memcpy(to, &value, sizeof(T));
  }
  template <class T>
  T get(const char* from) {
    check(from, sizeof(T));
    T value;
    std::memcpy(&value, from, sizeof(T));
    return value;
  }

 protected:
  void check(const char* at, int bytes) {
    const char* const begin = shared();
    const char* const end = begin + shared_.size() * sizeof(Line);
    if (at < begin || at + bytes > end || reinterpret_cast<std::uintptr_t>(at) % static_cast<unsigned>(bytes))
      throw std::logic_error("GPU emulation: expected an aligned access to shared memory, got another");
  }
  void check_x(const char* from, int bytes) const {
    if (bytes > 0 && (from < x_ || from + bytes > x_ + x_bytes_))
      throw std::logic_error("GPU emulation: expected a copy from inside X, got another");
  }

 private:
  static void flip_bits(char* at, int bytes, std::uint32_t flip) {
    std::uint32_t word = 0;
    std::memcpy(&word, at, static_cast<std::size_t>(bytes));
    word ^= flip;
    std::memcpy(at, &word, static_cast<std::size_t>(bytes));
  }

  struct Line {
    unsigned long long word[2];
  };
  struct Copy {
    char* to;
    const char* from;
    int readable;
    std::int64_t batch;
  };

  static void perform(const Copy& copy) {
    std::memset(copy.to, 0, 16);
    if (copy.readable > 0) std::memcpy(copy.to, copy.from, static_cast<std::size_t>(copy.readable));
  }

  int threads_;
  const char* x_;
  std::int64_t x_bytes_;
  std::vector<Line> shared_;
  std::vector<Copy> pending_;
  std::int64_t committed_ = 0;
};

/// Runs cluster `index` of the kernel for clusters, its CTAs in an order that a GPU might choose.
void emulate_cluster(const Launches& launches, const Launch& launch, std::int64_t index);

}  // namespace pysim::gpu
