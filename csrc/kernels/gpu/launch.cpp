#include "kernels/gpu/launch.h"

#include <algorithm>
#include <array>
#include <limits>
#include <string>

#include "base/check.h"
#include "base/checked_math.h"
#include "kernels/gpu/numbers.h"

namespace pysim::gpu {

namespace {

constexpr const char* kWhere = "GPU product";
constexpr int kSecondPassThreads = 256;

void require_memory(const Memory& memory, std::int64_t bytes, std::int64_t alignment, const char* what) {
  require(memory.address != 0 || bytes == 0, kWhere, std::string("memory for ") + what, "none");
  require(memory.bytes >= bytes, kWhere, std::to_string(bytes) + " bytes of " + what,
          std::to_string(memory.bytes));
  require(memory.address % static_cast<std::uintptr_t>(alignment) == 0, kWhere,
          std::string(what) + " aligned to " + std::to_string(alignment) + " bytes",
          "an address that is not");
}

bool overlap(const Memory& a, std::int64_t a_bytes, const Memory& b, std::int64_t b_bytes) {
  return a_bytes > 0 && b_bytes > 0 && a.address < b.address + static_cast<std::uintptr_t>(b_bytes) &&
         b.address < a.address + static_cast<std::uintptr_t>(a_bytes);
}

/// Elements from the first to the last of a strided array, both counted; 0 if it is empty.
template <std::size_t kCount>
std::int64_t extent(const std::array<std::array<std::int64_t, 2>, kCount>& sizes_and_strides,
                    const char* what) {
  std::int64_t last = 0;
  for (const auto& [size, stride] : sizes_and_strides) {
    require(size >= 0 && stride >= 0, kWhere, std::string(what) + " with sizes and strides of at least 0",
            std::to_string(size) + " and " + std::to_string(stride));
    if (size == 0) return 0;
    last = checked_add(last, checked_mul(size - 1, stride, kWhere), kWhere);
  }
  return checked_add(last, 1, kWhere);
}

std::int64_t source_extent(const Plan& plan, const XSource& x) {
  require(x.k == plan.k(), kWhere, std::to_string(plan.k()) + " rows of X", std::to_string(x.k));
  require(x.n >= 0, kWhere, "at least 0 columns", std::to_string(x.n));
  if (x.channels == 0) return extent<2>({{{x.k, x.k_stride}, {x.n, x.n_stride}}}, "X");
  const bool sizes = x.channels >= 1 && x.height >= 1 && x.width >= 1 && x.out_height >= 1 &&
                     x.out_width >= 1 && x.kernel_width >= 1 && x.stride_y >= 1 && x.stride_x >= 1 &&
                     x.pad_y >= 0 && x.pad_x >= 0 && x.dilation_y >= 1 && x.dilation_x >= 1;
  require(sizes, kWhere, "a convolution with sizes of at least 1", "others");
  require(x.k % x.channels == 0 && x.k / x.channels % x.kernel_width == 0, kWhere,
          "whole kernel rows of " + std::to_string(x.channels) + " channels", std::to_string(x.k) + " rows");
  const std::int64_t pixels = std::int64_t{x.out_height} * x.out_width;
  require(x.n % pixels == 0, kWhere, "whole images of " + std::to_string(pixels) + " pixels",
          std::to_string(x.n) + " columns");
  return extent<4>({{{x.n / pixels, x.image_stride},
                     {x.height, x.row_stride},
                     {x.width, x.n_stride},
                     {x.channels, x.k_stride}}},
                   "X");
}

/// The widest copies that alignment and strides allow.
Loading choose_loading(const XSource& x, std::uintptr_t address, int bytes) {
  const std::int64_t vector = 16 / bytes;
  const bool aligned = address % 16 == 0;
  if (x.channels == 0 && x.n_stride == 1 && (x.k_stride != 1 || x.n == 1)) {
    return aligned && x.k_stride % vector == 0 ? Loading::along_columns : Loading::elements_by_column;
  }
  if (x.k_stride != 1) return Loading::elements_by_column;
  const bool whole = aligned && x.n_stride % vector == 0 && x.channels % vector == 0 &&
                     x.row_stride % vector == 0 && x.image_stride % vector == 0;
  return whole ? Loading::along_reduction : Loading::elements_by_reduction;
}

/// Bytes of X from the first column to where the kernel for clusters reads in the last row: whole copies of
/// 16 bytes. 0 if it cannot fetch this X.
std::int64_t cluster_reach(const Plan& plan, const XSource& x, Loading loading, const Memory& memory) {
  const std::int64_t vector = 16 / element_bytes(plan.math());
  if (plan.cluster() == 1 || loading != Loading::along_columns) return 0;
  const std::int64_t reach =
      ((x.k - 1) * x.k_stride + ceil_div(x.n, vector) * vector) * element_bytes(plan.math());
  return reach <= memory.bytes ? reach : 0;
}

}  // namespace

std::vector<std::int32_t> epilogue_table(const Int8Epilogue& epilogue) {
  std::vector<std::int32_t> table = epilogue.start;
  for (const std::vector<float>* reals : {&epilogue.scale, &epilogue.bias}) {
    for (const float real : *reals) table.push_back(same_bits<std::int32_t>(real));
  }
  return table;
}

bool takes_decode(std::int64_t n) { return n <= kDecodeColumns; }

std::int64_t workspace_bytes(const Plan& plan, std::int64_t n) {
  require(n >= 0, kWhere, "at least 0 columns", std::to_string(n));
  if (takes_decode(n)) return 0;
  const std::int64_t sums = checked_mul(plan.partial_count(), checked_mul(plan.height(), n, kWhere), kWhere);
  return checked_mul(sums, 4, kWhere);
}

Launches plan_launches(const Plan& plan, const Operands& operands) {
  const int bytes = element_bytes(plan.math());
  const Int8Epilogue* const epilogue = operands.epilogue;
  // Quads have no loop that copies along columns.
  const std::int64_t k_stride = operands.source.k_stride;
  require(plan.math() != Math::i8 || k_stride == 1, kWhere, "quads of X side by side along the reduction",
          "a stride of " + std::to_string(k_stride));
  require((plan.math() == Math::i8) == (epilogue != nullptr), kWhere, "an epilogue in i8 and there only",
          epilogue == nullptr ? "none" : "one");
  if (epilogue != nullptr) {
    require(epilogue->m() == plan.m(), kWhere, "an epilogue of " + std::to_string(plan.m()) + " rows",
            std::to_string(epilogue->m()));
  }
  const std::int64_t result_bytes = epilogue == nullptr ? bytes : element_bytes(epilogue->finish.output);
  const XSource& x = operands.source;
  const std::int64_t x_bytes = checked_mul(source_extent(plan, x), bytes, kWhere);
  const std::int64_t y_bytes = checked_mul(
      extent<2>({{{plan.m(), operands.y_m_stride}, {x.n, operands.y_n_stride}}}, "Y"), result_bytes, kWhere);
  // One stride 1 and the other long enough: no two elements of Y share their place.
  const bool apart = plan.m() == 1 || x.n <= 1 ||
                     (operands.y_m_stride >= 1 && operands.y_n_stride / operands.y_m_stride >= plan.m()) ||
                     (operands.y_n_stride >= 1 && operands.y_m_stride / operands.y_n_stride >= x.n);
  require(
      apart && (x.n <= 1 || operands.y_n_stride >= 1) && (plan.m() == 1 || operands.y_m_stride >= 1), kWhere,
      "elements of Y that do not overlap",
      "strides of " + std::to_string(operands.y_m_stride) + " and " + std::to_string(operands.y_n_stride));
  const auto weight_bytes = static_cast<std::int64_t>(plan.places().size()) * bytes;
  const std::int64_t bias_rows = epilogue == nullptr       ? (operands.bias.address == 0 ? 0 : 1)
                                 : epilogue->scale.empty() ? 1
                                                           : 3;
  const std::int64_t bias_bytes = bias_rows * plan.m() * 4;
  const std::int64_t work_bytes = workspace_bytes(plan, x.n);
  const auto image_bytes = static_cast<std::int64_t>(plan.image().size());
  require_memory(operands.image, image_bytes, Plan::kImageAlignment, "tables");
  require_memory(operands.weights, weight_bytes, 16, "weights");
  require_memory(operands.x, x_bytes, bytes, "X");
  require_memory(operands.y, y_bytes, result_bytes, "Y");
  require_memory(operands.bias, bias_bytes, 4, "bias");
  require_memory(operands.workspace, work_bytes, 4, "workspace");
  const bool clash = overlap(operands.y, y_bytes, operands.x, x_bytes) ||
                     overlap(operands.y, y_bytes, operands.weights, weight_bytes) ||
                     overlap(operands.y, y_bytes, operands.bias, bias_bytes) ||
                     overlap(operands.y, y_bytes, operands.image, image_bytes) ||
                     overlap(operands.y, y_bytes, operands.workspace, work_bytes);
  require(!clash, kWhere, "Y apart from what is read", "an overlap");

  Launches launches{};
  if (x.n == 0) return launches;
  const bool decode = takes_decode(x.n);
  Arguments& a = launches.arguments;
  plan.point(a, reinterpret_cast<const std::byte*>(operands.image.address));
  a.weights = reinterpret_cast<const void*>(operands.weights.address);
  a.partials = reinterpret_cast<void*>(operands.workspace.address);
  a.x = x;
  if (epilogue == nullptr) {
    a.bias = reinterpret_cast<const float*>(operands.bias.address);
  } else {
    a.start = reinterpret_cast<const std::int32_t*>(operands.bias.address);
    a.int8 = epilogue->finish;
    a.int8.scale = reinterpret_cast<const float*>(a.start + plan.m());
    a.int8.bias = a.int8.scale + plan.m();
    a.x.fill = 0x01010101U * epilogue->zero;
    a.x.flip = epilogue->signed_input ? 0x80808080U : 0U;
  }
  a.x.data = reinterpret_cast<const void*>(operands.x.address);
  a.y = {reinterpret_cast<void*>(operands.y.address), operands.y_m_stride, operands.y_n_stride};
  a.relu = operands.relu;
  a.loading = choose_loading(x, operands.x.address, bytes);
  const std::int64_t reach = decode ? 0 : cluster_reach(plan, x, a.loading, operands.x);
  const bool clustered = reach > 0;
  a.x_bytes = clustered ? reach : x_bytes;
  a.panels = ceil_div(x.n, clustered ? kClusterColumns : panel_columns(plan.math()));
  a.cluster = clustered ? plan.cluster() : 1;
  a.stage_bytes = static_cast<std::int32_t>(plan.stage_bytes(clustered));
  if (decode) {
    launches.launch[0] = {Launch::Kernel::decode, plan.decode_cta_count(), kDecodeWarps * kLanes,
                          plan.decode_shared_bytes()};
  } else {
    launches.launch[0] = {clustered ? Launch::Kernel::cluster : Launch::Kernel::panel,
                          checked_mul(plan.group_count(), a.panels, kWhere), plan.warps() * kLanes,
                          plan.shared_bytes(clustered), a.cluster};
  }
  launches.count = 1;
  if (!decode && plan.split_count() > 0) {
    a.elements = checked_mul(plan.split_count(), checked_mul(plan.height(), x.n, kWhere), kWhere);
    launches.launch[1] = {Launch::Kernel::add_partials, ceil_div(a.elements, kSecondPassThreads),
                          kSecondPassThreads, 0};
    launches.count = 2;
  }
  for (int i = 0; i < launches.count; ++i) {
    require(launches.launch[i].ctas <= std::numeric_limits<std::int32_t>::max(), kWhere,
            "fewer than 2^31 blocks of threads", std::to_string(launches.launch[i].ctas));
  }
  return launches;
}

}  // namespace pysim::gpu
