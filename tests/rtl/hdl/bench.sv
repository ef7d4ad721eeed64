// A core with its operand memories and one write bus for everything that a case loads: not part of the design.
// The ports have the same widths for every parameter set, so that one C++ harness drives them all.
module bench #(
    parameter int unsigned DATAFLOW = 0,  // 0 weight, 1 output, 2 input stationary
    parameter int unsigned ROWS = 4,
    parameter int unsigned COLS = 4,      // at most 8
    parameter int unsigned WIDTH = 8,
    parameter int unsigned ACC = 32,
    parameter int unsigned MEMBERS = 1,
    parameter int unsigned GROUP = COLS,
    parameter bit LISTED = 1'b1
) (
    input logic clk,
    input logic rst,
    input logic start,
    input logic serial,
    input logic eager,
    input logic [31:0] folds,
    input logic write,
    input logic [31:0] write_memory,   // 0 folds, 1 index list, 2 held or weights, 3 their selects, 4 stream
    input logic [31:0] write_address,
    input logic [31:0] write_lane,
    input logic [31:0] write_data,
    output logic [31:0] out_valid,
    output logic [255:0] out,          // 32 bits a column, sign-extended
    output logic fold_left,
    output logic preload_starts,
    output logic stream_starts,
    output logic fault
);
  localparam int unsigned ADDRESS = 12;
  localparam int unsigned STEP = 6;
  localparam int unsigned INDEX = 6;
  localparam int unsigned SELECT = MEMBERS > 1 ? $clog2(MEMBERS) : 1;
  localparam int unsigned FEEDERS = (COLS + GROUP - 1) / GROUP;
  localparam int unsigned PORTS = FEEDERS * MEMBERS * (DATAFLOW == 0 ? ROWS : 1);
  localparam int unsigned PORT_LANES = DATAFLOW == 0 ? 1 : ROWS;
  localparam int unsigned COL_BITS = COLS > 1 ? $clog2(COLS) : 1;
  localparam int unsigned ROW_BITS = PORT_LANES > 1 ? $clog2(PORT_LANES) : 1;

  logic beside_read, stream_read;
  logic [ADDRESS-1:0] beside_address;
  logic [COLS*WIDTH-1:0] beside_data;
  logic [COLS*SELECT-1:0] beside_select;
  logic [PORTS*2*INDEX-1:0] stream_address;
  logic [PORTS*PORT_LANES*WIDTH-1:0] stream_data;
  logic [COLS-1:0] valid;
  logic [COLS*ACC-1:0] results;

  ram #(
      .LANES  (COLS),
      .WIDTH  (WIDTH),
      .ADDRESS(ADDRESS)
  ) u_beside (
      .clk(clk),
      .write(write && write_memory == 2),
      .write_address(write_address[ADDRESS-1:0]),
      .write_lane(write_lane[COL_BITS-1:0]),
      .write_data(write_data[WIDTH-1:0]),
      .read(beside_read),
      .address(beside_address),
      .data(beside_data)
  );
  ram #(
      .LANES  (COLS),
      .WIDTH  (SELECT),
      .ADDRESS(ADDRESS)
  ) u_beside_select (
      .clk(clk),
      .write(write && write_memory == 3),
      .write_address(write_address[ADDRESS-1:0]),
      .write_lane(write_lane[COL_BITS-1:0]),
      .write_data(write_data[SELECT-1:0]),
      .read(beside_read),
      .address(beside_address),
      .data(beside_select)
  );
  ram #(
      .LANES  (PORT_LANES),
      .WIDTH  (WIDTH),
      .ADDRESS(2 * INDEX),
      .PORTS  (PORTS)
  ) u_stream (
      .clk(clk),
      .write(write && write_memory == 4),
      .write_address(write_address[2*INDEX-1:0]),
      .write_lane(write_lane[ROW_BITS-1:0]),
      .write_data(write_data[WIDTH-1:0]),
      .read(stream_read),
      .address(stream_address),
      .data(stream_data)
  );

  if (DATAFLOW == 1) begin : g_output
    assign beside_read = stream_read;
    assign preload_starts = 1'b0;
    core_output #(
        .ROWS(ROWS),
        .COLS(COLS),
        .WIDTH(WIDTH),
        .ACC(ACC),
        .MEMBERS(MEMBERS),
        .GROUP(GROUP),
        .LISTED(LISTED),
        .ADDRESS(ADDRESS),
        .STEP(STEP),
        .INDEX(INDEX)
    ) u_core (
        .clk(clk),
        .rst(rst),
        .start(start),
        .folds(folds[ADDRESS-1:0]),
        .serial(serial),
        .eager(eager),
        .fold_write(write && write_memory == 0),
        .list_write(write && write_memory == 1),
        .write_address(write_address[ADDRESS-1:0]),
        .write_lane(write_lane[15:0]),
        .write_data(write_data[15:0]),
        .weight_address(beside_address),
        .weight_data(beside_data),
        .weight_select(beside_select),
        .stream_read(stream_read),
        .stream_address(stream_address),
        .stream_data(stream_data),
        .out_valid(valid),
        .out(results),
        .fold_left(fold_left),
        .stream_starts(stream_starts),
        .fault(fault)
    );
  end else begin : g_stationary
    core_stationary #(
        .ROWS(ROWS),
        .COLS(COLS),
        .WIDTH(WIDTH),
        .ACC(ACC),
        .MEMBERS(MEMBERS),
        .GROUP(GROUP),
        .BY_ROW(DATAFLOW == 0),
        .LISTED(LISTED),
        .ADDRESS(ADDRESS),
        .STEP(STEP),
        .INDEX(INDEX)
    ) u_core (
        .clk(clk),
        .rst(rst),
        .start(start),
        .folds(folds[ADDRESS-1:0]),
        .serial(serial),
        .eager(eager),
        .fold_write(write && write_memory == 0),
        .list_write(write && write_memory == 1),
        .write_address(write_address[ADDRESS-1:0]),
        .write_lane(write_lane[15:0]),
        .write_data(write_data[15:0]),
        .held_read(beside_read),
        .held_address(beside_address),
        .held_data(beside_data),
        .held_select(beside_select),
        .stream_read(stream_read),
        .stream_address(stream_address),
        .stream_data(stream_data),
        .out_valid(valid),
        .out(results),
        .fold_left(fold_left),
        .preload_starts(preload_starts),
        .stream_starts(stream_starts),
        .fault(fault)
    );
  end

  assign out_valid = 32'(valid);
  for (genvar c = 0; c < 8; c++) begin : g_out
    if (c < COLS) begin : g_result
      assign out[c*32+:32] = 32'($signed(results[c*ACC+:ACC]));
    end else begin : g_zero
      assign out[c*32+:32] = '0;
    end
  end

  logic unused;
  assign unused = ^{folds, write_address, write_lane, write_data};
endmodule
