// A layer's traffic as a fixed program: which transfers go over the channel in which order, what each waits
// for, and at which array cycles the array waits for them. Independent of bandwidth and latency, so a faster
// channel runs the same program; the engines differ only in how they find out when everything happens.
#pragma once

#include <cstdint>
#include <vector>

#include "sim/counts.h"

namespace pysim {

/// What a transfer carries. Indices travel with weights; the row pointers go first, alone.
enum class TransferKind : std::uint8_t { row_pointers, weights, inputs, outputs, spill, reload };

enum class Buffer : std::uint8_t { input, weight, output };

/// One use of the channel.
struct Transfer {
  TransferKind kind;
  std::int32_t core;         ///< Whose buffer it fills or empties.
  std::int64_t bytes;        ///< Index bytes included.
  std::int64_t index_bytes;  ///< Of those, indices.
  std::int64_t words;        ///< Buffer words it writes (reads: spill, outputs).
  std::int64_t room;         ///< Bytes of the output buffer that it takes up (reload) or gives back.
  std::int64_t after;        ///< Array cycles of its core that must have been done before it may start.
};

/// Bytes off chip that a transfer reads or writes, at consecutive addresses.
struct Request {
  std::int32_t transfer;
  std::int64_t address;
  std::int64_t bytes;
};

/// A core may not do array cycle `cycle` before transfer `transfer` has arrived (a read) or left (a write).
struct Gate {
  std::int64_t cycle;
  std::int32_t transfer;  ///< -1: nothing to wait for; the gate only takes room.
  StallCause cause;
  std::int64_t room;  ///< Bytes of the output buffer that are taken up in this cycle.
};

/// Room given back in a buffer once `cycle` array cycles have been done.
struct Release {
  std::int64_t cycle;
  std::int64_t bytes;
};

/// What one core waits for.
struct CorePlan {
  std::vector<Gate> gates;  ///< By cycle; at one cycle in the order in which they are tried.
  std::vector<Release> input_releases, weight_releases;  ///< By cycle.
  std::int64_t compute_cycles = 0;
};

struct TransferPlan {
  std::vector<Transfer> transfers;  ///< Of all cores, in channel order.
  std::vector<CorePlan> cores;
  std::vector<Request> requests;  ///< In channel order, if asked for.
};

}  // namespace pysim
