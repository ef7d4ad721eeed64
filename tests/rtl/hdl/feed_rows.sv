// Activation feeder of a weight stationary array: every row streams one reduction element over all steps.
//
// The rows' elements are the fold's word of the index list (LISTED = 1: gather, and with several FEEDERS or MEMBERS
// group and mux), or consecutive ones from the fold's `base` (LISTED = 0: no skipping, or whole folds skipped).
// Operands come from a memory with a port for each feeder, row and member, addressed {element, step}, that
// answers in the next cycle. Rows, features and members without work need no mark: their weight is zero.
module feed_rows #(
    parameter int unsigned ROWS = 4,
    parameter int unsigned FEEDERS = 1,
    parameter int unsigned MEMBERS = 1,
    parameter int unsigned WIDTH = 8,
    parameter bit LISTED = 1'b1,
    parameter int unsigned ADDRESS = 12,  // bits of a list address
    parameter int unsigned STEP = 6,      // bits of a step
    parameter int unsigned INDEX = 6,     // bits of an element's index
    parameter int unsigned ENTRIES = FEEDERS * ROWS * MEMBERS,
    parameter int unsigned ENTRY_BITS = ENTRIES > 1 ? $clog2(ENTRIES) : 1
) (
    input logic clk,
    input logic rst,
    // Writes to the index list: entry (feeder, row, member) of a fold's word.
    input logic list_write,
    input logic [ADDRESS-1:0] list_write_address,
    input logic [ENTRY_BITS-1:0] list_write_entry,
    input logic [INDEX-1:0] list_write_data,
    // Beats of the stream, with the fold's list address and first element.
    input logic beat_valid,
    output logic beat_ready,
    input logic beat_first,
    input logic beat_last,
    input logic [STEP:0] beat_left,
    input logic [STEP-1:0] beat_step,
    input logic [ADDRESS-1:0] beat_list,
    input logic [INDEX-1:0] beat_base,
    // Operand memory.
    output logic read,
    output logic [ENTRIES*(INDEX+STEP)-1:0] read_address,
    input logic [ENTRIES*WIDTH-1:0] read_data,
    // Steps at the edge of the array.
    output logic step_valid,
    input logic step_ready,
    output logic step_first,
    output logic step_last,
    output logic [STEP:0] step_left,
    output logic [ENTRIES*WIDTH-1:0] operands  // feeder, row, member
);
  localparam int unsigned MARKS = 2 + STEP + 1;

  logic indexed_valid, indexed_ready, load_index;
  logic [MARKS-1:0] indexed_marks;
  logic [STEP-1:0] indexed_step;
  logic [INDEX-1:0] indexed_base;
  logic [ENTRIES*INDEX-1:0] element;

  beat_stage #(
      .WIDTH(MARKS + STEP + INDEX)
  ) u_indexed (
      .clk(clk),
      .rst(rst),
      .in_valid(beat_valid),
      .in_ready(beat_ready),
      .in({beat_first, beat_last, beat_left, beat_step, beat_base}),
      .load(load_index),
      .out_valid(indexed_valid),
      .out_ready(indexed_ready),
      .out({indexed_marks, indexed_step, indexed_base})
  );

  if (LISTED) begin : g_listed
    ram #(
        .LANES  (ENTRIES),
        .WIDTH  (INDEX),
        .ADDRESS(ADDRESS)
    ) u_list (
        .clk(clk),
        .write(list_write),
        .write_address(list_write_address),
        .write_lane(list_write_entry),
        .write_data(list_write_data),
        .read(load_index && beat_first),
        .address(beat_list),
        .data(element)
    );
    logic unused_base;
    assign unused_base = ^indexed_base;
  end else begin : g_consecutive
    for (genvar e = 0; e < ENTRIES; e++) begin : g_entry
      assign element[e*INDEX+:INDEX] = indexed_base + INDEX'(e / MEMBERS % ROWS);
    end
    logic unused_list;
    assign unused_list = ^{load_index, beat_list, list_write, list_write_address, list_write_entry,
                           list_write_data};
  end

  for (genvar e = 0; e < ENTRIES; e++) begin : g_address
    assign read_address[e*(INDEX+STEP)+:INDEX+STEP] = {element[e*INDEX+:INDEX], indexed_step};
  end
  beat_stage #(
      .WIDTH(MARKS)
  ) u_fetched (
      .clk(clk),
      .rst(rst),
      .in_valid(indexed_valid),
      .in_ready(indexed_ready),
      .in(indexed_marks),
      .load(read),
      .out_valid(step_valid),
      .out_ready(step_ready),
      .out({step_first, step_last, step_left})
  );
  assign operands = read_data;
endmodule
