// The one body of the cycle engine's data registers, over vectors of kLanes columns. A source file for an
// instruction set defines kLanes (a divisor of 64) in an anonymous namespace and includes this file once.
// Nothing here may be visible outside that file: code compiled for a newer CPU must never be picked by the
// linker for an older one. So there are no standard library templates here either.

namespace {

using U32 = std::uint32_t __attribute__((vector_size(4 * kLanes)));
using I32 = std::int32_t __attribute__((vector_size(4 * kLanes)));
using F32 = float __attribute__((vector_size(4 * kLanes)));

template <class Lane>
struct VectorOf;
template <>
struct VectorOf<float> {
  using Type = F32;
};
template <>
struct VectorOf<std::uint32_t> {
  using Type = U32;
};
template <>
struct VectorOf<std::int32_t> {
  using Type = I32;
};
template <class Lane>
using Vec = typename VectorOf<Lane>::Type;

#define PYSIM_INLINE inline __attribute__((always_inline))

template <class Lane>
PYSIM_INLINE Vec<Lane> load(const Lane* from) {
  Vec<Lane> v;
  __builtin_memcpy(&v, from, sizeof(v));
  return v;
}

template <class Lane>
PYSIM_INLINE void store(Lane* to, Vec<Lane> v) {
  __builtin_memcpy(to, &v, sizeof(v));
}

template <class Lane>
PYSIM_INLINE Vec<Lane> splat(Lane value) {
  return value - Vec<Lane>{};
}

alignas(64) const std::uint32_t kLaneIndex[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
// The lanes of a pair (left, right) that are `right` moved up by one.
alignas(64) const std::uint32_t kMovedUp[3][16] = {
    {3, 4, 5, 6},
    {7, 8, 9, 10, 11, 12, 13, 14},
    {15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30}};

// Every lane takes over its left neighbour's value, the first one that of the last lane of `left`.
template <class V>
PYSIM_INLINE V move_right(V left, V right) {
#if defined(__clang__)
  if constexpr (kLanes == 4) {
    return __builtin_shufflevector(left, right, 3, 4, 5, 6);
  } else if constexpr (kLanes == 8) {
    return __builtin_shufflevector(left, right, 7, 8, 9, 10, 11, 12, 13, 14);
  } else {
    return __builtin_shufflevector(left, right, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29,
                                   30);
  }
#else
  return __builtin_shuffle(left, right, load<std::uint32_t>(kMovedUp[kLanes / 8]));
#endif
}

// All ones in the lanes of columns col.. whose bit is set.
PYSIM_INLINE I32 lanes_of(std::uint64_t word, std::int64_t col) {
  const auto bits = static_cast<std::uint32_t>(word >> (col % 64));
  return ((splat(bits) >> load<std::uint32_t>(kLaneIndex)) & splat<std::uint32_t>(1)) !=
         splat<std::uint32_t>(0);
}

enum class Feeding { one, groups, mux };

// Moves row r's inputs at columns col.. one PE on and returns what the PEs there multiply with.
// select: the multiplexer inputs of these columns; for Feeding::mux alone.
template <Feeding kFeeding, class Lane>
PYSIM_INLINE Vec<Lane> move_inputs(const pysim::MovingInputs<Lane>& in, std::int64_t r, std::int64_t col,
                                   const std::int32_t* select) {
  const std::int64_t members = kFeeding == Feeding::mux ? in.members : 1;
  Vec<Lane> met{};
  for (std::int64_t i = 0; i < members; ++i) {
    Lane* const at = in.x + (i * in.rows + r) * in.pitch + col;
    const Vec<Lane> left = col > 0 ? load(at - kLanes) : splat(in.entering[i * in.rows + r]);
    Vec<Lane> x = move_right(left, load(at));
    if constexpr (kFeeding == Feeding::groups) {
      const I32 fed = lanes_of(in.fed[col / 64], col);
      x = fed ? load(in.injected + r * in.pitch + col) : x;
    }
    store(at, x);
    if constexpr (kFeeding == Feeding::mux) {
      // Padding (below 0) takes the first member, whose partner is then a zero weight.
      const I32 chosen = load(select + col) == splat(static_cast<std::int32_t>(i));
      met = i == 0 ? x : (chosen ? x : met);
    } else {
      met = x;
    }
  }
  return met;
}

template <Feeding kFeeding, bool kEdge, class Lane>
PYSIM_INLINE void step_row(const pysim::StationaryStep<Lane>& s, std::int64_t r) {
  const pysim::MovingInputs<Lane>& in = s.inputs;
  const std::int64_t row = r * in.pitch;
  for (std::int64_t col = in.pitch - kLanes; col >= 0; col -= kLanes) {
    Vec<Lane> active = load(s.active + row + col);
    if constexpr (kEdge) {
      const I32 first = lanes_of(in.tokens[r * in.words + col / 64].first, col);
      active = first ? load(s.shadow + row + col) : active;
      store(s.active + row + col, active);
      if constexpr (kFeeding == Feeding::mux) {
        const I32 select = load(s.active_select + row + col);
        store(s.active_select + row + col, first ? load(s.shadow_select + row + col) : select);
      }
    }
    const Vec<Lane> x = move_inputs<kFeeding>(in, r, col, s.active_select + row);
    const Vec<Lane> product = active * x;
    store(s.psum + row + in.pitch + col, load(s.psum + row + col) + product);
  }
}

template <Feeding kFeeding, bool kEdge, class Lane>
PYSIM_INLINE void step_row(const pysim::OutputStep<Lane>& s, std::int64_t r) {
  const pysim::MovingInputs<Lane>& in = s.inputs;
  const std::int64_t row = r * in.pitch;
  const std::int64_t below = row + in.pitch;
  for (std::int64_t col = in.pitch - kLanes; col >= 0; col -= kLanes) {
    const Vec<Lane> w = load(s.w + row + col);
    store(s.w + below + col, w);
    if constexpr (kFeeding == Feeding::mux) store(s.w_select + below + col, load(s.w_select + row + col));
    const Vec<Lane> x = move_inputs<kFeeding>(in, r, col, s.w_select + below);
    Vec<Lane> acc = load(s.acc + row + col);
    if constexpr (kEdge) {
      acc = lanes_of(in.tokens[r * in.words + col / 64].first, col) ? Vec<Lane>{} : acc;
    }
    const Vec<Lane> product = w * x;
    acc = acc + product;
    store(s.acc + row + col, acc);
    if constexpr (kEdge) {
      const I32 last = lanes_of(in.tokens[r * in.words + col / 64].last, col);
      store(s.hold + row + col, last ? acc : load(s.hold + row + col));
    }
  }
}

template <Feeding kFeeding, class Step>
PYSIM_INLINE void step_rows(const Step& s) {
  for (std::int64_t r = s.inputs.rows - 1; r >= 0; --r) {
    switch (s.inputs.work[r]) {
      case pysim::RowWork::none:
        break;
      case pysim::RowWork::multiply:
        step_row<kFeeding, false>(s, r);
        break;
      case pysim::RowWork::edge:
        step_row<kFeeding, true>(s, r);
        break;
    }
  }
}

template <class Step>
void step_array(const Step& given) {
  const Step s = given;  // No store below can change it.
  if (s.inputs.members > 1) {
    step_rows<Feeding::mux>(s);
  } else if (s.inputs.injected != nullptr) {
    step_rows<Feeding::groups>(s);
  } else {
    step_rows<Feeding::one>(s);
  }
}

#undef PYSIM_INLINE

constexpr pysim::ArrayKernels kTable = {
    kLanes, step_array<pysim::StationaryStep<float>>, step_array<pysim::StationaryStep<std::uint32_t>>,
    step_array<pysim::OutputStep<float>>, step_array<pysim::OutputStep<std::uint32_t>>};

}  // namespace
