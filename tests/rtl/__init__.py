"""The machine of docs/machine.md in SystemVerilog, and what holds the engines to it."""
