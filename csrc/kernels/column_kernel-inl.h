// The one body of the kernels for a product with a single column. Lanes are elements x rows: the weights of
// kLanes / rows elements are one vector as they lie, and the inputs beside them are put together from pieces.
// Included by an instruction set's source file under the rules of slab_kernel-inl.h. Besides the operations
// named there it needs
//
//   Vec pieces<kCopies, kPiece>(const float* x, const std::int32_t* offsets): lane i is the input of element
//   e = i / kCopies; of the kLanes / kCopies elements, kPiece that follow each other lie side by side, the
//   first of them at x[offsets[e]]
//   Vec keep_first(Vec, int count): the other lanes are zero, whatever was in them
//   void fold<kRows>(Vec, float* sums): sums[r] is the sum of lanes r, r + kRows, r + 2 kRows, ...

namespace {

// Sums in flight for each slab; the next slab's are in flight with them.
constexpr int kColumnSums = 4;
constexpr int kAhead = 1024;

// The products of fewer elements than a step takes. The inputs of the missing ones are zero, not those of
// other elements, which may be infinite. Apart, to leave the loop its registers.
template <int kRows, int kPiece>
[[gnu::noinline]] Vec column_rest(const float* weights, const float* x, const std::int32_t* offsets,
                                  int rest) {
  constexpr int kStep = kLanes / kRows;
  std::int32_t padded[kStep];
  Vec in;
  if (rest % kPiece == 0) {
#pragma GCC unroll 16
    for (int e = 0; e < kStep; e += kPiece) padded[e] = offsets[e < rest ? e : 0];
    in = pieces<kRows, kPiece>(x, padded);
  } else {
#pragma GCC unroll 16
    for (int e = 0; e < kStep; ++e) padded[e] = offsets[e < rest ? e : 0];
    in = pieces<kRows, 1>(x, padded);
  }
  return fma(load_first(weights, rest * kRows), keep_first(in, rest * kRows), zero());
}

template <int kRows>
[[gnu::noinline]] void finish_column(const pysim::Epilogue& epilogue, std::int64_t row, Vec sum, float* y,
                                     std::int64_t y_pitch) {
  float sums[kRows];
  fold<kRows>(sum, sums);
  for (int r = 0; r < kRows; ++r) {
    float out = sums[r];
    const std::int64_t at = row + r;
    if (epilogue.bias != nullptr) out += epilogue.bias[at];
    if (epilogue.residual != nullptr) out += epilogue.residual[at * epilogue.residual_pitch];
    if (epilogue.relu && out < 0.0F) out = 0.0F;
    y[at * y_pitch] = out;
  }
}

template <int kRows, int kPiece>
void column_slabs(const pysim::SlabPlace* slabs, std::int64_t count, const float* weights,
                  const std::int32_t* offsets, const float* x, const pysim::Epilogue& epilogue, float* y,
                  std::int64_t y_pitch) {
  constexpr int kStep = kLanes / kRows;
  const bool plain =
      epilogue.bias == nullptr && epilogue.residual == nullptr && !epilogue.relu && y_pitch == 1;
  for (const pysim::SlabPlace* const end = slabs + count; slabs != end; ++slabs) {
    const float* w = weights + slabs->weight_begin;
    const std::int32_t* o = offsets + slabs->element_begin;
    std::int64_t left = slabs->elements;
    Vec sum[kColumnSums];
#pragma GCC unroll 16
    for (int c = 0; c < kColumnSums; ++c) sum[c] = zero();
    for (; left >= kColumnSums * kStep; left -= kColumnSums * kStep) {
#pragma GCC unroll 16
      for (int c = 0; c < kColumnSums; ++c)
        sum[c] = fma(load(w + c * kLanes), pieces<kRows, kPiece>(x, o + c * kStep), sum[c]);
      o += kColumnSums * kStep;
      w += kColumnSums * kLanes;
    }
    for (; left >= kStep; left -= kStep) {
      sum[0] = fma(load(w), pieces<kRows, kPiece>(x, o), sum[0]);
      o += kStep;
      w += kLanes;
    }
    if (left != 0) sum[1] = add(sum[1], column_rest<kRows, kPiece>(w, x, o, static_cast<int>(left)));
    const Vec whole = add(add(sum[0], sum[1]), add(sum[2], sum[3]));
    if (plain) {
      fold<kRows>(whole, y + slabs->first_row);
    } else {
      finish_column<kRows>(epilogue, slabs->first_row, whole, y, y_pitch);
    }
  }
}

// Rows that do not divide the lanes: one row after the other, an element at a time.
void column_odd_slab(const pysim::SlabPlace& slab, const float* weights, const std::int32_t* offsets,
                     const float* x, const pysim::Epilogue& epilogue, float* y, std::int64_t y_pitch) {
  const float* w = weights + slab.weight_begin;
  const std::int32_t* const o = offsets + slab.element_begin;
  float sums[pysim::kSlabRows] = {};
  for (std::int64_t e = 0; e < slab.elements; ++e, w += slab.rows) {
    for (int r = 0; r < slab.rows; ++r) sums[r] += w[r] * x[o[e]];
  }
  for (int r = 0; r < slab.rows; ++r) {
    Vec one = zero();
    float lanes[kLanes] = {sums[r]};
    one = load(lanes);
    finish_column<1>(epilogue, slab.first_row + r, one, y, y_pitch);
  }
}

template <int kRows, int kPiece>
void choose_column(int piece, const pysim::SlabPlace* slabs, std::int64_t count, const float* weights,
                   const std::int32_t* offsets, const float* x, const pysim::Epilogue& epilogue, float* y,
                   std::int64_t y_pitch) {
  if (piece >= kPiece) {
    column_slabs<kRows, kPiece>(slabs, count, weights, offsets, x, epilogue, y, y_pitch);
  } else if constexpr (kPiece > 1) {
    choose_column<kRows, kPiece / 2>(piece, slabs, count, weights, offsets, x, epilogue, y, y_pitch);
  }
}

void compute_column(const pysim::SlabPlace* slabs, std::int64_t count, const float* weights,
                    const std::int32_t* offsets, int most_side_by_side, const float* x,
                    const pysim::Epilogue& epilogue, float* y, std::int64_t y_pitch) {
  for (std::int64_t i = 0; i < count;) {
    const int rows = slabs[i].rows;
    if (kLanes % rows != 0) {
      column_odd_slab(slabs[i++], weights, offsets, x, epilogue, y, y_pitch);
      continue;
    }
    // Slabs of one kind follow each other.
    const int said = slabs[i].side_by_side;
    const int piece = said < most_side_by_side ? said : most_side_by_side;
    const std::int64_t begin = i;
    while (i < count && slabs[i].rows == rows && slabs[i].side_by_side == said) ++i;
    const pysim::SlabPlace* const first = slabs + begin;
    switch (rows) {
      case 1:
        choose_column<1, kLanes>(piece, first, i - begin, weights, offsets, x, epilogue, y, y_pitch);
        break;
      case 2:
        choose_column<2, kLanes / 2>(piece, first, i - begin, weights, offsets, x, epilogue, y, y_pitch);
        break;
      default:
        choose_column<4, kLanes / 4>(piece, first, i - begin, weights, offsets, x, epilogue, y, y_pitch);
    }
  }
}

}  // namespace
