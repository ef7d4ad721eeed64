// Eight float lanes of AVX2 with FMA. Included in an anonymous namespace by files compiled with -mavx2 -mfma.

struct Vec8 {
  __m256 v;
};

// Four -1 and four 0 around any start give the mask of the first `count` lanes.
alignas(32) const std::int32_t kMask8[16] = {-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0};

inline __m256i first_lanes(int count) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(kMask8 + 8 - count));
}
inline Vec8 zero8() { return {_mm256_setzero_ps()}; }
inline Vec8 load8(const float* p) { return {_mm256_loadu_ps(p)}; }
inline Vec8 load8_first(const float* p, int count) { return {_mm256_maskload_ps(p, first_lanes(count))}; }
inline Vec8 broadcast8(const float* p) { return {_mm256_broadcast_ss(p)}; }
inline Vec8 add8(Vec8 a, Vec8 b) { return {_mm256_add_ps(a.v, b.v)}; }
// The second operand wins if one is NaN or both are zero.
inline Vec8 relu8(Vec8 a) { return {_mm256_max_ps(_mm256_setzero_ps(), a.v)}; }
inline Vec8 fma8(Vec8 a, Vec8 b, Vec8 c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }
inline void store8(float* p, Vec8 a) { _mm256_storeu_ps(p, a.v); }
inline void store8_first(float* p, Vec8 a, int count) { _mm256_maskstore_ps(p, first_lanes(count), a.v); }
