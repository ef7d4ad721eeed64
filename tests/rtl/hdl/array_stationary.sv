// ROWS x COLS weight or input stationary PEs with the skew at their edges.
//
// One vector of held operands (a row of the fold, bottom row first) and one vector of streamed operands (all
// rows of one step) may enter in a cycle, as if there were no skew: column c sees the held one c cycles later,
// row r the streamed one r cycles later. With `push_last`, the push completes the fold's preload.
//
// The columns are cut into feeders of GROUP columns, counted from column 0. Feeder g has streamed operands of its
// own, which enter at its first column in the cycle in which they would have come from the left. Tokens always
// come from the left.
//
// `out_valid[c]` says that a result of column c left in the cycle before, with the value in `out`; `fold_left`
// that it was the last result of a fold in the last column.
module array_stationary #(
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
    input logic push,
    input logic push_last,
    input logic [COLS*WIDTH-1:0] held,
    input logic [COLS*SELECT-1:0] held_select,
    input logic step,
    input logic step_first,
    input logic step_last,
    input logic [FEEDERS*ROWS*MEMBERS*WIDTH-1:0] streamed,  // feeder, row, member
    output logic [COLS-1:0] out_valid,
    output logic [COLS*ACC-1:0] out,
    output logic fold_left,
    output logic fault
);
  localparam int unsigned LANE = MEMBERS * WIDTH;

  logic [COLS*WIDTH-1:0] held_skewed;
  logic [COLS*SELECT-1:0] select_skewed;
  logic [FEEDERS*ROWS*LANE-1:0] streamed_skewed;
  logic [COLS-1:0] load;       // column c completes its preload
  logic [ROWS*3-1:0] token;    // {valid, first, last} that enters row r

  edge_skew #(
      .LANES(COLS),
      .WIDTH(WIDTH)
  ) u_held (
      .clk(clk),
      .in (held),
      .out(held_skewed)
  );
  edge_skew #(
      .LANES(COLS),
      .WIDTH(SELECT)
  ) u_held_select (
      .clk(clk),
      .in (held_select),
      .out(select_skewed)
  );
  for (genvar g = 0; g < FEEDERS; g++) begin : g_feeder
    edge_skew #(
        .LANES(ROWS),
        .WIDTH(LANE),
        .EXTRA(g * GROUP)
    ) u_streamed (
        .clk(clk),
        .in (streamed[g*ROWS*LANE+:ROWS*LANE]),
        .out(streamed_skewed[g*ROWS*LANE+:ROWS*LANE])
    );
  end

  token_chain #(
      .LENGTH(COLS),
      .WIDTH (1)
  ) u_load (
      .clk(clk),
      .rst(rst),
      .in (push && push_last),
      .out(load)
  );
  token_chain #(
      .LENGTH(ROWS),
      .WIDTH (3)
  ) u_token (
      .clk(clk),
      .rst(rst),
      .in ({step, step_first, step_last}),
      .out(token)
  );

  logic [ROWS*COLS-1:0] faults;
  for (genvar r = 0; r < ROWS; r++) begin : g_row
    for (genvar c = 0; c < COLS; c++) begin : g_col
      logic [WIDTH-1:0] transit_in, transit;
      logic [SELECT-1:0] transit_select_in, transit_select;
      logic [LANE-1:0] x_in, x;
      logic [2:0] token_in;
      logic valid, first, last;
      logic [ACC-1:0] psum_in, psum;

      if (r == 0) begin : g_top
        assign transit_in = held_skewed[c*WIDTH+:WIDTH];
        assign transit_select_in = select_skewed[c*SELECT+:SELECT];
        assign psum_in = '0;
      end else begin : g_below
        assign transit_in = g_row[r-1].g_col[c].transit;
        assign transit_select_in = g_row[r-1].g_col[c].transit_select;
        assign psum_in = g_row[r-1].g_col[c].psum;
      end
      if (c % GROUP == 0) begin : g_fed
        assign x_in = streamed_skewed[((c/GROUP)*ROWS+r)*LANE+:LANE];
      end else begin : g_passed
        assign x_in = g_row[r].g_col[c-1].x;
      end
      if (c == 0) begin : g_left
        assign token_in = token[r*3+:3];
      end else begin : g_right
        assign token_in = {
          g_row[r].g_col[c-1].valid, g_row[r].g_col[c-1].first, g_row[r].g_col[c-1].last
        };
      end

      pe_stationary #(
          .WIDTH(WIDTH),
          .ACC(ACC),
          .MEMBERS(MEMBERS),
          .CHECK(CHECK)
      ) u_pe (
          .clk(clk),
          .rst(rst),
          .transit_in(transit_in),
          .transit_select_in(transit_select_in),
          .load(load[c]),
          .transit(transit),
          .transit_select(transit_select),
          .x_in(x_in),
          .valid_in(token_in[2]),
          .first_in(token_in[1]),
          .last_in(token_in[0]),
          .x(x),
          .valid(valid),
          .first(first),
          .last(last),
          .psum_in(psum_in),
          .psum(psum),
          .fault(faults[r*COLS+c])
      );

      if (r == ROWS - 1) begin : g_bottom
        assign out_valid[c] = valid;
        assign out[c*ACC+:ACC] = psum;
        logic unused_transit;
        assign unused_transit = ^{transit, transit_select};
        if (c == COLS - 1) begin : g_corner
          assign fold_left = valid && last;
        end
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
  assign fault = |faults;
endmodule
