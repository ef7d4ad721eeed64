#include "kernels/transpose.h"

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace pysim {

void transpose(const float* from, std::int64_t rows, std::int64_t cols, std::int64_t from_pitch, float* to,
               std::int64_t to_pitch) {
  [[maybe_unused]] constexpr std::int64_t kTile = 4;
  std::int64_t r = 0;
#if defined(__SSE2__)
  for (; r + kTile <= rows; r += kTile) {
    const float* const a = from + r * from_pitch;
    std::int64_t c = 0;
    for (; c + kTile <= cols; c += kTile) {
      __m128 v0 = _mm_loadu_ps(a + c);
      __m128 v1 = _mm_loadu_ps(a + from_pitch + c);
      __m128 v2 = _mm_loadu_ps(a + 2 * from_pitch + c);
      __m128 v3 = _mm_loadu_ps(a + 3 * from_pitch + c);
      _MM_TRANSPOSE4_PS(v0, v1, v2, v3);
      float* const out = to + c * to_pitch + r;
      _mm_storeu_ps(out, v0);
      _mm_storeu_ps(out + to_pitch, v1);
      _mm_storeu_ps(out + 2 * to_pitch, v2);
      _mm_storeu_ps(out + 3 * to_pitch, v3);
    }
    for (; c < cols; ++c) {
      for (std::int64_t i = 0; i < kTile; ++i) to[c * to_pitch + r + i] = a[i * from_pitch + c];
    }
  }
#endif
  for (; r < rows; ++r) {
    for (std::int64_t c = 0; c < cols; ++c) to[c * to_pitch + r] = from[r * from_pitch + c];
  }
}

}  // namespace pysim
