// The one body of the kernels for products of few columns, where a vector of columns would be mostly empty
// and a single sum for each output would wait for itself. Included by an instruction set's source file after
// slab_kernel-inl.h, under the same rules. Besides the operations named there it needs
//
//   Vec spread<kCopies>(const float* p): lane i is p[i / kCopies]; reads kLanes / kCopies floats
//   Vec repeat<kGroup>(const float* p, int count): lane i is p[i % kGroup]; reads `count` floats, at most
//   kGroup, and counts the others as zero

namespace {

// How many elements are in flight at one time: enough sums to hide the latency of a multiply-add.
constexpr int kChains = 8;

constexpr int chains_for(int sums) {
  int chains = 1;
  while (chains * sums < kChains) chains *= 2;
  return chains;
}

inline void finish_row(const pysim::Epilogue& epilogue, int r, int n, const float* sums, float* y,
                       std::int64_t y_pitch) {
  for (int j = 0; j < n; ++j) {
    float out = sums[j];
    if (epilogue.bias != nullptr) out += epilogue.bias[r];
    if (epilogue.residual != nullptr) out += epilogue.residual[r * epilogue.residual_pitch + j];
    if (epilogue.relu && out < 0.0F) out = 0.0F;
    y[r * y_pitch + j] = out;
  }
}

// Few columns: lanes are rows x columns, kVectors groups of kLanes / kRows columns.
template <int kRows, int kVectors>
void compute_columns(const pysim::Slab& slab, const float* x, std::int64_t pitch, int n,
                     const pysim::Epilogue& epilogue, float* y, std::int64_t y_pitch) {
  constexpr int kGroup = kLanes / kRows;
  constexpr int kInFlight = chains_for(kVectors);
  int counts[kVectors];
#pragma GCC unroll 16
  for (int v = 0; v < kVectors; ++v) counts[v] = n - v * kGroup < kGroup ? n - v * kGroup : kGroup;
  Vec sum[kInFlight][kVectors];
#pragma GCC unroll 16
  for (int c = 0; c < kInFlight; ++c) {
#pragma GCC unroll 16
    for (int v = 0; v < kVectors; ++v) sum[c][v] = zero();
  }
  const float* weights = slab.weights;
  std::int64_t e = 0;
  for (; e + kInFlight <= slab.elements; e += kInFlight) {
#pragma GCC unroll 16
    for (int c = 0; c < kInFlight; ++c) {
      const Vec weight = spread<kGroup>(weights + c * kRows);
      const float* const row = x + slab.offsets[e + c] * pitch;
#pragma GCC unroll 16
      for (int v = 0; v < kVectors; ++v)
        sum[c][v] = fma(weight, repeat<kGroup>(row + v * kGroup, counts[v]), sum[c][v]);
    }
    weights += kInFlight * kRows;
  }
  for (; e < slab.elements; ++e) {
    const Vec weight = spread<kGroup>(weights);
    const float* const row = x + slab.offsets[e] * pitch;
#pragma GCC unroll 16
    for (int v = 0; v < kVectors; ++v)
      sum[0][v] = fma(weight, repeat<kGroup>(row + v * kGroup, counts[v]), sum[0][v]);
    weights += kRows;
  }
  float lanes[kVectors][kLanes];
#pragma GCC unroll 16
  for (int v = 0; v < kVectors; ++v) {
#pragma GCC unroll 16
    for (int half = kInFlight / 2; half >= 1; half /= 2) {
#pragma GCC unroll 16
      for (int c = 0; c < half; ++c) sum[c][v] = add(sum[c][v], sum[c + half][v]);
    }
    store(lanes[v], sum[0][v]);
  }
  for (int r = 0; r < kRows; ++r) {
    for (int v = 0; v < kVectors; ++v) {
      pysim::Epilogue shifted = epilogue;
      if (epilogue.residual != nullptr) shifted.residual = epilogue.residual + v * kGroup;
      finish_row(shifted, r, counts[v], lanes[v] + r * kGroup, y + v * kGroup, y_pitch);
    }
  }
}

// As many columns as lanes, or rows that do not divide the lanes: one vector of columns for each row.
template <int kRows>
void compute_vector(const pysim::Slab& slab, const float* x, std::int64_t pitch, int n,
                    const pysim::Epilogue& epilogue, float* y, std::int64_t y_pitch) {
  constexpr int kInFlight = chains_for(kRows);
  Vec sum[kInFlight][kRows];
#pragma GCC unroll 16
  for (int c = 0; c < kInFlight; ++c) {
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) sum[c][r] = zero();
  }
  const float* weights = slab.weights;
  std::int64_t e = 0;
  for (; e + kInFlight <= slab.elements; e += kInFlight) {
#pragma GCC unroll 16
    for (int c = 0; c < kInFlight; ++c) {
      const Vec in = load_first(x + slab.offsets[e + c] * pitch, n);
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) sum[c][r] = fma(broadcast(weights + c * kRows + r), in, sum[c][r]);
    }
    weights += kInFlight * kRows;
  }
  for (; e < slab.elements; ++e) {
    const Vec in = load_first(x + slab.offsets[e] * pitch, n);
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) sum[0][r] = fma(broadcast(weights + r), in, sum[0][r]);
    weights += kRows;
  }
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 16
    for (int half = kInFlight / 2; half >= 1; half /= 2) {
#pragma GCC unroll 16
      for (int c = 0; c < half; ++c) sum[c][r] = add(sum[c][r], sum[c + half][r]);
    }
    float lanes[kLanes];
    store(lanes, sum[0][r]);
    finish_row(epilogue, r, n, lanes, y, y_pitch);
  }
}

template <int kRows>
void compute_narrow_rows(const pysim::Slab& slab, const float* x, std::int64_t pitch, int n,
                         const pysim::Epilogue& epilogue, float* y, std::int64_t y_pitch) {
  if constexpr (kLanes % kRows == 0) {
    constexpr int kGroup = kLanes / kRows;
    // Worth it while it takes fewer multiply-adds than a vector of columns for each row.
    if constexpr (kRows > 1) {
      if (n <= kGroup) return compute_columns<kRows, 1>(slab, x, pitch, n, epilogue, y, y_pitch);
    }
    if constexpr (kRows > 2) {
      if (n <= 2 * kGroup) return compute_columns<kRows, 2>(slab, x, pitch, n, epilogue, y, y_pitch);
    }
  }
  compute_vector<kRows>(slab, x, pitch, n, epilogue, y, y_pitch);
}

void compute_narrow(const pysim::Slab& slab, const float* x, std::int64_t pitch, int n,
                    const pysim::Epilogue& epilogue, float* y, std::int64_t y_pitch) {
  switch (slab.rows) {
    case 1:
      return compute_narrow_rows<1>(slab, x, pitch, n, epilogue, y, y_pitch);
    case 2:
      return compute_narrow_rows<2>(slab, x, pitch, n, epilogue, y, y_pitch);
    case 3:
      return compute_narrow_rows<3>(slab, x, pitch, n, epilogue, y, y_pitch);
    default:
      return compute_narrow_rows<4>(slab, x, pitch, n, epilogue, y, y_pitch);
  }
}

}  // namespace
