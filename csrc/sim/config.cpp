#include "sim/config.h"

#include <string>

#include "base/check.h"

namespace pysim {

Dataflow parse_dataflow(std::string_view text) {
  if (text == "ws") return Dataflow::ws;
  if (text == "os") return Dataflow::os;
  if (text == "is") return Dataflow::is;
  throw std::invalid_argument("array dataflow: expected ws, os or is, got " + std::string(text));
}

Skip parse_skip(std::string_view text) {
  if (text == "none") return Skip::none;
  if (text == "tile") return Skip::tile;
  if (text == "gather") return Skip::gather;
  if (text == "group") return Skip::group;
  if (text == "mux") return Skip::mux;
  throw std::invalid_argument("array skip: expected none, tile, gather, group or mux, got " +
                              std::string(text));
}

Pipelining parse_pipelining(std::string_view text) {
  if (text == "serial") return Pipelining::serial;
  if (text == "overlap") return Pipelining::overlap;
  throw std::invalid_argument("array pipelining: expected serial or overlap, got " + std::string(text));
}

void ArrayConfig::check() const {
  const std::string sides = "1 to " + std::to_string(max_side);
  require(rows >= 1 && rows <= max_side, "array rows", sides, std::to_string(rows));
  require(cols >= 1 && cols <= max_side, "array cols", sides, std::to_string(cols));
  require(mux >= 1 && mux <= max_mux, "array mux", "1 to " + std::to_string(max_mux), std::to_string(mux));
  require(group_cols >= 1, "array group_cols", "at least 1", std::to_string(group_cols));
  require(cores >= 1 && cores <= max_cores, "array cores", "1 to " + std::to_string(max_cores),
          std::to_string(cores));
  require(piece >= 1 && piece <= max_piece, "array piece", "1 to " + std::to_string(max_piece),
          std::to_string(piece));
  require(dataflow != Dataflow::is || (skip != Skip::group && skip != Skip::mux), "array skip",
          "none, tile or gather with dataflow is", skip == Skip::group ? "group" : "mux");
}

}  // namespace pysim
