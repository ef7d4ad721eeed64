// Hands a token from row to row, or from column to column, one cycle each: element l of `out` is `in` as it was l
// cycles before.
module token_chain #(
    parameter int unsigned LENGTH = 4,
    parameter int unsigned WIDTH = 3
) (
    input logic clk,
    input logic rst,
    input logic [WIDTH-1:0] in,
    output logic [LENGTH*WIDTH-1:0] out
);
  if (LENGTH == 1) begin : g_wire
    logic unused;
    assign unused = ^{clk, rst};
    assign out = in;
  end else begin : g_chain
    logic [(LENGTH-1)*WIDTH-1:0] stages;
    always_ff @(posedge clk) stages <= rst ? '0 : out[(LENGTH-1)*WIDTH-1:0];
    assign out = {stages, in};
  end
endmodule
