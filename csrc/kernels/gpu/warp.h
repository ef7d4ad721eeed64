// What a warp does: sums of slabs in registers, step by step. A Machine is the GPU or its emulation: it runs
// a function for every lane and performs what takes all lanes together.
#pragma once

#include <cstdint>

#include "kernels/gpu/arguments.h"
#include "kernels/gpu/numbers.h"

namespace pysim::gpu {

/// Registers of a lane that one access loads.
template <int kCount>
struct alignas(kCount < 4 ? kCount * 4 : 16) Words {
  std::uint32_t word[kCount];
};

/// Bits of X[k] in a column as tensor cores take them; outside 0 or, in i8, the zero point.
template <Math kMath>
PYSIM_DEVICE std::uint32_t x_bits(const XSource& x, const ColumnPlace& place, std::int64_t k) {
  const std::int64_t offset = x_offset(x, place, k);
  if (offset < 0) return fill_of<kMath>(x);
  if (element_bytes(kMath) == 4) {
    return tensor_bits<kMath>(static_cast<const std::uint32_t*>(x.data)[offset] ^ flip_of<kMath>(x));
  }
  return static_cast<const std::uint16_t*>(x.data)[offset];
}

/// A warp on tensor cores over a panel of kColumns columns. kHeight is 32, 16 or 8; see tile.h.
template <Math kMath, int kHeight, int kColumns, class Machine>
struct TensorWarp {
  static constexpr int kTiles = kColumns / tile_columns(kHeight);
  static constexpr int kParts = kHeight / tile_rows(kHeight);  ///< Tiles one above the other.
  static constexpr int kPitch = row_pitch(kMath, kColumns);
  static constexpr int kWeightWords = weight_words(kHeight);
  static constexpr int kAccess = kWeightWords < 4 ? kWeightWords : 4;  ///< Words that one access loads.
  static constexpr int kXWords = x_words(kHeight);
  static constexpr int kRows = in_words(kMath) ? 2 : 1;  ///< Of a panel that a lane has to find for a step.

  using Sum = typename SumOf<kMath>::type;

  template <int kCount>
  struct Sums {
    Sum tile[kParts * kCount][4];
  };
  template <class T>
  using Each = typename Machine::template Each<T>;
  using Panel = Each<Sums<kTiles>>;
  using Weights = Each<Words<kWeightWords>>;

  template <int kCount>
  PYSIM_DEVICE static void clear(Each<Sums<kCount>>& sums) {
    Machine::lanes([&](int lane) {
      PYSIM_UNROLL
      for (int t = 0; t < kParts * kCount; ++t) {
        PYSIM_UNROLL
        for (int i = 0; i < 4; ++i) sums[lane].tile[t][i] = 0;
      }
    });
  }
  PYSIM_DEVICE static void clear_panel(Panel& sums) { clear<kTiles>(sums); }

  PYSIM_DEVICE static void load_weights(Weights& w, const Arguments& a, std::int64_t step) {
    Machine::lanes([&](int lane) {
      PYSIM_UNROLL
      for (int first = 0; first < kWeightWords; first += kAccess) {
        const char* const from = static_cast<const char*>(a.weights) +
                                 ((step * kWeightWords + first) * kLanes + lane * kAccess) * 4;
        const auto words = Machine::template fetch<Words<kAccess>>(from);
        PYSIM_UNROLL
        for (int i = 0; i < kAccess; ++i) w[lane].word[first + i] = tensor_bits<kMath>(words.word[i]);
      }
    });
  }

  /// What a step needs besides the panel: its weights, and where in a stage the row begins whose address each
  /// lane gives to ldmatrix, or the two that it reads word by word.
  struct Ahead {
    Weights weights;
    struct Rows {
      int at[kRows];
    };
    Each<Rows> rows;
  };

  PYSIM_DEVICE static void load_ahead(Ahead& to, const Arguments& a, std::int64_t step) {
    load_weights(to.weights, a, step);
    const std::uint16_t* const rows = a.panel_rows + step * step_depth(kMath);
    Machine::lanes([&](int lane) {
      PYSIM_UNROLL
      for (int r = 0; r < kRows; ++r) {
        const Place place = in_words(kMath) ? x_place(kMath, kHeight, lane, r * kXWords / kRows, 0)
                                            : ldmatrix_place(kHeight, lane);
        to.rows[lane].at[r] = rows[place.k] * kPitch;
      }
    });
  }

  /// Adds the products of a step with its rows of the panel in `stage`.
  PYSIM_DEVICE static void multiply_step(Panel& sums, const char* stage, Ahead& step) {
    if constexpr (in_words(kMath)) {
      PYSIM_UNROLL
      for (int t = 0; t < kTiles; ++t) {
        Each<Words<kXWords>> x;
        Machine::lanes([&](int lane) {
          PYSIM_UNROLL
          for (int i = 0; i < kXWords; ++i) {
            const char* const mine = stage + x_place(kMath, kHeight, lane, i, 0).at * 4;
            const char* const at =
                mine + step.rows[lane].at[i * kRows / kXWords] + t * tile_columns(kHeight) * 4;
            x[lane].word[i] = tensor_bits<kMath>(Machine::template load<std::uint32_t>(at));
          }
        });
        multiply<kTiles, kXWords>(sums, t, step.weights, x, 0);
      }
    } else {
      Each<const char*> address;
      Machine::lanes([&](int lane) {
        address[lane] = stage + ldmatrix_place(kHeight, lane).at * 2 + step.rows[lane].at[0];
      });
      // 16 columns at a time: two tiles of 8, or one of 16.
      PYSIM_UNROLL
      for (int j = 0; j < kColumns / 16; ++j) {
        Each<Words<4>> x;
        Machine::ldmatrix_trans(x, address, j * 32);
        PYSIM_UNROLL
        for (int t = 0; t < 16 / tile_columns(kHeight); ++t)
          multiply<kTiles, 4>(sums, j * (16 / tile_columns(kHeight)) + t, step.weights, x, 2 * t);
      }
    }
  }

  /// Writes the sums: open(row of the slab, column of the panel) gives what puts those of a row from there
  /// on.
  template <class Open>
  PYSIM_DEVICE static void visit_panel(Panel& sums, const Arguments& a, Open open) {
    Machine::lanes([&](int lane) {
      PYSIM_UNROLL
      for (int part = 0; part < kParts; ++part) {
        PYSIM_UNROLL
        for (int r = 0; r < 2; ++r) {  // A lane has two rows, and in each two columns of every tile.
          const Place first = sum_place(kHeight, lane, sum_of(r, 0));
          const auto out = open(part * tile_rows(kHeight) + first.k, first.at);
          PYSIM_UNROLL
          for (int t = 0; t < kTiles; ++t) {
            PYSIM_UNROLL
            for (int c = 0; c < 2; ++c) {
              const int apart = sum_place(kHeight, 0, sum_of(0, c)).at;
              out.put(a, t * tile_columns(kHeight) + apart, sums[lane].tile[part * kTiles + t][sum_of(r, c)]);
            }
          }
        }
      }
    });
  }

  static constexpr int kDecodeTiles = kDecodeColumns / tile_columns(kHeight);
  using Decode = Each<Sums<kDecodeTiles>>;

  /// Sums of steps begin .. end - 1 for few columns: X is read from global memory, element by element.
  PYSIM_DEVICE static void decode(Decode& sums, const Arguments& a, std::int32_t begin, std::int32_t end) {
    clear<kDecodeTiles>(sums);
    // A lane has two columns, those of two tiles or of the halves of one.
    Each<ColumnPlace[2]> places;
    Machine::lanes([&](int lane) {
      PYSIM_UNROLL
      for (int c = 0; c < 2; ++c) places[lane][c] = column_place(a.x, lane / 4 + 8 * c);
    });
    DecodeAhead next;
    if (begin < end) load_decode(next, a, begin);
    for (std::int32_t step = begin; step < end; ++step) {
      DecodeAhead now = next;
      if (step + 1 < end) load_decode(next, a, step + 1);
      PYSIM_UNROLL
      for (int t = 0; t < kDecodeTiles; ++t) {
        Each<Words<kXWords>> x;
        Machine::lanes([&](int lane) {
          PYSIM_UNROLL
          for (int i = 0; i < kXWords; ++i) {
            const ColumnPlace& place = places[lane][kHeight == 8 ? i % 2 : t];
            const Run& run = now.runs[lane].deep[kHeight == 8 ? i / 2 : i];
            x[lane].word[i] = x_bits<kMath>(a.x, place, run.k[0]);
            if constexpr (!in_words(kMath)) x[lane].word[i] |= x_bits<kMath>(a.x, place, run.k[1]) << 16;
          }
        });
        Machine::converge();  // Lanes outside X took other ways.
        multiply<kDecodeTiles, kXWords>(sums, t, now.weights, x, 0);
      }
    }
  }

  /// Visits them: f(lane, register, row of the slab, column, sum).
  template <class F>
  PYSIM_DEVICE static void visit_decode(Decode& sums, const Arguments&, F f) {
    Machine::lanes([&](int lane) {
      PYSIM_UNROLL
      for (int t = 0; t < kParts * kDecodeTiles; ++t) {
        PYSIM_UNROLL
        for (int i = 0; i < 4; ++i) {
          const Place place = sum_place(kHeight, lane, i);
          f(lane, 4 * t + i, t / kDecodeTiles * tile_rows(kHeight) + place.k,
            t % kDecodeTiles * tile_columns(kHeight) + place.at, sums[lane].tile[t][i]);
        }
      }
    });
  }

 private:
  /// Which of a lane's four sums of a tile belongs to its row `r` and its column `c`, 0 or 1.
  PYSIM_HD static constexpr int sum_of(int r, int c) { return kHeight == 8 ? r + 2 * c : 2 * r + c; }

  /// Rows of X that follow each other in a register.
  struct alignas(4 * x_run(kMath)) Run {
    std::int32_t k[x_run(kMath)];
  };
  struct Runs {
    Run deep[2];
  };
  /// What a step for few columns needs besides X, loaded a step ahead: X cannot be read before.
  struct DecodeAhead {
    Weights weights;
    Each<Runs> runs;
  };

  PYSIM_DEVICE static void load_decode(DecodeAhead& to, const Arguments& a, std::int64_t step) {
    load_weights(to.weights, a, step);
    const std::int32_t* const ks = a.reduction + step * step_depth(kMath);
    Machine::lanes([&](int lane) {
      PYSIM_UNROLL
      for (int deep = 0; deep < 2; ++deep) {
        to.runs[lane].deep[deep] =
            Machine::template fetch<Run>(reinterpret_cast<const char*>(ks + x_run_begin(kMath, lane, deep)));
      }
    });
  }

  /// Sums of the columns of tile t += the step's weights x the tile of X in words `first` and after.
  template <int kCount, int kWords>
  PYSIM_DEVICE static void multiply(Each<Sums<kCount>>& sums, int t, Weights& w, Each<Words<kWords>>& x,
                                    int first) {
    PYSIM_UNROLL
    for (int part = 0; part < kParts; ++part) {
      const auto weights = [&](int lane) -> const std::uint32_t* { return w[lane].word + 4 * part; };
      const auto columns = [&](int lane) -> const std::uint32_t* { return x[lane].word + first; };
      const auto to = [&](int lane) -> Sum* { return sums[lane].tile[part * kCount + t]; };
      if constexpr (kHeight == 8) {
        Machine::template mma<kMath, true>(to, columns, weights);
      } else {
        Machine::template mma<kMath, false>(to, weights, columns);
      }
    }
  }
};

/// A warp on CUDA cores, float32. kHeight is 1, 2, 4 or 8; a lane has 4 neighbouring columns of the panel.
template <Math kMath, int kHeight, class Machine>
struct CoreWarp {
  static_assert(kMath == Math::f32, "CUDA cores multiply float32 here");
  static constexpr int kColumns = panel_columns(kMath) / kLanes;

  struct Sums {
    float at[kHeight][kColumns];
  };
  struct alignas(kHeight < 4 ? kHeight * 4 : 16) Weights {
    float row[kHeight];
  };
  struct alignas(16) Vector {
    float column[kColumns];
  };
  template <class T>
  using Each = typename Machine::template Each<T>;
  using Panel = Each<Sums>;

  PYSIM_DEVICE static void clear_panel(Panel& sums) {
    Machine::lanes([&](int lane) {
      PYSIM_UNROLL
      for (int r = 0; r < kHeight; ++r) {
        PYSIM_UNROLL
        for (int c = 0; c < kColumns; ++c) sums[lane].at[r][c] = 0;
      }
    });
  }

  struct Ahead {
    Each<Weights> weights;
    int row;  ///< Where in a stage the step's row begins.
  };

  PYSIM_DEVICE static void load_ahead(Ahead& to, const Arguments& a, std::int64_t step) {
    to.row = a.panel_rows[step] * panel_pitch(kMath);
    const char* const weights = static_cast<const char*>(a.weights) + step * kHeight * 4;
    Machine::lanes([&](int lane) { to.weights[lane] = Machine::template fetch<Weights>(weights); });
  }

  PYSIM_DEVICE static void multiply_step(Panel& sums, const char* stage, Ahead& step) {
    Machine::lanes([&](int lane) {
      const auto x = Machine::template load<Vector>(stage + lane * kColumns * 4 + step.row);
      const Weights& w = step.weights[lane];
      PYSIM_UNROLL
      for (int r = 0; r < kHeight; ++r) {
        PYSIM_UNROLL
        for (int c = 0; c < kColumns; ++c)
          sums[lane].at[r][c] = Machine::fused(w.row[r], x.column[c], sums[lane].at[r][c]);
      }
    });
  }

  template <class Open>
  PYSIM_DEVICE static void visit_panel(Panel& sums, const Arguments& a, Open open) {
    Machine::lanes([&](int lane) {
      PYSIM_UNROLL
      for (int r = 0; r < kHeight; ++r) {
        const auto out = open(r, lane * kColumns);
        PYSIM_UNROLL
        for (int c = 0; c < kColumns; ++c) out.put(a, c, sums[lane].at[r][c]);
      }
    });
  }

  using Decode = Each<Weights>;

  /// Sums of steps begin .. end - 1 for few columns. Lanes are columns x every so manieth step; the steps'
  /// sums are added up at the end, in a fixed order. Weights and places in X are loaded ahead.
  PYSIM_DEVICE static void decode(Decode& sums, const Arguments& a, std::int32_t begin, std::int32_t end) {
    const int columns = decode_columns(a);
    const int together = kLanes / columns;
    const auto weights = [&](std::int64_t step) {
      return Machine::template fetch<Weights>(static_cast<const char*>(a.weights) + step * kHeight * 4);
    };
    Machine::lanes([&](int lane) {
      PYSIM_UNROLL
      for (int r = 0; r < kHeight; ++r) sums[lane].row[r] = 0;
      const ColumnPlace place = column_place(a.x, lane % columns);
      std::int64_t step = begin + lane / columns;
      if (step >= end) return;
      std::int32_t next_k = a.reduction[step];
      Weights next = weights(step);
      for (; step < end; step += together) {
        const std::int32_t k = next_k;
        const Weights w = next;
        if (step + together < end) {
          next_k = a.reduction[step + together];
          next = weights(step + together);
        }
        const float x = same_bits<float>(x_bits<kMath>(a.x, place, k));
        PYSIM_UNROLL
        for (int r = 0; r < kHeight; ++r) sums[lane].row[r] = Machine::fused(w.row[r], x, sums[lane].row[r]);
      }
    });
    Machine::converge();  // Lanes had different numbers of steps.
    PYSIM_UNROLL
    for (int r = 0; r < kHeight; ++r) {
      for (int apart = columns; apart < kLanes; apart *= 2)
        Machine::add_across([&](int lane) -> float& { return sums[lane].row[r]; }, apart);
    }
  }

  /// Visits them: f(lane, register, row of the slab, column, sum).
  template <class F>
  PYSIM_DEVICE static void visit_decode(Decode& sums, const Arguments& a, F f) {
    const int columns = decode_columns(a);
    Machine::lanes([&](int lane) {
      if (lane >= columns) return;
      PYSIM_UNROLL
      for (int r = 0; r < kHeight; ++r) f(lane, r, r, lane, sums[lane].row[r]);
    });
  }

 private:
  /// The power of two that is large enough for the columns of X.
  PYSIM_DEVICE static int decode_columns(const Arguments& a) {
    int columns = 1;
    while (columns < a.x.n && columns < kDecodeColumns) columns *= 2;
    return columns;
  }
};

/// Adds the products of steps begin .. end - 1 with the panel in `stage`. What a step needs besides comes
/// from L2, which takes longer than a step's products, and is therefore loaded a step ahead, in turns into
/// one of two places, so that nothing moves between registers.
template <class Warp>
PYSIM_DEVICE void add_steps(typename Warp::Panel& sums, const Arguments& a, const char* stage,
                            std::int32_t begin, std::int32_t end) {
  if (begin == end) return;
  typename Warp::Ahead even, odd;
  Warp::load_ahead(even, a, begin);
  for (std::int32_t step = begin;; step += 2) {
    if (step + 1 == end) return Warp::multiply_step(sums, stage, even);
    Warp::load_ahead(odd, a, step + 1);
    Warp::multiply_step(sums, stage, even);
    if (step + 2 == end) return Warp::multiply_step(sums, stage, odd);
    Warp::load_ahead(even, a, step + 2);
    Warp::multiply_step(sums, stage, odd);
  }
}

template <Math kMath, int kHeight, class Machine>
struct WarpOf {
  using type = TensorWarp<kMath, kHeight, panel_columns(kMath), Machine>;
};
template <int kHeight, class Machine>
struct WarpOf<Math::f32, kHeight, Machine> {
  using type = CoreWarp<Math::f32, kHeight, Machine>;
};

}  // namespace pysim::gpu
