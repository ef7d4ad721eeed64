// When an output stationary array may take a step of the stream.
//
// A column has one `hold` per PE. Column 0 moves it to `chain` ROWS cycles after a fold's last step has entered, and
// the top PE must not write `hold` for the next fold before that; the same cycle is early enough, as it is read
// first. So a fold may start once it has at least as many steps as make its last one late enough. With
// `serial`, a fold starts only when the one before has left the array.
//
// With `eager` a fold starts as soon as the ports are free, and its last step waits until the array tells that column 0
// drains. The results leave in the same cycles either way.
module start_output #(
    parameter int unsigned ROWS = 4,
    parameter int unsigned STEP = 6
) (
    input logic clk,
    input logic rst,
    input logic serial,
    input logic eager,
    input logic fold_left,  // a fold's last result left in the cycle before
    input logic draining,   // column 0 moves its sums out of `hold` in this cycle
    input logic step_valid,
    input logic step_first,
    input logic step_last,
    input logic [STEP:0] step_left,
    output logic step
);
  localparam int unsigned WAIT = ROWS > 1 ? $clog2(ROWS) : 1;

  logic [WAIT-1:0] hold_wait;  // cycles until column 0 drains, from this one on; 0 also if nothing is to drain
  logic owed;                  // a fold's last step has entered and column 0 has not drained
  logic busy;                  // a fold has started and not left (used by `serial` alone)
  logic may_start, may_end;

  always_comb begin
    if (serial) may_start = !busy || fold_left;
    else if (eager) may_start = 1'b1;
    else may_start = (STEP + 1)'(hold_wait) < step_left;
  end
  assign may_end = !eager || !owed || draining;
  assign step = step_valid && (!step_first || may_start) && (!step_last || may_end);

  always_ff @(posedge clk) begin
    if (rst) begin
      hold_wait <= '0;
      owed <= 1'b0;
      busy <= 1'b0;
    end else begin
      if (step && step_last) hold_wait <= WAIT'(ROWS - 1);
      else if (hold_wait != '0) hold_wait <= hold_wait - 1'b1;
      if (step && step_last) owed <= 1'b1;
      else if (draining) owed <= 1'b0;
      if (step && step_first) busy <= 1'b1;
      else if (fold_left) busy <= 1'b0;
    end
  end
endmodule
