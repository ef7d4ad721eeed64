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
// Lane i is p[i / kCopies].
template <int kCopies>
inline Vec8 spread8(const float* p) {
  static_assert(kCopies == 1 || kCopies == 2 || kCopies == 4 || kCopies == 8);
  if constexpr (kCopies == 8) return broadcast8(p);
  if constexpr (kCopies == 4) {
    const __m256 pair = _mm256_castpd_ps(_mm256_broadcast_sd(reinterpret_cast<const double*>(p)));
    return {_mm256_permutevar_ps(pair, _mm256_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1))};
  }
  if constexpr (kCopies == 2) {
    const __m256 four = _mm256_broadcast_ps(reinterpret_cast<const __m128*>(p));
    return {_mm256_permutevar_ps(four, _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3))};
  }
  return load8(p);
}
// Lane i of both together is p[i / 4].
inline void spread8_two(const float* p, Vec8* two) {
  const __m256 four = _mm256_broadcast_ps(reinterpret_cast<const __m128*>(p));
  two[0] = {_mm256_permutevar_ps(four, _mm256_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1))};
  two[1] = {_mm256_permutevar_ps(four, _mm256_setr_epi32(2, 2, 2, 2, 3, 3, 3, 3))};
}
// Lane i is p[i % kGroup]; only `count` floats are read.
template <int kGroup>
inline Vec8 repeat8(const float* p, int count) {
  static_assert(kGroup == 2 || kGroup == 4 || kGroup == 8);
  const Vec8 first = load8_first(p, count);
  if constexpr (kGroup == 4) return {_mm256_permute2f128_ps(first.v, first.v, 0)};
  if constexpr (kGroup == 2)
    return {_mm256_permutevar8x32_ps(first.v, _mm256_setr_epi32(0, 1, 0, 1, 0, 1, 0, 1))};
  return first;
}
// Two floats as one double, whatever its alignment.
inline double two_floats(const float* p) {
  double two;
  __builtin_memcpy(&two, p, sizeof(two));
  return two;
}
// The inputs of four elements of which kPiece lie side by side, one copy of each.
template <int kPiece>
inline __m128 pieces4(const float* x, const std::int32_t* offsets) {
  if constexpr (kPiece >= 4) return _mm_loadu_ps(x + offsets[0]);
  if constexpr (kPiece == 2) {
    return _mm_castpd_ps(_mm_set_pd(two_floats(x + offsets[2]), two_floats(x + offsets[0])));
  }
  // Two offsets with each load: loads are what such a product waits for.
  std::int64_t two[2];
  __builtin_memcpy(two, offsets, sizeof(two));
  return _mm_setr_ps(x[static_cast<std::int32_t>(two[0])], x[two[0] >> 32],
                     x[static_cast<std::int32_t>(two[1])], x[two[1] >> 32]);
}
// See column_kernel-inl.h.
template <int kCopies, int kPiece>
inline Vec8 pieces8(const float* x, const std::int32_t* offsets) {
  constexpr int kElements = 8 / kCopies;
  if constexpr (kPiece >= kElements) {
    return spread8<kCopies>(x + offsets[0]);
  } else if constexpr (kCopies == 4) {
    return {_mm256_set_m128(_mm_broadcast_ss(x + offsets[1]), _mm_broadcast_ss(x + offsets[0]))};
  } else if constexpr (kCopies == 2) {
    const __m256 four = _mm256_castps128_ps256(pieces4<kPiece>(x, offsets));
    return {_mm256_permutevar8x32_ps(four, _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3))};
  } else {
    return {_mm256_set_m128(pieces4<kPiece>(x, offsets + 4), pieces4<kPiece>(x, offsets))};
  }
}
inline Vec8 keep8_first(Vec8 v, int count) {
  return {_mm256_and_ps(v.v, _mm256_castsi256_ps(first_lanes(count)))};
}
inline Vec8 keep8_unless_negative_or_zero(Vec8 test, Vec8 v) {
  return {_mm256_and_ps(v.v, _mm256_cmp_ps(test.v, _mm256_setzero_ps(), _CMP_NLE_UQ))};
}
template <int kRows>
inline void fold8(Vec8 v, float* sums) {
  __m128 four = _mm_add_ps(_mm256_castps256_ps128(v.v), _mm256_extractf128_ps(v.v, 1));
  if constexpr (kRows == 4) {
    _mm_storeu_ps(sums, four);
  } else {
    four = _mm_add_ps(four, _mm_movehl_ps(four, four));
    if constexpr (kRows == 1) four = _mm_add_ss(four, _mm_movehdup_ps(four));
    for (int r = 0; r < kRows; ++r) sums[r] = four[r];
  }
}
inline Vec8 add8(Vec8 a, Vec8 b) { return {_mm256_add_ps(a.v, b.v)}; }
// The second operand wins if one is NaN or both are zero.
inline Vec8 relu8(Vec8 a) { return {_mm256_max_ps(_mm256_setzero_ps(), a.v)}; }
inline Vec8 fma8(Vec8 a, Vec8 b, Vec8 c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }
inline void store8(float* p, Vec8 a) { _mm256_storeu_ps(p, a.v); }
// Not a masked store: AMD's CPUs take some fifteen cycles for one.
inline void store8_first(float* p, Vec8 a, int count) {
  if (count == 8) return store8(p, a);
  __m128 part = _mm256_castps256_ps128(a.v);
  if ((count & 4) != 0) {
    _mm_storeu_ps(p, part);
    part = _mm256_extractf128_ps(a.v, 1);
    p += 4;
  }
  if ((count & 2) != 0) {
    _mm_storel_pi(reinterpret_cast<__m64*>(p), part);
    part = _mm_movehl_ps(part, part);
    p += 2;
  }
  if ((count & 1) != 0) _mm_store_ss(p, part);
}
