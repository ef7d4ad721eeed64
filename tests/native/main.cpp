#include "checks.h"

int main(int argc, char** argv) {
  const int rounds = argc > 1 ? std::atoi(argv[1]) : 300;
  pysim_checks::check_gpu(rounds);
  pysim_checks::check_kernels(rounds);
  pysim_checks::check_simulator(rounds);
  pysim_checks::check_small_weights(rounds);
  std::printf("native checks: %d rounds passed\n", rounds);
}
