// When a weight or input stationary array may take a preload push and a step of the stream.
//
// The array has one `shadow` per PE. A fold's stream may start once its preload is complete. The next preload may
// start in the very cycle in which that stream starts: both go down one row a cycle, and a PE reads `shadow`
// before it is overwritten. With `serial`, a fold starts only when the one before has left the array.
//
// Without `eager` a preload starts as late as it can without delaying its stream: when no more steps of the
// running stream are left than the preload has pushes. The results leave in the same cycles either way.
module start_stationary #(
    parameter int unsigned ROWS = 4,
    parameter int unsigned STEP = 6
) (
    input logic clk,
    input logic rst,
    input logic serial,
    input logic eager,
    input logic fold_left,  // a fold's last result left in the cycle before
    input logic push_valid,
    input logic push_first,
    input logic push_last,
    output logic push,
    input logic step_valid,
    input logic step_first,
    input logic [STEP:0] step_left,
    output logic step
);
  logic owned;   // a fold that has not begun to stream has the shadow registers
  logic loaded;  // its preload is complete
  logic busy;    // a fold has started and not left (used by `serial` alone)
  logic streams, shadow_free, late_enough, array_empty;

  assign step = step_valid && (!step_first || loaded);
  assign streams = step && step_first;
  assign shadow_free = !owned || streams;
  assign late_enough = eager || !step || step_left <= (STEP + 1)'(ROWS);
  assign array_empty = !busy || fold_left;
  assign push = push_valid && (!push_first || (shadow_free && (serial ? array_empty : late_enough)));

  always_ff @(posedge clk) begin
    if (rst) begin
      owned <= 1'b0;
      loaded <= 1'b0;
      busy <= 1'b0;
    end else begin
      if (push && push_first) owned <= 1'b1;
      else if (streams) owned <= 1'b0;
      if (push && push_last) loaded <= 1'b1;
      else if (streams) loaded <= 1'b0;
      if (push && push_first) busy <= 1'b1;
      else if (fold_left) busy <= 1'b0;
    end
  end
endmodule
