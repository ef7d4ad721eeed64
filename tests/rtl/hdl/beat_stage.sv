// One stage of an elastic pipeline: holds a beat until the stage behind takes it, and takes the next one in the
// same cycle. `load` tells a memory that is read along with the stage to read now.
module beat_stage #(
    parameter int unsigned WIDTH = 8
) (
    input logic clk,
    input logic rst,
    input logic in_valid,
    output logic in_ready,
    input logic [WIDTH-1:0] in,
    output logic load,
    output logic out_valid,
    input logic out_ready,
    output logic [WIDTH-1:0] out
);
  assign in_ready = !out_valid || out_ready;
  assign load = in_valid && in_ready;
  always_ff @(posedge clk) begin
    if (rst) out_valid <= 1'b0;
    else if (load) out_valid <= 1'b1;
    else if (out_ready) out_valid <= 1'b0;
    if (load) out <= in;
  end
endmodule
