// A PE's input multiplexer: of the MEMBERS operands that share a lane, the one that `select` names. With one
// member it is a wire, and `select` (then one bit wide) is ignored.
module member_mux #(
    parameter int unsigned MEMBERS = 1,
    parameter int unsigned WIDTH = 8,
    parameter int unsigned SELECT = MEMBERS > 1 ? $clog2(MEMBERS) : 1
) (
    input  logic [MEMBERS*WIDTH-1:0] members,
    input  logic [       SELECT-1:0] select,
    output logic [        WIDTH-1:0] chosen
);
  if (MEMBERS == 1) begin : g_wire
    logic unused_select;
    assign unused_select = ^select;
    assign chosen = members;
  end else begin : g_mux
    always_comb begin
      chosen = members[0+:WIDTH];
      for (int unsigned i = 1; i < MEMBERS; i++)
        if (select == SELECT'(i)) chosen = members[i*WIDTH+:WIDTH];
    end
  end
endmodule
