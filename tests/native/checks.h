// Checks of the core without Python. Every value is a small integer, so float32 sums are exact and any
// difference is an error.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <vector>

namespace pysim_checks {

using Rng = std::mt19937;

inline std::int64_t draw(Rng& rng, std::int64_t low, std::int64_t high) {
  return std::uniform_int_distribution<std::int64_t>(low, high)(rng);
}

template <class T>
std::vector<T> small_integers(Rng& rng, std::int64_t count) {
  std::vector<T> values(static_cast<std::size_t>(count));
  for (T& value : values) value = static_cast<T>(draw(rng, -2, 2));
  return values;
}

inline void expect(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "native check failed: %s\n", what);
  std::exit(1);
}

void check_gpu(int rounds);
void check_kernels(int rounds);
void check_simulator(int rounds);
void check_small_weights(int rounds);

}  // namespace pysim_checks
