// Delays lane l of a vector by EXTRA + l cycles, so that a row (or column) of the array gets its operand one
// cycle after the row above (the column to its left). A triangle of registers, without reset: a control token
// that is reset travels beside the data.
module edge_skew #(
    parameter int unsigned LANES = 4,
    parameter int unsigned WIDTH = 8,  // bits of one lane
    parameter int unsigned EXTRA = 0   // cycles by which lane 0 is delayed
) (
    input  logic                   clk,
    input  logic [LANES*WIDTH-1:0] in,
    output logic [LANES*WIDTH-1:0] out
);
  for (genvar l = 0; l < LANES; l++) begin : g_lane
    localparam int unsigned DEPTH = EXTRA + l;
    if (DEPTH == 0) begin : g_wire
      logic unused_clk;
      assign unused_clk = clk;
      assign out[l*WIDTH+:WIDTH] = in[l*WIDTH+:WIDTH];
    end else begin : g_delay
      logic [DEPTH*WIDTH-1:0] stages;
      if (DEPTH == 1) begin : g_one
        always_ff @(posedge clk) stages <= in[l*WIDTH+:WIDTH];
      end else begin : g_many
        always_ff @(posedge clk) stages <= {stages[(DEPTH-1)*WIDTH-1:0], in[l*WIDTH+:WIDTH]};
      end
      assign out[l*WIDTH+:WIDTH] = stages[(DEPTH-1)*WIDTH+:WIDTH];
    end
  end
endmodule
