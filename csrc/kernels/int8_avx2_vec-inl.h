// Eight sums of AVX2 for 8-bit products. Included in an anonymous namespace by files compiled with -mavx2.

struct Vec8 {
  __m256i v;
};
struct Reals8 {
  __m256 v;
};
struct Vec4 {
  __m128i v;
};

// Eight -1 and eight 0 around any start give the mask of the first `count` lanes.
alignas(32) const std::int32_t kMask8[16] = {-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0};

inline __m256i first_lanes(int count) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(kMask8 + 8 - count));
}
template <class Word>
inline Word read(const void* p) {
  Word word;
  __builtin_memcpy(&word, p, sizeof(Word));
  return word;
}
inline Vec8 fill8(std::int32_t value) { return {_mm256_set1_epi32(value)}; }
inline Vec8 add8(Vec8 a, Vec8 b) { return {_mm256_add_epi32(a.v, b.v)}; }
inline Vec8 relu8(Vec8 a) { return {_mm256_max_epi32(a.v, _mm256_setzero_si256())}; }
inline Vec8 load_sums8(const std::int32_t* p) {
  return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))};
}
inline Reals8 fill_reals8(float value) { return {_mm256_set1_ps(value)}; }
inline Reals8 to_reals8(Vec8 a) { return {_mm256_cvtepi32_ps(a.v)}; }
inline Reals8 multiply8(Reals8 a, Reals8 b) { return {_mm256_mul_ps(a.v, b.v)}; }
inline Reals8 plus8(Reals8 a, Reals8 b) { return {_mm256_add_ps(a.v, b.v)}; }
// The first operand where both are equal.
inline Reals8 most8(Reals8 a, Reals8 b) { return {_mm256_max_ps(b.v, a.v)}; }
inline Reals8 least8(Reals8 a, Reals8 b) { return {_mm256_min_ps(b.v, a.v)}; }
inline Vec8 round8(Reals8 a) { return {_mm256_cvtps_epi32(a.v)}; }

inline void store_ints8(std::int32_t* p, Vec8 a, int count) {
  if (count == 8) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), a.v);
  } else {
    _mm256_maskstore_epi32(p, first_lanes(count), a.v);
  }
}
inline void store_reals8(float* p, Reals8 a, int count) {
  if (count == 8) {
    _mm256_storeu_ps(p, a.v);
  } else {
    _mm256_maskstore_ps(p, first_lanes(count), a.v);
  }
}
// The lowest byte of each lane.
inline void store_bytes8(std::uint8_t* p, Vec8 a, int count) {
  const __m256i low = _mm256_and_si256(a.v, _mm256_set1_epi32(0xff));
  const __m128i words = _mm_packus_epi32(_mm256_castsi256_si128(low), _mm256_extracti128_si256(low, 1));
  auto bytes = static_cast<std::uint64_t>(_mm_cvtsi128_si64(_mm_packus_epi16(words, words)));
  if (count == 8) {
    __builtin_memcpy(p, &bytes, 8);
    return;
  }
  for (int i = 0; i < count; ++i) {
    p[i] = static_cast<std::uint8_t>(bytes);
    bytes >>= 8;
  }
}

inline Vec4 fill4(std::int32_t value) { return {_mm_set1_epi32(value)}; }
inline Vec4 add4(Vec4 a, Vec4 b) { return {_mm_add_epi32(a.v, b.v)}; }
inline void store4(std::int32_t* p, Vec4 a) { _mm_storeu_si128(reinterpret_cast<__m128i*>(p), a.v); }

// The first `count` < 16 bytes from p, nothing behind them read: words that overlap, moved into place.
inline __m128i load_first16(const std::uint8_t* p, int count) {
  std::uint64_t low = 0, high = 0;
  if (count >= 8) {
    low = read<std::uint64_t>(p);
    if (count > 8) high = read<std::uint64_t>(p + count - 8) >> (8 * (16 - count));
  } else if (count >= 4) {
    low = read<std::uint32_t>(p);
    if (count > 4) low |= std::uint64_t{read<std::uint32_t>(p + count - 4) >> (8 * (8 - count))} << 32;
  } else {
    for (int i = 0; i < count; ++i) low |= std::uint64_t{p[i]} << (8 * i);
  }
  return _mm_set_epi64x(static_cast<long long>(high), static_cast<long long>(low));
}

// Sixteen columns of four rows, interleaved.
template <bool kWhole>
inline void pack_unit(const std::uint8_t* const* rows, int count, std::uint8_t flip, std::uint8_t* out) {
  __m128i in[4];
  const __m128i flips = _mm_set1_epi8(static_cast<char>(flip));
  for (int i = 0; i < 4; ++i) {
    if constexpr (kWhole) {
      in[i] = _mm_loadu_si128(reinterpret_cast<const __m128i*>(rows[i]));
    } else {
      in[i] = load_first16(rows[i], count);
    }
    in[i] = _mm_xor_si128(in[i], flips);
  }
  const __m128i low01 = _mm_unpacklo_epi8(in[0], in[1]), high01 = _mm_unpackhi_epi8(in[0], in[1]);
  const __m128i low23 = _mm_unpacklo_epi8(in[2], in[3]), high23 = _mm_unpackhi_epi8(in[2], in[3]);
  __m128i* const to = reinterpret_cast<__m128i*>(out);
  _mm_storeu_si128(to, _mm_unpacklo_epi16(low01, low23));
  _mm_storeu_si128(to + 1, _mm_unpackhi_epi16(low01, low23));
  _mm_storeu_si128(to + 2, _mm_unpacklo_epi16(high01, high23));
  _mm_storeu_si128(to + 3, _mm_unpackhi_epi16(high01, high23));
}
