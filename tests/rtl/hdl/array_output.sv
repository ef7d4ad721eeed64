// ROWS x COLS output stationary PEs with the skew at their edges, and the drain of each column.
//
// One vector of inputs (all rows of one step) and one of weights (all columns of the same step) enter in a
// cycle, as if there were no skew: row r and column c see them r and c cycles later.
//
// The columns are cut into feeders of GROUP columns, counted from column 0. Feeder g has inputs of its own, which
// enter at its first column in the cycle in which they would have come from the left. Tokens always come from the
// left.
//
// A column drains in the cycle after its bottom PE has finished a fold, then gives ROWS results, one a cycle,
// the bottom row's first. `out_valid[c]` says that a result of column c left in the cycle before, with the value in
// `out`; `fold_left` that it was the last result of a fold in the last column; `draining` that column 0 moves its
// sums out of `hold` in this cycle.
module array_output #(
    parameter int unsigned ROWS = 4,
    parameter int unsigned COLS = 4,
    parameter int unsigned WIDTH = 8,     // bits of an operand
    parameter int unsigned ACC = 32,      // bits of a sum
    parameter int unsigned MEMBERS = 1,   // operands that share a lane
    parameter int unsigned GROUP = COLS,  // columns that share a feeder
    parameter bit CHECK = 1'b1,
    parameter int unsigned SELECT = MEMBERS > 1 ? $clog2(MEMBERS) : 1,
    parameter int unsigned FEEDERS = (COLS + GROUP - 1) / GROUP
) (
    input logic clk,
    input logic rst,
    input logic step,
    input logic step_first,
    input logic step_last,
    input logic [FEEDERS*ROWS*MEMBERS*WIDTH-1:0] inputs,  // feeder, row, member
    input logic [COLS*WIDTH-1:0] weights,
    input logic [COLS*SELECT-1:0] selects,
    output logic [COLS-1:0] out_valid,
    output logic [COLS*ACC-1:0] out,
    output logic fold_left,
    output logic draining,
    output logic fault
);
  localparam int unsigned LANE = MEMBERS * WIDTH;
  localparam int unsigned COUNT = $clog2(ROWS + 1);

  logic [COLS*WIDTH-1:0] weights_skewed;
  logic [COLS*SELECT-1:0] selects_skewed;
  logic [FEEDERS*ROWS*LANE-1:0] inputs_skewed;
  logic [ROWS*3-1:0] row_token;  // {valid, first, last} that enters row r
  logic [COLS*3-1:0] col_token;  // the same for the weights of column c

  edge_skew #(
      .LANES(COLS),
      .WIDTH(WIDTH)
  ) u_weights (
      .clk(clk),
      .in (weights),
      .out(weights_skewed)
  );
  edge_skew #(
      .LANES(COLS),
      .WIDTH(SELECT)
  ) u_selects (
      .clk(clk),
      .in (selects),
      .out(selects_skewed)
  );
  for (genvar g = 0; g < FEEDERS; g++) begin : g_feeder
    edge_skew #(
        .LANES(ROWS),
        .WIDTH(LANE),
        .EXTRA(g * GROUP)
    ) u_inputs (
        .clk(clk),
        .in (inputs[g*ROWS*LANE+:ROWS*LANE]),
        .out(inputs_skewed[g*ROWS*LANE+:ROWS*LANE])
    );
  end

  token_chain #(
      .LENGTH(ROWS),
      .WIDTH (3)
  ) u_row_token (
      .clk(clk),
      .rst(rst),
      .in ({step, step_first, step_last}),
      .out(row_token)
  );
  token_chain #(
      .LENGTH(COLS),
      .WIDTH (3)
  ) u_col_token (
      .clk(clk),
      .rst(rst),
      .in ({step, step_first, step_last}),
      .out(col_token)
  );

  logic [COLS-1:0] drain;      // the column's sums move from hold to chain
  logic [COLS-1:0] last_left;  // the result in `out` is its fold's last
  logic [ROWS*COLS-1:0] faults;
  logic [COLS-1:0] chain_faults;
  for (genvar r = 0; r < ROWS; r++) begin : g_row
    for (genvar c = 0; c < COLS; c++) begin : g_col
      logic [WIDTH-1:0] w_in, w;
      logic [SELECT-1:0] w_select_in, w_select;
      logic [2:0] token_in, w_token_in, w_token;
      logic [LANE-1:0] x_in, x;
      logic valid, first, last;
      logic [ACC-1:0] chain_in, chain;

      if (r == 0) begin : g_top
        assign w_in = weights_skewed[c*WIDTH+:WIDTH];
        assign w_select_in = selects_skewed[c*SELECT+:SELECT];
        assign w_token_in = col_token[c*3+:3];
        assign chain_in = '0;
      end else begin : g_below
        assign w_in = g_row[r-1].g_col[c].w;
        assign w_select_in = g_row[r-1].g_col[c].w_select;
        assign w_token_in = g_row[r-1].g_col[c].w_token;
        assign chain_in = g_row[r-1].g_col[c].chain;
      end
      if (c % GROUP == 0) begin : g_fed
        assign x_in = inputs_skewed[((c/GROUP)*ROWS+r)*LANE+:LANE];
      end else begin : g_passed
        assign x_in = g_row[r].g_col[c-1].x;
      end
      if (c == 0) begin : g_left
        assign token_in = row_token[r*3+:3];
      end else begin : g_right
        assign token_in = {
          g_row[r].g_col[c-1].valid, g_row[r].g_col[c-1].first, g_row[r].g_col[c-1].last
        };
      end

      pe_output #(
          .WIDTH(WIDTH),
          .ACC(ACC),
          .MEMBERS(MEMBERS),
          .CHECK(CHECK)
      ) u_pe (
          .clk(clk),
          .rst(rst),
          .x_in(x_in),
          .valid_in(token_in[2]),
          .first_in(token_in[1]),
          .last_in(token_in[0]),
          .x(x),
          .valid(valid),
          .first(first),
          .last(last),
          .w_in(w_in),
          .w_select_in(w_select_in),
          .w_token_in(w_token_in),
          .w(w),
          .w_select(w_select),
          .w_token(w_token),
          .drain(drain[c]),
          .chain_in(chain_in),
          .chain(chain),
          .fault(faults[r*COLS+c])
      );

      if (r == ROWS - 1) begin : g_bottom
        logic [COUNT-1:0] left;  // results still to leave after the one in `out`
        assign drain[c] = valid && last;
        assign out[c*ACC+:ACC] = chain;
        always_ff @(posedge clk) begin
          if (rst) left <= '0;
          else if (drain[c]) left <= COUNT'(ROWS - 1);
          else if (left != '0) left <= left - 1'b1;
          out_valid[c] <= !rst && (drain[c] || left != '0);
          last_left[c] <= !rst && (drain[c] ? ROWS == 1 : left == COUNT'(1));
        end
        assign chain_faults[c] = CHECK && drain[c] && left != '0;
        logic unused_w;
        assign unused_w = ^{w, w_select, w_token};
      end
      if (c == COLS - 1) begin : g_end
        logic unused_x;
        assign unused_x = ^{x, valid, first, last};
      end else if ((c + 1) % GROUP == 0) begin : g_group_end
        logic unused_x;
        assign unused_x = ^x;
      end
    end
  end
  assign draining = drain[0];
  assign fold_left = last_left[COLS-1];
  assign fault = (|faults) || (|chain_faults);
  if (COLS > 1) begin : g_unused
    logic unused_last;
    assign unused_last = ^last_left[COLS-2:0];
  end
endmodule
