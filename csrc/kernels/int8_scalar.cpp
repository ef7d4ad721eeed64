// The reference of 8-bit products: plain loops. What the others are tested against.
#include <stdexcept>
#include <string>

#include "kernels/int8_kernel.h"

namespace pysim {
namespace {

void pack(const std::uint8_t* x, std::int64_t pitch, const std::int32_t* rows, std::int64_t quads,
          std::int64_t columns, std::uint8_t flip, std::uint8_t* out, std::int64_t quad_pitch) {
  for (std::int64_t q = 0; q < quads; ++q) {
    for (std::int64_t j = 0; j < columns; ++j) {
      for (int i = 0; i < kQuad; ++i) {
        const int value = x[rows[kQuad * q + i] * pitch + j] ^ flip;
        out[q * quad_pitch + kQuad * j + i] = static_cast<std::uint8_t>(value);
      }
    }
  }
}

void compute_slab(const QuadSlab& slab, const std::uint8_t* packed, std::int64_t quad_pitch,
                  std::int64_t columns, const Int8Finish& finish, void* y, std::int64_t y_pitch) {
  for (int r = 0; r < slab.rows; ++r) {
    for (std::int64_t j = 0; j < columns; ++j) {
      auto sum = static_cast<std::uint32_t>(slab.start[r]);
      for (std::int64_t q = 0; q < slab.count; ++q) {
        const std::int8_t* const w = slab.weights + (q * slab.rows + r) * kQuad;
        const std::uint8_t* const x = packed + slab.quads[q] * quad_pitch + j * kQuad;
        for (int i = 0; i < kQuad; ++i) sum += static_cast<std::uint32_t>(int{w[i]} * int{x[i]});
      }
      store_int8(finish, r, static_cast<std::int32_t>(sum), y, r * y_pitch + j);
    }
  }
}

}  // namespace

extern const Int8Kernels kScalarInt8 = {pack, compute_slab, compute_slab, kPackColumns, false};

const Int8Kernels& int8_kernels(Int8Isa isa) {
  switch (isa) {
    case Int8Isa::scalar:
      return kScalarInt8;
#if defined(__x86_64__)
    case Int8Isa::avx2:
      return kAvx2Int8;
    case Int8Isa::avx_vnni:
      return kAvxVnniInt8;
    case Int8Isa::avx512_vnni:
      return kAvx512VnniInt8;
#else
    default:
      break;
#endif
  }
  throw std::logic_error(std::string("int8_kernels: not compiled for ") + isa_name(isa));
}

}  // namespace pysim
