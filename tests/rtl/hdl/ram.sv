// A memory with one write port, a lane of a word at a time, and PORTS read ports. A read takes a cycle; what was
// read stays until the next read. For lists and descriptors a small SRAM (PORTS = 1); with more ports it stands in
// for the banked buffers of a real design, which the machine assumes to be always in time.
module ram #(
    parameter int unsigned LANES = 1,
    parameter int unsigned WIDTH = 8,  // bits of a lane
    parameter int unsigned ADDRESS = 8,
    parameter int unsigned PORTS = 1,
    parameter int unsigned LANE_BITS = LANES > 1 ? $clog2(LANES) : 1
) (
    input logic clk,
    input logic write,
    input logic [ADDRESS-1:0] write_address,
    input logic [LANE_BITS-1:0] write_lane,
    input logic [WIDTH-1:0] write_data,
    input logic read,
    input logic [PORTS*ADDRESS-1:0] address,
    output logic [PORTS*LANES*WIDTH-1:0] data
);
  logic [LANES*WIDTH-1:0] words[2**ADDRESS];

  if (LANES == 1) begin : g_word
    logic unused_lane;
    assign unused_lane = ^write_lane;
    always_ff @(posedge clk) if (write) words[write_address] <= write_data;
  end else begin : g_lanes
    always_ff @(posedge clk) if (write) words[write_address][write_lane*WIDTH+:WIDTH] <= write_data;
  end
  for (genvar p = 0; p < PORTS; p++) begin : g_port
    always_ff @(posedge clk)
      if (read) data[p*LANES*WIDTH+:LANES*WIDTH] <= words[address[p*ADDRESS+:ADDRESS]];
  end
endmodule
