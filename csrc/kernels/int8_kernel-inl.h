// The one body of every vector kernel for 8-bit products. An instruction set's source file defines, in an
// anonymous namespace,
//
//   Vec (kLanes sums of 32 bits), In (kLanes quads of X), Weight (one quad of W for every lane), Reals;
//   Vec fill(std::int32_t), add(Vec, Vec), dot(Vec sum, In, Weight), load_sums(const std::int32_t*);
//   In load(const std::uint8_t*), repeat(const std::uint8_t*): lane i is quad i % (kLanes / 4);
//   Weight weight<kRows>(const std::int8_t*, int row), spread(const std::int8_t*): lane i is that of row
//   i / (kLanes / 4) of 4;
//   Reals to_reals(Vec), fill_reals(float), multiply, plus, most, least; Vec round(Reals), relu(Vec);
//   store_ints, store_reals, store_bytes(pointer, Vec or Reals, int count);
//   Vec4, fill4, add4, dot4(Vec4, quad of X, 4 rows' weights), store4;
//   pack_unit(const std::uint8_t* const rows[4], int count, std::uint8_t flip, std::uint8_t* out);
//   constexpr int kLanes, kTileVectors[kSlabRows + 1], kQuadBytes (of one row's quad of weights)
//
// and then includes this file once. Nothing here may be visible outside of that file.

namespace {

// y[0 .. count - 1] of one row of results.
inline void write(const pysim::Int8Finish& finish, int row, Vec sum, void* y, std::int64_t at, int count) {
  using pysim::Int8Output;
  if (finish.output == Int8Output::int32) {
    store_ints(static_cast<std::int32_t*>(y) + at, finish.relu ? relu(sum) : sum, count);
    return;
  }
  Reals v = plus(multiply(to_reals(sum), fill_reals(finish.scale[row])), fill_reals(finish.bias[row]));
  v = most(v, fill_reals(finish.low));
  if (finish.output == Int8Output::float32) {
    store_reals(static_cast<float*>(y) + at, v, count);
    return;
  }
  v = least(v, fill_reals(finish.high));
  store_bytes(static_cast<std::uint8_t*>(y) + at, add(round(v), fill(finish.zero_point)), count);
}

// Sums of one tile that are in flight at least, so that none waits for the one before.
constexpr int kInFlight = 8;
constexpr int chains(int sums) { return sums >= kInFlight ? 1 : sums * 2 >= kInFlight ? 2 : 4; }

template <int kRows, int kVectors>
void compute_tile(const pysim::QuadSlab& slab, const std::uint8_t* packed, std::int64_t quad_pitch, int last,
                  const pysim::Int8Finish& finish, void* y, std::int64_t y_pitch, std::int64_t column) {
  constexpr int kChains = chains(kRows * kVectors);
  Vec sum[kChains][kRows][kVectors];
#pragma GCC unroll 16
  for (int c = 0; c < kChains; ++c) {
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 16
      for (int v = 0; v < kVectors; ++v) sum[c][r][v] = fill(c == 0 ? slab.start[r] : 0);
    }
  }
  const std::int8_t* weights = slab.weights;
  const std::int32_t* quad = slab.quads;
  const std::int32_t* const end = quad + slab.count;
  if constexpr (kChains > 1) {
    for (; end - quad >= kChains; quad += kChains) {
#pragma GCC unroll 16
      for (int c = 0; c < kChains; ++c) {
#pragma GCC unroll 16
        for (int v = 0; v < kVectors; ++v) {
          const In in = load(packed + quad[c] * quad_pitch + v * kLanes * pysim::kQuad);
#pragma GCC unroll 16
          for (int r = 0; r < kRows; ++r) sum[c][r][v] = dot(sum[c][r][v], in, weight<kRows>(weights, r));
        }
        weights += kRows * kQuadBytes;
      }
    }
  }
  for (; quad != end; ++quad) {
    const std::uint8_t* const from = packed + *quad * quad_pitch;
    In in[kVectors];
#pragma GCC unroll 16
    for (int v = 0; v < kVectors; ++v) in[v] = load(from + v * kLanes * pysim::kQuad);
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      const Weight w = weight<kRows>(weights, r);
#pragma GCC unroll 16
      for (int v = 0; v < kVectors; ++v) sum[0][r][v] = dot(sum[0][r][v], in[v], w);
    }
    weights += kRows * kQuadBytes;
  }
#pragma GCC unroll 16
  for (int half = kChains / 2; half >= 1; half /= 2) {
#pragma GCC unroll 16
    for (int c = 0; c < half; ++c) {
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 16
        for (int v = 0; v < kVectors; ++v) sum[c][r][v] = add(sum[c][r][v], sum[c + half][r][v]);
      }
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 16
    for (int v = 0; v < kVectors; ++v)
      write(finish, r, sum[0][r][v], y, r * y_pitch + column + v * kLanes, v + 1 < kVectors ? kLanes : last);
  }
}

template <int kRows, int kVectors>
void choose_tile(int vectors, const pysim::QuadSlab& slab, const std::uint8_t* packed,
                 std::int64_t quad_pitch, int last, const pysim::Int8Finish& finish, void* y,
                 std::int64_t y_pitch, std::int64_t column) {
  if (vectors == kVectors) {
    compute_tile<kRows, kVectors>(slab, packed, quad_pitch, last, finish, y, y_pitch, column);
  } else if constexpr (kVectors > 1) {
    choose_tile<kRows, kVectors - 1>(vectors, slab, packed, quad_pitch, last, finish, y, y_pitch, column);
  }
}

// Tiles of nearly equal width: a narrow last one would wait for its few sums.
template <int kRows>
void compute_rows(const pysim::QuadSlab& slab, const std::uint8_t* packed, std::int64_t quad_pitch,
                  std::int64_t columns, const pysim::Int8Finish& finish, void* y, std::int64_t y_pitch) {
  constexpr int kVectors = kTileVectors[kRows];
  const std::int64_t vectors = (columns + kLanes - 1) / kLanes;
  const std::int64_t tiles = (vectors + kVectors - 1) / kVectors;
  const int last = static_cast<int>(columns - (vectors - 1) * kLanes);
  const std::int64_t width = vectors / tiles;
  std::int64_t wider = vectors % tiles;
  std::int64_t column = 0;
  for (std::int64_t t = 0; t < tiles; ++t) {
    const int here = static_cast<int>(wider > 0 ? width + 1 : width);
    --wider;
    choose_tile<kRows, kVectors>(here, slab, packed + column * pysim::kQuad, quad_pitch,
                                 t + 1 == tiles ? last : kLanes, finish, y, y_pitch, column);
    column += here * kLanes;
  }
}

// Few columns: lanes are 4 rows x columns.
template <int kVectors>
void compute_columns(const pysim::QuadSlab& slab, const std::uint8_t* packed, std::int64_t quad_pitch,
                     int columns, const pysim::Int8Finish& finish, void* y, std::int64_t y_pitch) {
  constexpr int kGroup = kLanes / 4;
  constexpr int kChains = 4;
  Vec sum[kChains][kVectors];
#pragma GCC unroll 16
  for (int c = 0; c < kChains; ++c) {
#pragma GCC unroll 16
    for (int v = 0; v < kVectors; ++v) sum[c][v] = fill(0);
  }
  const std::int8_t* weights = slab.weights;
  const std::int32_t* quad = slab.quads;
  const std::int32_t* const end = quad + slab.count;
  for (; end - quad >= kChains; quad += kChains) {
#pragma GCC unroll 16
    for (int c = 0; c < kChains; ++c) {
      const Weight w = spread(weights + c * 4 * kQuadBytes);
#pragma GCC unroll 16
      for (int v = 0; v < kVectors; ++v)
        sum[c][v] = dot(sum[c][v], repeat(packed + quad[c] * quad_pitch + v * kGroup * pysim::kQuad), w);
    }
    weights += kChains * 4 * kQuadBytes;
  }
  for (; quad != end; ++quad) {
    const Weight w = spread(weights);
#pragma GCC unroll 16
    for (int v = 0; v < kVectors; ++v)
      sum[0][v] = dot(sum[0][v], repeat(packed + *quad * quad_pitch + v * kGroup * pysim::kQuad), w);
    weights += 4 * kQuadBytes;
  }
  std::int32_t lanes[4 * kVectors * kGroup + kLanes];
  alignas(64) std::int32_t mixed[kLanes];
#pragma GCC unroll 16
  for (int v = 0; v < kVectors; ++v) {
    store_ints(mixed, add(add(sum[0][v], sum[1][v]), add(sum[2][v], sum[3][v])), kLanes);
    for (int r = 0; r < 4; ++r) {
      for (int j = 0; j < kGroup; ++j) lanes[(r * kVectors + v) * kGroup + j] = mixed[r * kGroup + j];
    }
  }
  for (int r = 0; r < 4; ++r) {
    const Vec row = add(load_sums(lanes + r * kVectors * kGroup), fill(slab.start[r]));
    write(finish, r, row, y, r * y_pitch, columns);
  }
}

void compute_slab(const pysim::QuadSlab& slab, const std::uint8_t* packed, std::int64_t quad_pitch,
                  std::int64_t columns, const pysim::Int8Finish& finish, void* y, std::int64_t y_pitch) {
  static_assert(pysim::kSlabRows == 4);
  constexpr int kGroup = kLanes / 4;
  switch (slab.rows) {
    case 1:
      return compute_rows<1>(slab, packed, quad_pitch, columns, finish, y, y_pitch);
    case 2:
      return compute_rows<2>(slab, packed, quad_pitch, columns, finish, y, y_pitch);
    case 3:
      return compute_rows<3>(slab, packed, quad_pitch, columns, finish, y, y_pitch);
    default:
      if (columns <= kGroup)
        return compute_columns<1>(slab, packed, quad_pitch, static_cast<int>(columns), finish, y, y_pitch);
      if (columns <= 2 * kGroup)
        return compute_columns<2>(slab, packed, quad_pitch, static_cast<int>(columns), finish, y, y_pitch);
      return compute_rows<4>(slab, packed, quad_pitch, columns, finish, y, y_pitch);
  }
}

// One column: lanes are the 4 rows.
void compute_column(const pysim::QuadSlab& slab, const std::uint8_t* packed, std::int64_t quad_pitch,
                    std::int64_t columns, const pysim::Int8Finish& finish, void* y, std::int64_t y_pitch) {
  if (slab.rows != 4) return compute_slab(slab, packed, quad_pitch, columns, finish, y, y_pitch);
  constexpr int kChains = 8;
  Vec4 sum[kChains];
#pragma GCC unroll 16
  for (int c = 0; c < kChains; ++c) sum[c] = fill4(0);
  const std::int8_t* weights = slab.weights;
  const std::int32_t* quad = slab.quads;
  const std::int32_t* const end = quad + slab.count;
  for (; end - quad >= kChains; quad += kChains) {
#pragma GCC unroll 16
    for (int c = 0; c < kChains; ++c)
      sum[c] = dot4(sum[c], packed + quad[c] * pysim::kQuad, weights + c * 4 * kQuadBytes);
    weights += kChains * 4 * kQuadBytes;
  }
  for (; quad != end; ++quad) {
    sum[0] = dot4(sum[0], packed + *quad * pysim::kQuad, weights);
    weights += 4 * kQuadBytes;
  }
#pragma GCC unroll 16
  for (int half = kChains / 2; half >= 1; half /= 2) {
#pragma GCC unroll 16
    for (int c = 0; c < half; ++c) sum[c] = add4(sum[c], sum[c + half]);
  }
  std::int32_t rows[4];
  store4(rows, sum[0]);
  for (int r = 0; r < 4; ++r) write(finish, r, add(fill(rows[r]), fill(slab.start[r])), y, r * y_pitch, 1);
}

void pack(const std::uint8_t* x, std::int64_t pitch, const std::int32_t* rows, std::int64_t quads,
          std::int64_t columns, std::uint8_t flip, std::uint8_t* out, std::int64_t quad_pitch) {
  for (std::int64_t q = 0; q < quads; ++q) {
    const std::uint8_t* from[pysim::kQuad];
    for (int i = 0; i < pysim::kQuad; ++i) from[i] = x + rows[pysim::kQuad * q + i] * pitch;
    std::uint8_t* to = out + q * quad_pitch;
    std::int64_t left = columns;
    for (; left >= pysim::kPackColumns; left -= pysim::kPackColumns) {
      pack_unit<true>(from, pysim::kPackColumns, flip, to);
      for (int i = 0; i < pysim::kQuad; ++i) from[i] += pysim::kPackColumns;
      to += pysim::kPackBytes;
    }
    if (left > 0) pack_unit<false>(from, static_cast<int>(left), flip, to);
  }
}

}  // namespace
