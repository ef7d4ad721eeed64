// A weight stationary (BY_ROW = 1) or input stationary (BY_ROW = 0) array with its fold list, index list, feeders
// and start rules. docs/machine.md says what it does in which cycle.
//
// Operands stay outside: `held` is a memory of words of COLS operands with their selects, one word a push, a fold's
// bottom row first; `stream` is the memory that feed_rows or feed_steps describes. Both answer in the next cycle.
//
// A fold's descriptor has four lanes of 16 bits: 0 its steps, 1 the address of its index list, 2 its first element
// (BY_ROW) or its tile, 3 its first address in `held`. Load the lists, then pulse `start` with the number of
// folds.
module core_stationary #(
    parameter int unsigned ROWS = 4,
    parameter int unsigned COLS = 4,
    parameter int unsigned WIDTH = 8,     // bits of an operand
    parameter int unsigned ACC = 32,      // bits of a sum
    parameter int unsigned MEMBERS = 1,   // operands that share a lane
    parameter int unsigned GROUP = COLS,  // columns that share a feeder
    parameter bit BY_ROW = 1'b1,
    parameter bit LISTED = 1'b1,
    parameter bit CHECK = 1'b1,
    parameter int unsigned ADDRESS = 12,  // bits of an address of folds, lists and held operands
    parameter int unsigned STEP = 6,      // bits of a step
    parameter int unsigned INDEX = 6,     // bits of an element's index, and of a tile's number
    parameter int unsigned SELECT = MEMBERS > 1 ? $clog2(MEMBERS) : 1,
    parameter int unsigned FEEDERS = (COLS + GROUP - 1) / GROUP,
    parameter int unsigned ENTRIES = FEEDERS * MEMBERS * (BY_ROW ? ROWS : 1),
    parameter int unsigned ENTRY_BITS = ENTRIES > 1 ? $clog2(ENTRIES) : 1,
    parameter int unsigned STREAM_ADDRESS = INDEX + (BY_ROW ? STEP : INDEX),
    parameter int unsigned STREAM_WIDTH = FEEDERS * ROWS * MEMBERS * WIDTH
) (
    input logic clk,
    input logic rst,
    input logic start,
    input logic [ADDRESS-1:0] folds,
    input logic serial,
    input logic eager,
    // Writes to the lists; the lane is that of the descriptor or the entry of the index list's word.
    input logic fold_write,
    input logic list_write,
    input logic [ADDRESS-1:0] write_address,
    input logic [15:0] write_lane,
    input logic [15:0] write_data,
    // Operand memories.
    output logic held_read,
    output logic [ADDRESS-1:0] held_address,
    input logic [COLS*WIDTH-1:0] held_data,
    input logic [COLS*SELECT-1:0] held_select,
    output logic stream_read,
    output logic [ENTRIES*STREAM_ADDRESS-1:0] stream_address,
    input logic [STREAM_WIDTH-1:0] stream_data,
    // Results.
    output logic [COLS-1:0] out_valid,
    output logic [COLS*ACC-1:0] out,
    output logic fold_left,
    output logic preload_starts,  // a fold's first push enters in this cycle
    output logic stream_starts,   // a fold's first step enters in this cycle
    output logic fault
);
  // Folds to preload.
  logic push_read;
  logic [ADDRESS-1:0] push_fold;
  logic [63:0] push_descriptor;
  logic push_beat_valid, push_beat_ready, push_beat_first, push_beat_last;
  logic [STEP:0] push_beat_left;
  logic [STEP-1:0] push_beat_step;
  logic push_valid, push_first, push_last, push;

  ram #(
      .LANES  (4),
      .WIDTH  (16),
      .ADDRESS(ADDRESS)
  ) u_push_folds (
      .clk(clk),
      .write(fold_write),
      .write_address(write_address),
      .write_lane(write_lane[1:0]),
      .write_data(write_data),
      .read(push_read),
      .address(push_fold),
      .data(push_descriptor)
  );
  fold_sequencer #(
      .ADDRESS(ADDRESS),
      .STEP(STEP)
  ) u_push_sequencer (
      .clk(clk),
      .rst(rst),
      .start(start),
      .folds(folds),
      .read(push_read),
      .read_address(push_fold),
      .length((STEP + 1)'(ROWS)),
      .valid(push_beat_valid),
      .ready(push_beat_ready),
      .first(push_beat_first),
      .last(push_beat_last),
      .left(push_beat_left),
      .step(push_beat_step)
  );
  assign held_address = push_descriptor[48+:ADDRESS] + ADDRESS'(push_beat_step);
  beat_stage #(
      .WIDTH(2)
  ) u_push (
      .clk(clk),
      .rst(rst),
      .in_valid(push_beat_valid),
      .in_ready(push_beat_ready),
      .in({push_beat_first, push_beat_last}),
      .load(held_read),
      .out_valid(push_valid),
      .out_ready(push),
      .out({push_first, push_last})
  );

  // Folds to stream.
  logic step_read;
  logic [ADDRESS-1:0] step_fold;
  logic [63:0] step_descriptor;
  logic beat_valid, beat_ready, beat_first, beat_last;
  logic [STEP:0] beat_left;
  logic [STEP-1:0] beat_step;
  logic step_valid, step_first, step_last, step;
  logic [STEP:0] step_left;
  logic [STREAM_WIDTH-1:0] operands;

  ram #(
      .LANES  (4),
      .WIDTH  (16),
      .ADDRESS(ADDRESS)
  ) u_step_folds (
      .clk(clk),
      .write(fold_write),
      .write_address(write_address),
      .write_lane(write_lane[1:0]),
      .write_data(write_data),
      .read(step_read),
      .address(step_fold),
      .data(step_descriptor)
  );
  fold_sequencer #(
      .ADDRESS(ADDRESS),
      .STEP(STEP)
  ) u_step_sequencer (
      .clk(clk),
      .rst(rst),
      .start(start),
      .folds(folds),
      .read(step_read),
      .read_address(step_fold),
      .length(step_descriptor[0+:STEP+1]),
      .valid(beat_valid),
      .ready(beat_ready),
      .first(beat_first),
      .last(beat_last),
      .left(beat_left),
      .step(beat_step)
  );
  if (BY_ROW) begin : g_rows
    feed_rows #(
        .ROWS(ROWS),
        .FEEDERS(FEEDERS),
        .MEMBERS(MEMBERS),
        .WIDTH(WIDTH),
        .LISTED(LISTED),
        .ADDRESS(ADDRESS),
        .STEP(STEP),
        .INDEX(INDEX)
    ) u_feed (
        .clk(clk),
        .rst(rst),
        .list_write(list_write),
        .list_write_address(write_address),
        .list_write_entry(write_lane[ENTRY_BITS-1:0]),
        .list_write_data(write_data[INDEX-1:0]),
        .beat_valid(beat_valid),
        .beat_ready(beat_ready),
        .beat_first(beat_first),
        .beat_last(beat_last),
        .beat_left(beat_left),
        .beat_step(beat_step),
        .beat_list(step_descriptor[16+:ADDRESS]),
        .beat_base(step_descriptor[32+:INDEX]),
        .read(stream_read),
        .read_address(stream_address),
        .read_data(stream_data),
        .step_valid(step_valid),
        .step_ready(step),
        .step_first(step_first),
        .step_last(step_last),
        .step_left(step_left),
        .operands(operands)
    );
  end else begin : g_steps
    logic [ADDRESS-1:0] unused_beside;
    feed_steps #(
        .ROWS(ROWS),
        .FEEDERS(FEEDERS),
        .MEMBERS(MEMBERS),
        .WIDTH(WIDTH),
        .LISTED(LISTED),
        .ADDRESS(ADDRESS),
        .STEP(STEP),
        .INDEX(INDEX),
        .TILE(INDEX)
    ) u_feed (
        .clk(clk),
        .rst(rst),
        .list_write(list_write),
        .list_write_address(write_address),
        .list_write_entry(write_lane[ENTRY_BITS-1:0]),
        .list_write_data(write_data[INDEX-1:0]),
        .beat_valid(beat_valid),
        .beat_ready(beat_ready),
        .beat_first(beat_first),
        .beat_last(beat_last),
        .beat_left(beat_left),
        .beat_step(beat_step),
        .beat_list(step_descriptor[16+:ADDRESS]),
        .beat_tile(step_descriptor[32+:INDEX]),
        .beat_beside('0),
        .read(stream_read),
        .read_address(stream_address),
        .read_beside(unused_beside),
        .read_data(stream_data),
        .step_valid(step_valid),
        .step_ready(step),
        .step_first(step_first),
        .step_last(step_last),
        .step_left(step_left),
        .operands(operands)
    );
  end

  start_stationary #(
      .ROWS(ROWS),
      .STEP(STEP)
  ) u_start (
      .clk(clk),
      .rst(rst),
      .serial(serial),
      .eager(eager),
      .fold_left(fold_left),
      .push_valid(push_valid),
      .push_first(push_first),
      .push_last(push_last),
      .push(push),
      .step_valid(step_valid),
      .step_first(step_first),
      .step_left(step_left),
      .step(step)
  );
  array_stationary #(
      .ROWS(ROWS),
      .COLS(COLS),
      .WIDTH(WIDTH),
      .ACC(ACC),
      .MEMBERS(MEMBERS),
      .GROUP(GROUP),
      .CHECK(CHECK)
  ) u_array (
      .clk(clk),
      .rst(rst),
      .push(push),
      .push_last(push_last),
      .held(held_data),
      .held_select(held_select),
      .step(step),
      .step_first(step_first),
      .step_last(step_last),
      .streamed(operands),
      .out_valid(out_valid),
      .out(out),
      .fold_left(fold_left),
      .fault(fault)
  );
  assign preload_starts = push && push_first;
  assign stream_starts = step && step_first;

  logic unused;
  assign unused = ^{push_descriptor, step_descriptor, push_beat_left, write_lane, write_data};
endmodule
