// The one body of the kernels for a product with a single column. Lanes are elements x rows: the weights of
// kLanes / rows elements are one vector as they lie, and the inputs beside them are put together from pieces.
// Included by an instruction set's source file under the rules of slab_kernel-inl.h. Besides the operations
// named there it needs
//
//   Vec pieces<kCopies, kPiece>(const float* x, const std::int32_t* offsets): lane i is the input of element
//   e = i / kCopies; of the kLanes / kCopies elements, kPiece that follow each other lie side by side, the
//   first of them at x[offsets[e]]
//   void spread_two<kCopies>(const float* p, Vec* two): spread<kCopies> of p and of the floats behind those
//   that it reads
//   Vec keep_first(Vec, int count): the other lanes are zero, whatever was in them
//   void fold<kRows>(Vec, float* sums): sums[r] is the sum of lanes r, r + kRows, r + 2 kRows, ...

namespace {

// Adds the products of the first `count` elements, from none to a whole vector's. The inputs of the others
// are zero, not what their offsets say, which may be infinite.
template <int kRows>
inline Vec add_some(const float* weights, const float* x, const std::int32_t* offsets, std::int64_t count,
                    Vec sum) {
  constexpr std::int64_t kStep = kLanes / kRows;
  const int lanes = static_cast<int>(count <= 0 ? 0 : count < kStep ? count : kStep) * kRows;
  return fma(load_first(weights, lanes), keep_first(pieces<kRows, 1>(x, offsets), lanes), sum);
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
  constexpr int kWide = kPiece > kStep ? 2 : 1;  // Vectors that one offset stands for.
  // Sums in flight for each slab; the next slab's are in flight with them. Two where putting a vector of
  // inputs together takes longer than adding it.
  constexpr int kSums = kRows == 1 && kPiece == 1 ? 2 : 4;
  const bool plain =
      epilogue.bias == nullptr && epilogue.residual == nullptr && !epilogue.relu && y_pitch == 1;
  for (const pysim::SlabPlace* const end = slabs + count; slabs != end; ++slabs) {
    const float* w = weights + slabs->weight_begin;
    const std::int32_t* o = offsets + slabs->element_begin;
    std::int64_t left = slabs->elements;
    Vec sum[kSums];
#pragma GCC unroll 16
    for (int c = 0; c < kSums; ++c) sum[c] = zero();
    const auto add_piece = [&](int c) {
      if constexpr (kWide == 1) {
        sum[c] = fma(load(w + c * kLanes), pieces<kRows, kPiece>(x, o + c * kStep), sum[c]);
      } else {
        Vec in[2];
        spread_two<kRows>(x + o[c * kStep], in);
        sum[c] = fma(load(w + c * kLanes), in[0], sum[c]);
        sum[c + 1] = fma(load(w + (c + 1) * kLanes), in[1], sum[c + 1]);
      }
    };
    for (; left >= kSums * kStep; left -= kSums * kStep) {
#pragma GCC unroll 16
      for (int c = 0; c < kSums; c += kWide) add_piece(c);
      o += kSums * kStep;
      w += kSums * kLanes;
    }
    for (; left >= kWide * kStep; left -= kWide * kStep) {
      add_piece(0);
      o += kWide * kStep;
      w += kWide * kLanes;
    }
    if (left != 0) {
#pragma GCC unroll 16
      for (int c = 0; c < kWide; ++c)
        sum[c] = add_some<kRows>(w + c * kLanes, x, o + c * kStep, left - c * kStep, sum[c]);
    }
    Vec whole = add(sum[0], sum[1]);
    if constexpr (kSums == 4) whole = add(whole, add(sum[2], sum[3]));
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
        choose_column<4, kLanes / 2>(piece, first, i - begin, weights, offsets, x, epilogue, y, y_pitch);
    }
  }
}

}  // namespace
