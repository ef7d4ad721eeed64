// Processing element of an output stationary array: one MAC a cycle into `acc`.
//
// Inputs move right, weights move down; both bring a token (valid, first, last of the fold). The first operand
// restarts `acc`; with the last one the sum goes to `hold`. With `drain` the whole column moves `hold` to
// `chain` at once, after which `chain` moves down one PE a cycle. All arithmetic is signed and wraps at ACC bits.
//
// With MEMBERS above 1 an input lane carries that many operands side by side, and the select that travels with
// the weight names the one to multiply. With CHECK, `fault` tells that an input met the weight of another
// element, that `hold` was overwritten before it drained, or that it drained before it was written.
module pe_output #(
    parameter int unsigned WIDTH = 8,    // bits of an operand
    parameter int unsigned ACC = 32,     // bits of a sum, at least 2 * WIDTH
    parameter int unsigned MEMBERS = 1,  // operands that share a lane
    parameter bit CHECK = 1'b1,
    parameter int unsigned SELECT = MEMBERS > 1 ? $clog2(MEMBERS) : 1
) (
    input logic clk,
    input logic rst,
    // Input and its token, from the left to the right.
    input logic [MEMBERS*WIDTH-1:0] x_in,
    input logic valid_in,
    input logic first_in,
    input logic last_in,
    output logic [MEMBERS*WIDTH-1:0] x,
    output logic valid,
    output logic first,
    output logic last,
    // Weight with its select and token {valid, first, last}, from above to below.
    input logic [WIDTH-1:0] w_in,
    input logic [SELECT-1:0] w_select_in,
    input logic [2:0] w_token_in,
    output logic [WIDTH-1:0] w,
    output logic [SELECT-1:0] w_select,
    output logic [2:0] w_token,
    // Finished sums, from above to below.
    input logic drain,
    input logic [ACC-1:0] chain_in,
    output logic [ACC-1:0] chain,
    output logic fault
);
  logic [ACC-1:0] acc, hold, sum;
  logic [WIDTH-1:0] operand;
  logic signed [2*WIDTH-1:0] product;

  member_mux #(
      .MEMBERS(MEMBERS),
      .WIDTH  (WIDTH)
  ) u_member_mux (
      .members(x_in),
      .select (w_select_in),
      .chosen (operand)
  );

  assign product = $signed(operand) * $signed(w_in);
  assign sum = (first_in ? '0 : acc) + ACC'(product);

  always_ff @(posedge clk) begin
    x <= x_in;
    first <= first_in;
    last <= last_in;
    valid <= valid_in && !rst;
    w <= w_in;
    w_select <= w_select_in;
    w_token <= rst ? '0 : w_token_in;
    if (valid_in) acc <= sum;
    if (valid_in && last_in) hold <= sum;
    chain <= drain ? hold : chain_in;
  end

  if (CHECK) begin : g_check
    logic full, meets, writes;
    assign meets = valid_in == w_token_in[2] &&
        (!valid_in || (first_in == w_token_in[1] && last_in == w_token_in[0]));
    assign writes = valid_in && last_in;
    always_ff @(posedge clk) begin
      if (rst) full <= 1'b0;
      else if (writes) full <= 1'b1;
      else if (drain) full <= 1'b0;
    end
    assign fault = !rst && (!meets || (writes && full && !drain) || (drain && !full));
  end else begin : g_no_check
    assign fault = 1'b0;
  end
endmodule
