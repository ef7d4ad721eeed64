// Quads as two pairs of 16-bit numbers, for AVX2 without VNNI: its product of bytes, vpmaddubsw, saturates at
// 16 bits, the product of 16-bit pairs does not. Included in an anonymous namespace behind
// int8_avx2_vec-inl.h.

struct In8 {
  __m256i even, odd;  // First and third, second and fourth of each quad.
};
struct Weight8 {
  __m256i even, odd;
};
constexpr int kQuadBytes = 8;

inline In8 split(__m256i quads) {
  return {_mm256_and_si256(quads, _mm256_set1_epi16(0xff)), _mm256_srli_epi16(quads, 8)};
}
inline In8 load8(const std::uint8_t* p) {
  return split(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
// Lane i is quad i % 2.
inline In8 repeat8(const std::uint8_t* p) { return split(_mm256_set1_epi64x(read<long long>(p))); }
template <int kRows>
inline Weight8 weight8(const std::int8_t* p, int row) {
  return {_mm256_set1_epi32(read<std::int32_t>(p + 4 * row)),
          _mm256_set1_epi32(read<std::int32_t>(p + 4 * (kRows + row)))};
}
// Lane i is that of row first + i / kCopies, of 4 rows.
template <int kCopies, int kFirst>
inline Weight8 spread8(const std::int8_t* p) {
  static_assert(kCopies == 2 || kCopies == 4);
  const __m256i rows =
      kCopies == 2 ? _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3) : _mm256_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1);
  const __m256i lanes = _mm256_add_epi32(rows, _mm256_set1_epi32(kFirst));
  const __m256i both = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  return {_mm256_permutevar8x32_epi32(both, lanes),
          _mm256_permutevar8x32_epi32(both, _mm256_add_epi32(lanes, _mm256_set1_epi32(4)))};
}
inline Vec8 dot8(Vec8 sum, In8 x, Weight8 w) {
  const __m256i products =
      _mm256_add_epi32(_mm256_madd_epi16(x.even, w.even), _mm256_madd_epi16(x.odd, w.odd));
  return {_mm256_add_epi32(sum.v, products)};
}
inline Vec4 dot4(Vec4 sum, const std::uint8_t* quad, const std::int8_t* weights) {
  const __m128i x = _mm_set1_epi32(read<std::int32_t>(quad));
  const __m128i* const w = reinterpret_cast<const __m128i*>(weights);
  const __m128i even = _mm_madd_epi16(_mm_and_si128(x, _mm_set1_epi16(0xff)), _mm_loadu_si128(w));
  const __m128i odd = _mm_madd_epi16(_mm_srli_epi16(x, 8), _mm_loadu_si128(w + 1));
  return {_mm_add_epi32(sum.v, _mm_add_epi32(even, odd))};
}
