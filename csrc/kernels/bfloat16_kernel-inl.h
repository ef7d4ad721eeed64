// Few columns with weights of bfloat16, for any vector width. A source file defines Vec, zero, add, fma,
// store and
//
//   Vec load_wide(const std::uint16_t*): kLanes weights; Vec spread_wide(const std::uint16_t*): lane i is the
//   weight of row i / (kLanes / 4) of 4; Vec spread(const float*): lane i is p[i / 4]; Vec repeat(const
//   float*, int count): lane i is p[i % (kLanes / 4)], only `count` floats are read; constexpr int kLanes
//
// in an anonymous namespace and then includes this file once. Nothing here may be visible outside of that
// file.

namespace {

constexpr int kRows = 4;
constexpr int kGroup = kLanes / kRows;

inline void finish_value(const pysim::Epilogue& epilogue, int row, int column, float sum, float* y,
                         std::int64_t y_pitch) {
  if (epilogue.bias != nullptr) sum += epilogue.bias[row];
  if (epilogue.residual != nullptr) sum += epilogue.residual[row * epilogue.residual_pitch + column];
  if (epilogue.relu && sum < 0.0F) sum = 0.0F;
  y[row * y_pitch + column] = sum;
}

// One column: lanes are elements x rows. Elements lie side by side in groups of kGroup.
void compute_column(const pysim::Slab& slab, const std::uint16_t* weights, const float* x,
                    const pysim::Epilogue& epilogue, float* y, std::int64_t y_pitch) {
  constexpr int kChains = 8;
  Vec sum[kChains];
#pragma GCC unroll 16
  for (int c = 0; c < kChains; ++c) sum[c] = zero();
  std::int64_t e = 0;
  for (; e + kChains * kGroup <= slab.elements; e += kChains * kGroup) {
#pragma GCC unroll 16
    for (int c = 0; c < kChains; ++c)
      sum[c] = fma(load_wide(weights + c * kLanes), spread(x + slab.offsets[e + c * kGroup]), sum[c]);
    weights += kChains * kLanes;
  }
  for (; e + kGroup <= slab.elements; e += kGroup) {
    sum[0] = fma(load_wide(weights), spread(x + slab.offsets[e]), sum[0]);
    weights += kLanes;
  }
#pragma GCC unroll 16
  for (int half = kChains / 2; half >= 1; half /= 2) {
#pragma GCC unroll 16
    for (int c = 0; c < half; ++c) sum[c] = add(sum[c], sum[c + half]);
  }
  float lanes[kLanes];
  store(lanes, sum[0]);
  for (; e < slab.elements; ++e) {
    for (int r = 0; r < kRows; ++r)
      lanes[r] += __builtin_bit_cast(float, std::uint32_t{weights[r]} << 16) * x[slab.offsets[e]];
    weights += kRows;
  }
  for (int r = 0; r < kRows; ++r) {
    float total = lanes[r];
    for (int g = 1; g < kGroup; ++g) total += lanes[g * kRows + r];
    finish_value(epilogue, r, 0, total, y, y_pitch);
  }
}

// Few columns: lanes are rows x columns.
template <int kVectors>
void compute_columns(const pysim::Slab& slab, const std::uint16_t* weights, const float* x,
                     std::int64_t pitch, int n, const pysim::Epilogue& epilogue, float* y,
                     std::int64_t y_pitch) {
  constexpr int kChains = 4;
  int counts[kVectors];
  for (int v = 0; v < kVectors; ++v) counts[v] = n - v * kGroup < kGroup ? n - v * kGroup : kGroup;
  Vec sum[kChains][kVectors];
#pragma GCC unroll 16
  for (int c = 0; c < kChains; ++c) {
#pragma GCC unroll 16
    for (int v = 0; v < kVectors; ++v) sum[c][v] = zero();
  }
  std::int64_t e = 0;
  for (; e + kChains <= slab.elements; e += kChains) {
#pragma GCC unroll 16
    for (int c = 0; c < kChains; ++c) {
      const Vec weight = spread_wide(weights + c * kRows);
      const float* const row = x + slab.offsets[e + c] * pitch;
#pragma GCC unroll 16
      for (int v = 0; v < kVectors; ++v)
        sum[c][v] = fma(weight, repeat(row + v * kGroup, counts[v]), sum[c][v]);
    }
    weights += kChains * kRows;
  }
  for (; e < slab.elements; ++e) {
    const Vec weight = spread_wide(weights);
    const float* const row = x + slab.offsets[e] * pitch;
#pragma GCC unroll 16
    for (int v = 0; v < kVectors; ++v)
      sum[0][v] = fma(weight, repeat(row + v * kGroup, counts[v]), sum[0][v]);
    weights += kRows;
  }
  float lanes[kVectors][kLanes];
#pragma GCC unroll 16
  for (int v = 0; v < kVectors; ++v)
    store(lanes[v], add(add(sum[0][v], sum[1][v]), add(sum[2][v], sum[3][v])));
  for (int r = 0; r < kRows; ++r) {
    for (int j = 0; j < n; ++j)
      finish_value(epilogue, r, j, lanes[j / kGroup][r * kGroup + j % kGroup], y, y_pitch);
  }
}

bool compute_narrow(const pysim::Slab& slab, const std::uint16_t* weights, int side_by_side, const float* x,
                    std::int64_t pitch, int n, const pysim::Epilogue& epilogue, float* y,
                    std::int64_t y_pitch) {
  if (slab.rows != kRows || n > 2 * kGroup) return false;
  if (n == 1 && pitch == 1 && side_by_side >= kGroup) {
    compute_column(slab, weights, x, epilogue, y, y_pitch);
  } else if (n <= kGroup) {
    compute_columns<1>(slab, weights, x, pitch, n, epilogue, y, y_pitch);
  } else {
    compute_columns<2>(slab, weights, x, pitch, n, epilogue, y, y_pitch);
  }
  return true;
}

void widen(const std::uint16_t* from, std::int64_t count, float* to) {
  std::int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) store(to + i, load_wide(from + i));
  for (; i < count; ++i) to[i] = __builtin_bit_cast(float, std::uint32_t{from[i]} << 16);
}

}  // namespace
