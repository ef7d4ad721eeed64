// Processing element of a weight or input stationary array: one MAC a cycle, the held operand double-buffered.
//
// Preload: values move down through `transit`; with `load`, what arrives is copied to `shadow`.
// Stream: operands move right; a fold's first one moves `shadow` to `active` and uses it in the same cycle.
// Sums move down: psum' = psum from above + active * x. All arithmetic is signed and wraps at ACC bits.
//
// With MEMBERS above 1 a lane carries that many operands side by side, and the select that is held beside the
// weight names the one to multiply (column combining). With CHECK, `fault` tells that `shadow` was
// overwritten before it was taken over, or taken over before it was loaded.
module pe_stationary #(
    parameter int unsigned WIDTH = 8,    // bits of an operand
    parameter int unsigned ACC = 32,     // bits of a sum, at least 2 * WIDTH
    parameter int unsigned MEMBERS = 1,  // operands that share a lane
    parameter bit CHECK = 1'b1,
    parameter int unsigned SELECT = MEMBERS > 1 ? $clog2(MEMBERS) : 1
) (
    input logic clk,
    input logic rst,
    // Held operand, from the PE above to the PE below.
    input logic [WIDTH-1:0] transit_in,
    input logic [SELECT-1:0] transit_select_in,
    input logic load,
    output logic [WIDTH-1:0] transit,
    output logic [SELECT-1:0] transit_select,
    // Streamed operand and its token, from the left to the right.
    input logic [MEMBERS*WIDTH-1:0] x_in,
    input logic valid_in,
    input logic first_in,
    input logic last_in,
    output logic [MEMBERS*WIDTH-1:0] x,
    output logic valid,
    output logic first,
    output logic last,
    // Partial sum, from above to below.
    input logic [ACC-1:0] psum_in,
    output logic [ACC-1:0] psum,
    output logic fault
);
  logic [WIDTH-1:0] shadow, active, weight, operand;
  logic [SELECT-1:0] shadow_select, active_select, select;
  logic signed [2*WIDTH-1:0] product;
  logic take_over;

  assign take_over = valid_in && first_in;
  assign weight = take_over ? shadow : active;
  assign select = take_over ? shadow_select : active_select;
  assign product = $signed(operand) * $signed(weight);

  member_mux #(
      .MEMBERS(MEMBERS),
      .WIDTH  (WIDTH)
  ) u_member_mux (
      .members(x_in),
      .select (select),
      .chosen (operand)
  );

  always_ff @(posedge clk) begin
    transit <= transit_in;
    transit_select <= transit_select_in;
    if (load) begin
      shadow <= transit_in;
      shadow_select <= transit_select_in;
    end
    active <= weight;
    active_select <= select;
    x <= x_in;
    first <= first_in;
    last <= last_in;
    valid <= valid_in && !rst;
    psum <= psum_in + ACC'(product);
  end

  if (CHECK) begin : g_check
    logic full;
    always_ff @(posedge clk) begin
      if (rst) full <= 1'b0;
      else if (load) full <= 1'b1;
      else if (take_over) full <= 1'b0;
    end
    assign fault = !rst && ((load && full && !take_over) || (take_over && !full));
  end else begin : g_no_check
    assign fault = 1'b0;
  end
endmodule
