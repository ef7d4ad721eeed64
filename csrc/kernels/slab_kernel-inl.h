// The one body of every vector kernel. An instruction set's source file defines, in an anonymous namespace,
// Vec and
//
//   Vec zero(), load(const float*), load_first(const float*, int count), broadcast(const float*), add(Vec,
//   Vec), relu(Vec), fma(Vec a, Vec b, Vec c) = a * b + c, void store(float*, Vec), void store_first(float*,
//   Vec, int count), constexpr int kLanes, constexpr int kTileVectors[kSlabRows + 1] (vectors of columns by
//   rows of the slab)
//
// and then includes this file once. Nothing here may be visible outside that file: code compiled for a newer
// CPU must never be picked by the linker for an older one. So there are no standard library templates here
// either.

namespace {

// Where each vector of a tile lies.
struct TileColumns {
  std::int64_t x[kMaxTileVectors];
  std::int64_t y[kMaxTileVectors];
  int count[kMaxTileVectors];
};

template <int kRows, int kVectors, bool kMasked>
void compute_tile(const pysim::Slab& slab, const float* x, std::int64_t pitch, const TileColumns& columns,
                  const pysim::Epilogue& epilogue, float* y, std::int64_t y_pitch) {
  Vec sum[kRows][kVectors];
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 16
    for (int v = 0; v < kVectors; ++v) sum[r][v] = zero();
  }
  const float* base[kVectors];
#pragma GCC unroll 16
  for (int v = 0; v < kVectors; ++v) base[v] = x + columns.x[v];
  const float* weights = slab.weights;
  for (std::int64_t e = 0; e < slab.elements; ++e) {
    const std::int64_t offset = slab.offsets[e] * pitch;
    Vec in[kVectors];
#pragma GCC unroll 16
    for (int v = 0; v < kVectors; ++v) {
      if constexpr (kMasked) {
        in[v] = load_first(base[v] + offset, columns.count[v]);
      } else {
        in[v] = load(base[v] + offset);
      }
    }
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      const Vec weight = broadcast(weights + r);
#pragma GCC unroll 16
      for (int v = 0; v < kVectors; ++v) sum[r][v] = fma(weight, in[v], sum[r][v]);
    }
    weights += kRows;
  }
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 16
    for (int v = 0; v < kVectors; ++v) {
      Vec out = sum[r][v];
      const int count = columns.count[v];
      if (epilogue.bias != nullptr) out = add(out, broadcast(epilogue.bias + r));
      if (epilogue.residual != nullptr) {
        const float* const from = epilogue.residual + r * epilogue.residual_pitch + columns.y[v];
        out = add(out, count == kLanes ? load(from) : load_first(from, count));
      }
      if (epilogue.relu) out = relu(out);
      float* const target = y + r * y_pitch + columns.y[v];
      if (count == kLanes) {
        store(target, out);
      } else {
        store_first(target, out, count);
      }
    }
  }
}

// The same for vectors that follow each other: less to look up for each. `last` columns of the last vector.
template <int kRows, int kVectors>
void compute_strip(const pysim::Slab& slab, const float* x, std::int64_t pitch, int last,
                   const pysim::Epilogue& epilogue, const float* residual, float* y, std::int64_t y_pitch) {
  Vec sum[kRows][kVectors];
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 16
    for (int v = 0; v < kVectors; ++v) sum[r][v] = zero();
  }
  const float* weights = slab.weights;
  const std::int32_t* offset = slab.offsets;
  for (const std::int32_t* const end = offset + slab.elements; offset != end; ++offset) {
    const float* const from = x + *offset * pitch;
    Vec in[kVectors];
#pragma GCC unroll 16
    for (int v = 0; v < kVectors; ++v) in[v] = load(from + v * kLanes);
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      const Vec weight = broadcast(weights + r);
#pragma GCC unroll 16
      for (int v = 0; v < kVectors; ++v) sum[r][v] = fma(weight, in[v], sum[r][v]);
    }
    weights += kRows;
  }
  if (epilogue.bias != nullptr) {
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      const Vec bias = broadcast(epilogue.bias + r);
#pragma GCC unroll 16
      for (int v = 0; v < kVectors; ++v) sum[r][v] = add(sum[r][v], bias);
    }
  }
  if (residual != nullptr) {
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 16
      for (int v = 0; v < kVectors - 1; ++v) sum[r][v] = add(sum[r][v], load(residual + v * kLanes));
      const float* const end = residual + (kVectors - 1) * kLanes;
      sum[r][kVectors - 1] = add(sum[r][kVectors - 1], last == kLanes ? load(end) : load_first(end, last));
      residual += epilogue.residual_pitch;
    }
  }
  if (epilogue.relu) {
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 16
      for (int v = 0; v < kVectors; ++v) sum[r][v] = relu(sum[r][v]);
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 16
    for (int v = 0; v < kVectors - 1; ++v) store(y + v * kLanes, sum[r][v]);
    float* const end = y + (kVectors - 1) * kLanes;
    if (last == kLanes) {
      store(end, sum[r][kVectors - 1]);
    } else {
      store_first(end, sum[r][kVectors - 1], last);
    }
    y += y_pitch;
  }
}

template <int kRows, int kVectors>
void choose_strip(int vectors, const pysim::Slab& slab, const float* x, std::int64_t pitch, int last,
                  const pysim::Epilogue& epilogue, const float* residual, float* y, std::int64_t y_pitch) {
  if (vectors == kVectors) {
    compute_strip<kRows, kVectors>(slab, x, pitch, last, epilogue, residual, y, y_pitch);
  } else if constexpr (kVectors > 1) {
    choose_strip<kRows, kVectors - 1>(vectors, slab, x, pitch, last, epilogue, residual, y, y_pitch);
  }
}

// One run, as strips of nearly equal width: a narrow last one would wait for its few sums.
template <int kRows>
void compute_run(const pysim::Slab& slab, const float* x, std::int64_t pitch, const pysim::ColumnRun& run,
                 const pysim::Epilogue& epilogue, float* y, std::int64_t y_pitch) {
  constexpr int kVectors = kTileVectors[kRows];
  const std::int64_t vectors = (run.count + kLanes - 1) / kLanes;
  const std::int64_t strips = (vectors + kVectors - 1) / kVectors;
  const int last = static_cast<int>(run.count - (vectors - 1) * kLanes);
  const std::int64_t width = vectors / strips;
  std::int64_t wider = vectors % strips;
  x += run.x;
  y += run.y;
  const float* residual = epilogue.residual == nullptr ? nullptr : epilogue.residual + run.y;
  for (std::int64_t s = 0; s < strips; ++s) {
    const int here = static_cast<int>(wider > 0 ? width + 1 : width);
    --wider;
    choose_strip<kRows, kVectors>(here, slab, x, pitch, s + 1 == strips ? last : kLanes, epilogue, residual,
                                  y, y_pitch);
    x += here * kLanes;
    y += here * kLanes;
    if (residual != nullptr) residual += here * kLanes;
  }
}

// A last tile with fewer vectors than the others.
template <int kRows, int kVectors>
void compute_rest(const pysim::Slab& slab, const float* x, std::int64_t pitch, const TileColumns& columns,
                  int vectors, const pysim::Epilogue& epilogue, float* y, std::int64_t y_pitch) {
  if (vectors == kVectors) {
    compute_tile<kRows, kVectors, false>(slab, x, pitch, columns, epilogue, y, y_pitch);
  } else if constexpr (kVectors > 1) {
    compute_rest<kRows, kVectors - 1>(slab, x, pitch, columns, vectors, epilogue, y, y_pitch);
  }
}

template <int kRows>
void compute_rows(const pysim::Slab& slab, const float* x, std::int64_t pitch, const pysim::ColumnRun* runs,
                  std::int64_t run_count, std::int64_t readable, const pysim::Epilogue& epilogue, float* y,
                  std::int64_t y_pitch) {
  if (run_count == 1 && (readable >= kLanes || runs[0].count % kLanes == 0))
    return compute_run<kRows>(slab, x, pitch, runs[0], epilogue, y, y_pitch);
  constexpr int kVectors = kTileVectors[kRows];
  TileColumns tile;
  int filled = 0;
  for (std::int64_t i = 0; i < run_count; ++i) {
    const pysim::ColumnRun& run = runs[i];
    for (std::int64_t done = 0; done < run.count; done += kLanes) {
      const std::int64_t left = run.count - done;
      const int count = left < kLanes ? static_cast<int>(left) : kLanes;
      if (left + readable < kLanes) {
        const TileColumns last = {{run.x + done}, {run.y + done}, {count}};
        compute_tile<kRows, 1, true>(slab, x, pitch, last, epilogue, y, y_pitch);
        continue;
      }
      tile.x[filled] = run.x + done;
      tile.y[filled] = run.y + done;
      tile.count[filled] = count;
      if (++filled == kVectors) {
        compute_tile<kRows, kVectors, false>(slab, x, pitch, tile, epilogue, y, y_pitch);
        filled = 0;
      }
    }
  }
  if (filled > 0) {
    compute_rest<kRows, kVectors - 1>(slab, x, pitch, tile, filled, epilogue, y, y_pitch);
  }
}

void compute_slab(const pysim::Slab& slab, const float* x, std::int64_t pitch, const pysim::ColumnRun* runs,
                  std::int64_t run_count, std::int64_t readable, const pysim::Epilogue& epilogue, float* y,
                  std::int64_t y_pitch) {
  static_assert(pysim::kSlabRows == 4);
  switch (slab.rows) {
    case 1:
      return compute_rows<1>(slab, x, pitch, runs, run_count, readable, epilogue, y, y_pitch);
    case 2:
      return compute_rows<2>(slab, x, pitch, runs, run_count, readable, epilogue, y, y_pitch);
    case 3:
      return compute_rows<3>(slab, x, pitch, runs, run_count, readable, epilogue, y, y_pitch);
    default:
      return compute_rows<4>(slab, x, pitch, runs, run_count, readable, epilogue, y, y_pitch);
  }
}

// Sums of products along the columns, kRows x kElements at a time; the lanes are added up at the end.
template <int kRows, int kElements>
void accumulate_tile(const std::int32_t* offsets, const float* x, std::int64_t pitch,
                     const pysim::ColumnRun* runs, std::int64_t run_count, const float* dy,
                     std::int64_t dy_pitch, float* sums) {
  Vec sum[kRows][kElements];
  const float* base[kElements];
#pragma GCC unroll 16
  for (int e = 0; e < kElements; ++e) {
    base[e] = x + offsets[e] * pitch;
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) sum[r][e] = zero();
  }
  for (std::int64_t i = 0; i < run_count; ++i) {
    const pysim::ColumnRun& run = runs[i];
    std::int64_t done = 0;
    for (; done + kLanes <= run.count; done += kLanes) {
      Vec in[kElements];
#pragma GCC unroll 16
      for (int e = 0; e < kElements; ++e) in[e] = load(base[e] + run.x + done);
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) {
        const Vec out = load(dy + r * dy_pitch + run.y + done);
#pragma GCC unroll 16
        for (int e = 0; e < kElements; ++e) sum[r][e] = fma(out, in[e], sum[r][e]);
      }
    }
    if (done < run.count) {
      const int count = static_cast<int>(run.count - done);
      Vec in[kElements];
#pragma GCC unroll 16
      for (int e = 0; e < kElements; ++e) in[e] = load_first(base[e] + run.x + done, count);
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) {
        const Vec out = load_first(dy + r * dy_pitch + run.y + done, count);
#pragma GCC unroll 16
        for (int e = 0; e < kElements; ++e) sum[r][e] = fma(out, in[e], sum[r][e]);
      }
    }
  }
#pragma GCC unroll 16
  for (int e = 0; e < kElements; ++e) {
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      float total = 0.0F;
      fold<1>(sum[r][e], &total);
      sums[e * kRows + r] += total;
    }
  }
}

template <int kRows, int kElements>
void accumulate_rest(int elements, const std::int32_t* offsets, const float* x, std::int64_t pitch,
                     const pysim::ColumnRun* runs, std::int64_t run_count, const float* dy,
                     std::int64_t dy_pitch, float* sums) {
  if (elements == kElements) {
    accumulate_tile<kRows, kElements>(offsets, x, pitch, runs, run_count, dy, dy_pitch, sums);
  } else if constexpr (kElements > 1) {
    accumulate_rest<kRows, kElements - 1>(elements, offsets, x, pitch, runs, run_count, dy, dy_pitch, sums);
  }
}

template <int kRows>
void accumulate_rows(const pysim::Slab& slab, const float* x, std::int64_t pitch,
                     const pysim::ColumnRun* runs, std::int64_t run_count, const float* dy,
                     std::int64_t dy_pitch, float* sums) {
  constexpr int kElements = kTileVectors[kRows];
  std::int64_t e = 0;
  for (; e + kElements <= slab.elements; e += kElements) {
    accumulate_tile<kRows, kElements>(slab.offsets + e, x, pitch, runs, run_count, dy, dy_pitch,
                                      sums + e * kRows);
  }
  if (e < slab.elements) {
    accumulate_rest<kRows, kElements - 1>(static_cast<int>(slab.elements - e), slab.offsets + e, x, pitch,
                                          runs, run_count, dy, dy_pitch, sums + e * kRows);
  }
}

void compute_gradient(const pysim::Slab& slab, const float* x, std::int64_t pitch,
                      const pysim::ColumnRun* runs, std::int64_t run_count, const float* dy,
                      std::int64_t dy_pitch, float* sums) {
  switch (slab.rows) {
    case 1:
      return accumulate_rows<1>(slab, x, pitch, runs, run_count, dy, dy_pitch, sums);
    case 2:
      return accumulate_rows<2>(slab, x, pitch, runs, run_count, dy, dy_pitch, sums);
    case 3:
      return accumulate_rows<3>(slab, x, pitch, runs, run_count, dy, dy_pitch, sums);
    default:
      return accumulate_rows<4>(slab, x, pitch, runs, run_count, dy, dy_pitch, sums);
  }
}

void copy_rows(const float* from, std::int64_t from_pitch, float* to, std::int64_t to_pitch,
               std::int64_t rows, std::int64_t width) {
  const std::int64_t whole = width / kLanes * kLanes;
  const int rest = static_cast<int>(width - whole);
  for (std::int64_t r = 0; r < rows; ++r) {
    for (std::int64_t c = 0; c < whole; c += kLanes) store(to + c, load(from + c));
    if (rest != 0) {
      if (whole != 0) {
        store(to + width - kLanes, load(from + width - kLanes));  // overlaps what is there already
      } else {
        store_first(to, load_first(from, rest), rest);
      }
    }
    from += from_pitch;
    to += to_pitch;
  }
}

}  // namespace
