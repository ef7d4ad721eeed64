// Multiply-adds in registers and nothing else: what they reach is the peak that a kernel's rate is a share
// of. Included by an instruction set's source file under the rules of slab_kernel-inl.h.

namespace {

// Enough to hide the latency of a multiply-add on two units, few enough for the registers of AVX2.
constexpr int kFmaSums = 12;

float run_fma(std::int64_t rounds, float factor, float term) {
  const Vec a = broadcast(&factor);
  const Vec b = broadcast(&term);
  Vec sum[kFmaSums];
#pragma GCC unroll 16
  for (int c = 0; c < kFmaSums; ++c) {
    const float start = term * static_cast<float>(c);  // equal sums would be computed once
    sum[c] = broadcast(&start);
  }
  for (std::int64_t i = 0; i < rounds; ++i) {
#pragma GCC unroll 16
    for (int c = 0; c < kFmaSums; ++c) sum[c] = fma(sum[c], a, b);
  }
  for (int c = 1; c < kFmaSums; ++c) sum[0] = add(sum[0], sum[c]);
  float lanes[kLanes];
  store(lanes, sum[0]);
  return lanes[0];
}

}  // namespace
