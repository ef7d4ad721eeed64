// Which kernels exist: every combination of arithmetic and slab height that slab_height can ask for.
#pragma once

#include <type_traits>

#include "kernels/gpu/tile.h"

namespace pysim::gpu {

template <Math kMath, int kHeight>
struct Kind {
  static constexpr Math math = kMath;
  static constexpr int height = kHeight;
};

/// Calls f(Kind<math, height>{}) and says whether there is such a kernel.
template <class F>
bool with_kind(Math math, int height, F f) {
  const auto tensor = [&](auto constant) {
    constexpr Math kMath = decltype(constant)::value;
    if constexpr (element_bytes(kMath) == 2) {
      if (height == 32) return f(Kind<kMath, 32>{}), true;
    }
    if (height == 16) return f(Kind<kMath, 16>{}), true;
    if (height == 8) return f(Kind<kMath, 8>{}), true;
    return false;
  };
  switch (math) {
    case Math::tf32:
      return tensor(std::integral_constant<Math, Math::tf32>{});
    case Math::f16:
      return tensor(std::integral_constant<Math, Math::f16>{});
    case Math::bf16:
      return tensor(std::integral_constant<Math, Math::bf16>{});
    case Math::i8:
      return tensor(std::integral_constant<Math, Math::i8>{});
    case Math::f32:
      break;
  }
  if (height == 8) return f(Kind<Math::f32, 8>{}), true;
  if (height == 4) return f(Kind<Math::f32, 4>{}), true;
  if (height == 2) return f(Kind<Math::f32, 2>{}), true;
  if (height == 1) return f(Kind<Math::f32, 1>{}), true;
  return false;
}

/// The same for the kernels of clusters: two-byte types only.
template <class F>
bool with_cluster_kind(Math math, int height, F f) {
  if (element_bytes(math) != 2) return false;
  return with_kind(math, height, [&](auto kind) {
    using Of = decltype(kind);
    if constexpr (element_bytes(Of::math) == 2) f(kind);
  });
}

}  // namespace pysim::gpu
