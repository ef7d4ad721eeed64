// Feeder of an input or output stationary array: every step streams one element to all rows.
//
// The step's element is a word of the index list (LISTED = 1: gather, and with several FEEDERS or MEMBERS group
// and mux), or the step's number (LISTED = 0: no skipping, or whole folds skipped). Operands come from a memory
// of words of ROWS operands with a port for each feeder and member, addressed {tile, element}, that answers in the
// next cycle. Features and members without work need no mark: their weight is zero.
//
// `beside` is an address that travels with the beat, for a memory that is to be read along with the operands.
module feed_steps #(
    parameter int unsigned ROWS = 4,
    parameter int unsigned FEEDERS = 1,
    parameter int unsigned MEMBERS = 1,
    parameter int unsigned WIDTH = 8,
    parameter bit LISTED = 1'b1,
    parameter int unsigned ADDRESS = 12,  // bits of a list address
    parameter int unsigned STEP = 6,      // bits of a step
    parameter int unsigned INDEX = 6,     // bits of an element's index
    parameter int unsigned TILE = 6,      // bits of a tile's number
    parameter int unsigned ENTRIES = FEEDERS * MEMBERS,
    parameter int unsigned ENTRY_BITS = ENTRIES > 1 ? $clog2(ENTRIES) : 1
) (
    input logic clk,
    input logic rst,
    // Writes to the index list: entry (feeder, member) of a step's word.
    input logic list_write,
    input logic [ADDRESS-1:0] list_write_address,
    input logic [ENTRY_BITS-1:0] list_write_entry,
    input logic [INDEX-1:0] list_write_data,
    // Beats of the stream, with the fold's first list address and its tile.
    input logic beat_valid,
    output logic beat_ready,
    input logic beat_first,
    input logic beat_last,
    input logic [STEP:0] beat_left,
    input logic [STEP-1:0] beat_step,
    input logic [ADDRESS-1:0] beat_list,
    input logic [TILE-1:0] beat_tile,
    input logic [ADDRESS-1:0] beat_beside,
    // Operand memory, and the address that travelled beside.
    output logic read,
    output logic [ENTRIES*(TILE+INDEX)-1:0] read_address,
    output logic [ADDRESS-1:0] read_beside,
    input logic [ENTRIES*ROWS*WIDTH-1:0] read_data,
    // Steps at the edge of the array.
    output logic step_valid,
    input logic step_ready,
    output logic step_first,
    output logic step_last,
    output logic [STEP:0] step_left,
    output logic [FEEDERS*ROWS*MEMBERS*WIDTH-1:0] operands  // feeder, row, member
);
  localparam int unsigned MARKS = 2 + STEP + 1;

  logic indexed_valid, indexed_ready, load_index;
  logic [MARKS-1:0] indexed_marks;
  logic [STEP-1:0] indexed_step;
  logic [TILE-1:0] indexed_tile;
  logic [ENTRIES*INDEX-1:0] element;

  beat_stage #(
      .WIDTH(MARKS + STEP + TILE + ADDRESS)
  ) u_indexed (
      .clk(clk),
      .rst(rst),
      .in_valid(beat_valid),
      .in_ready(beat_ready),
      .in({beat_first, beat_last, beat_left, beat_step, beat_tile, beat_beside}),
      .load(load_index),
      .out_valid(indexed_valid),
      .out_ready(indexed_ready),
      .out({indexed_marks, indexed_step, indexed_tile, read_beside})
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
        .read(load_index),
        .address(beat_list + ADDRESS'(beat_step)),
        .data(element)
    );
    logic unused_step;
    assign unused_step = ^indexed_step;
  end else begin : g_consecutive
    for (genvar e = 0; e < ENTRIES; e++) begin : g_entry
      assign element[e*INDEX+:INDEX] = INDEX'(indexed_step);
    end
    logic unused_list;
    assign unused_list = ^{load_index, beat_list, list_write, list_write_address, list_write_entry,
                           list_write_data};
  end

  for (genvar e = 0; e < ENTRIES; e++) begin : g_address
    assign read_address[e*(TILE+INDEX)+:TILE+INDEX] = {indexed_tile, element[e*INDEX+:INDEX]};
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
  for (genvar g = 0; g < FEEDERS; g++) begin : g_feeder
    for (genvar r = 0; r < ROWS; r++) begin : g_row
      for (genvar i = 0; i < MEMBERS; i++) begin : g_member
        assign operands[((g*ROWS+r)*MEMBERS+i)*WIDTH+:WIDTH] =
            read_data[((g*MEMBERS+i)*ROWS+r)*WIDTH+:WIDTH];
      end
    end
  end
endmodule
