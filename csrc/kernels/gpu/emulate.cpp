#include "kernels/gpu/bodies.h"
#include "kernels/gpu/emulation.h"
#include "kernels/gpu/kernels.h"
#include "kernels/gpu/launch.h"

namespace pysim::gpu {

void emulate(const Launches& launches) {
  const Arguments& a = launches.arguments;
  for (int i = 0; i < launches.count; ++i) {
    const Launch& launch = launches.launch[i];
    if (launch.kernel == Launch::Kernel::add_partials) {
      for (std::int64_t element = 0; element < a.elements; ++element) add_partials(a, element);
      continue;
    }
    if (launch.kernel == Launch::Kernel::cluster) {
      for (std::int64_t index = 0; index < launch.ctas / launch.cluster; ++index)
        emulate_cluster(launches, launch, index);
      continue;
    }
    const bool found = with_kind(a.math, a.height, [&](auto kind) {
      using Of = decltype(kind);
      for (std::int64_t cta = 0; cta < launch.ctas; ++cta) {
        HostCta host(a, launch.threads, launch.shared_bytes);
        if (launch.kernel == Launch::Kernel::panel) {
          panel_body<Of::math, Of::height>(host, a, cta, host.shared());
        } else {
          decode_body<Of::math, Of::height>(host, a, cta, host.shared());
        }
      }
    });
    if (!found) throw std::logic_error("GPU emulation: expected a kernel for every plan, got none");
  }
}

}  // namespace pysim::gpu
