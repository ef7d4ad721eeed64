// The one body of batch norm's vector kernels. Included by an instruction set's source file under the rules
// of slab_kernel-inl.h; beside what that needs, keep_first(), fold<1>() and
//
//   Vec keep_unless_negative_or_zero(Vec test, Vec v), which is v where test > 0 or NaN, else 0.

namespace {

// Sums that are made side by side, to hide the latency of an addition.
constexpr int kNormSums = 4;

inline float norm_total(const Vec (&sum)[kNormSums]) {
  float total = 0.0F;
  fold<1>(add(add(sum[0], sum[1]), add(sum[2], sum[3])), &total);
  return total;
}

// body(v, place, left): for every vector, `v` its turn among the sums, `left` its lanes before the end.
template <class Body>
inline void for_vectors(std::int64_t count, const Body& body) {
  std::int64_t i = 0;
  for (; i + kNormSums * kLanes <= count; i += kNormSums * kLanes) {
#pragma GCC unroll 16
    for (int v = 0; v < kNormSums; ++v) body(v, i + v * kLanes, kLanes);
  }
#pragma GCC unroll 16
  for (int v = 0; v < kNormSums; ++v) {
    if (i >= count) return;
    const std::int64_t left = count - i;
    body(v, i, left < kLanes ? static_cast<int>(left) : kLanes);
    i += kLanes;
  }
}

inline Vec norm_load(const float* p, int count) { return count == kLanes ? load(p) : load_first(p, count); }
inline Vec norm_keep(Vec v, int count) { return count == kLanes ? v : keep_first(v, count); }
inline void norm_store(float* p, Vec v, int count) {
  if (count == kLanes) {
    store(p, v);
  } else {
    store_first(p, v, count);
  }
}

inline Vec minus(float value) {
  const float negative = -value;
  return broadcast(&negative);
}

pysim::NormMoments norm_moments(const float* x, std::int64_t count) {
  Vec sum[kNormSums] = {zero(), zero(), zero(), zero()};
  for_vectors(count, [&](int v, std::int64_t i, int left) { sum[v] = add(sum[v], norm_load(x + i, left)); });
  const float mean = norm_total(sum) / static_cast<float>(count);
  const Vec minus_mean = minus(mean);
  Vec squares[kNormSums] = {zero(), zero(), zero(), zero()};
#pragma GCC unroll 16
  for (int v = 0; v < kNormSums; ++v) sum[v] = zero();
  for_vectors(count, [&](int v, std::int64_t i, int left) {
    const Vec d = norm_keep(add(norm_load(x + i, left), minus_mean), left);
    sum[v] = add(sum[v], d);
    squares[v] = fma(d, d, squares[v]);
  });
  return {mean, norm_total(sum), norm_total(squares)};
}

// The channel's numbers, ready for vectors.
struct NormVectors {
  Vec minus_mean, scale, shift;

  explicit NormVectors(const pysim::NormChannel& channel)
      : minus_mean(minus(channel.mean)), scale(broadcast(&channel.scale)), shift(broadcast(&channel.shift)) {}
  // One expression for both directions: the gradient recomputes the same bits.
  Vec result(Vec centred) const { return fma(centred, scale, shift); }
};

template <bool kResidual, bool kRelu>
void normalize_channel(const float* x, std::int64_t count, const pysim::NormChannel& channel,
                       const float* residual, float* y) {
  const NormVectors numbers(channel);
  for_vectors(count, [&](int, std::int64_t i, int left) {
    Vec out = numbers.result(add(norm_load(x + i, left), numbers.minus_mean));
    if constexpr (kResidual) out = add(out, norm_load(residual + i, left));
    if constexpr (kRelu) out = relu(out);
    norm_store(y + i, out, left);
  });
}

void normalize(const float* x, std::int64_t count, const pysim::NormChannel& channel, const float* residual,
               bool relu_last, float* y) {
  if (residual != nullptr) {
    return relu_last ? normalize_channel<true, true>(x, count, channel, residual, y)
                     : normalize_channel<true, false>(x, count, channel, residual, y);
  }
  return relu_last ? normalize_channel<false, true>(x, count, channel, nullptr, y)
                   : normalize_channel<false, false>(x, count, channel, nullptr, y);
}

template <pysim::ReluGradient kRelu, bool kWrites>
void sum_gradient(const float* dy, const float* x, const float* y, std::int64_t count,
                  const pysim::NormChannel& channel, float* masked, float* sums) {
  const NormVectors numbers(channel);
  Vec sum[kNormSums] = {zero(), zero(), zero(), zero()};
  Vec with_x[kNormSums] = {zero(), zero(), zero(), zero()};
  for_vectors(count, [&](int v, std::int64_t i, int left) {
    // Lanes behind the end: their gradient is zero, and so is what is added.
    Vec g = norm_load(dy + i, left);
    const Vec centred = add(norm_load(x + i, left), numbers.minus_mean);
    if constexpr (kRelu == pysim::ReluGradient::recomputed)
      g = keep_unless_negative_or_zero(numbers.result(centred), g);
    if constexpr (kRelu == pysim::ReluGradient::of_result)
      g = keep_unless_negative_or_zero(norm_load(y + i, left), g);
    if constexpr (kWrites) norm_store(masked + i, g, left);
    sum[v] = add(sum[v], g);
    with_x[v] = fma(g, centred, with_x[v]);
  });
  sums[0] = norm_total(sum);
  sums[1] = norm_total(with_x);
}

template <pysim::ReluGradient kRelu>
void sum_gradient(const float* dy, const float* x, const float* y, std::int64_t count,
                  const pysim::NormChannel& channel, float* masked, float* sums) {
  return masked != nullptr ? sum_gradient<kRelu, true>(dy, x, y, count, channel, masked, sums)
                           : sum_gradient<kRelu, false>(dy, x, y, count, channel, nullptr, sums);
}

void norm_gradient_sums(const float* dy, const float* x, const float* y, std::int64_t count,
                        const pysim::NormChannel& channel, pysim::ReluGradient relu_gradient, float* masked,
                        float* sums) {
  switch (relu_gradient) {
    case pysim::ReluGradient::none:
      return sum_gradient<pysim::ReluGradient::none>(dy, x, y, count, channel, masked, sums);
    case pysim::ReluGradient::recomputed:
      return sum_gradient<pysim::ReluGradient::recomputed>(dy, x, y, count, channel, masked, sums);
    default:
      return sum_gradient<pysim::ReluGradient::of_result>(dy, x, y, count, channel, masked, sums);
  }
}

template <bool kRelu>
void channel_gradient(const float* dy, const float* x, std::int64_t count, const pysim::NormChannel& channel,
                      const pysim::NormGradient& gradient, float* dx) {
  const NormVectors numbers(channel);
  const Vec slope = broadcast(&gradient.slope);
  const Vec offset = broadcast(&gradient.offset);
  for_vectors(count, [&](int, std::int64_t i, int left) {
    Vec g = norm_load(dy + i, left);
    const Vec centred = add(norm_load(x + i, left), numbers.minus_mean);
    if constexpr (kRelu) g = keep_unless_negative_or_zero(numbers.result(centred), g);
    norm_store(dx + i, fma(g, numbers.scale, fma(centred, slope, offset)), left);
  });
}

void norm_gradient(const float* dy, const float* x, std::int64_t count, const pysim::NormChannel& channel,
                   pysim::ReluGradient relu_gradient, const pysim::NormGradient& gradient, float* dx) {
  return relu_gradient == pysim::ReluGradient::recomputed
             ? channel_gradient<true>(dy, x, count, channel, gradient, dx)
             : channel_gradient<false>(dy, x, count, channel, gradient, dx);
}

constexpr pysim::NormKernels kNormKernels = {norm_moments, normalize, norm_gradient_sums, norm_gradient};

}  // namespace
