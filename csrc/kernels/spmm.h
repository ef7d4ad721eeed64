// Y = W X with W block-sparse, float32.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "kernels/bfloat16.h"
#include "kernels/bsr.h"

namespace pysim {

/// A packed matrix, ready to be multiplied any number of times, from several threads at once. Immutable.
class SpmmPlan {
 public:
  /// What of the matrix is multiplied.
  enum class Form {
    plain,
    trainable,   ///< W, and weight_gradient() may be called.
    transposed,  ///< W^T: m and k change places.
  };

  /// How weights are kept. Results of bfloat16 are those of the float32 weights that they are rounded to.
  enum class Weights { float32, bfloat16 };

  /// `bias` is (m) or empty. Throws std::invalid_argument if the matrix is broken, the bias has another
  /// length or threads is not 1..kMaxThreads.
  SpmmPlan(const BsrView& matrix, Form form, std::vector<float> bias, bool relu, const KernelTable& kernels,
           int threads, Weights weights = Weights::float32);

  std::int64_t m() const { return m_; }
  std::int64_t k() const { return k_; }
  /// Whether a product with n columns takes more than some microseconds.
  bool is_long(std::int64_t n) const;

  /// Y (m, n) = W X (k, n) + bias + residual (m, n), then ReLU if the plan has it; row i starts at x + i *
  /// x_pitch elements and so on, pitches at least n. `residual` may be null. Y must not overlap the others.
  /// The bits of the result do not depend on the number of threads.
  void run(const float* x, std::int64_t x_pitch, std::int64_t n, const float* residual,
           std::int64_t residual_pitch, float* y, std::int64_t y_pitch) const;

  /// values[i] = sum over n of dY[o][n] * X[k][n], where values[i] holds W[o][k]; zero where a ragged block
  /// leaves W. dY (m, n), X (k, n), `count` values. Throws std::logic_error unless the plan is trainable. The
  /// bits of the result do not depend on the number of threads.
  void weight_gradient(const float* dy, std::int64_t dy_pitch, const float* x, std::int64_t x_pitch,
                       std::int64_t n, float* values, std::int64_t count) const;

 private:
  /// Some columns of X, and where those of Y are; `readable` as in SlabKernel.
  struct Panel {
    const float* x;
    std::int64_t pitch;
    ColumnRun run;
    std::int64_t readable;
  };
  using PanelWork = std::function<void(const Panel& panel, std::int64_t slab_begin, std::int64_t slab_end)>;
  using SlabWork = std::function<void(std::int64_t slab_begin, std::int64_t slab_end)>;

  /// Threads that a product with n columns is worth.
  int threads_for(std::int64_t n) const { return is_long(n) ? threads_ : 1; }
  /// Calls `work` for parts of the slabs that cost the same, on several threads.
  void for_parts(int threads, const SlabWork& work) const;
  /// Calls `work` for X cut into panels and, if there are few, for parts of the slabs, on several threads.
  void for_panels(const float* x, std::int64_t x_pitch, std::int64_t n, const PanelWork& work) const;
  void run_bfloat16(const float* x, std::int64_t x_pitch, std::int64_t n, const float* residual,
                    std::int64_t residual_pitch, float* y, std::int64_t y_pitch) const;

  PackedMatrix matrix_;
  Bfloat16Weights bfloat16_;  ///< The weights, if they are not in matrix_.
  std::vector<float> bias_;
  bool relu_;
  const KernelTable& kernels_;
  std::int64_t m_;
  std::int64_t k_;
  int threads_;
  std::int64_t loads_ = 0;  ///< Rows of X that all slabs together read.
};

}  // namespace pysim
