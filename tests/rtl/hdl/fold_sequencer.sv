// Walks a list of folds and gives out the beats of each, one a cycle without a gap between folds.
//
// `read` fetches the next fold's descriptor from a memory that answers in the next cycle and keeps its answer.
// `length` is the number of beats, at least 1, of the fold whose descriptor the memory shows. A beat is taken when
// `valid` and `ready`; it is the `step`-th of its fold, and `left` beats of the fold are still to come, itself
// counted.
module fold_sequencer #(
    parameter int unsigned ADDRESS = 8,
    parameter int unsigned STEP = 6  // bits of a step; a fold has at most 2^STEP
) (
    input logic clk,
    input logic rst,
    input logic start,
    input logic [ADDRESS-1:0] folds,
    output logic read,
    output logic [ADDRESS-1:0] read_address,
    input logic [STEP:0] length,
    output logic valid,
    input logic ready,
    output logic first,
    output logic last,
    output logic [STEP:0] left,
    output logic [STEP-1:0] step
);
  logic running;
  logic fold_done;

  assign first = step == '0;
  assign left = length - {1'b0, step};
  assign last = left == (STEP + 1)'(1);
  assign fold_done = valid && ready && last;
  assign read = running && read_address != folds && (!valid || fold_done);

  always_ff @(posedge clk) begin
    if (rst) begin
      running <= 1'b0;
      valid <= 1'b0;
    end else begin
      if (start) begin
        running <= 1'b1;
        read_address <= '0;
      end else if (read) read_address <= read_address + 1'b1;
      if (read) valid <= 1'b1;
      else if (fold_done) valid <= 1'b0;
    end
    if (read) step <= '0;
    else if (valid && ready) step <= step + 1'b1;
  end
endmodule
