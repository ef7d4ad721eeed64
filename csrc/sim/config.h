// The simulated array: its shape, its dataflow, what it skips and how its folds follow each other.
#pragma once

#include <cstdint>
#include <string_view>

namespace pysim {

/// Which operand stays in the PEs. See docs/machine.md for what rows, columns and time stand for.
enum class Dataflow { ws, os, is };

/// How pruned blocks are left out.
enum class Skip { none, tile, gather, group, mux };

/// Whether a fold may start before the one before it has left the array.
enum class Pipelining { serial, overlap };

/// The inverse of the enumerators' names. Throw std::invalid_argument for any other text.
Dataflow parse_dataflow(std::string_view text);
Skip parse_skip(std::string_view text);
Pipelining parse_pipelining(std::string_view text);

/// A systolic array of rows x cols PEs.
struct ArrayConfig {
  std::int64_t rows = 1;  ///< PE rows R, 1 to max_side.
  std::int64_t cols = 1;  ///< PE columns C, 1 to max_side.
  Dataflow dataflow = Dataflow::ws;
  Skip skip = Skip::none;
  Pipelining pipelining = Pipelining::overlap;
  std::int64_t mux = 2;         ///< Inputs of a PE's multiplexer, at least 1; used by Skip::mux alone.
  std::int64_t group_cols = 1;  ///< Array columns that share a feeder, at least 1; used by Skip::group alone.
  std::int64_t cores = 1;       ///< Such arrays, 1 to max_cores; they share a layer and the channel.
  bool swapped = false;         ///< Whether the two outer loops over folds change places.
  std::int64_t piece =
      256;  ///< Most consecutive operands of a fold's stream that are one piece; with memory.

  static constexpr std::int64_t max_side = 65536;  ///< So that rows * cols always fits in 64 bits.
  static constexpr std::int64_t max_mux = 1024;
  static constexpr std::int64_t max_cores = 1024;
  static constexpr std::int64_t max_piece = std::int64_t{1} << 40;

  /// Throws std::invalid_argument if a field is out of range or the dataflow has no such skip.
  void check() const;

  /// Block columns that may share a slot: `mux` under Skip::mux, else 1.
  std::int64_t slot_members() const { return skip == Skip::mux ? mux : 1; }

  /// Array columns of one feeder: `group_cols` under Skip::group, else all.
  std::int64_t feeder_cols() const { return skip == Skip::group && group_cols < cols ? group_cols : cols; }
};

}  // namespace pysim
